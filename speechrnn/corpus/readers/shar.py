"""lhotse's Shar: shards of a thousand utterances or so, each a file of cuts and a tar archive with their recordings.

Source: lhotse's documentation, "Lhotse Shar: storage format optimized for sequential I/O and modularity".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechrnn.audio.archives import list_members
from speechrnn.audio.files import AudioInfo
from speechrnn.corpus.manifest import read_records
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import AudioError, CorpusError

_CUTS, _RECORDING = "cuts", "recording"


def find_shards(folder: Path) -> list[tuple[Path, Path]]:
    """Files of cuts with the archives beside them that hold their recordings, in order."""
    shards = []
    for cuts in sorted([*folder.glob(f"{_CUTS}*.jsonl.gz"), *folder.glob(f"{_CUTS}*.jsonl")]):
        number = cuts.name.removeprefix(_CUTS).split(".jsonl")[0]
        archive = folder / f"{_RECORDING}{number}.tar"
        if archive.is_file():
            shards.append((cuts, archive))
    return shards


def fits(path: Path) -> bool:
    """Whether a folder holds such shards."""
    return path.is_dir() and bool(find_shards(path))


def read_shar(path: Path) -> Iterator[Utterance]:
    """Read a folder of shards.

    Args:
        path: The folder, with ``cuts.000000.jsonl.gz``, ``recording.000000.tar`` and so on. What else a cut has is left
            out.

    Yields:
        An utterance for each cut, in order, with the header that the cut states.

    Raises:
        CorpusError: A cut is not as it should be; the message names its line.
    """
    for cuts, archive in find_shards(path):
        archive = archive.absolute()
        try:
            names = {name.rpartition(".")[0]: name for name in list_members(archive) if not name.endswith(".json")}
        except AudioError:
            names = {}  # reading will say so, of each utterance
        for number, record in read_records(cuts, kind="file of cuts"):
            where = f"{cuts} line {number}"
            try:
                yield _list_cut(record, archive, names)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise CorpusError(f"{where}: not a cut with one recording and one supervision ({error!r})") from error


def _list_cut(record: dict[str, Any], archive: Path, names: dict[str, str]) -> Utterance:
    name, recording, (supervision,) = str(record["id"]), record["recording"], record["supervisions"]
    start, seconds = float(record["start"]), float(record["duration"])
    rate, samples = int(recording["sampling_rate"]), int(recording["num_samples"])
    speaker = supervision.get("speaker")
    return Utterance(
        id=name,
        audio_path=archive / names.get(name, name),
        text=supervision.get("text") or "",
        start=start,
        seconds=seconds,
        speaker=None if speaker is None else str(speaker),
        corpus=(record.get("custom") or {}).get("corpus"),
        header=AudioInfo(rate, len(recording.get("channel_ids") or [0]), samples),
    )
