"""Weights of language models that were tuned for a model, kept in its folder: ``language/weights.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechrnn.errors import ModelError
from speechrnn.model_folder import LANGUAGE_FOLDER
from speechrnn.whole_files import write_json

WEIGHTS = Path(LANGUAGE_FOLDER) / "weights.json"


@dataclass(frozen=True)
class TunedWeights:
    """How much a language model counts beside one acoustic model, and how that was found.

    Attributes:
        language_weight: As in :class:`speechrnn.decoding.fusion.FusionConfig`.
        word_bonus: Likewise.
        unknown_cost: Likewise.
        wer: Word error rate on the corpus that they were tuned on, a fraction.
        wer_without: The same without the language model.
        corpus: That corpus.
        utterances: How many it has.
        file: The language model's file.
    """

    language_weight: float
    word_bonus: float
    unknown_cost: float
    wer: float
    wer_without: float
    corpus: str
    utterances: int
    file: str


def read_weights(folder: Path) -> dict[str, TunedWeights]:
    """Weights by the digest of the language model that they are for; none where none was tuned.

    Raises:
        ModelError: The file is damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        return {}
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {digest: TunedWeights(**weights) for digest, weights in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it and tune again") from error


def add_weights(folder: Path, digest: str, weights: TunedWeights) -> None:
    """Keep weights in a model folder, in the place of others for the same language model."""
    kept = {**read_weights(folder), digest: weights}
    write_json(folder / WEIGHTS, {digest: asdict(each) for digest, each in kept.items()})
