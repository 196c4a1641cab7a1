"""Suppress the messages about damaged MP3 files that libmpg123 prints on standard error."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from typing import BinaryIO

_NOISE = re.compile(rb"(?m)^(?:\[[^\n]*libmpg123|Note: |Warning: )[^\n]*\n|^\n")
_STANDARD_ERROR = 2


class _Quiet:
    """Redirects standard error of the process to a file while any thread is in the context.

    When the last thread leaves, the lines of the file that are not libmpg123's are written to standard error.
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
            except OSError:  # standard error is closed
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
