"""Recordings in tar archives, with paths such as ``shards/recording.000003.tar/utterance-17.flac``."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from speechrnn.errors import AudioError

_INDEXES = 512


class _Members(Mapping[str, tuple[int, int]]):
    """An archive's table of contents in a fifth of a dict's memory; hundreds are cached."""

    def __init__(self, found: Mapping[str, tuple[int, int]]) -> None:
        self._names = np.array([_encode(name) for name in found], dtype=bytes)
        self._places = np.array(list(found.values()), dtype=np.int64).reshape(-1, 2)
        self._order = np.argsort(self._names, kind="stable").astype(np.int32)

    def __getitem__(self, name: str) -> tuple[int, int]:
        wanted = _encode(name)
        position = int(np.searchsorted(self._names, np.bytes_(wanted), sorter=self._order))
        row = self._order[position] if position < len(self._order) else -1
        if row < 0 or self._names[row] != wanted:
            raise KeyError(name)
        first, size = self._places[row].tolist()
        return first, size

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogatepass") for name in self._names.tolist())

    def __len__(self) -> int:
        return len(self._names)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def list_members(archive: Path) -> Mapping[str, tuple[int, int]]:
    """Names of an archive's files with the position and number of their bytes; read again when the archive changes.

    Raises:
        AudioError: The archive cannot be read.
    """
    try:
        state = archive.stat()
        return _index(str(archive), state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        raise AudioError(f"{archive}: no such archive") from None
    except (OSError, tarfile.TarError) as error:
        raise AudioError(f"{archive}: a damaged tar archive ({error}); copy or pack it again") from error


@lru_cache(maxsize=_INDEXES)
def _index(archive: str, changed_ns: int, size: int) -> Mapping[str, tuple[int, int]]:
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(archive, "r:") as tar:
        try:
            members.update((member.name, (member.offset_data, member.size)) for member in tar if member.isfile())
        except tarfile.ReadError:
            if not members:
                raise
    return _Members(members)  # of a truncated archive: the files before the cut


def open_member(archive: Path, name: str) -> io.BytesIO:
    """Read a file of an archive into memory.

    Raises:
        AudioError: The archive cannot be read, has no such file, or ends within it.
    """
    members = list_members(archive)
    if name not in members:
        raise AudioError(f"{archive}: holds no {name}; it may be cut off or damaged: copy or pack it again")
    position, size = members[name]
    try:
        with archive.open("rb") as file:
            file.seek(position)
            content = file.read(size)
    except OSError as error:
        raise AudioError(f"{archive}: {name} cannot be read: {error.strerror or error}; check the disk") from error
    if len(content) < size:
        raise AudioError(f"{archive}: ends within {name}; copy or pack it again")
    return io.BytesIO(content)
