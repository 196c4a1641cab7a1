"""Keeping what libmpg123 prints of damaged MP3 files from standard error; it knows no other place to print to."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_NOISE = re.compile(rb"(?m)^(?:\[[^\n]*libmpg123|Note: |Warning: )[^\n]*\n|^\n")
_STANDARD_ERROR = 2


class _Redirection:
    """Standard error of the whole process, in a file while at least one thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._original = 0
        self._file: BinaryIO | None = None

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            try:
                self._original = os.dup(_STANDARD_ERROR)
            except OSError:  # it is closed: nothing can reach it
                return
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed in leave)
            os.dup2(self._file.fileno(), _STANDARD_ERROR)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside or self._file is None:
                return
            os.dup2(self._original, _STANDARD_ERROR)
            self._file.seek(0)
            kept = _NOISE.sub(b"", self._file.read())  # what other threads wrote meanwhile
            self._file.close()
            self._file = None
            try:
                if kept:
                    os.write(self._original, kept)
            finally:
                os.close(self._original)


_redirection = _Redirection()


@contextmanager
def quiet_mpg123() -> Iterator[None]:
    """Drop libmpg123's lines from standard error; what other threads write there comes a little later."""
    _redirection.enter()
    try:
        yield
    finally:
        _redirection.leave()
