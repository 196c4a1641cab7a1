"""What a model knows of a speaker: the state that its layers start from and what was heard, in the model's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_folder import SPEAKERS_FOLDER

_NAME = re.compile(r"[\w-][\w.-]{0,63}")
_ENDING = ".safetensors"
_STATE, _HEARD = "state", "heard"


@dataclass(frozen=True)
class Voice:
    """What a model knows of a speaker.

    Attributes:
        state: The state that its layers start from, (L, P, D, H); None for the model's own.
        heard: Frames heard, and the mean features over them, (1 + F,), for models that normalise by speaker
            (``front_end.normalization``); None: nothing was heard.
    """

    state: Tensor | None = None
    heard: Tensor | None = None


def list_speakers(folder: Path) -> dict[str, Path]:
    """File of each speaker's voice, by name."""
    return {path.name.removesuffix(_ENDING): path for path in sorted((folder / SPEAKERS_FOLDER).glob(f"*{_ENDING}"))}


def read_speaker(path: Path, *, shape: tuple[int, ...], feature_size: int) -> Voice:
    """A speaker's voice.

    Args:
        path: Its file.
        shape: Of the state that the model needs.
        feature_size: F of the model.

    Raises:
        ModelError: The file is damaged, or of another model.
    """
    try:
        tensors = load_file(path)
        state, heard = tensors[_STATE], tensors.get(_HEARD)
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it and adapt again") from error
    if tuple(state.shape) != shape:
        raise ModelError(f"{path}: expected a state of {shape}, got {tuple(state.shape)}; remove it and adapt again")
    if heard is not None and tuple(heard.shape) != (1 + feature_size,):
        raise ModelError(f"{path}: expected {feature_size} features, got {len(heard) - 1}; remove it and adapt again")
    return Voice(state, heard)


def check_speaker_name(name: str) -> None:
    """Refuse a name that cannot be a file's.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--speaker {name!r}: expected letters, digits, dots, - and _, at most 64, no dot at the front"
        )


def keep_speaker(folder: Path, name: str, voice: Voice) -> Path:
    """Write a speaker's voice, its state at least, into a model folder, in the place of one of the same name; where to.

    Raises:
        ConfigError: The name cannot be a file's.
        ModelError: The folder cannot be written.
    """
    check_speaker_name(name)
    path = folder / SPEAKERS_FOLDER / f"{name}{_ENDING}"
    tensors = {_STATE: voice.state, _HEARD: voice.heard}
    kept = {key: each.detach().cpu().contiguous() for key, each in tensors.items() if each is not None}
    write_atomic(path, save(kept), error=ModelError)
    return path
