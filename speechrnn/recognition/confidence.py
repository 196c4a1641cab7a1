"""Confidences that mean something: from a model's own posteriors to how often such words are right.

A network is surer than it should be. A calibration, found on validation data for one decoder, maps each word's raw
confidence to a probability; it keeps their order. Calibrations stand in a model's folder, in ``confidence.json``.

Source:
    J. Platt, "Probabilistic outputs for support vector machines", 1999 (a logistic function of the raw score);
    C. Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from speechrnn.model_folder import CONFIDENCE_FILE
from speechrnn.recognition.additions import keep_addition, read_additions

_EDGE = 1e-6  # raw confidences nearer to 0 or 1 than this are taken for this
_MEND = "remove it and calibrate again"


@dataclass(frozen=True)
class Calibration:
    """The probability that a word is right: the logistic function of slope · logit(raw confidence) + offset.

    Attributes:
        slope: Above 0; below 1 where the model is too sure of itself.
        offset: Of the logit.
        words: How many words it was found on.
        corpus: Where they are from.
        error: Expected calibration error of the calibrated confidences, measured on words that it was not fitted to.
        raw_error: That of the raw ones, on the same words.
    """

    slope: float
    offset: float
    words: int = 0
    corpus: str = ""
    error: float = math.nan
    raw_error: float = math.nan

    def apply(self, confidence: float) -> float:
        """The probability that a word of this raw confidence, in [0, 1], is right."""
        return 1.0 / (1.0 + math.exp(-(self.slope * logit(confidence) + self.offset)))


def logit(confidence: float) -> float:
    """The natural log of the odds, of at most a million to one."""
    clipped = min(max(confidence, _EDGE), 1.0 - _EDGE)
    return math.log(clipped) - math.log1p(-clipped)


def read_calibrations(folder: Path) -> dict[str, Calibration]:
    """Calibrations by the name of the decoder that they are for; none where none was found.

    Raises:
        ModelError: The file is damaged.
    """
    return read_additions(folder / CONFIDENCE_FILE, Calibration, mend=_MEND)


def add_calibration(folder: Path, decoder: str, calibration: Calibration) -> None:
    """Keep a calibration in a model folder, in the place of another for the same decoder."""
    keep_addition(folder / CONFIDENCE_FILE, decoder, calibration, mend=_MEND)
