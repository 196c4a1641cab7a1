"""Whether confidences mean what they say, and what makes them: calibration on validation data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import CorpusError
from speechrnn.model_folder.additions import Calibration, logit
from speechrnn.recognition.transcript import Word
from speechrnn.text.metrics import align_words
from speechrnn.text.normalize import normalize_for_scoring

_BINS = 10
_STEPS = 50


@dataclass(frozen=True)
class JudgedWord:
    """A word that was heard, and whether it was said.

    Attributes:
        confidence: In [0, 1].
        is_right: Whether the reference has it at its place.
    """

    confidence: float
    is_right: bool


def judge_words(words: Sequence[Word], reference: str) -> list[JudgedWord]:
    """Lay words beside a reference, both normalised for scoring; a word that is nothing then is passed over."""
    heard = [(part, word.confidence) for word in words for part in normalize_for_scoring(word.text).split()]
    steps = align_words(normalize_for_scoring(reference), " ".join(part for part, _ in heard))
    verdicts = [operation == "equal" for operation, _, hypothesis in steps if hypothesis is not None]
    return [JudgedWord(confidence, is_right) for (_, confidence), is_right in zip(heard, verdicts, strict=True)]


@dataclass(frozen=True)
class Reliability:
    """How confidences compare with how often words are right, in ten bins of the same width.

    Attributes:
        counts: Words of each bin.
        confidences: Mean confidence of each; 0 where it is empty.
        shares: Share of words that are right; 0 where it is empty.
    """

    counts: list[int]
    confidences: list[float]
    shares: list[float]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over words of |confidence - share right| of their bin.

        Source:
            C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
        """
        bins = zip(self.counts, self.confidences, self.shares, strict=True)
        total = sum(count * abs(confidence - share) for count, confidence, share in bins)
        return total / max(1, sum(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """For results.json."""
        rounded = {name: [round(value, 4) for value in getattr(self, name)] for name in ("confidences", "shares")}
        return {"expected_calibration_error": round(self.error, 4), "counts": self.counts, **rounded}


def measure_reliability(words: Sequence[JudgedWord]) -> Reliability:
    """Compare confidences with what came of them."""
    confidences, is_right = _columns(words)
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = [np.bincount(bins, values, minlength=_BINS) for values in (confidences, is_right)]
    means = [(total / np.maximum(counts, 1)).tolist() for total in sums]
    return Reliability(counts.tolist(), *means)


def _columns(words: Sequence[JudgedWord]) -> tuple[np.ndarray, np.ndarray]:
    confidences = np.array([word.confidence for word in words], dtype=float)
    return confidences, np.array([word.is_right for word in words], dtype=float)


def calibrate(utterances: Sequence[Sequence[JudgedWord]], *, corpus: str = "") -> Calibration:
    """Find a calibration.

    Its error is measured with two others, each found on every second utterance and tried on the rest.

    Args:
        utterances: The words of each, with raw confidences.
        corpus: What to call their origin.

    Raises:
        CorpusError: No word was heard.
    """
    words = [word for utterance in utterances for word in utterance]
    if not words:
        raise CorpusError(f"{corpus}: no word was heard; nothing to calibrate confidences on")
    tried: list[JudgedWord] = []
    for half in (0, 1):
        rest = [word for utterance in utterances[1 - half :: 2] for word in utterance]
        slope, offset = _fit(rest)
        fitted = Calibration(slope, offset)
        own = [word for utterance in utterances[half::2] for word in utterance]
        tried += [JudgedWord(fitted.apply(word.confidence), word.is_right) for word in own]
    slope, offset = _fit(words)
    return Calibration(
        slope,
        offset,
        words=len(words),
        corpus=corpus,
        error=measure_reliability(tried).error,
        raw_error=measure_reliability(words).error,
    )


def _fit(words: Sequence[JudgedWord]) -> tuple[float, float]:
    """Slope and offset of the most probable logistic function, by Newton's method.

    Both have a normal prior around the raw confidences (slope 1, offset 0) with a standard deviation of 1, which a few
    dozen words outweigh; where all words are right, that says little, and little changes.
    """
    confidences, targets = _columns(words)
    inputs = np.array([(logit(confidence), 1.0) for confidence in confidences]).reshape(-1, 2)
    start = np.array([1.0, 0.0])

    def measure(weights: np.ndarray) -> float:
        scores = inputs @ weights
        surprise = np.logaddexp(0.0, scores) - targets * scores
        return float(surprise.sum() + ((weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(_STEPS):
        expected = 1.0 / (1.0 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (expected - targets) + weights - start
        curvature = (inputs.T * (expected * (1 - expected))) @ inputs + np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while measure(weights - size * step) > measure(weights) and size > 1e-9:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return max(float(weights[0]), 0.01), float(weights[1])


def draw_reliability(reliability: Reliability, path: Path) -> None:
    """The picture: share of right words over confidence, with how many words each bin has; needs matplotlib."""
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
    above.set(ylabel="share of words that are right", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"expected calibration error {100 * reliability.error:.1f} %")
    below.bar(edges, reliability.counts, width=1 / _BINS, align="edge", edgecolor="white")
    below.set(xlabel="confidence", ylabel="words")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
