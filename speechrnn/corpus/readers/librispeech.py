"""A LibriSpeech tree: ``{part}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt`` beside its recordings.

Source: V. Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015, and the
README of its archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.audio.files import AudioInfo
from speechrnn.corpus.lines import read_lines
from speechrnn.corpus.manifest import Entry
from speechrnn.corpus.readers.cuts import AUDIO_ENDINGS, find_recordings, make_cuts, read_headers, walk
from speechrnn.errors import CorpusError

if TYPE_CHECKING:
    from lhotse import CutSet

TRANSCRIPTS = "*.trans.txt"


def is_librispeech(folder: Path) -> bool:
    """Whether there is such a transcript under a folder."""
    return folder.is_dir() and any(path.name.endswith(TRANSCRIPTS[1:]) for path in walk(folder))


def read_librispeech(folder: Path) -> CutSet:
    """Read a tree as cuts; see :func:`read_librispeech_entries`."""
    entries, headers = _read(Path(folder))
    return make_cuts(entries, where=folder, headers=headers)


def read_librispeech_entries(folder: Path) -> list[Entry]:
    """Read a tree.

    Args:
        folder: A folder with transcripts anywhere under it: the whole corpus, one part of it, or one speaker's.

    Returns:
        The utterances, sorted by chapter and number, each by its speaker; durations are those of the audio files, which
        may have any ending of flac, wav, mp3, ogg and opus.

    Raises:
        CorpusError: There are no transcripts, a line is wrong, or a recording is missing or unreadable.
    """
    return _read(Path(folder))[0]


def _read(folder: Path) -> tuple[list[Entry], dict[Path, AudioInfo]]:
    """The utterances, and the headers of their recordings."""
    found: list[tuple[str, Path, str]] = []
    for transcripts in sorted(folder.rglob(TRANSCRIPTS)):
        found += _read_chapter(transcripts)
    if not found:
        raise CorpusError(f"{folder}: no {TRANSCRIPTS} under it; pass the folder that LibriSpeech's archive makes")
    headers = read_headers({path: f"utterance {name}" for name, path, _ in found}, where=folder)
    entries = [Entry(name, path, headers[path].seconds, text, speaker=name.split("-")[0]) for name, path, text in found]
    return entries, headers


def _read_chapter(transcripts: Path) -> list[tuple[str, Path, str]]:
    """Name, recording and text of each line."""
    recordings = find_recordings(transcripts.parent)
    chapter = []
    for number, line in read_lines(transcripts, kind="file"):
        name, _, text = line.strip().partition(" ")
        if name not in recordings:
            raise CorpusError(
                f"{transcripts} line {number}: no recording {name} beside it ({', '.join(AUDIO_ENDINGS)})"
            )
        chapter.append((name, recordings[name], text.strip()))
    return chapter
