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


def read_librispeech(folder: Path) -> Iterator[Utterance]:
    """Read a tree.

    Args:
        folder: A folder with transcripts anywhere under it: the whole corpus, a part, or one speaker's folder.

    Yields:
        The utterances, sorted by chapter and number, with their speakers. Recordings may have any known ending.

    Raises:
        CorpusError: A line is wrong, or a recording is missing.
    """
    for transcripts in walk(folder):
        if not transcripts.name.endswith(".trans.txt"):
            continue
        recordings = find_recordings(transcripts.parent)
        for number, line in read_lines(transcripts, kind="file"):
            name, _, text = line.strip().partition(" ")
            if name not in recordings:
                endings = ", ".join(AUDIO_ENDINGS)
                raise CorpusError(f"{transcripts} line {number}: no recording {name} beside it ({endings})")
            yield Utterance(name, recordings[name], text.strip(), speaker=name.split("-")[0])
