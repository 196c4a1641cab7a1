"""This process: which of several that train together it is, how many cores it may use, and torch's threads in it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Set by torchrun, by SLURM, and by Lightning for the processes that it starts itself."""


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks: the only one, or rank 0."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def count_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    limits = [sys.maxsize]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no control group, or "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


class TorchThreads:
    """Torch's threads for one operation on the CPU: a number that each Python thread has; new ones take the last set.

    Attributes:
        usual: What the process uses outside of :meth:`one`.
    """

    def __init__(self) -> None:
        self.usual = 0
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def one(self, device: torch.device) -> Iterator[None]:
        """Use one thread for many short operations on a CPU; other devices are left alone.

        At the end of each operation all threads wait for the slowest, on a busy machine until it gets a core again:
        then more threads take several times as long as one.
        """
        import torch

        if device.type != "cpu":
            yield
            return
        with self._lock:
            if not self._inside:
                self.usual = torch.get_num_threads()
            self._inside += 1
            torch.set_num_threads(1)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                torch.set_num_threads(self.usual)


torch_threads = TorchThreads()


def _use_one_thread() -> None:
    """In a child after ``os.fork`` the threads of torch's pool are gone, and operations that wait for them hang."""
    torch_threads.__init__()  # type: ignore[misc]
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
