"""Weights of language models that were tuned for a model, kept in its folder: ``language/weights.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from speechrnn.model_folder import LANGUAGE_FOLDER
from speechrnn.recognition.additions import keep_addition, read_additions

WEIGHTS = Path(LANGUAGE_FOLDER) / "weights.json"
_MEND = "remove it and tune again"


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
    return read_additions(folder / WEIGHTS, TunedWeights, mend=_MEND)


def add_weights(folder: Path, digest: str, weights: TunedWeights) -> None:
    """Keep weights in a model folder, in the place of others for the same language model."""
    keep_addition(folder / WEIGHTS, digest, weights, mend=_MEND)
