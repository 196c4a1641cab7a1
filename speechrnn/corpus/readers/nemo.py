"""NeMo's manifest: one JSON object a line, with audio_filepath, duration and text."""

from __future__ import annotations

from pathlib import Path

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers.cuts import Listing

MANIFEST = "manifest.jsonl"


def list_nemo(path: Path) -> list[Listing]:
    """The utterances as a manifest, or ``manifest.jsonl`` in a folder, lists them.

    Raises:
        CorpusError: The file cannot be read or holds no utterance, or a line is wrong; the message names it.
    """
    return [
        Listing(entry.id, entry.audio_path, entry.text, entry.offset, entry.seconds, entry.speaker, entry.corpus)
        for entry in read_manifest(path / MANIFEST if path.is_dir() else path)
    ]
