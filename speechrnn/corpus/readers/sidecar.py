"""A folder of recordings with a text file of the same name beside each: ``a/b.wav`` and ``a/b.txt`` or ``a/b.lab``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import TEXT_ENDINGS, is_recording, walk
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError


def read_sidecar(folder: Path) -> Iterator[Utterance]:
    """Read a folder and its subfolders.

    Yields:
        The utterances, sorted by path. The name is the path without ending, the speaker is the recording's folder (None
        in the corpus's own folder). The lines of a text are joined.

    Raises:
        CorpusError: A recording has no text or two, or two recordings have the same name.
    """
    folder = folder.absolute()
    known: dict[str, Path] = {}
    for path in filter(is_recording, walk(folder)):
        text = " ".join(line.strip() for _, line in read_lines(_find_text(path), kind="text"))
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in known:
            raise CorpusError(f"{path}: {known[name].name} beside it has the same name; keep one of them")
        known[name] = path
        yield Utterance(name, path, text, speaker=path.parent.name if path.parent != folder else None)


def _find_text(recording: Path) -> Path:
    found = [path for ending in TEXT_ENDINGS if (path := recording.with_suffix(ending)).is_file()]
    if not found:
        raise CorpusError(f"{recording}: no text beside it; expected {recording.stem}.txt or {recording.stem}.lab")
    if len(found) == 2:
        raise CorpusError(f"{recording}: two texts beside it, {found[0].name} and {found[1].name}; keep one")
    return found[0]
