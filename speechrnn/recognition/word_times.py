"""Word times from the peaks of a CTC network and the levels of the recording.

CTC networks emit each token in a short peak, mostly late in its sound; a bidirectional one that writes whole words may
emit it anywhere in the word. The peaks are in order, and each lies within or near its word. The boundary between two
neighbours is where the recording is quietest between their peaks, and each word extends over the sound around its
peaks.

Source:
    Peaks: H. Sak et al., "Learning acoustic frame labeling for speech recognition with recurrent neural networks",
    ICASSP 2015; A. Zeyer et al., "Why does CTC result in peaky behavior?", arXiv:2105.14849.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from speechrnn.types import find_longest_run

FRAME_SECONDS = 0.01
QUIET_DB = 30.0  # this far below the loud parts of a recording is quiet …
ABOVE_FLOOR_DB = 6.0  # … and so is less than this above the background
LEAST_CONTRAST_DB = 12.0  # with less between loud and background, levels are not used
PAUSE_WITHIN_SECONDS = 0.12  # longest pause within a word: a stop consonant
REACH_SECONDS = 0.8  # farthest from its peak that a word extends
SILENCE = 1e-4  # half the range of samples, −80 dBFS: three steps of 16 bits, below any microphone's noise


def place_words(
    peaks: Sequence[tuple[float, float]], samples: np.ndarray, sample_rate: int
) -> list[tuple[float, float]]:
    """Find where words begin and end.

    Args:
        peaks: Of each word, start of its first token's peak and end of its last one's, in seconds, in order.
        samples: The recording, (N,), float32 in [-1, 1].
        sample_rate: In Hz.

    Returns:
        Start and end of each word in seconds: in order, without overlaps, within the recording; the peaks themselves
        where the recording has too little contrast between loud and quiet.
    """
    seconds = len(samples) / sample_rate
    levels = measure_levels(samples, sample_rate)
    is_loud = find_loud(levels)
    if not peaks or not is_loud.any():
        return [(min(start, seconds), min(end, seconds)) for start, end in peaks]
    frames = [
        (_frame(start, levels), max(_frame(start, levels), _frame(end, levels, last=True))) for start, end in peaks
    ]
    bounds = [0, *(_find_boundary(levels, is_loud, left[1], right[0]) for left, right in pairwise(frames)), len(levels)]
    placed = []
    for (first, last), (low, high) in zip(frames, pairwise(bounds), strict=True):
        start, end = _reach(is_loud, min(first, high - 1), max(last, low), low, high)
        placed.append((min(start * FRAME_SECONDS, seconds), min(end * FRAME_SECONDS, seconds)))
    return placed


def has_sound(samples: np.ndarray, sample_rate: int, start: float, end: float) -> bool:
    """Return whether a recording has sound above :data:`SILENCE` within :data:`REACH_SECONDS` of a word's peaks.

    Networks trained on speech also output words in digital silence, with high confidence.

    Args:
        samples: The recording, (N,), float32 in [-1, 1].
        sample_rate: In Hz.
        start: Start of the peak of the word's first token, in seconds.
        end: End of the peak of its last token, in seconds.
    """
    first, last = max(0, int((start - REACH_SECONDS) * sample_rate)), int((end + REACH_SECONDS) * sample_rate)
    return bool(np.ptp(samples[first:last]) >= 2 * SILENCE) if first < len(samples) else False


def measure_levels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the level of each FRAME_SECONDS, (F,), in dBFS, including the last, incomplete one."""
    size = max(1, round(FRAME_SECONDS * sample_rate))
    padded = np.zeros(-(-len(samples) // size) * size, dtype=np.float32)
    padded[: len(samples)] = samples
    return 10.0 * np.log10(np.square(padded.reshape(-1, size)).mean(axis=1) + 1e-10)


def find_loud(levels: np.ndarray) -> np.ndarray:
    """Return which frames hold speech by their level, (F,); none if the contrast is too low."""
    if not len(levels):
        return np.zeros(0, dtype=bool)
    floor, top = np.quantile(levels, 0.05), np.quantile(levels, 0.98)
    if top - floor < LEAST_CONTRAST_DB:
        return np.zeros(len(levels), dtype=bool)
    return levels > max(floor + ABOVE_FLOOR_DB, top - QUIET_DB)


def _frame(seconds: float, levels: np.ndarray, *, last: bool = False) -> int:
    frame = seconds / FRAME_SECONDS
    return min(max(0, int(np.ceil(frame - 1e-6)) - 1 if last else int(frame + 1e-6)), len(levels) - 1)


def _find_boundary(levels: np.ndarray, is_loud: np.ndarray, last: int, first: int) -> int:
    """First frame that the next word may have: in the longest pause between two peaks, else at the quietest frame."""
    if first - last < 2:
        return max(first, last)
    begin, end = find_longest_run(~is_loud[last + 1 : first])
    if end > begin:
        return last + 1 + (begin + end) // 2
    smooth = np.convolve(np.pad(levels[last + 1 : first], 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return last + 1 + int(np.argmin(smooth))


def _reach(is_loud: np.ndarray, first: int, last: int, low: int, high: int) -> tuple[int, int]:
    """First frame of a word and the one after its last, given the frames of its peaks and bounds."""
    reach, pause = round(REACH_SECONDS / FRAME_SECONDS), round(PAUSE_WITHIN_SECONDS / FRAME_SECONDS)
    low, high = max(low, first - reach), min(high, last + 1 + reach)
    loud = low + np.flatnonzero(is_loud[low:high])
    if not len(loud):
        return first, last + 1
    nearest = loud[np.argmin(np.abs(loud - np.clip(loud, first, last)))]
    begin = end = int(nearest)
    for frame in loud[loud < begin][::-1]:
        if begin - frame > pause + 1 and frame < first:
            break
        begin = int(frame)
    for frame in loud[loud > end]:
        if frame - end > pause + 1 and frame > last:
            break
        end = int(frame)
    return begin, end + 1
