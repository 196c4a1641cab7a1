"""Whether a recording's samples can be speech: finite, scaled to [-1, 1], neither silent nor clipped."""

from __future__ import annotations

import logging
import math

import numpy as np

from speechrnn.errors import AudioError

logger = logging.getLogger("speechrnn")

# Muted and unplugged inputs (dither, converter noise) stay below -70 dBFS; speech at any usable gain peaks above -40.
SILENT_PEAK = 1e-3
# A recording brought to full scale touches it once or twice, a loud one in a lossy format once in some 4,000 samples;
# overload flattens whole peaks.
CLIPPED_SHARE = 1e-3
# Full scale is 0.98 in mu-law, 0.992 in 8 bits and 1 in the rest.
_FULL_SCALE = 0.98
# Floats this large are 16-bit or 24-bit numbers that nobody scaled.
_UNSCALED_PEAK = 100.0


def check_samples(samples: np.ndarray, sample_rate: int, *, name: str, warn_of_levels: bool = True) -> None:
    """Refuse samples that are no sound, and warn of those that are silent or clipped.

    Args:
        samples: Amplitudes, (N,), float32, N at least 1.
        sample_rate: Samples a second, in Hz.
        name: What to call the recording in messages.
        warn_of_levels: Whether a silent or clipped recording draws a warning.

    Raises:
        AudioError: Samples are NaN or infinite, or far outside [-1, 1].
    """
    low, high = float(samples.min()), float(samples.max())
    if not math.isfinite(high - low):
        bad = np.flatnonzero(~np.isfinite(samples))
        at = f"the first at {bad[0] / sample_rate:.3f} s"
        raise AudioError(f"{name}: {len(bad)} samples are NaN or infinite, {at}; mend what wrote them")
    highest = max(high, -low)
    if highest > _UNSCALED_PEAK:
        raise AudioError(f"{name}: samples reach {highest:.0f}, not 1; scale them to [-1, 1], 16-bit ones by 1 / 32768")
    if warn_of_levels:
        for words in describe_levels(samples).values():
            logger.warning("%s: %s", name, words)


def describe_levels(samples: np.ndarray) -> dict[str, str]:
    """What is wrong with a recording's levels: what was measured, by ``silent`` and ``clipped``; empty if all is well.

    Args:
        samples: Amplitudes, (N,), N at least 1, finite.
    """
    low, high = float(samples.min()), float(samples.max())
    found = {"silent": _describe_silence(low, high), "clipped": _describe_clipping(samples, low, high)}
    return {kind: words for kind, words in found.items() if words}


def _describe_silence(low: float, high: float) -> str:
    # Half the range, so that a converter's constant offset does not pass for sound.
    peak = (high - low) / 2
    if peak >= SILENT_PEAK:
        return ""
    digits = np.format_float_positional(peak, precision=1, fractional=False, trim="-")
    level = f"{20 * math.log10(peak):.0f} dBFS" if peak > 0 else "all samples are equal"
    return f"silent: peak {digits} ({level})"


def _describe_clipping(samples: np.ndarray, low: float, high: float) -> str:
    # Each side against its own highest value: 8-bit sound ends at -1 and 127 / 128.
    clipped = 0
    if high >= _FULL_SCALE:
        clipped += int(np.count_nonzero(samples >= 0.999 * min(high, 1.0)))
    if low <= -_FULL_SCALE:
        clipped += int(np.count_nonzero(samples <= 0.999 * max(low, -1.0)))
    share = clipped / len(samples)
    return f"clipped: {100 * share:.1f} % of samples at full scale" if share > CLIPPED_SHARE else ""
