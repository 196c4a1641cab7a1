"""Voice activity detection (VAD) while a recording is read, in memory that does not grow with its length.

The network is silero-vad's, whose ONNX weights lie in its wheel. The package itself is not imported, as that would
import torch; onnxruntime is imported where it is used.

Source:
    Silero Team, "Silero VAD", https://github.com/snakers4/silero-vad; names of the options as in faster-whisper.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.audio.resampling import StreamingResampler
from speechrnn.audio.vad_options import INSTALL, MISSING, VadOptions, has_vad
from speechrnn.errors import ConfigError
from speechrnn.types import find_longest_run

# The network for 8 kHz missed 9.7 % of spoken digits in pauses of noise, this one, after resampling, 2.8 %; and it is
# twice as fast.
_RATE = 16000
_WINDOW = 512  # samples
_CONTEXT = 64  # samples before a window that the network sees too
_SINGLE = "silero_vad.onnx"
_SEQUENCE = "silero_vad_16k_sequence.onnx"  # many windows per call; the same numbers, 2.5 times as fast


class SpeechDetector:
    """Finds speech in a stream of samples; the result does not depend on how the samples are cut.

    Args:
        options: What is speech.
        sample_rate: Of the samples, in Hz; other rates than 16 kHz are resampled.

    Attributes:
        decided: Samples from the beginning for which all speech has been returned.

    Raises:
        ConfigError: The extra ``vad`` is not installed.
    """

    def __init__(self, options: VadOptions, sample_rate: int) -> None:
        self.decided = 0
        self._resampler = StreamingResampler(sample_rate, _RATE)
        self._network = _Network()
        self._window = _WINDOW * sample_rate / _RATE  # in samples of the recording
        self._pad = options.speech_pad_ms / 1000 * sample_rate
        per_second = _RATE / _WINDOW
        most = math.inf if options.max_speech_duration_s is None else options.max_speech_duration_s * per_second
        self._segmenter = _Segmenter(
            options,
            silence=options.min_silence_duration_ms / 1000 * per_second,
            speech=options.min_speech_duration_ms / 1000 * per_second,
            longest=max(2.0, most),
        )
        self._rest = np.zeros(0, np.float32)
        self._received = 0
        self._held: tuple[float, float] | None = None  # the last speech, whose padding depends on what follows

    def feed(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """Take the next samples, (N,), float32, and return the speech that is now certain.

        Returns:
            First sample and the sample after the last of each stretch of speech, padding included; in order, without
            overlaps.
        """
        self._received += len(samples)
        return self._pad_speech(self._run(self._resampler.feed(samples)))

    def flush(self) -> list[tuple[int, int]]:
        """Return the rest of the speech; the recording ends here."""
        found = self._run(self._resampler.flush())
        if len(self._rest):
            found += self._run(np.zeros(_WINDOW - len(self._rest), np.float32))
        found += self._segmenter.finish()
        padded = self._pad_speech(found)
        if self._held is not None:
            padded.append(self._release(self._pad))
        self.decided = self._received
        return padded

    def _run(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """Speech in windows."""
        samples = np.concatenate([self._rest, samples])
        count = len(samples) // _WINDOW
        self._rest = samples[count * _WINDOW :].copy()
        windows = samples[: count * _WINDOW].reshape(count, _WINDOW)
        return [found for each in self._network.run(windows) for found in self._segmenter.feed(each)]

    def _pad_speech(self, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Speech in samples with its padding, except for the last, which is held until what follows is known."""
        padded, window = [], self._window
        for first, last in found:
            begin, end = first * window, min(last * window, self._received)
            lead = min(self._pad, begin)
            if self._held is not None:
                lead = min(self._pad, (begin - self._held[1]) / 2)
                padded.append(self._release(lead))
            self._held = begin - lead, end
        frontier = self._segmenter.frontier * window
        if self._held is not None and frontier - self._held[1] >= 2 * self._pad:
            padded.append(self._release(self._pad))
        start = max(0.0, frontier - self._pad) if self._held is None else self._held[0]
        self.decided = max(self.decided, math.floor(start))
        return padded

    def _release(self, pad: float) -> tuple[int, int]:
        assert self._held is not None
        (begin, end), self._held = self._held, None
        return round(begin), min(self._received, round(end + pad))


