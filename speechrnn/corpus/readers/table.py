"""Tables of utterances: CSV and TSV with any of the usual column names, and a Hugging Face audiofolder's metadata.

| written by | columns |
| --- | --- |
| DeepSpeech, Coqui | ``wav_filename``, ``wav_filesize``, ``transcript`` |
| Common Voice | ``client_id``, ``path``, ``sentence`` …, recordings in ``clips`` beside the table |
| Hugging Face audiofolder | ``file_name`` and ``text``, ``transcription`` or ``sentence``; CSV or JSON lines |
| SpeechBrain | ``ID``, ``duration``, ``wav``, ``spk_id``, ``wrd`` |

Source: the documentation of each: DeepSpeech's "Training your own model", Common Voice's corpus readme, Hugging Face's
"Create an audio dataset", SpeechBrain's "Data loading".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from speechrnn.corpus.manifest import read_lines, read_records, stream_lines
from speechrnn.corpus.readers.recordings import find_inside
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")

_AUDIO = ("wav_filename", "file_name", "audio_filepath", "path", "wav", "audio", "filename", "file", "audio_path")
_TEXT = ("transcript", "transcription", "sentence", "text", "wrd", "words")
_SPEAKER = ("speaker", "spk_id", "speaker_id", "client_id", "spk")
_ID = ("id", "utt_id", "utterance_id")
_START, _END, _SECONDS = ("start", "offset"), ("end", "stop"), ("duration",)
_DELIMITERS = (",", "\t", ";", "|")


class _Columns(NamedTuple):
    """Names of the columns in the table; None where there is none."""

    audio: str
    text: str
    speaker: str | None
    id: str | None
    start: str | None
    end: str | None
    seconds: str | None


class _Row(NamedTuple):
    number: int  # line of the file
    values: dict[str, str]


def find_table(folder: Path) -> Path | None:
    """A folder's metadata file, where its header is that of such a table."""
    for name in METADATA:
        if (folder / name).is_file() and is_table(folder / name):
            return folder / name
    return None


def fits(path: Path) -> bool:
    """Whether a path is such a table, or a folder with one."""
    if path.is_dir():
        return find_table(path) is not None
    return path.suffix in (".csv", ".tsv") or (path.suffix == ".jsonl" and is_huggingface(path))


def is_table(path: Path) -> bool:
    """Whether a file has a header that names a column of recordings and one of texts."""
    try:
        rows = _read_rows(path)
        first = next(rows, None)
        return first is not None and _find_columns(path, list(first.values)) is not None
    except CorpusError:
        return False


def is_huggingface(path: Path) -> bool:
    """Whether a file of JSON lines is an audiofolder's: its recordings are under ``file_name``."""
    try:
        first = next(_read_rows(path), None)
    except CorpusError:
        return False
    return first is not None and "file_name" in first.values


def read_table(path: Path) -> Iterator[Utterance]:
    """The utterances of a table.

    Args:
        path: CSV, TSV or JSON lines with a header, or object keys, as in the table above. Relative paths start at the
            table's folder, or at ``clips`` beside it (Common Voice), or at SpeechBrain's ``{data_root}``.

    Yields:
        The utterances, in the table's order, named by their id or by their recording's path without ending; pieces of
        recordings where the table has times.

    Raises:
        CorpusError: A column is missing, a line is wrong, or a recording is listed twice or lies outside the table's
            folder. The message names the line.
    """
    if path.is_dir():
        path = find_table(path) or path / METADATA[0]
    rows = _read_rows(path)
    first = next(rows, None)
    if first is None:
        raise CorpusError(f"{path}: holds no utterance; expected a header and a line for each")
    columns = _find_columns(path, list(first.values))
    if columns is None:
        raise CorpusError(
            f"{path}: expected a column of recordings ({', '.join(_AUDIO[:5])} …) and one of texts "
            f"({', '.join(_TEXT[:5])} …), found {', '.join(first.values)}"
        )
    lines: dict[str, dict[str, int]] = {"the id": {}, "the recording": {}}
    for row in chain([first], rows):
        utterance = _read_row(path, row, columns)
        _refuse_repeats(f"{path} line {row.number}", row.number, utterance, lines)
        yield utterance


