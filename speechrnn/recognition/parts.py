"""Many recordings in few files: the work is divided into parts, and each part is one file of transcripts.

Parts depend on the recordings alone, not on the number of workers, so that every run over the same recordings writes
the same files. A part is written under a temporary name and renamed, then noted in the folder's state file. A run that
was killed at any moment therefore repeats at most the parts that were in work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from speechrnn.atomic_io import write_json_lines
from speechrnn.audio.containers import find_archive
from speechrnn.recognition.output_folder import append_state, describe_file, open_state

FAILURES_FILE = "failures.jsonl"

LEAST_SECONDS, MOST_SECONDS = 1200.0, 14_400.0
"""Bounds of the estimated audio in a part."""
MOST_RECORDINGS = 5000
_PARTS = 2000
_PART = re.compile(r"part-\d{6,}-[0-9a-f]{12}\.(jsonl|parquet)")

_WAV_BYTES = 32_000
_BYTES = {".flac": 16_000, ".wav": _WAV_BYTES, ".aif": _WAV_BYTES, ".aiff": _WAV_BYTES}
_LOSSY_BYTES = 8_000
"""Bytes of a second of audio, by ending; they only decide how large parts are."""


@dataclass(frozen=True)
class Source:
    """A recording to transcribe, or a part of one.

    Attributes:
        name: Its path as the user gave it.
        path: Its absolute path; a path into a tar archive is ``shard.tar/name.flac``.
        size: Of the file, in bytes; 0 if there is none.
        mtime_ns: When the file was changed, in nanoseconds.
        start: Start of the part, in seconds.
        seconds: Duration of the part; None for a whole recording.
        id: Name of the utterance in its corpus.
    """

    name: str
    path: str
    size: int = 0
    mtime_ns: int = 0
    start: float = 0.0
    seconds: float | None = None
    id: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole recording."""
        return self.start == 0.0 and self.seconds is None

    @property
    def key(self) -> str:
        """What it is known by: its path, with times in whole milliseconds for a part."""
        if self.is_whole:
            return self.path
        end = "" if self.seconds is None else f"{1000 * (self.start + self.seconds):.0f}"
        return f"{self.path}#{1000 * self.start:.0f}-{end}"

    def estimate_seconds(self) -> float:
        """Return its duration, or an estimate from the size of its file."""
        if self.seconds is not None:
            return self.seconds
        return self.size / _BYTES.get(os.path.splitext(self.path)[1].lower(), _LOSSY_BYTES)


@dataclass(frozen=True)
class Unit:
    """The recordings of one part.

    Attributes:
        number: Its place among the units, from 0.
        sources: The recordings.
    """

    number: int
    sources: tuple[Source, ...]

    @cached_property
    def name(self) -> str:
        """Name of its file, without ending: the number, and a hash of the recordings' keys."""
        keys = "\n".join(source.key for source in self.sources)
        return f"part-{self.number:06}-{hashlib.sha256(keys.encode(errors='surrogateescape')).hexdigest()[:12]}"

    def to_json(self) -> str:
        """Return it as JSON, for :meth:`from_json`."""
        return json.dumps([self.number, [asdict(source) for source in self.sources]])

    @classmethod
    def from_json(cls, written: str) -> Unit:
        """Read the result of :meth:`to_json`."""
        number, sources = json.loads(written)
        return cls(number, tuple(Source(**source) for source in sources))


def describe_recording(path: str) -> dict[str, Any]:
    """Size and time of change of a recording, or of the archive that it lies in; empty if there is neither."""
    if not (found := describe_file(path)) and (inside := find_archive(path)):
        found = describe_file(str(inside[0]))
    return found


def make_units(sources: Sequence[Source]) -> list[Unit]:
    """Divide recordings into units of about equal duration, in order.

    A unit has at least 20 minutes of audio and at most 4 hours, or one longer recording; at most 5000 recordings; and
    otherwise a 2000th of all audio.
    """
    total = sum(source.estimate_seconds() for source in sources)
    most = min(max(total / _PARTS, LEAST_SECONDS), MOST_SECONDS)
    groups: list[list[Source]] = []
    seconds = 0.0
    for source in sources:
        seconds += source.estimate_seconds()
        if not groups or len(groups[-1]) == MOST_RECORDINGS or seconds > most:
            groups.append([])
            seconds = source.estimate_seconds()
        groups[-1].append(source)
    return [Unit(number, tuple(group)) for number, group in enumerate(groups)]


