"""Streams: audio in pieces, the text so far at any time, and at the end the transcript of the whole recording."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from speechrnn.audio.files import read_audio
from speechrnn.audio.resampling import StreamingResampler
from speechrnn.decoding.incremental import GrowingArray, split_hypothesis
from speechrnn.errors import AudioError, ConfigError
from speechrnn.recognition.cutting import Recording
from speechrnn.recognition.endpoints import EndpointConfig, EndpointDetector, Rule
from speechrnn.recognition.latency_control import LatencyControlConfig
from speechrnn.recognition.transcript import Segment, Transcript, Word
from speechrnn.recognition.word_times import REACH_SECONDS
from speechrnn.types import Hypothesis, Waveform, as_array

if TYPE_CHECKING:
    from torch import Tensor

    from speechrnn.acoustic.latency_controlled import LatencyControlledAcoustics
    from speechrnn.acoustic.streaming import StreamingAcoustics
    from speechrnn.model_folder import ModelFolder
    from speechrnn.recognition.decoders import Decoder
    from speechrnn.recognition.transcriber import Transcriber

logger = logging.getLogger("speechrnn")

_NAME = "stream"


class Acoustics(Protocol):
    """What turns a stream's samples into log-probabilities, such as
    :class:`~speechrnn.acoustic.streaming.StreamingAcoustics`.
    """

    def feed(self, samples: np.ndarray) -> Tensor | np.ndarray:
        """Log-probabilities, (T', V), that these samples at the model's rate, (N,), float32, complete."""

    def finish(self) -> Tensor | np.ndarray:
        """The remaining log-probabilities, (T', V)."""


def choose_acoustics(
    model: ModelFolder, latency_controlled: LatencyControlConfig | bool, **profile: Tensor | None
) -> StreamingAcoustics | LatencyControlledAcoustics:
    """Choose how a stream computes log-probabilities.

    A warning says if a model that is to be latency-controlled was trained on whole utterances alone.

    Args:
        model: The model.
        latency_controlled: As in :meth:`Recognizer.stream <speechrnn.recognition.recognizer.Recognizer.stream>`.
        **profile: Fields of :class:`~speechrnn.model_folder.speakers.SpeakerProfile`.

    Raises:
        ConfigError: The model does not stream in this way.
    """
    if not isinstance(latency_controlled, LatencyControlConfig | bool):
        raise ConfigError(
            f"latency_controlled: expected True or a LatencyControlConfig, got {latency_controlled!r:.80}"
        )
    from speechrnn.acoustic.chunked import Chunks
    from speechrnn.acoustic.latency_controlled import LatencyControlledAcoustics
    from speechrnn.acoustic.streaming import StreamingAcoustics

    if latency_controlled is False:
        return StreamingAcoustics(model.acoustic, **profile)
    config = LatencyControlConfig() if latency_controlled is True else latency_controlled
    chunks = Chunks.from_seconds(
        config.chunk_seconds, config.right_context_seconds, seconds_per_step=model.acoustic.seconds_per_step
    )
    acoustics = LatencyControlledAcoustics(model.acoustic, chunks=chunks, **profile)
    configuration = model.provenance.get("configuration") or {}
    if not configuration.get("chunks", {}).get("probability"):
        logger.warning(
            "latency_controlled: %s was trained on whole utterances and makes more errors in chunks; train with "
            "chunks.probability 0.5 against that",
            model.name or "this model",
        )
    return acoustics


@dataclass(frozen=True, repr=False)
class PartialTranscript(Transcript):
    """The text of a stream so far.

    Words of the open segment have the times of their peaks; those of the final transcript extend over their sound.

    Attributes:
        stable: The beginning of the text that later audio does not change (with a beam search: rarely changes).
        num_closed: Number of segments that are closed; the words after them are those of the open segment.
    """

    stable: str = ""
    num_closed: int = 0

    @property
    def unstable(self) -> str:
        """The rest of the text, which may still change."""
        return self.text[len(self.stable) :].lstrip()


class Stream:
    """One stream of audio; made by :meth:`Recognizer.stream <speechrnn.recognition.recognizer.Recognizer.stream>`.

    Without endpoints the samples are kept until the end (230 MB an hour at 16 kHz), with them until the segment ends.
    A stream is used by one thread at a time; several streams of a model do not influence each other.

    Args:
        transcriber: The model.
        acoustics: From samples to log-probabilities; the stream's own.
        decoder: The decoder.
        sample_rate: Rate of the samples to come, in Hz; None: the model's.
        endpoints: When a segment is closed and a new search begins; None: never.

    Attributes:
        sample_rate: Rate of the samples, in Hz.

    Raises:
        AudioError: The rate is not a sample rate.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        acoustics: Acoustics,
        decoder: Decoder,
        *,
        sample_rate: int | None = None,
        endpoints: EndpointConfig | None = None,
    ) -> None:
        self.sample_rate = transcriber.sample_rate if sample_rate is None else sample_rate
        read_audio(np.zeros(1, np.float32), input_rate=self.sample_rate, name=_NAME, check_levels=False)
        self._transcriber, self._acoustics, self._decoder = transcriber, acoustics, decoder
        self._resampler = StreamingResampler(self.sample_rate, transcriber.sample_rate)
        self._frame_seconds = transcriber.seconds_per_frame
        self._step = round(self._frame_seconds * transcriber.sample_rate)  # samples from one frame to the next
        self._reach = -int(-REACH_SECONDS // self._frame_seconds)  # frames that a word's times may be from its peaks
        self._detector = None if endpoints is None else EndpointDetector(endpoints, self._frame_seconds)
        self._closed: list[Transcript] = []
        self._final: Transcript | None = None
        self._num_samples = 0
        self._shown: tuple[list[Word], list[Word]] | None = None  # stable and other words of the open segment
        # The open segment: the samples from frame `_first` on, of which `_lead` frames are before its search.
        self._samples = GrowingArray()
        self._first = self._lead = 0
        self._open_search()

    def feed(self, samples: Any) -> PartialTranscript:
        """Take the next samples, and return the text so far.

        Args:
            samples: Mono, any number of them: an array or tensor (N,) of floats in [-1, 1] or of integers, bytes of
                16-bit PCM (little endian), or a :class:`~speechrnn.types.Waveform`.

        Raises:
            AudioError: They are none of these, not finite, or of another rate; the stream is not changed.
            ConfigError: The stream has ended.
        """
        if self._final is not None:
            raise ConfigError("stream: feed after final, but it has ended; begin another with model.stream()")
        self._take_samples(self._resampler.feed(_read_samples(samples, self.sample_rate)))
        return self.partial

    @property
    def partial(self) -> PartialTranscript:
        """The text so far."""
        if self._final is not None:
            whole = self._final
            return PartialTranscript(**vars(whole), stable=whole.text, num_closed=len(whole.segments))
        if self._shown is None:
            self._shown = self._find_words()
        stable, unstable = self._shown
        segments = [segment for each in self._closed for segment in each.segments]
        num_closed, known = len(segments), [each.text for each in self._closed if each.text]
        if words := (*stable, *unstable):
            segments.append(Segment(words[0].start, words[-1].end, _join(words), words))
        return PartialTranscript(
            " ".join([*known, *(word.text for word in words)]),
            tuple(segments),
            self._num_samples / self._transcriber.sample_rate,
            language=self._transcriber.language,
            model=self._transcriber.name,
            rejected=" ".join(each.rejected for each in self._closed if each.rejected),
            stable=" ".join([*known, *(word.text for word in stable)]),
            num_closed=num_closed,
        )

    def final(self) -> Transcript:
        """End the stream and return the transcript of all of it.

        Without endpoints it is what :meth:`~speechrnn.recognition.transcriber.Transcriber.transcribe` gives for the
        whole recording; with them each segment is decoded separately.
        """
        if self._final is None:
            self._take_samples(self._resampler.flush())
            self._take_log_probs(self._acoustics.finish())
            self._close(None)
            self._final = self._assemble()
        return self._final

    def _take_samples(self, samples: np.ndarray) -> None:
        self._samples.append(samples)
        self._num_samples += len(samples)
        self._take_log_probs(self._acoustics.feed(np.require(samples, requirements=["W"])))

    def _take_log_probs(self, found: Tensor | np.ndarray) -> None:
        rows = as_array(found)
        while len(rows):
            count, rule = (len(rows), None) if self._detector is None else self._detector.find(rows)
            self._search.feed(rows[:count])
            self._shown, rows = None, rows[count:]
            if rule is not None:
                rows = np.concatenate([self._close(rule), rows])

    def _close(self, rule: Rule | None) -> np.ndarray:
        """Close the open segment, and return the log-probabilities that belong to the next one, (T', V)."""
        rows, hypotheses = self._search.rows.values, self._search.finish()
        cut = self._find_cut(hypotheses[0]) if rule == "longest" else len(rows)
        if cut < len(rows):
            [hypotheses] = self._decoder.decode(rows[None, :cut], np.array([cut]))
        samples = self._samples.values[: None if rule is None else (self._lead + cut) * self._step]
        moved = [_delay(each, self._lead) for each in hypotheses]
        made = self._transcriber.make_transcript(Recording(None, samples), moved, self._decoder)
        previous = max((each.segments[-1].end for each in self._closed if each.segments), default=0.0)
        origin = self._first * self._frame_seconds
        segments = tuple(segment.shift(origin, earliest=previous) for segment in made.segments)
        self._closed.append(replace(made, segments=segments))
        begin = self._first + self._lead + cut  # the next search's first frame
        self._lead = min(begin, self._reach)
        self._samples.drop((begin - self._lead - self._first) * self._step)
        self._first = begin - self._lead
        self._open_search()
        return rows[cut:]

    def _find_cut(self, hypothesis: Hypothesis) -> int:
        """The frame between the last two words of a segment that is too long; its end if there are no two."""
        words = self._transcriber.tokens.words(hypothesis.tokens)
        if len(words) < 2:
            return len(self._search.rows)
        (_, _, before), (_, after, _) = words[-2:]
        return (hypothesis.frames[before][1] + 1 + hypothesis.frames[after][0] + 1) // 2

    def _open_search(self) -> None:
        self._search = self._decoder.start(len(self._transcriber.tokens))
        self._settled: list[Word] = []
        self._shown = None
        if self._detector is not None:
            self._detector.reset()

    def _find_words(self) -> tuple[list[Word], list[Word]]:
        """Stable words of the open segment, and the others."""
        best, num_stable, num_certain = self._search.best()
        words = self._transcriber.tokens.words(best.tokens)
        # A word is whole when the next one begins, and its sound is known some time after its peaks.
        whole = [(best.frames[last][1], after) for (_, _, last), (_, after, _) in pairwise(words)]
        complete = len(self._search.rows) - self._reach
        settled = max((after for last, after in whole if last < complete and after <= num_certain), default=0)
        stable = max((after for _, after in whole if after <= num_stable), default=0)
        head, rest = split_hypothesis(best, settled)
        self._settled += self._make_words(head)
        self._search.settle(settled)
        middle, tail = split_hypothesis(rest, stable - settled)
        return [*self._settled, *self._make_words(middle)], self._make_words(tail)

    def _make_words(self, hypothesis: Hypothesis) -> list[Word]:
        """Words with the times of their peaks."""
        words = self._transcriber._make_words(
            _delay(hypothesis, self._lead), self._samples.values, self._decoder, are_placed=False
        )
        origin = self._first * self._frame_seconds
        return [replace(word, start=word.start + origin, end=word.end + origin) for word in words]

    def _assemble(self) -> Transcript:
        """The transcript of all segments."""
        if len(self._closed) == 1:
            return self._closed[0]
        return Transcript(
            " ".join(each.text for each in self._closed if each.text),
            tuple(segment for each in self._closed for segment in each.segments),
            self._num_samples / self._transcriber.sample_rate,
            language=self._transcriber.language,
            model=self._transcriber.name,
            rejected=" ".join(each.rejected for each in self._closed if each.rejected),
        )


def _read_samples(samples: Any, sample_rate: int) -> np.ndarray:
    """Samples of a chunk, (N,), float32.

    Raises:
        AudioError: They cannot be used.
    """
    if isinstance(samples, bytes | bytearray | memoryview):
        size = memoryview(samples).nbytes
        if size % 2:
            raise AudioError(
                f"{_NAME}: {size} bytes, but a sample of 16-bit PCM has 2; keep the last byte for the next chunk"
            )
        samples = np.frombuffer(samples, dtype="<i2")
    elif isinstance(samples, Waveform):
        if samples.sample_rate != sample_rate:
            raise AudioError(
                f"{_NAME}: a chunk of {samples.sample_rate} Hz, but the stream has {sample_rate} Hz; begin another "
                f"stream with sample_rate={samples.sample_rate}"
            )
        samples = samples.samples
    elif not (isinstance(samples, np.ndarray) or hasattr(samples, "detach")):  # a tensor
        raise AudioError(f"{_NAME}: expected an array, a tensor or bytes of 16-bit PCM, got {type(samples).__name__}")
    if samples.ndim != 1:
        raise AudioError(f"{_NAME}: shape {tuple(samples.shape)}; give mono samples, (N,)")
    if not len(samples):
        return np.zeros(0, np.float32)
    return read_audio(samples, input_rate=sample_rate, name=_NAME, check_levels=False).samples


def _delay(hypothesis: Hypothesis, frames: int) -> Hypothesis:
    """The same, this many frames later."""
    return replace(hypothesis, frames=[(first + frames, last + frames) for first, last in hypothesis.frames])


def _join(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)
