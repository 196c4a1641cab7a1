"""A LibriSpeech tree: ``{part}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt`` beside its recordings.

Source: V. Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015, and the
README of its archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import find_recordings, walk
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

TRANSCRIPTS = "*.trans.txt"


def fits(folder: Path) -> bool:
    """Whether there is such a transcript under a folder."""
    return folder.is_dir() and any(path.name.endswith(TRANSCRIPTS[1:]) for path in walk(folder))


def read_librispeech(folder: Path) -> Iterator[Utterance]:
    """Read a tree.

    Args:
        folder: A folder with transcripts anywhere under it: the whole corpus, one part of it, or one speaker's.

    Yields:
        The utterances, sorted by chapter and number, each by its speaker. Recordings may have any known ending.

    Raises:
        CorpusError: A line is wrong, or a recording is missing.
    """
    for path in walk(folder):
        if path.name.endswith(TRANSCRIPTS[1:]):
            yield from _read_chapter(path)


def _read_chapter(transcripts: Path) -> Iterator[Utterance]:
    recordings = find_recordings(transcripts.parent)
    for number, line in read_lines(transcripts, kind="file"):
        name, _, text = line.strip().partition(" ")
        if name not in recordings:
            raise CorpusError(
                f"{transcripts} line {number}: no recording {name} beside it ({', '.join(AUDIO_ENDINGS)})"
            )
        yield Utterance(name, recordings[name], text.strip(), speaker=name.split("-")[0])
