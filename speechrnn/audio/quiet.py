"""Keeping what libmpg123 prints of damaged MP3 files from standard error; it knows no other place to print to."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from typing import BinaryIO

_NOISE = re.compile(rb"(?m)^(?:\[[^\n]*libmpg123|Note: |Warning: )[^\n]*\n|^\n")
_STANDARD_ERROR = 2


class _Quiet:
    """While a thread is inside, standard error of the whole process is a file.

    When the last thread leaves, what other threads wrote meanwhile is written on, without libmpg123's lines.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._original = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            try:
                self._original = os.dup(_STANDARD_ERROR)
            except OSError:  # it is closed: nothing can reach it
                return
            self._file = tempfile.TemporaryFile()
            os.dup2(self._file.fileno(), _STANDARD_ERROR)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside or self._file is None:
                return
            os.dup2(self._original, _STANDARD_ERROR)
            with self._file as file:
                file.seek(0)
                kept = _NOISE.sub(b"", file.read())
            self._file = None
            try:
                if kept:
                    os.write(self._original, kept)
            finally:
                os.close(self._original)


quiet_mpg123 = _Quiet()
