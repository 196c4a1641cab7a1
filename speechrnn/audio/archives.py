"""Recordings inside tar archives, by paths that go on inside: ``shards/recording.000003.tar/utterance-17.flac``."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from speechrnn.errors import AudioError

_INDEXES = 512
ARCHIVE_ENDING = ".tar"


def find_archive(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The archive that a path goes into, and the name inside it; None where it goes into none.

    No disk is looked at: an archive is what ends in ``.tar`` and has something behind it.
    """
    whole = Path(path)
    for parent in whole.parents:
        if parent.suffix == ARCHIVE_ENDING:
            return parent, whole.relative_to(parent).as_posix()
    return None


class _Members(Mapping[str, tuple[int, int]]):
    """An archive's table of contents in a fifth of the memory of a dict, of which hundreds are kept."""

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
    """Names of an archive's files with the position and the number of their bytes; read once for every state of it.

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
    return _Members(members)  # of one that is cut off: what stands before the cut


def open_member(archive: Path, name: str) -> io.BytesIO:
    """A file of an archive, whole in memory.

    Raises:
        AudioError: The archive cannot be read, holds no such file, or ends within it.
    """
    members = list_members(archive)
    if name not in members:
        raise AudioError(f"{archive}: holds no {name}; if it did, it is cut off or damaged: copy or pack it again")
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
