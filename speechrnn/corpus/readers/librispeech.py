"""A LibriSpeech tree: ``{part}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt`` beside its recordings.

Source: V. Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015, and the
README of its archive.
"""

from __future__ import annotations

from pathlib import Path

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.corpus.lines import read_lines
from speechrnn.corpus.manifest import Entry
from speechrnn.corpus.readers.cuts import Listing, complete, find_recordings, walk
from speechrnn.errors import CorpusError

TRANSCRIPTS = "*.trans.txt"


def fits(folder: Path) -> bool:
    """Whether there is such a transcript under a folder."""
    return folder.is_dir() and any(path.name.endswith(TRANSCRIPTS[1:]) for path in walk(folder))


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
    return complete(list_librispeech(Path(folder)), where=folder)[0]


def list_librispeech(folder: Path) -> list[Listing]:
    """The utterances as they are listed; see :func:`read_librispeech_entries`."""
    found: list[tuple[str, Path, str]] = []
    for transcripts in sorted(folder.rglob(TRANSCRIPTS)):
        found += _read_chapter(transcripts)
    if not found:
        raise CorpusError(f"{folder}: no {TRANSCRIPTS} under it; pass the folder that LibriSpeech's archive makes")
    return [Listing(name, path, text, speaker=name.split("-")[0]) for name, path, text in found]


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
