"""Read and write NeMo manifests, one JSON object per line and utterance; lines of a corpus's other text files.

    {"audio_filepath": "audio/0001.wav", "duration": 1.5, "text": "seven three", "speaker": "f2", "id": "0001"}

``duration`` and the optional ``offset`` are in seconds; ``offset`` is the start of the utterance in a longer recording.
A relative ``audio_filepath`` is relative to the manifest's own folder. The optional ``corpus`` names the utterance's
corpus, for manifests that join several.

Source: the manifest format of NVIDIA NeMo's speech recognition datasets; ``id`` and ``corpus`` are this project's
additions.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from speechrnn.atomic_io import parse_json, write_atomic
from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.errors import CorpusError

_LONGEST_LINE = 8 * 2**20  # bytes


def read_manifest(path: str | Path) -> UtteranceList:
    """Read a manifest.

    An utterance without an ``id`` is named after its recording's stem, followed by ``-offset`` if it has an offset. If
    two stems are equal, the recordings' paths are used instead.

    Args:
        path: The manifest, in UTF-8, with or without a byte-order mark; blank lines are skipped.

    Returns:
        The utterances, in the manifest's order. The recordings are not opened.

    Raises:
        CorpusError: The file cannot be read or contains no utterance, or a line is wrong; the message names the line.
    """
    path = Path(path)
    if path.is_dir():
        raise CorpusError(f"{path}: is a folder; expected a manifest file such as {path / 'train.jsonl'}")
    folder = path.parent.absolute()
    utterances, numbers, unnamed = UtteranceList(), array("Q"), bytearray()
    counts: Counter[str] = Counter()
    for number, record in read_records(path, kind="manifest"):
        try:
            utterance = _to_utterance(record, folder)
        except CorpusError as error:
            raise CorpusError(f"{path.name} line {number}: {error}") from error
        utterances.append(utterance)
        numbers.append(number)
        unnamed.append(record.get("id") is None)
        counts[utterance.id] += 1
    if not utterances:
        raise CorpusError(f"{path}: the manifest contains no utterance; expected one JSON object a line")
    repeated = {name for name, count in counts.items() if count > 1}
    if not repeated:
        return utterances
    renamed = (  # the recording's path replaces its stem
        replace(each, id=write_path(each.audio_path, folder) + each.id.removeprefix(each.audio_path.stem))
        if is_unnamed and each.id in repeated
        else each
        for each, is_unnamed in zip(utterances, unnamed, strict=True)
    )
    return UtteranceList(_refuse_repeats(renamed, numbers, path.name))


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, atomically.

    Paths of recordings in the manifest's folder are relative to it, so that the folder can be moved; others are
    absolute. Missing folders are created. Reading the file gives equal utterances.

    Args:
        path: The file; an existing one is replaced.
        utterances: In order, with durations.

    Raises:
        CorpusError: Two utterances have the same id, or the file cannot be written.
    """
    path = Path(path)
    utterances = list(utterances)
    repeated = [name for name, count in Counter(each.id for each in utterances).items() if count > 1]
    if repeated:
        raise CorpusError(f"{path.name}: the id {repeated[0]!r} occurs more than once; give each utterance its own")
    folder = path.parent.absolute()
    for each in utterances:
        if math.isinf(each.seconds):
            raise CorpusError(f"{path.name}: {each.id} has no duration; read the recordings' headers first")
    lines = [json.dumps(_to_record(each, folder), ensure_ascii=False) + "\n" for each in utterances]
    write_atomic(path, "".join(lines), error=CorpusError)


