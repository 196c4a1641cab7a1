"""Exchange between processes that train together; a single process exchanges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from speechrnn.errors import SpeechRNNError


def sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    """Add up each value over all processes, in float64; to be called on each of them.

    Args:
        values: As many on every process.
        device: Where the process trains; NCCL exchanges what lies on a GPU.
    """
    if is_alone():
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(sums)
    return sums.tolist()


def sum_on_device(value: Tensor) -> Tensor:
    """A scalar added up over all processes, without waiting for it; to be called on each of them."""
    if is_alone():
        return value
    summed = value.detach().to(torch.float32, copy=True)
    torch.distributed.all_reduce(summed)
    return summed


def gather_from_processes(items: list[Any]) -> list[Any]:
    """The items of all processes, those of the first one first; to be called on each of them."""
    if is_alone():
        return items
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def stop_all(error: SpeechRNNError) -> NoReturn:
    """Raise an error that every process has found; the first one reports it, all end with the same exit code."""
    if get_rank() == 0:
        raise error
    raise SystemExit(2) from error


def is_alone() -> bool:
    """Whether this process trains without others."""
    return not torch.distributed.is_available() or not torch.distributed.is_initialized()


def get_rank() -> int:
    """Number of this process among those that train together, from 0."""
    return 0 if is_alone() else torch.distributed.get_rank()
