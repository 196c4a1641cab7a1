"""Processes: rank and collective operations, cores and memory, torch's threads. torch is imported where it is used."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from speechrnn.errors import ConfigError, SpeechRNNError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Set by torchrun, by SLURM, and by Lightning for the processes that it starts itself."""


def is_first_process() -> bool:
    """Whether this process writes and logs: the only one, or rank 0."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return next((rank for rank in ranks if rank is not None), "0") == "0"


@contextmanager
def locked(folder: Path, message: str) -> Iterator[None]:
    """Lock a folder for this process; the lock ends with the process.

    Args:
        folder: The folder, which exists.
        message: What to say of a locked one, and what to do.

    Raises:
        ConfigError: Another process has locked it, or it cannot be written to.
    """
    if fcntl is None or not is_first_process():
        yield
        return
    path = folder / ".lock"
    file = _lock(path)
    if file is None:
        raise ConfigError(f"{folder}: {message}")
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> IO[str] | None:
    """Open and lock a file; None if another process has it locked."""
    while True:
        try:
            file = path.open("w")
        except OSError as error:
            reason = f"cannot be written to ({error.strerror})"
            raise ConfigError(f"{path.parent}: {reason}; choose another folder") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone, not of its workers
        except OSError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # its last owner removed it between the two calls


def choose_device(device: str | torch.device) -> torch.device:
    """Find the device of a name: ``auto`` (the first CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda:1`` …

    Raises:
        ConfigError: The name is none of them, or this machine has no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,4}))?", str(device), re.ASCII)
    if found is None:
        raise ConfigError(f"device {str(device)[:80]!r}: expected auto, cpu, cuda or cuda:N")
    if found[0] != "cpu" and int(found[1] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device}: torch finds {torch.cuda.device_count()} CUDA GPUs here; use auto or cpu, "
            "or install torch for CUDA"
        )
    return torch.device(found[0])


def count_cores() -> int:
    """Number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_memory() -> int:
    """Bytes of memory available to this process: the machine's, or its control group's limit."""
    limits = [sys.maxsize]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no control group, or "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum each value over all processes, in float64; all processes must call it.

    Args:
        values: As many on every process.
        device: Where the process trains; NCCL exchanges what lies on a GPU.
    """
    if is_alone():
        return list(values)
    import torch

    sums = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(sums)
    return sums.tolist()


def sum_on_device(value: Tensor) -> Tensor:
    """Sum a scalar over all processes without waiting for the device; all processes must call it."""
    if is_alone():
        return value
    import torch

    summed = value.detach().to(torch.float32, copy=True)
    torch.distributed.all_reduce(summed)
    return summed


def gather_from_processes(items: list[Any]) -> list[Any]:
    """The items of all processes in the order of their ranks; all processes must call it."""
    if is_alone():
        return items
    import torch

    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def stop_all(error: SpeechRNNError) -> NoReturn:
    """Raise an error that all processes have found; rank 0 reports it, all exit with code 2."""
    if get_rank() == 0:
        raise error
    raise SystemExit(2) from error


def is_alone() -> bool:
    """Whether no other process trains together with this one."""
    import torch

    return not torch.distributed.is_available() or not torch.distributed.is_initialized()


def get_rank() -> int:
    """Rank of this process, from 0."""
    if is_alone():
        return 0
    import torch

    return torch.distributed.get_rank()


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
    """After ``os.fork`` the child lacks the threads of torch's pool, and operations that wait for them hang."""
    torch_threads.__init__()  # type: ignore[misc]
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
