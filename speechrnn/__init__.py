"""Train, transcribe and fine-tune recurrent CTC speech recognisers.

Everything here is imported at its first use, so that ``import speechrnn`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.errors import AudioError, ConfigError, CorpusError, ModelError, SpeechRNNError
    from speechrnn.fine_tuning import FineTuning, finetune
    from speechrnn.recognition.alignment import Alignment, align
    from speechrnn.recognition.recognizer import Recognizer, load
    from speechrnn.recognition.transcript import Segment, Transcript, Word
    from speechrnn.training.data import SpeechData
    from speechrnn.training.module import SpeechModule
    from speechrnn.training.train import train

__version__ = "0.1.0"

_HOME = {
    "load": "speechrnn.recognition.recognizer",
    "align": "speechrnn.recognition.alignment",
    "Alignment": "speechrnn.recognition.alignment",
    "Recognizer": "speechrnn.recognition.recognizer",
    "Transcript": "speechrnn.recognition.transcript",
    "Segment": "speechrnn.recognition.transcript",
    "Word": "speechrnn.recognition.transcript",
    "train": "speechrnn.training.train",
    "SpeechModule": "speechrnn.training.module",
    "SpeechData": "speechrnn.training.data",
    "finetune": "speechrnn.fine_tuning",
    "FineTuning": "speechrnn.fine_tuning",
    "SpeechRNNError": "speechrnn.errors",
    "AudioError": "speechrnn.errors",
    "CorpusError": "speechrnn.errors",
    "ConfigError": "speechrnn.errors",
    "ModelError": "speechrnn.errors",
}

__all__ = [
    "Alignment",
    "AudioError",
    "ConfigError",
    "CorpusError",
    "FineTuning",
    "ModelError",
    "Recognizer",
    "Segment",
    "SpeechData",
    "SpeechModule",
    "SpeechRNNError",
    "Transcript",
    "Word",
    "__version__",
    "align",
    "finetune",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'speechrnn' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
