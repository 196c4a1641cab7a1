"""Write a corpus in another format: a NeMo manifest, a table, a Kaldi data folder, lhotse's cuts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from speechrnn.atomic_io import write_atomic
from speechrnn.audio.containers import find_archive
from speechrnn.corpus.manifest import write_manifest, write_path
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, CorpusError


def write_table(path: Path, utterances: Sequence[Utterance]) -> None:
    """CSV, or TSV where the name ends so: id, path, start, duration, text, speaker; paths as in a manifest.

    Raises:
        CorpusError: A value has a line break in it, or a tab where the table is TSV, or the file cannot be written.
    """
    is_tsv = path.suffix.lower() == ".tsv"
    folder = path.parent.absolute()
    rows = [["id", "path", "start", "duration", "text", "speaker"]]
    for each in utterances:
        times = [repr(each.start), repr(each.seconds)]
        rows.append([each.id, write_path(each.audio_path, folder), *times, each.text, each.speaker or ""])
    for row in rows:
        if any(character in value for value in row for character in ("\t\r\n" if is_tsv else "\r\n")):
            what = "a tab or a line break" if is_tsv else "a line break"
            raise CorpusError(f"{path}: {row[0]!r} has {what} in a value, which the table cannot hold; write .jsonl")
    text = io.StringIO(newline="")
    if is_tsv:
        text.writelines("\t".join(row) + "\n" for row in rows)
    else:
        csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, text.getvalue(), error=CorpusError)


def write_kaldi(folder: Path, utterances: Sequence[Utterance]) -> None:
    """``wav.scp`` and ``text``; ``segments`` where recordings are cut; ``utt2spk`` where speakers are known.

    Lines are sorted by name. White space in an id becomes ``_``; an utterance without a speaker among others with one
    is its own.

    Raises:
        CorpusError: Two ids become the same, a text has a line break in it, or the folder cannot be written.
    """
    names = ["_".join(each.id.split()) for each in utterances]
    repeated = next((name for number, name in enumerate(names) if name in set(names[:number])), None)
    if len(set(names)) < len(names):
        raise CorpusError(f"{folder}: two utterances would be called {repeated}; give them other ids")
    broken = next((each.id for each in utterances if set("\r\n") & set(each.text)), None)
    if broken is not None:
        raise CorpusError(f"{folder}: the text of {broken!r} has a line break in it, which Kaldi's cannot have")
    paths = list(dict.fromkeys(each.audio_path.absolute() for each in utterances))
    odd = next((name for name in map(str, paths) if set("\r\n") & set(name) or name != name.strip(" \t|")), None)
    if odd is not None:
        raise CorpusError(f"{folder}: {odd!r} has a line break in it or ends in a blank or |; rename the recording")
    is_whole = len(paths) == len(utterances) and not any(each.start for each in utterances)
    if is_whole:
        recordings = dict(zip(paths, names, strict=True))
    else:
        recordings = {path: f"recording-{number:06d}" for number, path in enumerate(paths)}
    tables = {
        "wav.scp": [f"{name} {path}" for path, name in recordings.items()],
        "text": [f"{name} {each.text}".rstrip() for name, each in zip(names, utterances, strict=True)],
    }
    if not is_whole:
        tables["segments"] = [
            f"{name} {recordings[each.audio_path.absolute()]} {each.start!r} {each.start + each.seconds!r}"
            for name, each in zip(names, utterances, strict=True)
        ]
    if any(each.speaker for each in utterances):
        speakers = ["_".join(each.speaker.split()) if each.speaker else "" for each in utterances]
        tables["utt2spk"] = [f"{name} {speaker or name}" for name, speaker in zip(names, speakers, strict=True)]
    for name in ("segments", "utt2spk"):
        if name not in tables:
            (folder / name).unlink(missing_ok=True)
    for name, lines in tables.items():
        # Kaldi's own tools want every file in the order of its bytes.
        ordered = sorted(lines, key=lambda line: line.split(" ", 1)[0].encode("utf-8"))
        write_atomic(folder / name, "".join(line + "\n" for line in ordered), error=CorpusError)


def write_lhotse(path: Path, utterances: Sequence[Utterance]) -> None:
    """lhotse's cuts as JSON lines, compressed where the name ends in ``.gz``.

    Raises:
        CorpusError: A recording cannot be used, or the file cannot be written.
    """
    from lhotse import CutSet

    from speechrnn.corpus.cuts import make_cut
    from speechrnn.corpus.readers.recordings import read_headers

    cuts = CutSet([make_cut(each) for each in read_headers(utterances, where=path)])
    beside = path.with_name(f".part.{path.name}")  # lhotse goes by the ending
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cuts.to_file(beside)
        beside.replace(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


WRITERS: dict[str, Callable[[Path, Sequence[Utterance]], None]] = {
    "nemo": write_manifest,
    "table": write_table,
    "kaldi": write_kaldi,
    "lhotse": write_lhotse,
}


def find_writer(path: Path, name: str | None = None) -> str:
    """The format that a name implies: ``.jsonl`` nemo, ``.csv``, ``.tsv`` table, ``.jsonl.gz`` lhotse, a folder Kaldi.

    Raises:
        CorpusError: It implies none, or no writer has that name.
    """
    if name is not None:
        if name not in WRITERS:
            raise CorpusError(f"--to {name}: unknown format; choose from {', '.join(WRITERS)}")
        return name
    if path.name.endswith(".jsonl.gz"):
        return "lhotse"
    endings = {".jsonl": "nemo", ".json": "nemo", ".csv": "table", ".tsv": "table", "": "kaldi"}
    if path.suffix not in endings:
        raise CorpusError(
            f"{path}: unknown ending; write to .jsonl (NeMo), .csv or .tsv, .jsonl.gz (lhotse) or a folder "
            "(Kaldi), or say --to"
        )
    return endings[path.suffix]


def convert_corpus(
    source: str | Path, destination: Path, *, to: str | None = None, format: str | None = None
) -> tuple[str, int]:
    """Write a corpus in another format.

    Args:
        source: The corpus.
        destination: A new file or folder.
        to: Name of the writer; None: by the destination's name.
        format: Format of the source; None: detected.

    Returns:
        Name of the writer, and number of utterances.

    Raises:
        ConfigError: The destination exists, or the recordings lie in archives.
        CorpusError: The corpus cannot be read or written.
    """
    name = find_writer(destination, to)
    if destination.exists() and (destination.is_dir() if name != "kaldi" else any(destination.iterdir())):
        raise ConfigError(f"{destination}: exists already; choose a new name")
    utterances = read_corpus(source, format)
    if any(find_archive(each.audio_path) for each in utterances):
        raise ConfigError(
            f"{source}: its recordings lie in archives, where other programs do not find them; convert the corpus "
            "that it was packed from"
        )
    WRITERS[name](destination, utterances)
    return name, len(utterances)
