"""A folder of transcripts that a later run continues.

Its state file holds one JSON object a line: first what the transcripts depend on, then each recording whose files are
complete. A line is written after the files it names, so that a run killed at any moment loses no more than the
recordings that it was working on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import IO, Any

from speechrnn.atomic_io import read_bytes, write_atomic
from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_folder.content import ENGINES_FOLDER
from speechrnn.processes import locked
from speechrnn.recognition.subtitles import SubtitleOptions
from speechrnn.recognition.transcript import FORMATS, PART_FORMATS, SUBTITLE_FORMATS, Transcript

STATE_FILE = ".speechrnn-transcribe.jsonl"
_VERSION = 1
_LONGEST = 80
_LARGEST = 2**30
_PART = re.compile(rf"\..+\.({'|'.join((*FORMATS, *PART_FORMATS))})\.\d+\.part")
"""Names of files that a killed run was writing (:func:`~speechrnn.atomic_io.open_atomic`)."""


class OutputFolder:
    """A folder that transcripts are written to; :func:`open_output` opens it.

    Args:
        folder: The folder.
        state: Its state file, open for appending.
        records: Recordings with complete files, by their absolute paths.
        formats: Names of the formats to write.
        subtitles: Options of srt and vtt.
    """

    def __init__(
        self,
        folder: Path,
        state: IO[str],
        records: dict[str, dict[str, Any]],
        *,
        formats: Sequence[str],
        subtitles: SubtitleOptions | None,
    ) -> None:
        self._folder, self._state, self._records = folder, state, records
        self._formats, self._subtitles = formats, subtitles
        self._names: dict[str, str] = {}
        self._seen: dict[str, dict[str, int]] = {}

    def add(self, recordings: Mapping[str, str]) -> list[str]:
        """Choose the names of the recordings' files, and find those that are not complete.

        Args:
            recordings: Path of each, and the sub-folder for its files.

        Returns:
            Paths of recordings that are new or have changed, or lack a file.
        """
        known = {path: self._records.get(os.path.abspath(path), {}).get("name") for path in recordings}
        self._names = choose_names(recordings, known={path: name for path, name in known.items() if name})
        self._seen = {path: describe_file(path) for path in recordings}
        return [path for path in recordings if not self._is_complete(path)]

    def write(self, path: str, transcript: Transcript) -> None:
        """Write the files of a recording, then note that they are complete.

        Raises:
            ConfigError: A file cannot be written.
        """
        target = self._folder / self._names[path]
        options: dict[str, dict[str, Any]] = {name: {"options": self._subtitles} for name in SUBTITLE_FORMATS}
        options["json"] = {"indent": 2}
        for name in self._formats:
            write_atomic(
                target.with_name(f"{target.name}.{name}"),
                FORMATS[name](transcript, **options.get(name, {})),
                error=ConfigError,
            )
        if not self._seen[path]:
            return
        formats = {*self._formats, *(self._find_record(path) or {}).get("formats", ())}
        record = {"recording": os.path.abspath(path), **self._seen[path], "name": self._names[path]}
        append_state(self._state, {**record, "formats": sorted(formats)})

    def _is_complete(self, path: str) -> bool:
        record = self._find_record(path)
        if record is None or not set(self._formats) <= set(record["formats"]):
            return False
        target = self._folder / record["name"]
        return all(target.with_name(f"{target.name}.{name}").is_file() for name in self._formats)

    def _find_record(self, path: str) -> dict[str, Any] | None:
        """The record of a recording that has not changed since."""
        record, seen = self._records.get(os.path.abspath(path)), self._seen[path]
        return record if seen and record and all(record[key] == value for key, value in seen.items()) else None


@contextmanager
def open_output(
    folder: Path,
    *,
    formats: Sequence[str],
    settings: Mapping[str, Any],
    is_resumed: bool = False,
    subtitles: SubtitleOptions | None = None,
) -> Iterator[OutputFolder]:
    """Open a folder for transcripts; it is locked until the block ends.

    Args:
        folder: An existing folder.
        formats: Names of the formats to write.
        settings: What the transcripts depend on, by name.
        is_resumed: Whether the folder must have been written with equal settings, or be new.
        subtitles: Options of srt and vtt.

    Raises:
        ConfigError: Another run writes there, it was written with other settings, or it cannot be written.
    """
    with open_state(folder, settings, is_resumed=is_resumed, select=_select_records) as (records, state):
        by_path = {record["recording"]: record for record in records}
        yield OutputFolder(folder, state, by_path, formats=formats, subtitles=subtitles)


@contextmanager
def open_state(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    is_resumed: bool,
    select: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> Iterator[tuple[list[dict[str, Any]], IO[str]]]:
    """Lock a folder and open its state file, rewritten with the lines that stay valid.

    Args:
        folder: An existing folder.
        settings: What its content depends on, by name.
        is_resumed: As in :func:`open_output`.
        select: Chooses the valid lines from those of an earlier run with equal settings; from none otherwise.

    Yields:
        The valid lines, and the file, open for appending.

    Raises:
        ConfigError: As from :func:`open_output`.
    """
    header = {"version": _VERSION, "settings": {name: _shorten(value) for name, value in sorted(settings.items())}}
    with locked(folder, "another run writes there; wait, or choose another folder with -o"):
        path = folder / STATE_FILE
        earlier, rows = _read_state(path)
        if earlier is not None:
            _remove_parts(folder)
        if earlier != header and is_resumed and earlier is not None:
            raise ConfigError(f"--resume {folder}: {_explain_difference(earlier, header)}")
        valid = select(rows if earlier == header else [])
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in [header, *valid]), error=ConfigError)
        with path.open("a", encoding="utf-8") as state:
            yield valid, state


def append_state(state: IO[str], row: Mapping[str, Any]) -> None:
    """Append a line to a state file.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        state.write(json.dumps(row) + "\n")
        state.flush()
    except OSError as error:
        raise ConfigError(f"{state.name}: cannot be written ({error.strerror}); check free space") from error


