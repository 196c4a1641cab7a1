"""Read and write NeMo manifests: one JSON object a line, one utterance an object.

    {"audio_filepath": "audio/0001.wav", "duration": 1.5, "text": "seven three", "speaker": "f2", "id": "0001"}

``corpus`` may say which corpus an utterance comes from, where a manifest joins several.

``duration`` and the optional ``offset`` are in seconds; ``offset`` says where in a longer recording the utterance
starts. A relative ``audio_filepath`` is relative to the manifest's own folder.

Source: the manifest format of NVIDIA NeMo's speech recognition datasets; ``id`` and ``corpus`` are this project's
additions.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from speechrnn.atomic_io import write_atomic
from speechrnn.corpus.compact import CompactList
from speechrnn.corpus.lines import read_lines
from speechrnn.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance of a corpus.

    Attributes:
        id: Name of the utterance, unique in its manifest.
        audio_path: The recording; absolute when it was read from a manifest.
        seconds: Duration of the utterance, above zero.
        text: What was said; may be empty.
        offset: Where the utterance starts in the recording, in seconds, zero or above.
        speaker: Who spoke, where that is known.
        corpus: Which corpus it comes from, where the manifest says so.
    """

    id: str
    audio_path: Path
    seconds: float
    text: str
    offset: float = 0.0
    speaker: str | None = None
    corpus: str | None = None


class _Record(NamedTuple):
    """A line of a manifest, checked; None where it lacks an optional field."""

    number: int
    audio_filepath: str
    duration: float
    text: str
    offset: float | None
    speaker: str | None
    corpus: str | None
    id: str | None


def read_manifest(path: str | Path) -> list[Entry]:
    """Read a manifest.

    An utterance without an ``id`` is named after its recording's stem, with ``-offset`` behind it where an offset is
    given. Where two stems are the same, both take the path as it is written in the manifest instead.

    Args:
        path: The manifest, in UTF-8, with or without a byte-order mark; blank lines are skipped.

    Returns:
        The utterances, in the manifest's order. Whether the recordings exist is not looked at.

    Raises:
        CorpusError: The file cannot be read or holds no utterance, or a line is wrong: the message names the line.
    """
    return list(iterate_manifest(path))


def iterate_manifest(path: str | Path) -> Iterator[Entry]:
    """The same, one after the other; the whole manifest is checked before the first."""
    path = Path(path)
    records = CompactList(_Record, _read_records(path), to_row=tuple)
    if not records:
        raise CorpusError(f"{path}: the manifest holds no utterance; expected one JSON object a line")
    folder = path.parent.absolute()
    for record, name in zip(records, _name(path, records), strict=True):
        yield _to_entry(record, name, folder=folder)


