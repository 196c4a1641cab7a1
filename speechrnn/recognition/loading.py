"""From model folders to recognisers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, overload

import torch

from speechrnn.errors import ConfigError
from speechrnn.model_folder import load_model
from speechrnn.recognition.ensemble import Ensemble
from speechrnn.recognition.recognizer import Recognizer


@overload
def load(name_or_path: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Recognizer: ...
@overload
def load(
    name_or_path: Sequence[str | os.PathLike[str]], *, device: str | torch.device = "auto"
) -> Recognizer | Ensemble: ...
def load(
    name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, device: str | torch.device = "auto"
) -> Recognizer | Ensemble:
    """Load a recogniser.

    A process that is forked after this (``os.fork``, a pool with the ``fork`` method) transcribes with one torch
    thread, because torch's thread pool does not survive a fork. On a GPU use the ``spawn`` method.

    Args:
        name_or_path: A model folder, or a model of the Hugging Face Hub as ``owner/name`` (needs the extra ``hub``).
            Several, as a list, transcribe together (:class:`~speechrnn.recognition.ensemble.Ensemble`).
        device: ``auto`` (the first CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` …

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: There is no such device, the list is empty, or its models do not fit together.
    """
    several = [name_or_path] if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if not isinstance(several, Sequence) or not several:
        raise ConfigError(f"load: expected a model folder, or a list of one or more, got {name_or_path!r:.80}")
    recognizers = [as_recognizer(each, "load", device=device) for each in several]
    return recognizers[0] if len(recognizers) == 1 else Ensemble(recognizers)


def as_recognizer(model: Any, caller: str, *, device: str | torch.device = "auto") -> Recognizer:
    """One recogniser, where a recogniser or the path of its model may be given.

    Args:
        model: A recogniser, which is returned, or what :func:`load` takes.
        caller: Name of the function that needs it, for messages.
        device: As in :func:`load`.

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: It is neither, or several models.
    """
    if isinstance(model, Recognizer):
        return model
    if isinstance(model, str | os.PathLike):
        return Recognizer(load_model(model), device=device)
    if isinstance(model, Ensemble):
        raise ConfigError(f"{caller}: several models together have no log-probabilities; give one of them")
    raise ConfigError(f"{caller}: expected a recogniser or the path of a model, got {model!r:.80}")
