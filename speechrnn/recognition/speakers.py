"""Speakers that a model was adapted to: the state that its layers start from for each, in the model's folder."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_folder import SPEAKERS_FOLDER
from speechrnn.whole_files import write_whole

_NAME = re.compile(r"[\w-][\w.-]{0,63}")
_ENDING = ".safetensors"
_STATE = "state"


def list_speakers(folder: Path) -> dict[str, Path]:
    """File of each speaker's state, by name."""
    return {path.name.removesuffix(_ENDING): path for path in sorted((folder / SPEAKERS_FOLDER).glob(f"*{_ENDING}"))}


def read_speaker(path: Path, *, shape: tuple[int, ...]) -> Tensor:
    """A speaker's state, (L, P, D, H).

    Args:
        path: Its file.
        shape: What the model needs.

    Raises:
        ModelError: The file is damaged, or of another model.
    """
    try:
        state = load_file(path)[_STATE]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it and adapt again") from error
    if tuple(state.shape) != shape:
        raise ModelError(f"{path}: expected a state of {shape}, got {tuple(state.shape)}; remove it and adapt again")
    return state


def check_speaker_name(name: str) -> None:
    """Refuse a name that cannot be a file's.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--speaker {name!r}: expected letters, digits, dots, - and _, at most 64, no dot at the front"
        )


def keep_speaker(folder: Path, name: str, state: Tensor) -> Path:
    """Write a speaker's state into a model folder, in the place of an earlier one of the same name; where to.

    Raises:
        ConfigError: The name cannot be a file's.
        ModelError: The folder cannot be written.
    """
    check_speaker_name(name)
    path = folder / SPEAKERS_FOLDER / f"{name}{_ENDING}"
    write_whole(path, save({_STATE: state.detach().cpu().contiguous()}), error=ModelError)
    return path
