"""Where a long recording is cut while it is read: at pauses, or into overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from speechrnn.audio.vad import SpeechDetector
from speechrnn.audio.vad_options import VadOptions
from speechrnn.errors import ConfigError
from speechrnn.recognition.cutting import CutConfig, Piece
from speechrnn.recognition.joining import SampleBuffer

PAUSE_SECONDS = 1.0  # a longer pause, after padding, is a piece of its own …
PAUSE_CONTEXT_SECONDS = 5.0  # … computed with so much of what comes before it
JOIN_SECONDS = 15.0  # speech is joined across shorter pauses up to this length, or to what the model is used to


class PauseCutter:
    """Cuts at pauses, found by voice activity detection.

    Speech is joined across short pauses; a cut lies in the middle of a short pause. A long pause is a piece of its own,
    or several, computed together with what comes before it: networks whose features are normalised over a recording
    output words for a recording of nothing but noise.

    Args:
        config: Greatest length of a piece, options of voice activity detection, and whether long pauses are left out.
        rate: Of the samples, in Hz.
        step: Samples from one encoder frame to the next; None: pauses are computed alone.
        join_seconds: Speech is joined across short pauses up to this length.

    Raises:
        ConfigError: The extra ``vad`` is not installed, or the padding leaves no room in a piece.
    """

    def __init__(
        self, config: CutConfig, rate: int, *, step: int | None = None, join_seconds: float = JOIN_SECONDS
    ) -> None:
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
        self._join = min(self._most - self._pause, round(join_seconds * rate))
        context = min(PAUSE_CONTEXT_SECONDS, config.max_seconds / 2)
        self._context = 0 if step is None else math.floor(context * rate / step) * step
        self._step = 1 if step is None else step
        self._buffer = SampleBuffer()
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
        self._buffer = SampleBuffer()
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
