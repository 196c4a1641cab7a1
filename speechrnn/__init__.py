"""Train, transcribe and fine-tune recurrent CTC speech recognisers.

Public names are imported at first use, so that ``import speechrnn`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.audio.vad_options import VadOptions
    from speechrnn.errors import AudioError, ConfigError, CorpusError, ModelError, SpeechRNNError
    from speechrnn.fine_tuning import FineTuning, finetune
    from speechrnn.recognition.alignment import Alignment, align
    from speechrnn.recognition.context import measure_context
    from speechrnn.recognition.endpoints import EndpointConfig
    from speechrnn.recognition.latency_control import LatencyControlConfig
    from speechrnn.recognition.recognizer import Recognizer, load
    from speechrnn.recognition.subtitles import SubtitleOptions
    from speechrnn.recognition.transcript import Segment, Transcript, Word
    from speechrnn.training.data import SpeechData
    from speechrnn.training.module import SpeechModule
    from speechrnn.training.train import train

__version__ = "0.1.0"

_MODULES = {
    "audio.vad_options": ("VadOptions",),
    "errors": ("AudioError", "ConfigError", "CorpusError", "ModelError", "SpeechRNNError"),
    "fine_tuning": ("FineTuning", "finetune"),
    "recognition.alignment": ("Alignment", "align"),
    "recognition.context": ("measure_context",),
    "recognition.endpoints": ("EndpointConfig",),
    "recognition.latency_control": ("LatencyControlConfig",),
    "recognition.recognizer": ("Recognizer", "load"),
    "recognition.subtitles": ("SubtitleOptions",),
    "recognition.transcript": ("Segment", "Transcript", "Word"),
    "training.data": ("SpeechData",),
    "training.module": ("SpeechModule",),
    "training.train": ("train",),
}
_MODULE_OF = {name: f"speechrnn.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "Alignment",
    "AudioError",
    "ConfigError",
    "CorpusError",
    "EndpointConfig",
    "FineTuning",
    "LatencyControlConfig",
    "ModelError",
    "Recognizer",
    "Segment",
    "SpeechData",
    "SpeechModule",
    "SpeechRNNError",
    "SubtitleOptions",
    "Transcript",
    "VadOptions",
    "Word",
    "__version__",
    "align",
    "finetune",
    "load",
    "measure_context",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'speechrnn' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
