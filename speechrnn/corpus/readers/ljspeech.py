"""LJ Speech's layout: ``metadata.csv`` (name|text|normalised text) beside ``wavs/``; one speaker.

Source: K. Ito and L. Johnson, "The LJ Speech Dataset", 2017, README of version 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechrnn.corpus.lines import read_lines
from speechrnn.corpus.manifest import Entry
from speechrnn.corpus.readers.cuts import Listing, complete, find_recordings
from speechrnn.corpus.readers.table import is_table
from speechrnn.errors import CorpusError

METADATA = "metadata.csv"


def is_ljspeech(folder: Path) -> bool:
    """Whether a folder has this layout; a metadata file with a header is another one's."""
    return (folder / METADATA).is_file() and (folder / "wavs").is_dir() and not is_table(folder / METADATA)


def read_ljspeech_entries(folder: Path) -> list[Entry]:
    """Read such a folder.

    Args:
        folder: Where ``metadata.csv`` and ``wavs`` lie.

    Returns:
        The utterances, in the order of the metadata, with the normalised text (numbers in words) where there is one;
        durations are those of the audio files, which may have any ending of flac, wav, mp3, ogg and opus.

    Raises:
        CorpusError: The metadata are missing, a line is wrong, or a recording is missing or unreadable.
    """
    return complete(list_ljspeech(Path(folder)), where=folder)[0]


def list_ljspeech(folder: Path) -> Sequence[Listing]:
    """The utterances as they are listed; see :func:`read_ljspeech_entries`."""
    path = folder / METADATA
    recordings = find_recordings(folder / "wavs")
    found: list[tuple[str, Path, str]] = []
    for number, line in read_lines(path, kind="file"):
        name, *texts = line.strip().split("|")
        if len(texts) not in (1, 2):
            raise CorpusError(f"{path} line {number}: expected name|text or name|text|normalised text")
        if name not in recordings:
            raise CorpusError(f"{path} line {number}: no recording {name} in {path.parent / 'wavs'}")
        found.append((name, recordings[name], texts[-1].strip()))
    if not found:
        raise CorpusError(f"{path}: holds no line")
    return [Listing(name, recording, text, speaker="LJ") for name, recording, text in found]
