"""Changes of sample rate and speed with soxr, which is imported where it is used, because start-up time counts."""

from __future__ import annotations

import math

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
    import soxr

    resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    # soxr rounds the length like resampled_length, but the last bit of the ratio may differ.
    if len(resampled) < num_samples:
        resampled = np.pad(resampled, (0, num_samples - len(resampled)))
    return resampled[:num_samples]


def resampled_length(num_samples: int, from_rate: float, to_rate: float) -> int:
    """Number of samples that `resample` returns: N * to_rate / from_rate, halves rounded up.

    Raises:
        AudioError: A rate is not positive.
    """
    for rate in (from_rate, to_rate):
        if not (rate > 0 and math.isfinite(rate)):
            raise AudioError(f"resampling from {from_rate} Hz to {to_rate} Hz: rates must be positive numbers")
    return math.floor(num_samples * to_rate / from_rate + 0.5)
