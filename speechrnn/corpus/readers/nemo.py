"""NeMo's manifest: one JSON object a line, with audio_filepath, duration and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers.cuts import make_cuts

if TYPE_CHECKING:
    from lhotse import CutSet

MANIFEST = "manifest.jsonl"


def read_nemo(path: Path) -> CutSet:
    """Read a manifest and the header of each recording that it names.

    Raises:
        CorpusError: A line is wrong, or a recording is missing, unreadable or shorter than its line says.
    """
    return make_cuts(read_manifest(path), where=path)
