"""Fitting a calibration of confidences on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from speechrnn.errors import CorpusError
from speechrnn.evaluation.evaluate import Evaluation
from speechrnn.evaluation.reliability import JudgedWord, measure_reliability, to_columns
from speechrnn.model_folder.additions import Calibration, logit
from speechrnn.model_folder.format import add_calibration

_STEPS = 50


def calibrate(evaluation: Evaluation, *, corpus: str) -> Calibration:
    """Fit a calibration of confidences on an evaluation with raw confidences.

    Its error is measured by two-fold cross-validation: utterances in the order of their ids, every second one held out.

    Args:
        evaluation: Of validation data.
        corpus: The name to store for that data.

    Raises:
        CorpusError: No word was recognised.
    """
    utterances = [each.words for each in sorted(evaluation.utterances, key=lambda each: each.id)]
    words = list(chain.from_iterable(utterances))
    if not words:
        raise CorpusError(f"{corpus}: no word was recognised; nothing to calibrate confidences on")
    tried: list[JudgedWord] = []
    for half in (0, 1):
        fitted = Calibration(*_fit(list(chain.from_iterable(utterances[1 - half :: 2]))))
        held_out = chain.from_iterable(utterances[half::2])
        tried += [JudgedWord(fitted.apply(word.confidence), word.is_right) for word in held_out]
    errors = {"error": measure_reliability(tried).error, "raw_error": measure_reliability(words).error}
    return Calibration(*_fit(words), words=len(words), corpus=corpus, **errors)


def store_calibration(folder: Path, decoder: str, evaluation: Evaluation, *, corpus: str) -> Calibration:
    """Fit confidence calibration for a decoder on an evaluation with raw confidences, and store it with the model.

    Args:
        folder: The model folder.
        decoder: Name of the decoder (:attr:`speechrnn.recognition.decoders.Decoder.name`).
        evaluation: On validation data; the order of its utterances does not matter.
        corpus: Name of the validation data.

    Raises:
        CorpusError: No word was recognised.
    """
    calibration = calibrate(evaluation, corpus=corpus)
    add_calibration(folder, decoder, calibration)
    return calibration


def _fit(words: Sequence[JudgedWord]) -> tuple[float, float]:
    """Slope and offset of the logistic function, by maximum a posteriori with Newton's method.

    The prior is normal around slope 1 and offset 0 (the raw confidences) with a standard deviation of 1. A few dozen
    words outweigh it; if all words are correct, it keeps the fit bounded.
    """
    confidences, targets = to_columns(words)
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
