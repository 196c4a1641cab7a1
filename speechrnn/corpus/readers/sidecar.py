"""A folder of recordings with a text file of the same name beside each: ``a/b.wav`` and ``a/b.txt`` or ``a/b.lab``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import is_recording, walk
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

TEXT_ENDINGS = (".txt", ".lab")


def fits(folder: Path) -> bool:
    """Whether some recording under a folder has its text beside it."""
    return folder.is_dir() and any(_find_text(path) is not None for path in walk(folder) if is_recording(path))


def read_sidecars(folder: Path) -> Iterator[Utterance]:
    """Read such a folder, and the folders in it.

    Yields:
        The utterances, sorted by path, each named by its path without ending and spoken by the folder that it lies in
        (unknown where that is the corpus's own). Lines of a text are joined.

    Raises:
        CorpusError: A recording has no text or two, or two recordings have the same name.
    """
    known: dict[str, Path] = {}
    for path in filter(is_recording, walk(folder)):
        text_file = _find_text(path)
        if text_file is None:
            raise CorpusError(f"{path}: no text beside it; expected {path.stem}.txt or {path.stem}.lab")
        text = " ".join(line.strip() for _, line in read_lines(text_file, kind="text"))
        name = path.relative_to(folder.absolute()).with_suffix("").as_posix()
        if name in known:
            raise CorpusError(f"{path}: {known[name].name} beside it has the same name; keep one of them")
        known[name] = path
        yield Utterance(name, path, text, speaker=path.parent.name if path.parent != folder.absolute() else None)


def _find_text(recording: Path) -> Path | None:
    """The text beside a recording.

    Raises:
        CorpusError: There are two.
    """
    found = [path for ending in TEXT_ENDINGS if (path := recording.with_suffix(ending)).is_file()]
    if len(found) == 2:
        raise CorpusError(f"{recording}: two texts beside it, {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None
