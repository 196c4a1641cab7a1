"""Recordings in tar archives, with paths such as ``shards/recording.000003.tar/utterance-17.flac``."""

from __future__ import annotations

import io
import tarfile
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path

from speechrnn.errors import AudioError


class _Members(Mapping[str, tuple[int, int]]):
    """An archive's table of contents in a tenth of a dict's memory; hundreds are cached."""

    def __init__(self, found: Mapping[str, tuple[int, int]]) -> None:
        self._names = "\0".join(["", *found, ""]).encode("utf-8", "surrogatepass")
        self._places = array("Q", chain.from_iterable(found.values()))

    def __getitem__(self, name: str) -> tuple[int, int]:
        found = self._names.find(f"\0{name}\0".encode("utf-8", "surrogatepass"))
        if found < 0:
            raise KeyError(name)
        row = 2 * self._names.count(b"\0", 0, found)
        return self._places[row], self._places[row + 1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.decode("utf-8", "surrogatepass").split("\0")[1:-1])

    def __len__(self) -> int:
        return len(self._places) // 2


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


@lru_cache(maxsize=512)
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
        raise AudioError(f"{archive}: has no {name}; it may be cut off or damaged: copy or pack it again")
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
