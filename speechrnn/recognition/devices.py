"""The device that a name stands for."""

from __future__ import annotations

import torch

from speechrnn.errors import ConfigError


def choose_device(device: str | torch.device) -> torch.device:
    """Find the device that a name stands for, as in :func:`~speechrnn.recognition.loading.load`.

    Raises:
        ConfigError: The name is none of torch's, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device {device!r}: there is no such one; use auto, cpu or cuda") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device}: torch finds {torch.cuda.device_count()} CUDA GPUs here; use auto or cpu, "
            "or install torch for CUDA"
        )
    return chosen
