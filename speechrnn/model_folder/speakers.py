"""Speaker profiles: initial state and feature statistics of a speaker, stored with a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, ModelError

SPEAKERS_FOLDER = "speakers"
SPEAKER_ENDING = ".safetensors"

_NAME = re.compile(r"[\w-][\w.-]{0,63}")


@dataclass(frozen=True)
class SpeakerProfile:
    """Initial state and feature statistics of a speaker.

    Attributes:
        state: Initial state of the recurrent layers, (L, P, D, H); None for the model's own.
        speaker_stats: Number of frames, and the mean features over them, (1 + F,), for models that normalise by speaker
            (``front_end.normalization``); None without statistics.
    """

    state: Tensor | None = None
    speaker_stats: Tensor | None = None


def read_speaker(path: Path, *, shape: tuple[int, ...], feature_size: int) -> SpeakerProfile:
    """Read a speaker's profile.

    Args:
        path: The file.
        shape: Shape of the model's state.
        feature_size: F of the model.

    Raises:
        ModelError: The file is damaged, or belongs to another model.
    """
    advice = "remove the file and adapt again"
    try:
        tensors = load_file(path)
        profile = SpeakerProfile(tensors["state"], tensors.get("speaker_stats", tensors.get("heard")))  # the old name
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); {advice}") from error
    parts = ("state", profile.state, shape), ("speaker_stats", profile.speaker_stats, (1 + feature_size,))
    for name, tensor, wanted in parts:
        if tensor is None:
            continue
        if tuple(tensor.shape) != wanted or not tensor.is_floating_point():
            arrived = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            raise ModelError(f"{path}: {name}: expected {wanted} float32, got {arrived}; {advice}")
        if not tensor.isfinite().all():
            raise ModelError(f"{path}: {name} holds values that are not finite; {advice}")
    return profile


def check_speaker_name(name: str) -> None:
    """Check that a name can be a file name.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--speaker {name[:80]!r}: expected letters, digits, dots, - and _, at most 64, not starting with a dot"
        )


def save_speaker(folder: Path, name: str, profile: SpeakerProfile) -> Path:
    """Store a speaker's profile, which has at least a state, in a model folder, replacing one of the same name.

    Returns:
        The file.

    Raises:
        ConfigError: The name cannot be a file name.
        ModelError: The file cannot be written.
    """
    check_speaker_name(name)
    path = folder / SPEAKERS_FOLDER / f"{name}{SPEAKER_ENDING}"
    tensors = {"state": profile.state, "speaker_stats": profile.speaker_stats}
    kept = {key: each.detach().cpu().contiguous() for key, each in tensors.items() if each is not None}
    write_atomic(path, save(kept), error=ModelError)
    return path
