"""Pieces of a long recording put together: frames of windows joined and decoded in stretches, transcripts in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from speechrnn.recognition.cutting import End, Piece, Recording
from speechrnn.recognition.transcript import Segment, Transcript
from speechrnn.types import BLANK_ID, Emission, Hypothesis, as_array, find_longest_run, find_runs

if TYPE_CHECKING:
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.model_folder import ModelFolder
    from speechrnn.recognition.decoders import Decoder

logger = logging.getLogger("speechrnn")

BLANK_SECONDS, STRETCH_SECONDS = 0.5, 10.0  # a stretch ends at so many blanks after so much audio …
LONG_BLANK_SECONDS = 1.5  # … or at so many after any
MAX_STRETCH_SECONDS = 30.0


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


def count_step(acoustic: AcousticModel) -> int:
    """Samples from one encoder frame to the next."""
    return acoustic.front_end.config.hop_length * acoustic.encoder.config.subsampling_factor


def take_windows(
    transcriber: Model, batch: Sequence[Recording], emissions: Sequence[Emission], decoder: Decoder
) -> list[Transcript | list[np.ndarray]]:
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
    found: list[Transcript | list[np.ndarray]] = []
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
                as_array(emission.log_probs[row, : int(emission.lengths[row])][first // step : end]).copy()
                for emission in emissions
            ]
        )
    return found


class SampleBuffer:
    """Samples that are not yet in a complete piece; the first is number ``start`` of the recording."""

    def __init__(self) -> None:
        self.start = 0
        self.samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        """Number of the sample after the last."""
        return self.start + len(self.samples)

    def add(self, samples: np.ndarray) -> None:
        """Append samples, (N,)."""
        self.samples = np.concatenate([self.samples, samples])

    def take(self, first: int, last: int) -> np.ndarray:
        """Copy the samples from one number up to another."""
        return self.samples[first - self.start : last - self.start].copy()

    def drop(self, first: int) -> None:
        """Forget what comes before a sample."""
        self.samples = self.samples[max(0, first - self.start) :]
        self.start = max(first, self.start)


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
    log_probs: list[np.ndarray]


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
        self._buffer = SampleBuffer()
        self._log_probs: list[np.ndarray] = []

    def feed(self, piece: Piece, log_probs: list[np.ndarray]) -> Iterator[Stretch]:
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
        self._log_probs = [np.concatenate(pair) for pair in parts]
        while (end := self._find_end()) is not None:
            yield self._take(end, self._buffer.start + end * self._step)

    def flush(self) -> Iterator[Stretch]:
        """Yield the rest."""
        if self._log_probs and len(self._log_probs[0]):
            yield self._take(len(self._log_probs[0]), self._buffer.end)
        self._buffer = SampleBuffer()

    def _take(self, frames: int, end: int) -> Stretch:
        start = self._buffer.start
        taken = Stretch(start, self._buffer.take(start, end), [each[:frames] for each in self._log_probs])
        self._log_probs = [each[frames:] for each in self._log_probs]
        self._buffer.drop(end)
        return taken

    def _find_end(self) -> int | None:
        """Frame at which the first stretch ends, None while that is not certain."""
        is_blank = self._log_probs[0][: self._most].argmax(axis=-1) == BLANK_ID
        for first, last in find_runs(is_blank):
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

    def add(self, piece: Piece, found: Transcript | list[np.ndarray]) -> None:
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
            parts = [Emission(found[None], np.array([len(found)])) for found in each.log_probs]
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
        self._segments += [segment.shift(start / self._rate) for segment in found.segments]
        self._rejected += [found.rejected] if found.rejected else []
