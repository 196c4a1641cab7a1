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
from speechrnn.corpus.readers.recordings import AUDIO_COLUMNS, METADATA, TEXT_COLUMNS, find_inside, find_table
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

_KINDS = (
    AUDIO_COLUMNS,
    TEXT_COLUMNS,
    ("speaker", "spk_id", "speaker_id", "client_id", "spk"),
    ("id", "utt_id", "utterance_id"),
    ("start", "offset"),
    ("end", "stop"),
    ("duration",),
)
_DELIMITERS = (",", "\t", ";", "|")


class _Columns(NamedTuple):
    """Names of the columns in a table, one for each of ``_KINDS``; None if the table has none of that kind."""

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


def read_table(path: Path) -> Iterator[Utterance]:
    """Read the utterances of a table.

    Args:
        path: CSV, TSV or JSON lines with a header, or object keys, as in the table above; or a folder with such a
            metadata file. Relative paths start at the table's folder, at ``clips``, ``audio`` or ``wavs`` in it, or at
            SpeechBrain's ``{data_root}``.

    Yields:
        The utterances, in the table's order, named by their id or by their recording's path without ending; parts of
        recordings if the table has times.

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
    lines: dict[tuple[str, str], int] = {}
    for row in chain([first], rows):
        where = f"{path} line {row.number}"
        utterance = _read_row(where, row, columns, path.parent.absolute())
        names = [("id", utterance.id), ("recording", str(utterance.audio_path))]
        for key in names[: 1 if math.isfinite(utterance.seconds) else 2]:  # a recording may have several parts
            if lines.setdefault(key, row.number) != row.number:
                raise CorpusError(f"{where}: the {' '.join(key)} is on line {lines[key]} already; list it once")
        yield utterance


def _read_row(where: str, row: _Row, columns: _Columns, folder: Path) -> Utterance:
    missing = [name for name in (columns.audio, columns.text) if name not in row.values]
    if missing:
        raise CorpusError(f"{where}: lacks {missing[0]!r}")
    written = row.values[columns.audio].strip()
    if not written:
        raise CorpusError(f"{where}: column {columns.audio!r} is empty; expected a recording's path")
    bases = [folder, *(folder / name for name in ("clips", "audio", "wavs"))]
    recording = find_inside(bases, written.replace("{data_root}/", ""), where=where)
    start, seconds = _read_times(where, row, columns)
    name, speaker = (row.values.get(column or "", "").strip() for column in (columns.id, columns.speaker))
    name = name or Path(written).with_suffix("").as_posix() + (f"-{start:g}" if math.isfinite(seconds) else "")
    return Utterance(name, recording, row.values[columns.text].strip(), start, seconds, speaker or None)


def _read_times(where: str, row: _Row, columns: _Columns) -> tuple[float, float]:
    """Start and duration in seconds; an infinite duration is that of the recording."""
    start = _read_seconds(row, columns.start, where) or 0.0
    end = _read_seconds(row, columns.end, where)
    if columns.start is None:
        return start, math.inf
    seconds = _read_seconds(row, columns.seconds, where) if end is None else end - start
    if seconds is not None and seconds <= 0:
        raise CorpusError(f"{where}: ends at {start + seconds:g} s, where it begins; correct its times")
    return start, math.inf if seconds is None else seconds


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


def _find_columns(path: Path, names: Sequence[str]) -> _Columns:
    known = {name.strip().casefold(): name for name in names}
    columns = [next((known[name] for name in kind if name in known), None) for kind in _KINDS]
    audio, text, *others = columns
    if audio is None or text is None:
        raise CorpusError(
            f"{path}: expected a column of recordings ({', '.join(AUDIO_COLUMNS[:5])} …) and one of texts "
            f"({', '.join(TEXT_COLUMNS[:5])} …), found {', '.join(names)}"
        )
    return _Columns(audio, text, *others)


def _read_rows(path: Path) -> Iterator[_Row]:
    if path.suffix.lower() in (".jsonl", ".json"):
        for number, record in read_records(path, kind="table"):
            yield _Row(number, {key: "" if value is None else str(value) for key, value in record.items()})
        return
    _, head = next(read_lines(path, kind="table"), (0, ""))
    is_tsv = path.suffix.lower() == ".tsv"
    delimiter = "\t" if is_tsv else max(_DELIMITERS, key=head.count)
    # Common Voice writes quotes into its TSV without escaping them; elsewhere they may enclose delimiters.
    reader = csv.reader(
        _split_lines(path), delimiter=delimiter, quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL
    )
    try:
        rows = _check_breaks(path, reader)
        header = [value.strip() for value in next(rows, ())]
        repeated = [name for number, name in enumerate(header) if name and name in header[:number]]
        if repeated:
            raise CorpusError(f"{path}: two columns are called {repeated[0]!r}; rename one")
        for values in rows:
            if len(values) != len(header):
                raise CorpusError(
                    f"{path} line {reader.line_num}: expected {len(header)} values, found {len(values)}; a text with "
                    f"{delimiter!r} in it needs quotes around it"
                )
            yield _Row(reader.line_num, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise CorpusError(f"{path} line {reader.line_num}: {error}") from error


def _check_breaks(path: Path, reader: Any) -> Iterator[list[str]]:
    """The rows that are not empty; a line break inside a value is a quote that is not closed."""
    first = 1
    for values in reader:
        if any("\n" in value or "\r" in value for value in values):
            raise CorpusError(
                f"{path} line {first}: a value continues on the next line; close the quote, or write the text in one "
                "line"
            )
        if any(value.strip() for value in values):
            yield values
        first = reader.line_num + 1


def _split_lines(path: Path) -> Iterator[str]:
    """Lines for csv: ended by line feeds, or carriage returns alone."""
    for line in stream_lines(path, kind="table"):
        yield from io.StringIO(line.replace("\r\n", "\n"), newline="")
