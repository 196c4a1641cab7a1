"""How long recordings are cut into pieces: the options, and what passes from reading to transcribing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from speechrnn.audio.vad_options import MISSING, VadOptions, has_vad
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.settings import Settings, bounded

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MAX_SECONDS = 30.0


@dataclass(frozen=True)
class CutConfig(Settings):
    """How recordings are cut.

    Attributes:
        max_seconds: longer recordings are cut into pieces of at most this length (default: 30; in Python None cuts
            none)
        cut: vad: at pauses, found by voice activity detection (extra vad); windows: into overlapping windows,
            whose log-probabilities are joined and decoded once (default: vad if it is installed, else windows)
        context_seconds: audio on each side of a window that is computed, but not used (default: as measured for the
            model, or 2)
        vad_filter: leave out pauses of a second and more, of recordings of any length
        vad: options of voice activity detection

    Raises:
        ConfigError: An option has a wrong type or is out of range.
    """

    max_seconds: float | None = bounded(DEFAULT_MAX_SECONDS, 5, 3600, unit="seconds")
    cut: Literal["auto", "vad", "windows"] = "auto"
    context_seconds: float | None = bounded(None, 0, 60, unit="seconds")
    vad_filter: bool = False
    vad: VadOptions | None = None

    def needs_vad(self) -> bool:
        """Return whether an option requires voice activity detection.

        Raises:
            ConfigError: It is not installed, or other options exclude it.
        """
        asking = {"vad_filter": self.vad_filter, "vad": self.vad is not None, "cut": self.cut == "vad"}
        if not (names := [name for name, is_set in asking.items() if is_set]):
            return False
        if self.cut == "windows":
            raise ConfigError(f"{names[0]}: needs cut vad or auto, got windows")
        if self.max_seconds is None:
            raise ConfigError(f"{names[0]}: needs max_seconds, the greatest length of a piece, got None")
        if not has_vad():
            raise ConfigError(f"{names[0]}: {MISSING}")
        return True


CUT_OPTIONS = frozenset(field.name for field in fields(CutConfig))
"""Names of the fields of :class:`CutConfig`."""


@dataclass(frozen=True)
class Recording:
    """A recording at the model's rate: its name or path, where it has one, and its samples, (N,), float32."""

    name: str | None
    samples: np.ndarray


@dataclass(frozen=True)
class Piece(Recording):
    """A piece of a long recording.

    Attributes:
        start: Its place in the recording, in samples.
        used: First sample whose log-probabilities are used, and the one after the last, within the piece; None: the
            piece is transcribed on its own.
    """

    start: int = 0
    used: tuple[int, int] | None = None


@dataclass(frozen=True)
class End:
    """The end of a recording that was cut.

    Attributes:
        name: Its name or path, where it has one.
        seconds: Its duration.
        skipped_seconds: How much of it was left out.
    """

    name: str | None
    seconds: float
    skipped_seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A source that cannot be transcribed, and why."""

    source: Any
    error: SpeechRNNError

    def report(self, on_error: Callable[[Any, SpeechRNNError], None] | None) -> None:
        """Call ``on_error``; without it raise the error."""
        if on_error is None:
            raise self.error
        on_error(self.source, self.error)


Item = Recording | End | Failure
