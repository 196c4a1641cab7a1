"""lhotse's own manifests: cuts, or recordings with supervisions.

Source: lhotse's documentation, "Representing a corpus" and "Cuts".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechrnn.corpus.manifest import read_records
from speechrnn.corpus.readers import shar
from speechrnn.corpus.readers.recordings import find_inside
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, EOFError, RecursionError)
_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def find_cuts(folder: Path) -> Path | None:
    """``cuts.jsonl`` or a like of it in a folder."""
    return _find(folder, "cuts")


def has_manifests(folder: Path) -> bool:
    """Whether a folder has cuts, or recordings and supervisions."""
    return find_cuts(folder) is not None or all(_find(folder, name) for name in ("recordings", "supervisions"))


def is_cuts(path: Path) -> bool:
    """Whether a file's first record is a cut of lhotse's."""
    try:
        _, record = next(read_records(path, kind="file of cuts"), (0, {}))
    except CorpusError:
        return False
    return record.get("type") in ("MonoCut", "MultiCut") and "recording" in record


def fits(path: Path) -> bool:
    """Whether a path is a file of cuts, or a folder with lhotse's manifests."""
    return has_manifests(path) and not shar.fits(path) if path.is_dir() else is_cuts(path)


def read_lhotse(path: Path) -> Iterator[Utterance]:
    """Read lhotse's manifests.

    Args:
        path: A file of cuts, or a folder with ``cuts.jsonl.gz``, or with ``recordings.jsonl.gz`` and
            ``supervisions.jsonl.gz`` (each also without ``.gz``). Relative paths start at that folder, or at the
            working directory.

    Yields:
        An utterance for each supervision, in the order of the cuts.

    Raises:
        CorpusError: The manifests cannot be read, or hold their audio elsewhere than in files.
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

    cuts = find_cuts(path) if path.is_dir() else path
    if cuts is not None:
        return CutSet.from_file(cuts)
    files = [_find(path, name) for name in ("recordings", "supervisions")]
    return CutSet.from_manifests(RecordingSet.from_file(files[0]), SupervisionSet.from_file(files[1]))


def _read_supervision(cut: Any, supervision: Any, number: int, folder: Path, path: Path) -> Utterance:
    where = f"{path}: cut {cut.id}"
    if type(cut).__name__ != "MonoCut":
        raise CorpusError(f"{where}: a {type(cut).__name__}; expected cuts of one channel of one recording")
    sources = cut.recording.sources
    if len(sources) != 1 or sources[0].type != "file":
        raise CorpusError(
            f"{where}: its audio is no file ({sources[0].type if sources else 'nothing'}); write it to files"
        )
    recording = find_inside([folder.absolute(), Path.cwd()], sources[0].source, where=where)
    name = cut.id if len(cut.supervisions) == 1 else f"{cut.id}-{number}"
    start = cut.start + max(0.0, supervision.start)
    end = cut.start + min(cut.duration, supervision.start + supervision.duration)
    if end <= start:
        raise CorpusError(f"{where}: its supervision {supervision.id} lies outside of it; correct its times")
    return Utterance(name, recording, supervision.text or "", start, end - start, supervision.speaker)


def _find(folder: Path, name: str) -> Path | None:
    return next((folder / (name + ending) for ending in _ENDINGS if (folder / (name + ending)).is_file()), None)