def _read_row(path: Path, row: _Row, columns: _Columns) -> Utterance:
    where = f"{path} line {row.number}"
    missing = [name for name in (columns.audio, columns.text) if name not in row.values]
    if missing:
        raise CorpusError(f"{where}: lacks {missing[0]!r}")
    written = row.values[columns.audio].strip()
    if not written:
        raise CorpusError(f"{where}: column {columns.audio!r} is empty; expected a recording's path")
    recording = find_inside(_bases(path.parent.absolute()), written.replace("{data_root}/", ""), where=where)
    start = _read_seconds(row, columns.start, where) or 0.0
    end = _read_seconds(row, columns.end, where)
    seconds = math.inf
    if columns.start is not None:
        listed = _read_seconds(row, columns.seconds, where) if end is None else end - start
        seconds = math.inf if listed is None else listed
        if seconds <= 0:
            raise CorpusError(f"{where}: ends at {start + seconds:g} s, where it begins; correct its times")
    name, speaker = (row.values.get(column or "", "").strip() for column in (columns.id, columns.speaker))
    name = name or Path(written).with_suffix("").as_posix() + (f"-{start:g}" if math.isfinite(seconds) else "")
    return Utterance(name, recording, row.values[columns.text].strip(), start, seconds, speaker or None)


def _bases(folder: Path) -> list[Path]:
    return [folder, folder / "clips", folder / "audio", folder / "wavs"]


def _read_seconds(row: _Row, column: str | None, where: str) -> float | None:
    text = row.values.get(column or "", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise CorpusError(f"{where}: column {column!r}: expected seconds, found {text!r}")
    return seconds


def _refuse_repeats(where: str, number: int, utterance: Utterance, lines: dict[str, dict[str, int]]) -> None:
    """Refuse a name or a whole recording that is listed twice; ``lines`` holds the first line of each."""
    for kind, key in (("the id", utterance.id), ("the recording", str(utterance.audio_path))):
        if kind == "the recording" and math.isfinite(utterance.seconds):
            continue  # a part of it
        first = lines[kind].setdefault(key, number)
        if first != number:
            raise CorpusError(f"{where}: {kind} {key} is on line {first} already; list it once")


def _find_columns(path: Path, names: Sequence[str]) -> _Columns | None:
    """Which column is which; None where recordings or texts have none.

    Raises:
        CorpusError: Two columns could be meant.
    """
    known = {name.strip().casefold(): name for name in names}

    def find(candidates: Sequence[str]) -> str | None:
        return next((known[name] for name in candidates if name in known), None)

    audio, text = find(_AUDIO), find(_TEXT)
    if audio is None or text is None:
        return None
    return _Columns(audio, text, find(_SPEAKER), find(_ID), find(_START), find(_END), find(_SECONDS))


def _read_rows(path: Path) -> Iterator[_Row]:
    if path.suffix.lower() in (".jsonl", ".json"):
        for number, record in read_records(path, kind="table"):
            yield _Row(number, {key: "" if value is None else str(value) for key, value in record.items()})
        return
    _, head = next(read_lines(path, kind="table"), (0, ""))
    is_tsv = path.suffix.lower() == ".tsv"
    delimiter = "\t" if is_tsv else max(_DELIMITERS, key=head.count)
    # Common Voice writes quotes into its TSV as they are; elsewhere they may hide delimiters.
    reader = csv.reader(
        _split_lines(path), delimiter=delimiter, quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL
    )
    header: list[str] = []
    try:
        for values in _refuse_breaks(path, reader):
            if not any(value.strip() for value in values):
                continue
            if not header:
                header = [value.strip() for value in values]
                _refuse_repeated_columns(path, header)
                continue
            if len(values) != len(header):
                raise CorpusError(
                    f"{path} line {reader.line_num}: expected {len(header)} values, found {len(values)}; a text with "
                    f"{delimiter!r} in it needs quotes around it"
                )
            yield _Row(reader.line_num, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise CorpusError(f"{path} line {reader.line_num}: {error}") from error


def _refuse_breaks(path: Path, reader: Any) -> Iterator[list[str]]:
    """The rows of a CSV reader; a line break inside a value is a quote that is not closed."""
    first = 1
    for values in reader:
        if any("\n" in value or "\r" in value for value in values):
            raise CorpusError(
                f"{path} line {first}: a value goes on over the end of its line; close the quote, or write the text in "
                "one line"
            )
        yield values
        first = reader.line_num + 1


def _split_lines(path: Path) -> Iterator[str]:
    """Lines for csv: ended by line feeds, or carriage returns alone."""
    for line in stream_lines(path, kind="table"):
        yield from io.StringIO(line.replace("\r\n", "\n"), newline="")


def _refuse_repeated_columns(path: Path, header: Sequence[str]) -> None:
    repeated = [name for number, name in enumerate(header) if name and name in header[:number]]
    if repeated:
        raise CorpusError(f"{path}: two columns are called {repeated[0]!r}; rename one")