class PartFolder:
    """A folder of parts; :func:`open_parts` opens it.

    Attributes:
        path: The folder.
        units: What is not complete.
        num_done: Recordings that an earlier run has completed.
        failures: Recordings that failed, and why.
    """

    def __init__(self, path: Path, state: IO[str], units: list[Unit], num_done: int) -> None:
        self.path, self.units, self.num_done = path, units, num_done
        self.failures: dict[Source, str] = {}
        self._state = state

    def add(self, unit: Unit, failures: Mapping[Source, str]) -> None:
        """Note that the files of a unit are complete, but for recordings that failed.

        Raises:
            ConfigError: The state file cannot be written.
        """
        self.failures |= failures
        done = [[each.key, each.size, each.mtime_ns] for each in unit.sources if each not in failures]
        if done:
            append_state(self._state, {"part": unit.name, "recordings": done})

    def finish(self) -> None:
        """Write the list of failures, and remove what killed workers have left.

        Raises:
            ConfigError: A file cannot be written.
        """
        _remove_rest(self.path)
        failed = sorted(self.failures.items(), key=lambda pair: pair[0].key)
        rows = [{**({"id": each.id} if each.id else {}), "audio": each.name, "error": why} for each, why in failed]
        if rows:
            write_json_lines(self.path / FAILURES_FILE, rows)
        else:
            (self.path / FAILURES_FILE).unlink(missing_ok=True)


@contextmanager
def open_parts(
    folder: Path,
    sources: Sequence[Source],
    *,
    formats: Sequence[str],
    settings: Mapping[str, Any],
    is_resumed: bool = False,
) -> Iterator[PartFolder]:
    """Open a folder for the parts of some recordings; it is locked until the block ends.

    With ``is_resumed`` a complete part stays, unless one of its recordings has changed: then the part is removed and
    its recordings are transcribed again. Files of parts that the state file does not name are removed.

    Args:
        folder: An existing folder.
        sources: The recordings; of several with the same key the first counts.
        formats: Names of the formats to write.
        settings: What the transcripts depend on, by name.
        is_resumed: Whether the folder must have been written with equal settings, or be new.

    Raises:
        ConfigError: Another run writes there, it was written with other settings, or it cannot be written.
    """
    known = {source.key: source for source in reversed(sources)}
    ordered = list({source.key: known[source.key] for source in sources}.values())

    def is_valid(row: Mapping[str, Any]) -> bool:
        return (
            _is_part(row)
            and all((folder / f"{row['part']}.{name}").is_file() for name in formats)
            and all(
                (source := known.get(key)) is None or (source.size, source.mtime_ns) == (size, mtime_ns)
                for key, size, mtime_ns in row["recordings"]
            )
        )

    def select(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if is_valid(row)] if is_resumed else []

    with open_state(folder, settings, is_resumed=is_resumed, select=select) as (rows, state):
        _remove_rest(folder)
        _remove_other_parts(folder, {row["part"] for row in rows})
        done = {key for row in rows for key, *_ in row["recordings"]}
        units = []
        for unit in make_units(ordered):
            if left := tuple(source for source in unit.sources if source.key not in done):
                units.append(Unit(unit.number, left))
        yield PartFolder(folder, state, units, sum(source.key in done for source in ordered))


def _is_part(row: Mapping[str, Any]) -> bool:
    """Whether a line describes a part of this folder."""
    recordings = row.get("recordings")
    return (
        isinstance(row.get("part"), str)
        and _PART.fullmatch(f"{row['part']}.jsonl") is not None
        and isinstance(recordings, list)
        and all(isinstance(each, list) and list(map(type, each)) == [str, int, int] for each in recordings)
    )


def _remove_other_parts(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if _PART.fullmatch(path.name) and path.stem not in kept:
            path.unlink(missing_ok=True)


def _remove_rest(folder: Path) -> None:
    """Remove what workers that were killed have left: files that are not complete, counts of attempts."""
    for path in [*folder.glob(".part-*.part"), *folder.glob(".part-*.begun")]:
        with suppress(OSError):
            path.unlink()
