"""From model folders to recognisers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from speechrnn.errors import ConfigError
from speechrnn.model_folder import load_model
from speechrnn.recognition.confidence import read_calibrations
from speechrnn.recognition.hub import find_folder
from speechrnn.recognition.language_weights import read_weights
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.speakers import list_speakers


def load(
    name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, device: str | torch.device = "auto"
) -> Recognizer:
    """Load a recogniser.

    Args:
        name_or_path: A model folder, or a model of the Hugging Face Hub as ``owner/name`` (needs the extra ``hub``).
            Several, as a list, transcribe together (:class:`~speechrnn.recognition.ensemble.Ensemble`).
        device: ``auto`` (the first CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` …

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: There is no such device, the list is empty, or its models do not go together.
    """
    if isinstance(name_or_path, str | os.PathLike):
        return _load_one(name_or_path, device)
    if not name_or_path:
        raise ConfigError("load: expected a model, or a list of one or more")
    recognizers = [_load_one(each, device) for each in name_or_path]
    if len(recognizers) == 1:
        return recognizers[0]

    from speechrnn.recognition.ensemble import Ensemble

    return Ensemble(recognizers)


def _load_one(name_or_path: str | os.PathLike[str], device: str | torch.device) -> Recognizer:
    folder = find_folder(name_or_path)
    return Recognizer(
        load_model(folder),
        device=device,
        name=os.fspath(name_or_path),
        tuned=read_weights(folder),
        calibrations=read_calibrations(folder),
        speakers=list_speakers(folder),
    )
