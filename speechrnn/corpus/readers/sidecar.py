"""A folder of recordings with a text file of the same name beside each: ``a/b.wav`` and ``a/b.txt`` or ``a/b.lab``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.corpus.lines import read_lines
from speechrnn.corpus.readers.recordings import is_recording, walk
from speechrnn.corpus.utterance import Utterance, compact_utterances
from speechrnn.errors import CorpusError

TEXT_ENDINGS = (".txt", ".lab")


def fits(folder: Path) -> bool:
    """Whether some recording under a folder has its text beside it."""
    return folder.is_dir() and any(_find_text(path) is not None for path in walk(folder) if is_recording(path))


def list_sidecars(folder: Path) -> Sequence[Utterance]:
    """Read such a folder, and the folders in it.

    Returns:
        The utterances, sorted by path, each named by its path without ending and spoken by the folder that it lies in
        (nobody known where that is the corpus's own). Lines of a text are joined.

    Raises:
        CorpusError: A recording has no text or two, a text has no recording, or a recording is unreadable.
    """
    utterances = compact_utterances(_iterate(folder))
    if not utterances:
        raise CorpusError(f"{folder}: no recordings ({', '.join(AUDIO_ENDINGS)}) with a text beside them")
    _refuse_twins(utterances)
    return utterances


def _iterate(folder: Path) -> Iterator[Utterance]:
    for path in walk(folder):
        if not is_recording(path):
            continue
        text_file = _find_text(path)
        if text_file is None:
            raise CorpusError(f"{path}: no text beside it; expected {path.stem}.txt or {path.stem}.lab")
        text = " ".join(line.strip() for _, line in read_lines(text_file, kind="text"))
        name = path.relative_to(folder.absolute()).with_suffix("").as_posix()
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


def _refuse_twins(utterances: Sequence[Utterance]) -> None:
    known: dict[str, Path] = {}
    for entry in utterances:
        if entry.id in known:
            raise CorpusError(
                f"{entry.audio_path}: {known[entry.id].name} beside it has the same name; keep one of them"
            )
        known[entry.id] = entry.audio_path
