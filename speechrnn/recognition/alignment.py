"""Forced alignment: times of each word and token of a known text, and where the text does not match."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speechrnn.decoding.alignment import align_tokens
from speechrnn.errors import ConfigError, CorpusError, SpeechRNNError
from speechrnn.recognition.recognizer import Recognizer, as_recognizer
from speechrnn.recognition.transcript import Segment, Transcript, Word
from speechrnn.recognition.word_times import place_words
from speechrnn.text.normalize import normalize_text
from speechrnn.types import BLANK_ID, Waveform

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource

PIECE_SECONDS = 30.0
CONTEXT_SECONDS = 4.0
_MISFIT_NATS = 2.5
_MISFIT_SECONDS = 1.0


@dataclass(frozen=True)
class AlignedToken(Word):
    """A token of a text (a character, a phone, …); its confidence is its highest posterior."""


@dataclass(frozen=True)
class AlignedWord(Word):
    """A word of a text; its confidence is the geometric mean of its tokens'.

    Attributes:
        tokens: At least one.
    """

    tokens: tuple[AlignedToken, ...]


@dataclass(frozen=True)
class Misfit:
    """A part of the recording that the text does not match.

    Attributes:
        start: In seconds.
        end: Likewise.
        text: The words aligned with it.
        nats: Mean difference in log-probability to the model's best tokens, per frame.
    """

    start: float
    end: float
    text: str
    nats: float


@dataclass(frozen=True)
class Alignment:
    """A text with times.

    Attributes:
        words: In order.
        misfits: Where the text does not match the recording.
        seconds: Duration of the recording.
        audio: Its path, where it has one.
        model: Name of the model.
    """

    words: tuple[AlignedWord, ...]
    misfits: tuple[Misfit, ...]
    seconds: float
    audio: str | None
    model: str | None

    def to_transcript(self) -> Transcript:
        """Convert to a transcript, which has writers for CTM, SRT and other formats."""
        words = tuple(Word(word.text, word.start, word.end, word.confidence) for word in self.words)
        text = " ".join(word.text for word in words)
        segments = (Segment(words[0].start, words[-1].end, text, words),)
        return Transcript(text, segments, self.seconds, audio=self.audio, model=self.model)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values: ``words`` with their ``tokens``, ``misfits``, ``seconds``, ``audio``, ``model``."""
        return _round(asdict(self))

    def write(self, format_name: str) -> str:
        """Return the content of a file: ``textgrid``, ``json``, ``ctm`` or ``srt``."""
        if format_name == "textgrid":
            return self.to_textgrid()
        if format_name == "json":
            return json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"
        transcript = self.to_transcript()
        return transcript.to_ctm() if format_name == "ctm" else transcript.to_srt()

    def to_textgrid(self) -> str:
        """Return Praat's TextGrid, with a tier of words and one of tokens.

        Source:
            Praat's manual, "TextGrid file formats".
        """
        tokens = [token for word in self.words for token in word.tokens]
        end = max(self.seconds, tokens[-1].end)
        tiers = [_make_tier(name, each, end) for name, each in (("words", self.words), ("tokens", tokens))]
        lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.3f}"]
        lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
        for number, tier in enumerate(tiers, start=1):
            lines += [f"    item [{number}]:", *(f"        {line}" for line in tier)]
        return "\n".join(lines) + "\n"


def align(
    recognizer: Recognizer | str | os.PathLike[str],
    audio: AudioSource,
    text: str,
    *,
    sample_rate: int | None = None,
    channel: int | None = None,
) -> Alignment:
    """Find the times of each word of a text.

    Args:
        recognizer: The model, or its path as :func:`~speechrnn.recognition.recognizer.load` takes it.
        audio: A recording of any length, as :meth:`Recognizer.transcribe` takes it.
        text: The words spoken in it; the model's normalisation is applied.
        sample_rate: Rate of an array or tensor, in Hz; files say their own.
        channel: Channel to take, from 0; None: the mean of all.

    Raises:
        ModelError: There is no such model.
        AudioError: The recording cannot be read, or is too short for a single frame.
        ConfigError: The text is empty, has symbols that the model lacks, or is too long for the recording; or several
            models are given.
    """
    model = as_recognizer(recognizer, "align")
    ids, spelled = _spell(model, text)
    path = os.fspath(audio) if isinstance(audio, str | os.PathLike) else None
    waveform = model.read(audio, sample_rate=sample_rate, channel=channel)
    log_probs = compute_log_probs(model, waveform.samples)
    try:
        spans = align_tokens(log_probs, ids)
    except SpeechRNNError as error:
        raise ConfigError(
            f"{path or 'recording'}: {error}: {len(spelled)} words in {waveform.seconds:.1f} s; check that the text "
            "belongs to this recording"
        ) from error
    words = _make_words(model, spelled, ids, spans, log_probs, waveform)
    misfits = tuple(_find_misfits(words, ids, spans, log_probs, model.seconds_per_frame))
    return Alignment(tuple(words), misfits, waveform.seconds, path, model.name)


