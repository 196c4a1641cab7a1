"""Sources that are not regular files: parts of files, pipes, file objects; they become seekable files.

What cannot be read twice is copied: small recordings to memory, larger ones to a temporary file.
"""

from __future__ import annotations

import io
import os
import select
import stat
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, cast

from speechrnn.errors import AudioError

_HEAD_BYTES = 2**12
_COPY_BYTES = 2**20
_BYTES_IN_MEMORY = 2**23
LONGEST_PIPE_BYTES = 2**32
"""Most that is read from a pipe: 37 hours at 16 kHz and 16 bits."""
_PATIENCE_SECONDS = 60.0


class FileParts(io.RawIOBase):
    """Parts of seekable files, one after another, as one read-only file; a failed read is its end.

    Args:
        parts: File, first byte and number of bytes of each part. The files stay open and belong to the caller.

    Attributes:
        failure: The first failed read; None if there was none.
    """

    def __init__(self, parts: Sequence[tuple[Any, int, int]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(size for _, _, size in parts)) or [0]
        self._position = 0
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte, as in every file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of one part."""
        number = bisect_right(self._ends, self._position)
        if number >= len(self._parts):
            return 0
        file, first, size = self._parts[number]
        left = self._ends[number] - self._position
        try:
            file.seek(first + size - left)
            content = file.read(min(len(buffer), left))
            buffer[: len(content)] = content
        except (OSError, ValueError, TypeError) as error:
            self.failure = self.failure or error
            return 0
        self._position += len(content)
        return len(content)


def read_parts(*parts: tuple[Any, int, int]) -> BinaryIO:
    """Open parts of seekable files as one: file, first byte and number of bytes of each."""
    return io.BufferedReader(FileParts(parts), 2**16)


def read_at(stream: BinaryIO, position: int, size: int) -> bytes:
    """Read bytes of a seekable file; fewer at its end."""
    stream.seek(position)
    return stream.read(size)


def find_next(stream: BinaryIO, marker: bytes, start: int) -> int:
    """Position of the next occurrence of a marker at or after `start`; -1 if there is none."""
    if (window := read_at(stream, start, len(marker))) == marker:
        return start
    while content := stream.read(_COPY_BYTES):
        found = (window + content).find(marker)
        if found >= 0:
            return start + found
        kept = (window + content)[1 - len(marker) :]
        start += len(window) + len(content) - len(kept)
        window = kept
    return -1


def open_special(path: str | os.PathLike[str], name: str, check_head: Callable[[bytes], None]) -> BinaryIO:
    """Copy a named pipe, a device or a socket; a pipe that nothing is written into for a minute is refused.

    Raises:
        AudioError: As from `copy_pipe`, or nothing is written, or it is a terminal.
        OSError: It cannot be opened.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb", buffering=0) as raw:
        return copy_pipe(lambda: _read_patiently(raw, name), name, check_head, is_terminal=raw.isatty())


def _read_patiently(raw: Any, name: str) -> bytes:
    """Read what has arrived; at least a byte, except at the end."""
    poller = select.poll()
    poller.register(raw, select.POLLIN)
    while poller.poll(1000 * _PATIENCE_SECONDS):
        if (content := raw.read(_COPY_BYTES)) is not None:
            return bytes(content)
    raise AudioError(f"{name}: a pipe into which nothing was written for {_PATIENCE_SECONDS:g} s; check its writer")


def open_object(file: Any, name: str, check_head: Callable[[bytes], None]) -> BinaryIO:
    """Use a binary file object from its beginning if it is seekable; copy the rest of it otherwise.

    Raises:
        AudioError: As from `copy_pipe`, or it cannot be read.
    """
    try:
        if _is_seekable(file):
            file.seek(0)
            _check_type(file.read(0), name)
            return read_parts((file, 0, file.seek(0, io.SEEK_END)))
        is_terminal = hasattr(file, "isatty") and file.isatty()
        read = getattr(file, "read1", file.read)
        return copy_pipe(lambda: read(_COPY_BYTES), name, check_head, is_terminal=is_terminal)
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: the file object cannot be read: {error}") from error


def _is_seekable(file: Any) -> bool:
    if not (hasattr(file, "seekable") and file.seekable()):
        return False
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)  # /dev/zero claims to be seekable
    except (AttributeError, OSError):
        return True


def copy_pipe(
    read: Callable[[], Any], name: str, check_head: Callable[[bytes], None], *, is_terminal: bool = False
) -> BinaryIO:
    """Copy what can be read only once to memory, or to a temporary file if it is larger than 8 MiB.

    Args:
        read: Gives the next bytes, none at the end.
        name: The recording, for messages.
        check_head: Raises if these first bytes, of more to come, do not begin a recording.
        is_terminal: Whether a person would have to type the recording.

    Raises:
        AudioError: It does not begin as a recording, is longer than `LONGEST_PIPE_BYTES`, or does not fit on the disk.
    """
    if is_terminal:
        raise AudioError(f"{name}: a terminal, not a recording; pipe one in, as in: speechrnn transcribe - < talk.wav")
    copy, size, is_checked = open_temporary(), 0, False
    while content := _check_type(read(), name):
        size += len(content)
        if size > LONGEST_PIPE_BYTES:
            limit = f"{LONGEST_PIPE_BYTES / 2**30:g} GiB"
            raise AudioError(f"{name}: longer than {limit}, the most that is read from a pipe; save it to a file first")
        try:
            copy.write(content)
        except OSError as error:
            raise AudioError(
                f"{name}: its copy in {tempfile.gettempdir()} cannot be written: {error.strerror}; free space, "
                "or set TMPDIR to another folder"
            ) from error
        if size >= _HEAD_BYTES and not is_checked:
            check_head(read_at(copy, 0, _HEAD_BYTES))
            copy.seek(0, io.SEEK_END)
            is_checked = True
    return copy


def open_temporary() -> BinaryIO:
    """Open a file in memory that moves to the disk when it exceeds 8 MiB, and is deleted when it is closed."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY))


def _check_type(content: Any, name: str) -> bytes:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise AudioError(f"{name}: the file object gives {type(content).__name__}, not bytes; open it with mode 'rb'")
    return bytes(content)
