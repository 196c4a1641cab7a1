"""Long recordings: cut while they are read, and put together again, in memory that does not grow with the length.

Cuts lie in pauses found by voice activity; the pieces are then transcribed like recordings. Or the recording is cut
into windows of W seconds that overlap: of each window the log-probabilities of the first and last C seconds, whose
context is cut off, are dropped, the next window begins W − 2C seconds later, and what is kept is joined and decoded
once, in stretches that end where the network outputs blanks for a while.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio.vad import SpeechDetector, find_longest_run
from speechrnn.audio.vad_options import VadOptions, has_vad
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.cutting import CutConfig, End, Failure, Item, Piece, Recording
from speechrnn.recognition.transcript import Segment, Transcript
from speechrnn.types import BLANK_ID, Emission, Hypothesis

if TYPE_CHECKING:
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.model_folder import ModelFolder
    from speechrnn.recognition.decoders import Decoder

logger = logging.getLogger("speechrnn")

PAUSE_SECONDS = 1.0  # a longer pause, after padding, is a piece of its own
PAUSE_CONTEXT_SECONDS = 10.0
JOIN_SECONDS = 15.0  # speech is joined across shorter pauses up to this length
BLANK_SECONDS, STRETCH_SECONDS = 0.5, 10.0  # a stretch ends at so many blanks after so much audio …
LONG_BLANK_SECONDS = 1.5  # … or at so many after any
MAX_STRETCH_SECONDS = 30.0
DEFAULT_CONTEXT_SECONDS = 2.0


class Model(Protocol):
    """What is needed of a model or an ensemble (:class:`speechrnn.recognition.transcriber.Transcriber`)."""

    sample_rate: int
    name: str | None
    language: str | None
    model: ModelFolder

    def search(self, emissions: Sequence[Emission], decoder: Decoder) -> list[list[Hypothesis]]:
        """Hypotheses of each recording of a batch, best first."""
        ...

    def make_transcript(self, recording: Recording, hypotheses: list[Hypothesis], decoder: Decoder) -> Transcript:
        """The transcript of one recording."""
        ...


def cut_recording(
    transcriber: Model, name: str | None, blocks: Iterable[np.ndarray], config: CutConfig, *, nbest: int
) -> Iterator[Piece | End]:
    """Cut a recording.

    Args:
        transcriber: The model that the pieces are for.
        name: Its name or path, where it has one.
        blocks: Its samples, each (N,), at the model's rate.
        config: How.
        nbest: Hypotheses asked for.

    Yields:
        The pieces, and at last the recording's end.

    Raises:
        ConfigError: More than one hypothesis is asked for, or the options do not fit the model.
    """
    if nbest > 1:
        raise ConfigError(
            f"nbest {nbest}: {name or 'recording'} is cut, and only whole recordings have alternatives; set nbest to 1 "
            "or raise max_seconds"
        )
    cutter, count, rate = make_cutter(transcriber, config), 0, transcriber.sample_rate
    for block in blocks:
        count += len(block)
        for first in range(0, len(block), rate):
            for piece in cutter.feed(block[first : first + rate]):
                yield replace(piece, name=name)
    for piece in cutter.flush():
        yield replace(piece, name=name)
    yield End(name, count / rate, cutter.skipped / rate)


class _Buffer:
    """Samples that are not yet in a complete piece; the first is number ``start`` of the recording."""

    def __init__(self) -> None:
        self.start = 0
        self.samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        return self.start + len(self.samples)

    def add(self, samples: np.ndarray) -> None:
        self.samples = np.concatenate([self.samples, samples])

    def take(self, first: int, last: int) -> np.ndarray:
        return self.samples[first - self.start : last - self.start].copy()

    def drop(self, first: int) -> None:
        """Forget what comes before a sample."""
        self.samples = self.samples[max(0, first - self.start) :]
        self.start = max(first, self.start)


class PauseCutter:
    """Cuts at pauses, which voice activity finds.

    Speech is joined across short pauses; a cut lies in the middle of a short pause. A long pause is a piece of its own,
    or several, computed together with what comes before it: networks whose features are normalised over a recording
    output words for a recording of nothing but noise.

    Args:
        config: Greatest length of a piece, options of voice activity, and whether long pauses are left out.
        rate: Of the samples, in Hz.
        step: Samples from one encoder frame to the next; None: pauses are computed alone.

    Raises:
        ConfigError: The extra ``vad`` is not installed, or the padding leaves no room in a piece.
    """

    def __init__(self, config: CutConfig, rate: int, *, step: int | None = None) -> None:
        assert config.max_seconds is not None
        options = config.vad or VadOptions()
        longest = config.max_seconds - 2 * PAUSE_SECONDS - 2 * options.speech_pad_ms / 1000
        if longest < 1:
            raise ConfigError(
                f"vad.speech_pad_ms: {options.speech_pad_ms:g} leaves no room for speech in pieces of "
                f"{config.max_seconds:g} seconds; lower it or raise max_seconds"
            )
        longest = min(longest, options.max_speech_duration_s or math.inf)
        self.skipped = 0
        self._is_filter = config.vad_filter
        self._detector = SpeechDetector(replace(options, max_speech_duration_s=longest), rate)
        self._most, self._pause = math.floor(config.max_seconds * rate), round(PAUSE_SECONDS * rate)
        self._join = min(self._most - self._pause, round(JOIN_SECONDS * rate))
        context = min(PAUSE_CONTEXT_SECONDS, config.max_seconds / 2)
        self._context = 0 if step is None else math.floor(context * rate / step) * step
        self._step = 1 if step is None else step
        self._buffer = _Buffer()
        self._done = 0  # samples that are in pieces or left out
        self._speech: tuple[int, int] | None = None  # of the next piece, so far

    def feed(self, samples: np.ndarray) -> Iterator[Piece]:
        """Take the next samples, (N,), and yield the pieces that are complete."""
        self._buffer.add(samples)
        yield from self._advance(self._detector.feed(samples))

    def flush(self) -> Iterator[Piece]:
        """Yield the rest; the recording ends here."""
        yield from self._advance(self._detector.flush())
        end = self._buffer.end
        if self._speech is not None:
            yield self._make_piece(end)
        else:
            yield from self._pass_pause(end)

    def _advance(self, found: list[tuple[int, int]]) -> Iterator[Piece]:
        for begin, end in found:
            yield from self._add_speech(begin, end)
        decided = self._detector.decided
        if self._speech is not None and decided - self._speech[1] >= self._pause:
            yield self._make_piece(self._speech[1])
        if self._speech is None:
            yield from self._pass_pause(decided, is_whole=False)

    def _add_speech(self, begin: int, end: int) -> Iterator[Piece]:
        if self._speech is not None:
            first, last = self._speech
            if begin - last >= self._pause:
                yield self._make_piece(last)
            elif end - self._done <= self._join:
                self._speech = (first, end)
                return
            else:
                yield self._make_piece((last + begin) // 2)
        if begin - self._done >= self._pause:
            yield from self._pass_pause(begin)
        self._speech = (begin, end)

    def _make_piece(self, end: int) -> Piece:
        """Everything up to a sample."""
        piece = Piece(None, self._buffer.take(self._done, end), self._done)
        self._go_to(end)
        self._speech = None
        return piece

    def _pass_pause(self, end: int, *, is_whole: bool = True) -> Iterator[Piece]:
        """Pieces without speech up to a sample; the last ones only if the pause ends there."""
        most = self._most - self._context
        while (missing := end - self._done) > 0:
            if missing >= most + self._pause:
                missing = most
            elif not is_whole:
                return
            elif missing > most:
                missing //= 2
            if self._is_filter:
                self.skipped += missing
            else:
                context = min(self._context, self._done - self._buffer.start) // self._step * self._step
                first, last = self._done - context, self._done + missing
                used = (context, last - first) if context else None
                yield Piece(None, self._buffer.take(first, last), first, used)
            self._go_to(self._done + missing)

    def _go_to(self, sample: int) -> None:
        self._done = sample
        self._buffer.drop(sample - self._context)


class WindowCutter:
    """Cuts into overlapping windows.

    Args:
        step: Samples from one encoder frame to the next.
        tail: Samples that a frame has beyond that.
        window: Steps in a window.
        left: Steps before the used ones of a window.
        right: Steps after them.

    Raises:
        ConfigError: The context leaves nothing of a window.
    """

    def __init__(self, *, step: int, tail: int, window: int, left: int, right: int) -> None:
        if window - left - right < 1:
            raise ConfigError(
                "context_seconds: the context of both sides leaves nothing of a window; lower it or raise max_seconds"
            )
        self.skipped = 0
        self._step, self._tail, self._left, self._right = step, tail, left, right
        self._hop = window - left - right
        self._buffer = _Buffer()
        self._used = 0  # steps whose windows are complete

    def feed(self, samples: np.ndarray) -> Iterator[Piece]:
        """Take the next samples, (N,), and yield the pieces that are complete."""
        self._buffer.add(samples)
        while (end := (self._used + self._hop + self._right) * self._step + self._tail) < self._buffer.end:
            yield self._make_piece(end, (self._used + self._hop) * self._step)
            self._used += self._hop
            self._buffer.drop((self._used - self._left) * self._step)

    def flush(self) -> Iterator[Piece]:
        """Yield the rest; the recording ends here."""
        yield self._make_piece(self._buffer.end, self._buffer.end)

    def _make_piece(self, end: int, last: int) -> Piece:
        start = max(0, self._used - self._left) * self._step
        return Piece(None, self._buffer.take(start, end), start, (self._used * self._step - start, last - start))


def make_cutter(transcriber: Model, config: CutConfig) -> PauseCutter | WindowCutter:
    """Choose how a model's recordings are cut.

    Raises:
        ConfigError: The context leaves nothing of a window, or the members of an ensemble have different frames.
    """
    models = [each.model for each in get_members(transcriber)]
    steps = [count_step(model.acoustic) for model in models]
    if config.needs_vad() or (config.cut == "auto" and has_vad()):
        return PauseCutter(config, transcriber.sample_rate, step=steps[0] if len(set(steps)) == 1 else None)
    assert config.max_seconds is not None
    if len(set(steps)) > 1:
        raise ConfigError(
            f"cut windows: models with {' and '.join(map(str, steps))} samples a frame cannot share windows; use cut "
            "vad, or one of them"
        )
    step, rate = steps[0], transcriber.sample_rate
    seconds = config.context_seconds
    left = math.ceil(max(choose_context(model) if seconds is None else seconds for model in models) * rate / step)
    return WindowCutter(
        step=step,
        tail=max(model.acoustic.front_end.config.fft_length for model in models),
        window=math.floor(config.max_seconds * rate / step),
        left=left,
        right=max(count_future(model.acoustic, left) for model in models),
    )


def get_members(transcriber: Model) -> Sequence[Model]:
    """The models of an ensemble, or one model alone."""
    return getattr(transcriber, "members", (transcriber,))


def count_step(acoustic: AcousticModel) -> int:
    """Samples from one encoder frame to the next."""
    return acoustic.front_end.config.hop_length * acoustic.encoder.config.subsampling_factor


def choose_context(model: ModelFolder) -> float:
    """Seconds of context of a model's windows: as measured, or the default; at least the sliding normalisation's."""
    front_end = model.acoustic.front_end.config
    sliding = front_end.normalization_seconds if front_end.normalization == "sliding" else 0.0
    return max(sliding, DEFAULT_CONTEXT_SECONDS if model.context is None else model.context.seconds)


def count_future(acoustic: AcousticModel, context: int) -> int:
    """Encoder frames after the used ones of a window: the look-ahead of a unidirectional model, else the context."""
    encoder, front_end = acoustic.encoder.config, acoustic.front_end.config
    if encoder.bidirectional:
        return context
    # What deltas and the convolution of the subsampling reach beyond a frame.
    return (
        encoder.lookahead_frames + 1 + math.ceil(front_end.deltas * front_end.delta_width / encoder.subsampling_factor)
    )


def take_windows(
    transcriber: Model, batch: Sequence[Recording], emissions: Sequence[Emission], decoder: Decoder
) -> list[Transcript | list[Tensor]]:
    """Results of a batch with windows: their used log-probabilities of each model, (T', V); transcripts of the others.

    Args:
        transcriber: The model.
        batch: Recordings and pieces.
        emissions: Of each model.
        decoder: For the recordings.
    """
    others = [row for row, each in enumerate(batch) if not (isinstance(each, Piece) and each.used is not None)]
    parts = [Emission(each.log_probs[others], each.lengths[others]) for each in emissions]
    hypotheses = iter(transcriber.search(parts, decoder))
    step = count_step(transcriber.model.acoustic)
    found: list[Transcript | list[Tensor]] = []
    for row, each in enumerate(batch):
        if row in others:
            found.append(transcriber.make_transcript(each, next(hypotheses), decoder))
            continue
        assert isinstance(each, Piece)
        assert each.used is not None
        first, last = each.used
        end = None if last == len(each.samples) else last // step
        found.append(
            [
                emission.log_probs[row, : emission.lengths[row]][first // step : end].cpu().clone()
                for emission in emissions
            ]
        )
    return found


@dataclass(frozen=True)
class Stretch:
    """A part of a recording between two runs of blanks.

    Attributes:
        start: Its first sample in the recording.
        samples: (N,), float32.
        log_probs: Of each model, (T', V).
    """

    start: int
    samples: np.ndarray
    log_probs: list[Tensor]


class Joiner:
    """Joins the used frames of windows, and cuts them where the network outputs blanks.

    Where a stretch ends does not depend on how the frames arrive.

    Args:
        step: Samples of a frame.
        rate: Of the samples, in Hz.
        most_seconds: Greatest length of a stretch.
    """

    def __init__(self, *, step: int, rate: int, most_seconds: float = MAX_STRETCH_SECONDS) -> None:
        per_second = rate / step
        self._step = step
        self._most = max(2, math.floor(most_seconds * per_second))
        self._blanks, self._many_blanks, self._least = (
            max(1, round(seconds * per_second)) for seconds in (BLANK_SECONDS, LONG_BLANK_SECONDS, STRETCH_SECONDS)
        )
        self._buffer = _Buffer()
        self._log_probs: list[Tensor] = []

    def feed(self, piece: Piece, log_probs: list[Tensor]) -> Iterator[Stretch]:
        """Take a window's used frames, and yield the stretches that are complete.

        Args:
            piece: The window.
            log_probs: Of each model the used frames, (T', V).
        """
        assert piece.used is not None
        if not len(self._buffer.samples):
            self._buffer.start = piece.start + piece.used[0]
        self._buffer.add(piece.samples[slice(*piece.used)])
        parts = zip(self._log_probs or [each[:0] for each in log_probs], log_probs, strict=True)
        self._log_probs = [torch.cat(pair) for pair in parts]
        while (end := self._find_end()) is not None:
            yield self._take(end, self._buffer.start + end * self._step)

    def flush(self) -> Iterator[Stretch]:
        """Yield the rest."""
        if self._log_probs and len(self._log_probs[0]):
            yield self._take(len(self._log_probs[0]), self._buffer.end)
        self._buffer = _Buffer()

    def _take(self, frames: int, end: int) -> Stretch:
        start = self._buffer.start
        taken = Stretch(start, self._buffer.take(start, end), [each[:frames] for each in self._log_probs])
        self._log_probs = [each[frames:] for each in self._log_probs]
        self._buffer.drop(end)
        return taken

    def _find_end(self) -> int | None:
        """Frame at which the first stretch ends, None while that is not certain."""
        is_blank = (self._log_probs[0][: self._most].argmax(dim=-1) == BLANK_ID).numpy()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], is_blank, [False]]).astype(np.int8)))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            wanted = self._blanks if first >= self._least else self._many_blanks
            if first > 0 and last - first >= wanted:
                return first + wanted // 2
        if len(is_blank) < self._most:
            return None
        first, last = find_longest_run(is_blank[1:])
        return 1 + (first + last) // 2 if last > first else self._most


class Assembly:
    """Puts the transcript of a long recording together from its pieces.

    Args:
        transcriber: The model.
        decoder: For windows.
    """

    def __init__(self, transcriber: Model, decoder: Decoder) -> None:
        self._transcriber, self._decoder, self._rate = transcriber, decoder, transcriber.sample_rate
        self._joiner = Joiner(step=count_step(transcriber.model.acoustic), rate=self._rate)
        self._segments: list[Segment] = []
        self._rejected: list[str] = []

    def add(self, piece: Piece, found: Transcript | list[Tensor]) -> None:
        """Add the next piece.

        Args:
            piece: The piece.
            found: Its transcript, or for a window the used log-probabilities of each model, (T', V).
        """
        if isinstance(found, Transcript):
            self._append(found, piece.start)
        else:
            assert piece.used is not None
            self._decode(self._joiner.feed(piece, found))
            if piece.used[1] == len(piece.samples):
                self._decode(self._joiner.flush())

    def _decode(self, stretches: Iterable[Stretch]) -> None:
        for each in stretches:
            parts = [Emission(found[None], torch.tensor([len(found)])) for found in each.log_probs]
            [hypotheses] = self._transcriber.search(parts, self._decoder)
            recording = Recording(None, each.samples)
            self._append(self._transcriber.make_transcript(recording, hypotheses, self._decoder), each.start)

    def count_seconds(self, piece: Piece) -> float:
        """Return the end of a piece, in seconds."""
        return (piece.start + len(piece.samples)) / self._rate

    def finish(self, end: End) -> Transcript:
        """Return the whole transcript."""
        if end.skipped_seconds:
            kept = end.seconds - end.skipped_seconds
            message = "%s: %.1f s of %.1f s transcribed, %.1f s skipped, which are not speech"
            logger.info(message, end.name or "recording", kept, end.seconds, end.skipped_seconds)
        return Transcript(
            " ".join(segment.text for segment in self._segments),
            tuple(self._segments),
            end.seconds,
            audio=end.name,
            language=self._transcriber.language,
            model=self._transcriber.name,
            rejected=" ".join(self._rejected),
            skipped_seconds=end.skipped_seconds,
        )

    def _append(self, found: Transcript, start: int) -> None:
        self._segments += [shift(segment, start / self._rate) for segment in found.segments]
        self._rejected += [found.rejected] if found.rejected else []


def assemble(
    pairs: Iterable[tuple[Item, Any]],
    make: Callable[[], Assembly],
    on_error: Callable[[Any, SpeechRNNError], None] | None,
    on_progress: Callable[[str | None, float], None] | None = None,
) -> Iterator[Transcript]:
    """Transcripts of recordings from the results of their pieces, in order.

    Args:
        pairs: Items and their results.
        make: Makes an empty assembly.
        on_error: Called with a source that failed and the error; without it the error is raised.
        on_progress: Called after each piece with the recording's name and the seconds of it that are done.
    """
    assembly: Assembly | None = None
    for item, found in pairs:
        if isinstance(item, Failure):
            assembly = None
            item.report(on_error)
        elif isinstance(item, Piece):
            assembly = assembly or make()
            assembly.add(item, found)
            if on_progress is not None:
                on_progress(item.name, assembly.count_seconds(item))
        elif isinstance(item, End):
            yield (assembly or make()).finish(item)
            assembly = None
        else:
            yield found


def shift(segment: Segment, seconds: float) -> Segment:
    """Move a segment to its place in the recording."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return Segment(words[0].start, words[-1].end, segment.text, words)
