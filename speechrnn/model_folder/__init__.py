"""The release format of a model: one folder with everything that transcription needs, and the model's provenance.

``config.json``            format version, front end, encoder, text, kind of tokens, provenance
``model.safetensors``      the weights
``tokens.json``            the output symbols (``tokenizer.model`` for SentencePiece, ``lexicon.txt`` for phones)
``README.md``              the model card
``confidence.json``        calibrations of word confidences, one per decoder
``language/model.bin``     the language model that decoding uses by default
``language/weights.json``  weights of language models, tuned for this model
``speakers/``              one profile per adapted speaker
"""

from speechrnn.model_folder.format import (
    ModelFolder,
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
