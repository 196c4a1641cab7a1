"""The release format of a model: one folder with everything that transcription needs, and the model's provenance.

``config.json``            format version, front end, encoder, text, kind of tokens, provenance
``model.safetensors``      the weights
``tokens.json``            the output symbols (``tokenizer.model`` for SentencePiece, ``lexicon.txt`` for phones)
``README.md``              the model card
``confidence.json``        calibrations of word confidences, one per decoder
``language/model.bin``     the language model that decoding uses by default
``language/weights.json``  weights of language models, tuned for this model
``speakers/``              one profile per adapted speaker

Public names are imported at first use: an exported model uses parts of this package without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.model_folder.content import ModelFolder
    from speechrnn.model_folder.format import (
        add_calibration,
        add_results,
        add_weights,
        find_folder,
        load_model,
        save_model,
    )

__all__ = [
    "ModelFolder",
    "add_calibration",
    "add_results",
    "add_weights",
    "find_folder",
    "load_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{'content' if name == 'ModelFolder' else 'format'}"), name)
    globals()[name] = value  # the next use finds it here
    return value
