"""What a model folder holds, once it is read. Nothing here imports torch: an exported model holds the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.model_folder.additions import Calibration, Context, TunedWeights
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import Tokens

if TYPE_CHECKING:
    from speechrnn.acoustic.model import AcousticModel


ENGINES_FOLDER = "engines"
"""What :mod:`speechrnn.recognition.engines` made of the model; no part of it, and not copied with it."""


@dataclass(frozen=True)
class ModelFolder:
    """The content of a model folder.

    Attributes:
        acoustic: The acoustic model.
        tokens: The tokens of its outputs.
        text: Normalisation of its training transcripts.
        provenance: Its origin, as plain JSON. Keys that the model card shows: ``languages`` (list of tags such as
            "en"), ``corpora`` (list of ``{"corpus", "license", "source", "attribution"}``), ``training`` (a dict) and
            ``results`` (as in a recipe's ``results.json``:
            ``{"interval_method", "sets": {name: {"utterances", "words", "wer", "wer_low", "wer_high"}}}``).
        name: Name in transcripts: the name or path that it was loaded from.
        path: The folder that it was loaded from.
        language_model: The language model that decoding uses if no decoder is chosen; None: none.
        tuned: Weights of language models tuned for it, by the digest of the language model.
        calibrations: Calibrations of word confidences, by the name of the decoder.
        speakers: File of each adapted speaker's profile, by name.
        context: Context that windows of long recordings need; None: not measured.
    """

    acoustic: AcousticModel
    tokens: Tokens
    text: TextConfig
    provenance: dict[str, Any]
    name: str | None = None
    path: Path | None = None
    language_model: Path | None = None
    tuned: Mapping[str, TunedWeights] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    speakers: Mapping[str, Path] = field(default_factory=dict)
    context: Context | None = None
