"""Reliability of confidences: the share of correct words at a given confidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.atomic_io import write_atomic
from speechrnn.recognition.transcript import Word
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import align_words

_BINS = 10


@dataclass(frozen=True)
class JudgedWord:
    """A recognised word, and whether it is correct.

    Attributes:
        confidence: In [0, 1].
        is_right: Whether the reference has it in this place.
    """

    confidence: float
    is_right: bool


def judge_words(words: Sequence[Word], reference: str) -> list[JudgedWord]:
    """Align words with a reference, both normalised for scoring; words that normalisation removes are left out."""
    parts = [(part, word.confidence) for word in words for part in normalize_for_scoring(word.text).split()]
    steps = align_words(normalize_for_scoring(reference), " ".join(part for part, _ in parts))
    verdicts = [operation == "equal" for operation, _, hypothesis in steps if hypothesis is not None]
    return [JudgedWord(confidence, is_right) for (_, confidence), is_right in zip(parts, verdicts, strict=True)]


@dataclass(frozen=True)
class Reliability:
    """Confidences and shares of correct words, in ten bins of equal width.

    Attributes:
        counts: Words in each bin.
        confidences: Mean confidence of each; 0 if empty.
        shares: Share of correct words; 0 if empty.
    """

    counts: list[int]
    confidences: list[float]
    shares: list[float]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over words of |confidence - share correct| of their bin.

        Source:
            C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
        """
        bins = zip(self.counts, self.confidences, self.shares, strict=True)
        total = sum(count * abs(confidence - share) for count, confidence, share in bins)
        return total / max(1, sum(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """Convert to the form of results.json."""
        rounded = {name: [round(value, 4) for value in getattr(self, name)] for name in ("confidences", "shares")}
        return {"expected_calibration_error": round(self.error, 4), "counts": self.counts, **rounded}


def measure_reliability(words: Sequence[JudgedWord]) -> Reliability:
    """Compare confidences with the share of correct words."""
    confidences, is_right = to_columns(words)
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = [np.bincount(bins, values, minlength=_BINS) for values in (confidences, is_right)]
    means = [(total / np.maximum(counts, 1)).tolist() for total in sums]
    return Reliability(counts.tolist(), *means)


def to_columns(words: Sequence[JudgedWord]) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, and 1 for correct words, (W,) float64 each."""
    confidences = np.array([word.confidence for word in words], dtype=float)
    return confidences, np.array([word.is_right for word in words], dtype=float)


def draw_reliability(reliability: Reliability, path: Path) -> None:
    """Draw the share of correct words over confidence, and the number of words in each bin; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(5, 6), sharex=True, height_ratios=[3, 1], layout="constrained"
    )
    edges = np.arange(_BINS) / _BINS
    filled = [bin for bin, count in enumerate(reliability.counts) if count]
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    above.plot(*([values[bin] for bin in filled] for values in (reliability.confidences, reliability.shares)), "o-")
    above.set(ylabel="share of correct words", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"expected calibration error {100 * reliability.error:.1f} %")
    below.bar(edges, reliability.counts, width=1 / _BINS, align="edge", edgecolor="white")
    below.set(xlabel="confidence", ylabel="words")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
