"""Write a corpus in another format: a NeMo manifest, a table, a Kaldi data folder, lhotse's cuts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.atomic_io import write_atomic
from speechrnn.audio.containers import find_archive
from speechrnn.corpus.manifest import write_manifest, write_path
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def write_table(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write CSV, or TSV if the name ends in it: id, path, start, duration, text, speaker; paths as in a manifest.

    Raises:
        CorpusError: A value has a line break, or in TSV a tab, or the file cannot be written.
    """
    is_tsv = path.suffix.lower() == ".tsv"
    folder = path.parent.absolute()
    rows = [["id", "path", "start", "duration", "text", "speaker"]]
    for each in utterances:
        times = [repr(each.start), repr(each.seconds)]
        row = [each.id, write_path(each.audio_path, folder), *times, each.text, each.speaker or ""]
        if set("".join(row)) & set("\t\r\n" if is_tsv else "\r\n"):
            what = "a tab or a line break" if is_tsv else "a line break"
            raise CorpusError(f"{path}: {each.id!r} has {what} in a value, which tables do not allow; write .jsonl")
        rows.append(row)
    text = io.StringIO(newline="")
    if is_tsv:
        text.writelines("\t".join(row) + "\n" for row in rows)
    else:
        csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, text.getvalue(), error=CorpusError)


def write_kaldi(folder: Path, utterances: Sequence[Utterance]) -> None:
    """Write ``wav.scp`` and ``text``; ``segments`` for parts of recordings; ``utt2spk`` if speakers are known.

    Lines are sorted by name. White space in an id becomes ``_``. If only some utterances have a speaker, each of the
    others is its own speaker.

    Raises:
        CorpusError: Two ids become the same, a text has a line break, or the folder cannot be written.
    """
    names = ["_".join(each.id.split()) for each in utterances]
    paths = list(dict.fromkeys(each.audio_path.absolute() for each in utterances))
    _check_kaldi(folder, utterances, names, paths)
    tables: dict[str, list[tuple[str, str]]] = {"segments": [], "utt2spk": []}
    tables["text"] = list(zip(names, (each.text for each in utterances), strict=True))
    if len(paths) == len(utterances) and not any(each.start for each in utterances):
        recordings = dict(zip(paths, names, strict=True))
    else:
        recordings = {path: f"recording-{number:06d}" for number, path in enumerate(paths)}
        for name, each in zip(names, utterances, strict=True):
            times = f"{each.start!r} {each.start + each.seconds!r}"
            tables["segments"].append((name, f"{recordings[each.audio_path.absolute()]} {times}"))
    tables["wav.scp"] = [(name, str(path)) for path, name in recordings.items()]
    if any(each.speaker for each in utterances):
        speakers = ["_".join((each.speaker or "").split()) for each in utterances]
        tables["utt2spk"] = [(name, speaker or name) for name, speaker in zip(names, speakers, strict=True)]
    for table, rows in tables.items():
        if rows:  # Kaldi's own tools require the order of the names' bytes
            lines = [f"{name} {value}".rstrip() + "\n" for name, value in sorted(rows, key=lambda row: row[0].encode())]
            write_atomic(folder / table, "".join(lines), error=CorpusError)
        else:
            (folder / table).unlink(missing_ok=True)


def _check_kaldi(folder: Path, utterances: Sequence[Utterance], names: list[str], paths: list[Path]) -> None:
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise CorpusError(f"{folder}: two utterances would be called {name}; rename them")
    for each in utterances:
        if set("\r\n") & set(each.text):
            raise CorpusError(f"{folder}: the text of {each.id!r} has a line break in it; write another format")
    for path in map(str, paths):
        if set("\r\n") & set(path) or path != path.strip(" \t|"):
            raise CorpusError(f"{folder}: {path!r} has a line break or ends in a blank or |; rename the recording")


def write_lhotse(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write lhotse's cuts as JSON lines, compressed if the name ends in ``.gz``.

    Raises:
        CorpusError: A recording cannot be used, or the file cannot be written.
    """
    from lhotse import CutSet

    cuts = CutSet([make_cut(each) for each in read_headers(utterances, where=path)])
    beside = path.with_name(f".part.{path.name}")  # lhotse requires the ending
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cuts.to_file(beside)
        beside.replace(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


def make_cut(utterance: Utterance) -> MonoCut:
    """Create lhotse's cut of an utterance with its header; the text is in the only supervision."""
    import lhotse

    id, header, seconds = utterance.id, utterance.header, utterance.seconds
    assert header is not None
    source = lhotse.AudioSource(type="file", channels=list(range(header.channels)), source=str(utterance.audio_path))
    recording = lhotse.Recording(
        id=id, sources=[source], sampling_rate=header.sample_rate, num_samples=header.frames, duration=header.seconds
    )
    supervision = lhotse.SupervisionSegment(
        id=id, recording_id=id, start=0.0, duration=seconds, text=utterance.text, speaker=utterance.speaker
    )
    custom = {"corpus": utterance.corpus} if utterance.corpus is not None else None
    times = {"start": utterance.start, "duration": seconds}
    return lhotse.MonoCut(id=id, **times, channel=0, supervisions=[supervision], recording=recording, custom=custom)


WRITERS: dict[str, Callable[[Path, Sequence[Utterance]], None]] = {
    "nemo": write_manifest,
    "table": write_table,
    "kaldi": write_kaldi,
    "lhotse": write_lhotse,
}
_ENDINGS = {".jsonl": "nemo", ".json": "nemo", ".csv": "table", ".tsv": "table", "": "kaldi"}


def find_writer(path: Path, name: str | None = None) -> str:
    """The format of a file name: ``.jsonl`` nemo, ``.csv``, ``.tsv`` table, ``.jsonl.gz`` lhotse, a folder Kaldi.

    Raises:
        CorpusError: The name's ending is unknown, or no writer has the given name.
    """
    if name is not None and name not in WRITERS:
        raise CorpusError(f"--to {name}: unknown format; choose from {', '.join(WRITERS)}")
    found = name or ("lhotse" if path.name.endswith(".jsonl.gz") else _ENDINGS.get(path.suffix))
    if found is None:
        raise CorpusError(
            f"{path}: unknown ending; write to .jsonl (NeMo), .csv or .tsv, .jsonl.gz (lhotse) or a folder "
            "(Kaldi), or choose the format with --to"
        )
    return found


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
        ConfigError: The destination exists, or the recordings are in archives.
        CorpusError: The corpus cannot be read or written.
    """
    name = find_writer(destination, to)
    if destination.exists() and (destination.is_dir() if name != "kaldi" else any(destination.iterdir())):
        raise ConfigError(f"{destination}: exists already; choose a new name")
    utterances = read_corpus(source, format)
    if any(find_archive(each.audio_path) for each in utterances):
        raise ConfigError(
            f"{source}: its recordings are in archives, which other programs cannot read; convert the corpus that it "
            "was packed from"
        )
    WRITERS[name](destination, utterances)
    return name, len(utterances)
