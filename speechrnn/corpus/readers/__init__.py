"""Corpora of any known format as a lhotse CutSet: one file a format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.errors import CorpusError

if TYPE_CHECKING:
    from lhotse import CutSet


def read_corpus(path: str | Path) -> CutSet:
    """Open a corpus; its format is found by looking.

    Args:
        path: A NeMo manifest (``.json`` or ``.jsonl``), or a folder: one that holds a manifest named
            ``manifest.jsonl``, a Kaldi data folder (``wav.scp``), LJ Speech's layout (``metadata.csv``, ``wavs``) or a
            LibriSpeech tree (``*.trans.txt`` somewhere under it).

    Returns:
        One cut an utterance, with its text and speaker in the cut's only supervision. Durations are those of the audio
        files, not of the manifest.

    Raises:
        CorpusError: There is nothing to read there, or a line or a recording is not usable; the message names it.
    """
    from speechrnn.corpus.readers.kaldi import read_kaldi
    from speechrnn.corpus.readers.librispeech import TRANSCRIPTS, read_librispeech
    from speechrnn.corpus.readers.ljspeech import METADATA, is_ljspeech, read_ljspeech
    from speechrnn.corpus.readers.nemo import read_nemo

    path = Path(path)
    if not path.is_dir():
        return read_nemo(path)
    if (path / "manifest.jsonl").is_file():
        return read_nemo(path / "manifest.jsonl")
    if (path / "wav.scp").is_file():
        return read_kaldi(path)
    if is_ljspeech(path):
        return read_ljspeech(path)
    if next(path.rglob(TRANSCRIPTS), None) is not None:
        return read_librispeech(path)
    raise CorpusError(
        f"{path}: a folder without manifest.jsonl, wav.scp (Kaldi), {METADATA} and wavs (LJ Speech) or {TRANSCRIPTS} "
        "(LibriSpeech); pass a NeMo manifest (.jsonl) or a folder of one of these kinds"
    )
