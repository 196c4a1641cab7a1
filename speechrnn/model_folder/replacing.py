"""Replacing a folder so that the old or the new one has its name at every instant, even if the process is killed.

On Linux one system call exchanges the two folders. On file systems without it two renames are used, between which
neither folder has the name: an exception there restores the old folder, and after a killed process :func:`recover`
does. The new folder is locked while it is written; the system releases the lock when the process ends, so that a
running save differs from a dead one.
"""

from __future__ import annotations

import ctypes
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HEX = 8  # random digits in the name of a temporary folder
_OLD = "-old"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Create an empty folder beside ``folder``; when the block ends without an exception, it takes that name.

    Raises:
        OSError: A folder cannot be created, renamed or exchanged; the old one keeps its name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    new = folder.with_name(f".{folder.name}-{secrets.token_hex(_HEX // 2)}")
    lock = None
    try:
        new.mkdir()
        lock = _lock(new)
        yield new
        _put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # after an exchange this is the old one
        if lock is not None:
            os.close(lock)
        if folder.exists():
            _remove_leftovers(folder)


def recover(folder: Path) -> None:
    """Restore a folder's name if a save was killed between its two renames; wait for a running save."""
    for old in [] if folder.exists() else _find_leftovers(folder, _OLD):
        while _is_saving(old) and not folder.exists():
            time.sleep(0.01)
        if not folder.exists():
            with suppress(FileNotFoundError):  # another process has done it
                old.rename(folder)


def _put_in_place(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):
        old = new.with_name(new.name + _OLD)
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False if the system or the file system cannot.

    Source:
        renameat2(2): Linux 3.15, glibc 2.28.
    """
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _find_leftovers(folder: Path, ending: str = "") -> list[Path]:
    pattern = f".{glob.escape(folder.name)}-{'[0-9a-f]' * _HEX}{ending}"
    return sorted(folder.parent.glob(pattern))


def _remove_leftovers(folder: Path) -> None:
    """Remove folders that killed or interrupted saves have left behind."""
    for leftover in _find_leftovers(folder, _OLD) + _find_leftovers(folder):
        if not _is_saving(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_saving(leftover: Path) -> bool:
    """Whether the save that created a temporary folder is running."""
    try:
        lock = _lock(leftover.with_name(leftover.name.removesuffix(_OLD)))
    except BlockingIOError:
        return True
    if lock is not None:
        os.close(lock)
    return False


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if it is gone, or the system cannot lock folders.

    Raises:
        BlockingIOError: Another descriptor holds the lock.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