def compute_log_probs(recognizer: Recognizer, samples: np.ndarray) -> np.ndarray:
    """Compute log-probabilities of a recording of any length.

    A long one is computed in pieces of :data:`PIECE_SECONDS`, each with :data:`CONTEXT_SECONDS` of context on both
    sides.

    Args:
        recognizer: The model.
        samples: The recording at the model's rate, (N,), float32; long enough for a frame.

    Returns:
        (T', V), natural log, float32.
    """
    step = recognizer.seconds_per_frame
    hop = round(step * recognizer.sample_rate)
    piece, context = (max(1, round(seconds / step)) for seconds in (PIECE_SECONDS, CONTEXT_SECONDS))
    total = recognizer.count_frames(len(samples))
    if total <= piece + 2 * context:
        piece = total
    parts = []
    for first in range(0, total, piece):
        begin, last = max(0, first - context), min(total, first + piece + context)
        # The last frame needs some samples beyond its hop.
        end = len(samples) if last == total else (last + 1) * hop
        part = torch.from_numpy(np.ascontiguousarray(samples[begin * hop : end]))
        emission = recognizer.emissions(part[None], torch.tensor([len(part)]))
        parts.append(emission.log_probs[0, first - begin : min(first + piece, total) - begin].cpu().numpy())
    return np.concatenate(parts)


def _spell(recognizer: Recognizer, text: str) -> tuple[list[int], list[tuple[str, int, int]]]:
    """Token ids of a text, and its words with the indices of their first and last token."""
    if not isinstance(text, str):
        raise ConfigError(f"text: expected the words spoken in the recording, got {text!r:.80}")
    try:
        ids, spelled = recognizer.tokens.spell(normalize_text(text, recognizer.model.text))
    except CorpusError as error:
        raise ConfigError(f"the text: {error}") from error
    if not spelled:
        raise ConfigError("the text is empty; expected the words spoken in the recording")
    return ids, spelled


def _make_words(
    recognizer: Recognizer,
    spelled: Sequence[tuple[str, int, int]],
    ids: Sequence[int],
    spans: Sequence[tuple[int, int]],
    log_probs: np.ndarray,
    waveform: Waveform,
) -> list[AlignedWord]:
    """Words with the times of the sound around their peaks; within a word each token lasts until the next."""
    step = recognizer.seconds_per_frame
    peaks = [(spans[first][0] * step, (spans[last][1] + 1) * step) for _, first, last in spelled]
    times = place_words(peaks, waveform.samples, waveform.sample_rate)
    words = []
    for (text, first, last), (start, end) in zip(spelled, times, strict=True):
        places = [place for place in range(first, last + 1) if recognizer.tokens.spellings[ids[place]][1]]
        inner = [min(max(spans[place][0] * step, start), end) for place in places[1:]]
        tokens = []
        for place, begin, until in zip(places, [start, *inner], [*inner, end], strict=True):
            onset, offset = spans[place]
            confidence = min(1.0, math.exp(float(log_probs[onset : offset + 1, ids[place]].max())))
            tokens.append(AlignedToken(recognizer.tokens.spellings[ids[place]][1], begin, until, confidence))
        confidence = math.prod(token.confidence for token in tokens) ** (1 / len(tokens))
        words.append(AlignedWord(text, start, end, confidence, tuple(tokens)))
    return words


def _find_misfits(
    words: Sequence[AlignedWord],
    ids: Sequence[int],
    spans: Sequence[tuple[int, int]],
    log_probs: np.ndarray,
    step: float,
) -> Iterator[Misfit]:
    """Parts where the path is much less probable than the best token of each frame."""
    path = np.full(len(log_probs), BLANK_ID)
    for token, (first, last) in zip(ids, spans, strict=True):
        path[first : last + 1] = token
    lost = log_probs.max(axis=1) - log_probs[np.arange(len(path)), path]
    width = max(1, round(_MISFIT_SECONDS / step))
    smooth = np.convolve(lost, np.ones(width) / width, mode="same")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (smooth > _MISFIT_NATS).astype(int), [0]])))
    stretches: list[list[int]] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        if stretches and begin - stretches[-1][1] < width:
            stretches[-1][1] = end
        else:
            stretches.append([begin, end])
    for begin, end in stretches:
        if end - begin < width / 2:
            continue  # one unclear word
        start, stop = begin * step, end * step
        text = " ".join(word.text for word in words if word.end > start and word.start < stop)
        yield Misfit(start, stop, text, float(lost[begin:end].mean()))


def _make_tier(name: str, items: Sequence[Word], end: float) -> list[str]:
    """A tier without gaps: silence is an interval without text."""
    intervals: list[tuple[float, float, str]] = []
    at = 0.0
    for item in items:
        start, stop = max(at, item.start), max(at, item.start, item.end)
        if start > at:
            intervals.append((at, start, ""))
        if stop > start:
            intervals.append((start, stop, item.text))
        at = stop
    if end > at:
        intervals.append((at, end, ""))
    lines = ['class = "IntervalTier"', f'name = "{name}"', "xmin = 0", f"xmax = {end:.3f}"]
    lines.append(f"intervals: size = {len(intervals)}")
    for number, (start, stop, text) in enumerate(intervals, start=1):
        quoted = text.replace('"', '""')
        lines += [
            f"intervals [{number}]:",
            f"    xmin = {start:.3f}",
            f"    xmax = {stop:.3f}",
            f'    text = "{quoted}"',
        ]
    return lines


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _round(each) for name, each in value.items()}
    return [_round(each) for each in value] if isinstance(value, list | tuple) else value