def _check_text(record: dict[str, Any], key: str, *, may_be_empty: bool) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise CorpusError(f"{key!r} must be a string, found {_kind(value)}")
    if not value and not may_be_empty:
        raise CorpusError(f"{key!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(f"{key!r} holds half a surrogate pair, which is not a character") from error
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
    """A name, or a whole number as a name."""
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _check_text(record, key, may_be_empty=False)


def _to_utterance(record: dict[str, Any], folder: Path) -> Utterance:
    """Check the types; missing optional fields and NeMo's null take their defaults."""
    missing = [key for key in ("audio_filepath", "duration", "text") if key not in record]
    if "offset" in record and "duration" in missing:
        raise CorpusError("has an offset without a duration; add the duration")
    if missing:
        raise CorpusError(f"lacks {' and '.join(repr(key) for key in missing)}")
    written = _check_text(record, "audio_filepath", may_be_empty=False)
    offset = None if record.get("offset") is None else _check_number(record, "offset", above_zero=False)
    stem = Path(written).stem
    return Utterance(
        id=_check_label(record, "id") or (stem if offset is None else f"{stem}-{offset}"),
        audio_path=folder / written,
        text=_check_text(record, "text", may_be_empty=True),
        start=offset or 0.0,
        seconds=_check_number(record, "duration", above_zero=True),
        speaker=_check_label(record, "speaker"),
        corpus=_check_label(record, "corpus"),
    )


def _refuse_repeats(utterances: Iterable[Utterance], numbers: Iterable[int], name: str) -> Iterator[Utterance]:
    line_of: dict[str, int] = {}
    for each, number in zip(utterances, numbers, strict=True):
        first = line_of.setdefault(each.id, number)
        if first != number:
            raise CorpusError(f"{name} line {number}: the id {each.id!r} was used on line {first}; give each its own")
        yield each


def write_path(path: Path, folder: Path) -> str:
    """A recording's path for a file in ``folder``: relative if it lies inside, else absolute."""
    path = path.absolute()
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _to_record(utterance: Utterance, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": write_path(utterance.audio_path, folder),
        "duration": utterance.seconds,
        "text": utterance.text,
        "offset": utterance.start or None,
        "speaker": utterance.speaker,
        "corpus": utterance.corpus,
    }
    return {key: value for key, value in record.items() if value is not None}


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def read_lines(path: Path, *, kind: str) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank, one at a time.

    Args:
        path: In UTF-8, with or without a byte-order mark; compressed if its name ends in ``.gz``.
        kind: Kind of the file in error messages ("manifest").

    Yields:
        The number of each line, from 1, and the line, which keeps a carriage return at its end.

    Raises:
        CorpusError: The file is missing, not regular, not UTF-8 or not readable, or a line is too long.
    """
    for number, line in enumerate(stream_lines(path, kind=kind), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def stream_lines(path: Path, *, kind: str) -> Iterator[str]:
    """Read all lines with their ends, one at a time; otherwise like :func:`read_lines`."""
    position = 0
    try:
        # str.splitlines would also split at characters such as U+2028, which JSON allows in strings.
        with _open(path, kind) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    megabytes = _LONGEST_LINE // 2**20
                    raise CorpusError(f"{path}: a line of the {kind} is longer than {megabytes} MiB; check the file")
                mark = len(codecs.BOM_UTF8) if position == 0 and line.startswith(codecs.BOM_UTF8) else 0
                position += mark
                yield line[mark:].decode("utf-8")
                position += len(line) - mark
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {position + error.start}; save the {kind} as UTF-8") from error
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such {kind}; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CorpusError(f"{path}: the {kind} cannot be read ({reason}); copy or create it again") from error


def _open(path: Path, kind: str) -> IO[bytes]:
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise CorpusError(f"{path}: the {kind} cannot be read (it is not a regular file)")
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def read_records(path: Path, *, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file of JSON lines: the number of each non-blank line, from 1, and its object.

    Raises:
        CorpusError: As for :func:`read_lines`, or a line is not a JSON object.
    """
    for number, line in read_lines(path, kind=kind):
        where = f"{path.name} line {number}"
        record = parse_json(line, where=where, error=CorpusError)
        if not isinstance(record, dict):
            raise CorpusError(f"{where}: expected a JSON object")
        yield number, record
