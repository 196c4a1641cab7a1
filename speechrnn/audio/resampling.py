"""Changes of sample rate and speed with soxr, which is imported where it is used, because start-up time counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from speechrnn.errors import AudioError


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Change the sample rate with soxr's "HQ" filter.

    Rates need not be whole numbers: `resample(samples, from_rate * speed, to_rate)` changes speed, pitch and rate
    together; a speed of 1.1 makes the recording 1.1 times shorter.

    Args:
        samples: Amplitudes, (N,), float32.
        from_rate: Rate of the samples, in Hz.
        to_rate: Wanted rate, in Hz.

    Returns:
        (N',), float32, with N' = `resampled_length(N, from_rate, to_rate)`; the same array if the rates are equal.

    Raises:
        AudioError: A rate is not positive.
    """
    num_samples = resampled_length(len(samples), from_rate, to_rate)
    if from_rate == to_rate:
        return samples
    resampled = _import_soxr(from_rate, to_rate).resample(samples, from_rate, to_rate, quality="HQ")
    return resampled if len(resampled) == num_samples else _fit(resampled, num_samples)


class StreamingResampler:
    """Change the sample rate of a recording that arrives in pieces.

    The concatenated results of all `feed` calls and `flush` are bit for bit those of `resample` on the concatenated
    pieces, however it is cut.

    Args:
        from_rate: Rate of the samples, in Hz.
        to_rate: Wanted rate, in Hz; if it is equal, samples are passed through.

    Raises:
        AudioError: A rate is not positive.
    """

    def __init__(self, from_rate: float, to_rate: float) -> None:
        resampled_length(0, from_rate, to_rate)  # checks the rates
        self.from_rate, self.to_rate = from_rate, to_rate
        self._num_fed = self._num_given = 0
        self._is_flushed = False
        self._stream: Any = None
        if from_rate != to_rate:
            self._stream = _import_soxr(from_rate, to_rate).ResampleStream(
                from_rate, to_rate, 1, dtype="float32", quality="HQ"
            )

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Resample the next piece.

        Args:
            samples: Amplitudes, (N,), float32; N may be 0.

        Returns:
            (N',), float32. The filter works on blocks: the results lag behind by 23 ms on average from 44.1 or 48 kHz
            to 16 kHz (at most 50), by 64 ms from 8 to 16 kHz (at most 120), so that N' may be 0.

        Raises:
            AudioError: The recording was already ended by `flush`.
        """
        self._check_open()
        self._num_fed += len(samples)
        if self._stream is None:
            return samples
        resampled: np.ndarray = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32))
        self._num_given += len(resampled)
        return resampled

    def flush(self) -> np.ndarray:
        """End the recording.

        Returns:
            The samples that the filter held back, (N',), float32.

        Raises:
            AudioError: It was ended before.
        """
        self._check_open()
        self._is_flushed = True
        if self._stream is None:
            return np.zeros(0, np.float32)
        rest: np.ndarray = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return _fit(rest, resampled_length(self._num_fed, self.from_rate, self.to_rate) - self._num_given)

    def _check_open(self) -> None:
        if self._is_flushed:
            raise AudioError("the resampler was flushed: its recording has ended; make a new one for the next")


def _import_soxr(from_rate: float, to_rate: float) -> Any:
    try:
        import soxr
    except ImportError:  # exported models run without it
        raise AudioError(f"needs soxr to resample {from_rate:g} Hz to {to_rate:g} Hz: pip install soxr") from None
    return soxr


def _fit(resampled: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut or pad to the length; soxr rounds like `resampled_length`, but the last bit of the ratio may differ."""
    return np.pad(resampled[:num_samples], (0, max(0, num_samples - len(resampled))))


def resampled_length(num_samples: int, from_rate: float, to_rate: float) -> int:
    """Number of samples that `resample` returns: N * to_rate / from_rate, halves rounded up.

    Raises:
        AudioError: A rate is not positive.
    """
    for rate in (from_rate, to_rate):
        if not (rate > 0 and math.isfinite(rate)):
            raise AudioError(f"resampling from {from_rate} Hz to {to_rate} Hz: rates must be positive numbers")
    return math.floor(num_samples * to_rate / from_rate + 0.5)
