"""NeMo's manifest: one JSON object a line, with audio_filepath, duration and text."""

from __future__ import annotations

from pathlib import Path

from speechrnn.corpus.compact import CompactList
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers.lhotse import is_cuts
from speechrnn.corpus.readers.table import is_huggingface
from speechrnn.corpus.utterance import Utterance

MANIFEST = "manifest.jsonl"


def fits(path: Path) -> bool:
    """Whether a path may be a manifest, or is a folder with one; other formats have JSON lines, too."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    return path.suffix in (".json", ".jsonl") and not is_cuts(path) and not is_huggingface(path)


def list_nemo(path: Path) -> CompactList[Utterance]:
    """The utterances as a manifest, or ``manifest.jsonl`` in a folder, lists them.

    Raises:
        CorpusError: The file cannot be read or holds no utterance, or a line is wrong; the message names it.
    """
    return read_manifest(path / MANIFEST if path.is_dir() else path)
