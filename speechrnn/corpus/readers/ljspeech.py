"""LJ Speech's layout: ``metadata.csv`` (name|text|normalised text) beside ``wavs/``; one speaker.

Source: K. Ito and L. Johnson, "The LJ Speech Dataset", 2017, README of version 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import find_recordings
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

METADATA = "metadata.csv"


def read_ljspeech(folder: Path) -> Iterator[Utterance]:
    """Read a folder with ``metadata.csv`` and ``wavs``.

    Yields:
        The utterances, in the order of the metadata, with the normalised text (numbers in words) if there is one.
        Recordings may have any known ending.

    Raises:
        CorpusError: The metadata is missing, a line is wrong, or a recording is missing.
    """
    path = folder / METADATA
    recordings = find_recordings(folder / "wavs")
    for number, line in read_lines(path, kind="file"):
        name, *texts = line.strip().split("|")
        if len(texts) not in (1, 2):
            raise CorpusError(f"{path} line {number}: expected name|text or name|text|normalised text")
        if name not in recordings:
            raise CorpusError(f"{path} line {number}: no recording {name} in {path.parent / 'wavs'}")
        yield Utterance(name, recordings[name], texts[-1].strip(), speaker="LJ")
