"""lhotse's Shar: shards of about a thousand utterances, each a file of cuts and a tar archive with their recordings.

Source: lhotse's documentation, "Lhotse Shar: storage format optimized for sequential I/O and modularity".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechrnn.audio.archives import list_members
from speechrnn.corpus.manifest import read_records
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import AudioError, CorpusError
from speechrnn.types import AudioInfo


def read_shar(folder: Path) -> Iterator[Utterance]:
    """Read a folder of shards.

    Args:
        folder: With ``cuts.000000.jsonl.gz``, ``recording.000000.tar`` and so on. Other fields of a cut are ignored.

    Yields:
        One utterance per cut, in order, with the header that the cut states.

    Raises:
        CorpusError: A cut is wrong; the message names its line.
    """
    for cuts in sorted([*folder.glob("cuts*.jsonl.gz"), *folder.glob("cuts*.jsonl")]):
        archive = folder.absolute() / f"recording{cuts.name.removeprefix('cuts').split('.jsonl')[0]}.tar"
        if archive.is_file():
            yield from _read_shard(cuts, archive)


def _read_shard(cuts: Path, archive: Path) -> Iterator[Utterance]:
    try:
        names = {name.rpartition(".")[0]: name for name in list_members(archive) if not name.endswith(".json")}
    except AudioError:
        names = {}  # reading reports this for each utterance
    for number, record in read_records(cuts, kind="file of cuts"):
        try:
            yield _list_cut(record, archive, names)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorpusError(
                f"{cuts} line {number}: not a cut with one recording and one supervision ({error!r})"
            ) from error


def _list_cut(record: dict[str, Any], archive: Path, names: dict[str, str]) -> Utterance:
    name, recording, (supervision,) = str(record["id"]), record["recording"], record["supervisions"]
    channels = len(recording.get("channel_ids") or [0])
    speaker = supervision.get("speaker")
    return Utterance(
        id=name,
        audio_path=archive / names.get(name, name),
        text=supervision.get("text") or "",
        start=float(record["start"]),
        seconds=float(record["duration"]),
        speaker=None if speaker is None else str(speaker),
        corpus=(record.get("custom") or {}).get("corpus"),
        header=AudioInfo(int(recording["sampling_rate"]), channels, int(recording["num_samples"])),
    )
