"""lhotse's own manifests: cuts, or recordings with supervisions.

Source: lhotse's documentation, "Representing a corpus" and "Cuts".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechrnn.corpus.readers.recordings import find_inside, find_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, EOFError, RecursionError)


def read_lhotse(path: Path) -> Iterator[Utterance]:
    """Read lhotse's manifests.

    Args:
        path: A file of cuts, or a folder with ``cuts.jsonl.gz``, or with ``recordings.jsonl.gz`` and
            ``supervisions.jsonl.gz`` (each also without ``.gz``). Relative paths start at that folder, or at the
            working directory.

    Yields:
        One utterance per supervision, in the order of the cuts.

    Raises:
        CorpusError: The manifests cannot be read, or their audio is not in files.
    """
    folder = path if path.is_dir() else path.parent
    try:
        for cut in _open_cuts(path):
            for number, supervision in enumerate(cut.supervisions):
                yield _read_supervision(cut, supervision, number, folder, path)
    except _UNREADABLE as error:
        raise CorpusError(f"{path}: lhotse cannot read its manifests ({' '.join(str(error).split())})") from error


def _open_cuts(path: Path) -> Any:
    from lhotse import CutSet, RecordingSet, SupervisionSet

    cuts = find_manifest(path, "cuts") if path.is_dir() else path
    if cuts is not None:
        return CutSet.from_file(cuts)
    recordings, supervisions = (find_manifest(path, name) for name in ("recordings", "supervisions"))
    return CutSet.from_manifests(RecordingSet.from_file(recordings), SupervisionSet.from_file(supervisions))


def _read_supervision(cut: Any, supervision: Any, number: int, folder: Path, path: Path) -> Utterance:
    where = f"{path}: cut {cut.id}"
    if type(cut).__name__ != "MonoCut":
        raise CorpusError(f"{where}: a {type(cut).__name__}; expected cuts of one channel of one recording")
    sources = cut.recording.sources
    if len(sources) != 1 or sources[0].type != "file":
        found = sources[0].type if sources else "nothing"
        raise CorpusError(f"{where}: its audio is not a file ({found}); write it to files")
    recording = find_inside([folder.absolute(), Path.cwd()], sources[0].source, where=where)
    name = cut.id if len(cut.supervisions) == 1 else f"{cut.id}-{number}"
    start = cut.start + max(0.0, supervision.start)
    end = cut.start + min(cut.duration, supervision.start + supervision.duration)
    if end <= start:
        raise CorpusError(f"{where}: its supervision {supervision.id} lies outside of it; correct its times")
    return Utterance(name, recording, supervision.text or "", start, end - start, supervision.speaker)