class _Segmenter:
    """From probabilities of windows to stretches of windows with speech.

    Args:
        options: Thresholds.
        silence: Windows of silence that separate two stretches.
        speech: Windows that speech has at least.
        longest: Windows after which it is cut.
    """

    def __init__(self, options: VadOptions, *, silence: float, speech: float, longest: float) -> None:
        self._enter, self._exit = options.threshold, options.exit_threshold
        self._silence, self._speech, self._longest = silence, speech, longest
        self._window = 0
        self._begin = 0
        self._probabilities: list[float] = []  # since the beginning of the speech; none outside of speech
        self._quiet: int | None = None  # first window of the silence that may end it

    @property
    def frontier(self) -> int:
        """First window that speech not yet returned may have."""
        return self._begin if self._probabilities else self._window

    def feed(self, probability: float) -> Iterator[tuple[int, int]]:
        """Take the probability of the next window; yield speech that it ends: its first window and the one after."""
        window, self._window = self._window, self._window + 1
        if not self._probabilities:
            if probability >= self._enter:
                self._begin, self._probabilities, self._quiet = window, [probability], None
            return
        self._probabilities.append(probability)
        if probability >= self._enter:
            self._quiet = None
        elif probability < self._exit:
            self._quiet = window if self._quiet is None else self._quiet
            if window - self._quiet >= self._silence:
                yield from self._close(self._quiet)
                self._probabilities = []
                return
        if len(self._probabilities) >= self._longest:
            yield from self._cut()

    def finish(self) -> list[tuple[int, int]]:
        """Return speech that the recording's end ends."""
        return list(self._close(self._window)) if self._probabilities else []

    def _close(self, end: int) -> Iterator[tuple[int, int]]:
        if end - self._begin > self._speech:
            yield self._begin, end

    def _cut(self) -> Iterator[tuple[int, int]]:
        """End speech of the greatest length at its longest silence, without one at its least probable window."""
        first, last = find_longest_run(np.asarray(self._probabilities) < self._exit)
        if first == last:
            first = last = 1 + int(np.argmin(self._probabilities[1:]))
        yield from self._close(self._begin + first)
        rest = self._probabilities[last:]
        self._begin, self._probabilities = self._begin + last, rest
        if not rest:  # the silence goes on
            self._quiet = None


class _Network:
    """silero-vad's network with its state."""

    def __init__(self) -> None:
        folder = _find_weights()
        self._has_sequence = (folder / _SEQUENCE).is_file()
        self._session = _open_network(folder / (_SEQUENCE if self._has_sequence else _SINGLE))
        self._context = np.zeros((1, _CONTEXT), np.float32)
        self._state = np.zeros((2, 1, 128), np.float32)

    def run(self, windows: np.ndarray) -> list[float]:
        """Probability of speech in each window, (W, 512)."""
        if not len(windows):
            return []
        contexts = np.concatenate([self._context, windows[:-1, -_CONTEXT:]])
        self._context = windows[-1:, -_CONTEXT:]
        inputs = np.concatenate([contexts, windows], axis=1)
        if self._has_sequence:
            hidden, cell = self._state[:1], self._state[1:]
            probabilities, hidden, cell = self._session.run(None, {"input": inputs, "h": hidden, "c": cell})
            self._state = np.concatenate([hidden, cell])
            return probabilities.ravel().tolist()
        found = []
        for row in inputs:
            (probability,), self._state = self._session.run(
                None, {"input": row[None], "state": self._state, "sr": np.array(_RATE)}
            )
            found.append(float(probability[0]))
        return found


def _find_weights() -> Path:
    if not has_vad():
        raise ConfigError(MISSING)
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        if (Path(folder) / "data" / _SINGLE).is_file():
            return Path(folder) / "data"
    raise ConfigError(f"silero-vad is installed without its weights, data/{_SINGLE}; install it again: {INSTALL}")


def _open_network(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
