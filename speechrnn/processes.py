"""This process: which of several that train together it is, and how many cores it may use."""

from __future__ import annotations

import os

_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Set by torchrun, by SLURM, and by Lightning for the processes that it starts itself."""


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks: the only one, or rank 0."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def count_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
