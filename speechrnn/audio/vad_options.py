"""Options of voice activity detection; not in :mod:`speechrnn.audio.vad`, so that the command's help needs no numpy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded

INSTALL = "pip install 'speechrnn[vad]'"
MISSING = f"voice activity detection needs the packages onnxruntime and silero-vad; {INSTALL}"


@dataclass(frozen=True)
class VadOptions(Settings, section="vad"):
    """How speech is detected; names as in faster-whisper.

    Attributes:
        threshold: probability of speech from which a window of 32 ms begins speech (default: 0.5, silero-vad's)
        neg_threshold: probability below which a window may end it (default: the threshold − 0.15, at least 0.01)
        min_speech_duration_ms: shorter stretches of speech are ignored (default: 250, silero-vad's)
        max_speech_duration_s: longer speech is cut at its longest silence (default: only as long as a piece may be)
        min_silence_duration_ms: silence that separates two stretches of speech (default: 500, sherpa-onnx's)
        speech_pad_ms: added before and after speech, at most half of the silence there (default: 400, faster-whisper's)

    Raises:
        ConfigError: An option has a wrong type or is out of range, or the two thresholds contradict each other.
    """

    threshold: float = bounded(0.5, 0, 1, open="both")
    neg_threshold: float | None = bounded(None, 0, 1, open="both")
    min_speech_duration_ms: float = bounded(250, 0, 60_000, unit="milliseconds")
    max_speech_duration_s: float | None = bounded(None, 1, 3600, unit="seconds")
    min_silence_duration_ms: float = bounded(500, 0, 60_000, unit="milliseconds")
    speech_pad_ms: float = bounded(400, 0, 10_000, unit="milliseconds")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neg_threshold is not None and self.neg_threshold > self.threshold:
            raise ConfigError(
                f"vad.neg_threshold: expected at most the threshold, {self.threshold:g}, got {self.neg_threshold:g}"
            )

    @property
    def exit_threshold(self) -> float:
        """Probability below which a window may end speech."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold


def has_vad() -> bool:
    """Return whether voice activity detection is available: the extra ``vad`` is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "silero_vad"))