def write_manifest(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write a manifest, whole or not at all.

    Paths of recordings inside the manifest's folder are written relative to it, so that the folder can be moved;
    others are written in full. Missing folders are made. What was read from such a file is equal to ``entries``.

    Args:
        path: Where to write; a file that is there is replaced.
        entries: The utterances, in order.

    Raises:
        CorpusError: Two utterances have the same id, or the file cannot be written.
    """
    path = Path(path)
    entries = list(entries)
    repeated = [name for name, count in Counter(entry.id for entry in entries).items() if count > 1]
    if repeated:
        raise CorpusError(f"{path.name}: the id {repeated[0]!r} occurs more than once; give each utterance its own")
    folder = path.parent.absolute()
    lines = [json.dumps(_to_record(entry, folder=folder), ensure_ascii=False) + "\n" for entry in entries]
    write_atomic(path, "".join(lines), error=CorpusError)


def _read_records(path: Path) -> Iterator[_Record]:
    if path.is_dir():
        raise CorpusError(f"{path}: is a folder; expected a manifest file such as {path / 'train.jsonl'}")
    for number, line in read_lines(path, kind="manifest"):
        try:
            yield _check_fields(_parse(line), number)
        except CorpusError as error:
            raise CorpusError(f"{path.name} line {number}: {error}") from error


def _parse(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "numbers too long or nested too deeply"
        raise CorpusError(f"not JSON ({reason}); expected one object a line") from error
    if not isinstance(record, dict):
        raise CorpusError(f"expected a JSON object, found {_kind(record)}")
    missing = [key for key in ("audio_filepath", "duration", "text") if key not in record]
    if "offset" in record and "duration" in missing:
        raise CorpusError("has an offset without a duration; say how long the utterance is")
    if missing:
        raise CorpusError(f"lacks {' and '.join(repr(key) for key in missing)}")
    return record


def _check_fields(record: dict[str, Any], number: int) -> _Record:
    """Check the types, and write absent optional fields (also NeMo's null) as None."""
    return _Record(
        number=number,
        audio_filepath=_check_text(record, "audio_filepath", may_be_empty=False),
        duration=_check_number(record, "duration", above_zero=True),
        text=_check_text(record, "text", may_be_empty=True),
        offset=None if record.get("offset") is None else _check_number(record, "offset", above_zero=False),
        speaker=_check_label(record, "speaker"),
        corpus=_check_label(record, "corpus"),
        id=_check_label(record, "id"),
    )


def _check_text(record: dict[str, Any], key: str, *, may_be_empty: bool) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise CorpusError(f"{key!r} must be a string, found {_kind(value)}")
    if not value and not may_be_empty:
        raise CorpusError(f"{key!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(f"{key!r} holds half a surrogate pair, which is no character") from error
    return value


def _check_number(record: dict[str, Any], key: str, *, above_zero: bool) -> float:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CorpusError(f"{key!r} must be a number of seconds, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (above_zero and number == 0):
        expected = "finite and above zero" if above_zero else "finite and not below zero"
        raise CorpusError(f"{key!r} must be {expected}, in seconds; found {number}")
    return number


def _check_label(record: dict[str, Any], key: str) -> str | None:
    """A name, or a whole number that serves as one."""
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _check_text(record, key, may_be_empty=False)


def _name(path: Path, records: Sequence[_Record]) -> list[str]:
    """Give each utterance its own id, or the one that its stem and path lead to.

    Raises:
        CorpusError: Two of them have the same.
    """
    names = [record.id or _with_offset(Path(record.audio_filepath).stem, record) for record in records]
    counts = Counter(names)
    if len(counts) == len(names):
        return names
    line_of: dict[str, int] = {}
    for position, record in enumerate(records):
        if not record.id and counts[names[position]] > 1:
            names[position] = _with_offset(record.audio_filepath, record)
        name = names[position]
        if name in line_of:
            raise CorpusError(
                f"{path.name} line {record.number}: the id {name!r} was used on line {line_of[name]}; give each its own"
            )
        line_of[name] = record.number
    return names


def _with_offset(name: str, record: _Record) -> str:
    return name if record.offset is None else f"{name}-{record.offset}"


def _to_entry(record: _Record, name: str, *, folder: Path) -> Entry:
    return Entry(
        id=name,
        audio_path=folder / record.audio_filepath,
        seconds=record.duration,
        text=record.text,
        offset=record.offset or 0.0,
        speaker=record.speaker,
        corpus=record.corpus,
    )


def _to_record(entry: Entry, *, folder: Path) -> dict[str, Any]:
    audio_path = entry.audio_path.absolute()
    inside = audio_path.is_relative_to(folder)
    record: dict[str, Any] = {
        "id": entry.id,
        "audio_filepath": (audio_path.relative_to(folder) if inside else audio_path).as_posix(),
        "duration": entry.seconds,
        "text": entry.text,
    }
    if entry.offset:
        record["offset"] = entry.offset
    if entry.speaker is not None:
        record["speaker"] = entry.speaker
    if entry.corpus is not None:
        record["corpus"] = entry.corpus
    return record


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
