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
from typing import Any

from speechrnn.corpus.manifest import read_lines, read_records, stream_lines
from speechrnn.corpus.readers.recordings import AUDIO_COLUMNS, METADATA, TEXT_COLUMNS, find_inside, find_table
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

_KINDS = {
    "audio": AUDIO_COLUMNS,
    "text": TEXT_COLUMNS,
    "speaker": ("speaker", "spk_id", "speaker_id", "client_id", "spk"),
    "id": ("id", "utt_id", "utterance_id"),
    "start": ("start", "offset"),
    "end": ("end", "stop"),
    "seconds": ("duration",),
}
_DELIMITERS = (",", "\t", ";", "|")


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
        raise CorpusError(f"{path}: contains no utterance; expected a header and a line for each")
    columns = _find_columns(path, list(first[1]))
    lines: dict[tuple[str, str], int] = {}
    for number, row in chain([first], rows):
        where = f"{path} line {number}"
        utterance = _read_row(where, row, columns, path.parent.absolute())
        names = [("id", utterance.id), ("recording", str(utterance.audio_path))]
        for key in names[: 1 if math.isfinite(utterance.seconds) else 2]:  # a recording may have several parts
            if lines.setdefault(key, number) != number:
                raise CorpusError(f"{where}: the {' '.join(key)} is on line {lines[key]} already; list it once")
        yield utterance


def _find_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The name of the column of each kind that the table has."""
    known = {name.strip().casefold(): name for name in names}
    columns = {kind: known[name] for kind, usual in _KINDS.items() for name in reversed(usual) if name in known}
    if not {"audio", "text"} <= columns.keys():
        raise CorpusError(
            f"{path}: expected a column of recordings ({', '.join(AUDIO_COLUMNS[:5])} …) and one of texts "
            f"({', '.join(TEXT_COLUMNS[:5])} …), found {', '.join(names)}"
        )
    return columns


def _read_row(where: str, row: dict[str, str], columns: dict[str, str], folder: Path) -> Utterance:
    values = {kind: row[column].strip() for kind, column in columns.items() if column in row}
    for kind in ("audio", "text"):
        if kind not in values:
            raise CorpusError(f"{where}: lacks {columns[kind]!r}")
    if not values["audio"]:
        raise CorpusError(f"{where}: column {columns['audio']!r} is empty; expected a recording's path")
    bases = [folder, *(folder / name for name in ("clips", "audio", "wavs"))]
    recording = find_inside(bases, values["audio"].replace("{data_root}/", ""), where=where)
    times = {
        kind: _read_seconds(f"{where}: column {columns[kind]!r}", values[kind])
        for kind in ("start", "end", "seconds")
        if values.get(kind) and "start" in columns
    }
    start, seconds = times.get("start", 0.0), times.get("seconds", math.inf)
    if "end" in times:
        seconds = times["end"] - start
    if seconds <= 0:
        raise CorpusError(f"{where}: ends at {start + seconds:g} s, where it begins; correct its times")
    default = Path(values["audio"]).with_suffix("").as_posix() + (f"-{start:g}" if math.isfinite(seconds) else "")
    return Utterance(
        values.get("id") or default, recording, values["text"], start, seconds, values.get("speaker") or None
    )


def _read_seconds(where: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise CorpusError(f"{where}: expected seconds, found {text!r}")
    return seconds


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    if path.suffix.lower() in (".jsonl", ".json"):
        for number, record in read_records(path, kind="table"):
            yield number, {key: "" if value is None else str(value) for key, value in record.items()}
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
            yield reader.line_num, dict(zip(header, values, strict=True))
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
