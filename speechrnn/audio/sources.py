"""Opening what a recording is encoded in: a path, a member of a tar archive, bytes, a file object or a pipe."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from speechrnn.audio.archives import find_archive, open_member
from speechrnn.errors import AudioError

_BUFFER_BYTES = 2**16


class _WatchedFile(io.RawIOBase):
    """A file that reports a failed read as its end and keeps the error, which soundfile would drop."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._raw = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this object)
        self.failure: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        return self._try(lambda: self._raw.readinto(buffer), 0)

    def readall(self) -> bytes:
        return self._try(self._raw.readall, b"")

    def _try(self, read: Callable[[], Any], nothing: Any) -> Any:
        try:
            return read() or nothing
        except OSError as error:
            self.failure = self.failure or error
            return nothing

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def close(self) -> None:
        super().close()
        self._raw.close()


@contextmanager
def open_source(source: Any, name: str) -> Iterator[BinaryIO]:
    """Open a path, wrap bytes, or read a file object to its end.

    Args:
        source: Path, also into a tar archive; bytes; or a binary file object, rewound first where it can be.
        name: What to call it in errors.

    Yields:
        A file that is seekable and not empty.

    Raises:
        AudioError: It cannot be opened, is empty, or a read fails, also one while the caller uses the file.
    """
    if isinstance(source, str | os.PathLike):
        stream = _open_path(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        stream = io.BytesIO(source)
    elif hasattr(source, "read"):
        stream = io.BytesIO(_read_all(source, name))
    else:
        raise AudioError(f"{name}: not a recording; give a path, bytes, a binary file, a numpy array or a torch tensor")
    with stream:
        try:
            if _measure(stream, name) == 0:
                raise AudioError(f"{name}: empty, 0 bytes; copy or record it again")
            yield stream
        finally:
            _check_reads(stream, name)


def _measure(stream: BinaryIO, name: str) -> int:
    """Its bytes; some files of the system say that they can be sought and cannot."""
    try:
        return stream.seek(0, io.SEEK_END)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror or error}; check the path") from error


def _check_reads(stream: Any, name: str) -> None:
    failure = getattr(getattr(stream, "raw", None), "failure", None)
    if failure is not None:
        raise AudioError(f"{name}: cannot be read: {failure.strerror or failure}; check the disk") from failure


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if os.path.isdir(path):
        raise AudioError(f"{name}: a folder, not a recording; name the files in it")
    try:
        stream = io.BufferedReader(_WatchedFile(path), _BUFFER_BYTES)
        if stream.seekable():
            return stream
        content = _read_all(stream, name)  # a pipe, as in <(command), can be read only once
        _check_reads(stream, name)
        return io.BytesIO(content)
    except NotADirectoryError:
        inside = find_archive(path)
        if inside is None:
            raise AudioError(f"{name}: no such file; a part of the path is not a folder") from None
        return open_member(*inside)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except PermissionError:
        raise AudioError(f"{name}: permission denied; make it readable for this user") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _read_all(file: Any, name: str) -> bytes:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: the file object cannot be read: {error}") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise AudioError(f"{name}: the file object gives {type(content).__name__}, not bytes; open it with mode 'rb'")
    return bytes(content)