def fingerprint_model(name_or_path: str) -> str:
    """Return a hash of a model folder's files, the model card excepted, or of an exported model; equal ones are equal.

    Raises:
        ModelError: There is no such model, or a file cannot be read.
    """
    if name_or_path.endswith(".onnx"):
        return hashlib.sha256(read_bytes(name_or_path, error=ModelError, expected="an exported model")).hexdigest()
    from speechrnn.model_folder.format import CARD_FILE, CONFIG_FILE, find_folder

    folder, digest = find_folder(name_or_path), hashlib.sha256()
    if not (folder / CONFIG_FILE).is_file():
        return ""  # no model: loading it says so
    try:
        for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
            if path.is_file() and path.name != CARD_FILE and path.parent.name != ENGINES_FOLDER:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read ({error.strerror}); check the model folder") from error
    return digest.hexdigest()


def choose_names(recordings: Mapping[str, str], *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Choose a file name without ending for each recording: its own, with a number appended if that is taken.

    Args:
        recordings: Path of each (``-``: standard input), and the sub-folder for its files; empty for none.
        known: Names that recordings have already.

    Returns:
        The name of each path, its sub-folder included; no two are equal, ignoring case.
    """
    stems = {path: "stdin" if path == "-" else PurePath(path).stem or path for path in recordings}
    plain = {path: (PurePath(folder) / stems[path]).as_posix() for path, folder in recordings.items()}
    own = {name.casefold() for name in plain.values()}
    names = dict(known or {})
    taken = {name.casefold() for name in names.values()}
    for path in recordings:
        if path in names:
            continue
        name, number = plain[path], 1
        while name.casefold() in taken or (number > 1 and name.casefold() in own):
            number += 1
            name = f"{plain[path]}-{number}"
        names[path] = name
        taken.add(name.casefold())
    return names


def describe_file(path: str) -> dict[str, int]:
    """Size and time of change of a file; empty if it is none."""
    with suppress(OSError, ValueError):
        if os.path.isfile(path):
            about = os.stat(path)
            return {"size": about.st_size, "mtime_ns": about.st_mtime_ns}
    return {}


def _read_state(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The first line, None without one, and the others; lines that are not complete are left out."""
    if not path.exists():
        return None, []
    lines = read_bytes(path, error=ConfigError, largest=_LARGEST).decode(errors="replace").splitlines()
    rows = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    rows = [row for row in rows if isinstance(row, dict)]
    return (rows[0] if rows else None), rows[1:]


def _select_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last record of each recording and name: a later recording may have taken the name of an earlier one."""
    by_name: dict[str, dict[str, Any]] = {}
    for row in filter(_is_record, rows):
        by_name.pop(row["name"], None)
        by_name[row["name"]] = row
    return list({row["recording"]: row for row in by_name.values()}.values())


def _is_record(row: Mapping[str, Any]) -> bool:
    """Whether a line describes a recording, with files in this folder."""
    kinds = {"recording": str, "size": int, "mtime_ns": int, "name": str, "formats": list}
    if not all(isinstance(row.get(key), kind) for key, kind in kinds.items()):
        return False
    name = PurePath(row["name"])
    return not name.is_absolute() and ".." not in name.parts and all(isinstance(each, str) for each in row["formats"])


def _explain_difference(earlier: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    old, new = earlier.get("settings"), header["settings"]
    if earlier.get("version") != _VERSION or not isinstance(old, dict):
        return f"{STATE_FILE} is damaged or of another version; leave out --resume to start again"
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    options = [f"--{name.replace('_', '-')}" for name in names if name != "model"]
    what = [*(["another model"] if "model" in names else []), *([f"other {', '.join(options)}"] if options else [])]
    return f"was written with {' and '.join(what)}; leave out --resume to start again, or choose another folder"


def _shorten(value: Any) -> Any:
    """A value as JSON returns it, a long one as its hash."""
    written = json.dumps(value, sort_keys=True, default=str)
    return json.loads(written) if len(written) <= _LONGEST else hashlib.sha256(written.encode()).hexdigest()


def _remove_parts(folder: Path) -> None:
    """Remove files that a killed run was writing."""
    for parent, _, files in os.walk(folder):
        for name in files:
            if _PART.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(parent, name))
