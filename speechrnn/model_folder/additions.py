"""Calibrations, tuned weights and context, which are measured after training and stored in the model folder as JSON.

CTC posteriors are overconfident. A calibration, fitted on validation data for one decoder, maps a word's raw confidence
to the probability that the word is correct; it is monotonic.

Source:
    J. Platt, "Probabilistic outputs for support vector machines", 1999 (a logistic function of the raw score);
    C. Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from speechrnn.atomic_io import read_json, write_json
from speechrnn.errors import ModelError
from speechrnn.settings import Settings, bounded, build

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

LANGUAGE_FOLDER = "language"
CONFIDENCE_FILE = "confidence.json"
CONTEXT_FILE = "context.json"
WEIGHTS_FILE = f"{LANGUAGE_FOLDER}/weights.json"
LANGUAGE_MODEL_FILE = f"{LANGUAGE_FOLDER}/model.bin"

_EDGE = 1e-6  # raw confidences closer to 0 or 1 are clipped to this distance


@dataclass(frozen=True)
class Calibration(Settings):
    """The probability that a word is correct: the logistic function of slope · logit(raw confidence) + offset.

    Attributes:
        slope: Above 0; below 1 for an overconfident model.
        offset: Of the logit.
        words: Number of words in the fit.
        corpus: Name of the validation data.
        error: Expected calibration error of calibrated confidences, on held-out words; NaN if not measured.
        raw_error: The same for the raw confidences.
    """

    slope: float = bounded(MISSING, 0, 1e6, open="low")
    offset: float = bounded(MISSING, -1e6, 1e6)
    words: int = bounded(0, 0, 1e12)
    corpus: str = ""
    error: float = math.nan
    raw_error: float = math.nan

    def apply(self, confidence: float) -> float:
        """Return the probability that a word of this raw confidence, in [0, 1], is correct."""
        return 0.5 + 0.5 * math.tanh(0.5 * (self.slope * logit(confidence) + self.offset))  # never overflows


@dataclass(frozen=True)
class TunedWeights(Settings):
    """Weights of a language model, tuned for one acoustic model.

    Attributes:
        language_weight: As in :class:`speechrnn.decoding.fusion.FusionConfig`.
        word_bonus: As there.
        unknown_cost: As there.
        wer: Word error rate on the tuning data, a fraction.
        wer_without: The same without language model.
        corpus: Name of the tuning data.
        utterances: Number of utterances in it.
        file: The language model's file.
    """

    language_weight: float = bounded(MISSING, 0, 1000)
    word_bonus: float = bounded(MISSING, -1000, 1000)
    unknown_cost: float = bounded(MISSING, 0, 1000)
    wer: float = bounded(MISSING, 0, 1e6)
    wer_without: float = bounded(MISSING, 0, 1e6)
    corpus: str = ""
    utterances: int = bounded(0, 0, 1e12)
    file: str = ""


@dataclass(frozen=True)
class Context(Settings):
    """The context that a model's windows need on each side, measured by :func:`speechrnn.measure_context`.

    Attributes:
        seconds: Of audio.
        change: Largest change of a log-probability at this context, in nats; NaN if not measured.
        tolerance: Largest change that was allowed.
        audio_seconds: Duration of the recordings that it was measured on.
    """

    seconds: float = bounded(MISSING, 0, 60)
    change: float = math.nan
    tolerance: float = math.nan
    audio_seconds: float = bounded(0.0, 0, 1e9)


def logit(confidence: float) -> float:
    """Return the natural log of the odds, at most a million to one."""
    clipped = min(max(confidence, _EDGE), 1.0 - _EDGE)
    return math.log(clipped) - math.log1p(-clipped)


def read_named(path: Path, kind: type[T]) -> dict[str, T]:
    """Read a JSON object of dataclasses by name; a missing file is an empty one.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.is_file():
        return {}
    content = read_json(path, error=ModelError)
    optional = [each.name for each in fields(kind) if each.default is not MISSING]
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ModelError(f"{path}: expected settings by name; remove the file, and calibrate or tune again")
    return {name: build(kind, values, path=path, section=name, optional=optional) for name, values in content.items()}


def write_named(path: Path, values: Mapping[str, Any]) -> None:
    """Write the file that :func:`read_named` reads."""
    write_json(path, {name: asdict(each) for name, each in values.items()})
