"""TED-LIUM 3: talks in English, 16 kHz, 452 hours; NIST STM files beside SPHERE recordings.

The parts are those of the folder ``legacy``, whose dev and test are the same as in the releases before. Segments that
the STM files leave out of scoring are left out, and so are marks such as ``<unk>``; endings that stand apart ("it 's")
are joined to their words.

Source: F. Hernandez et al., "TED-LIUM 3: twice as much data and corpus repartition for experiments on speaker
adaptation", SPECOM 2018.
"""

import re
from dataclasses import replace
from pathlib import Path

from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.readers.stm import read_stm
from speechrnn.corpus.splits import find_parts, write_parts
from speechrnn.corpus.utterance import Utterance

ATTRIBUTION = [
    {
        "corpus": "TED-LIUM 3 (OpenSLR 51)",
        "license": "CC BY-NC-ND 3.0",
        "source": "https://www.openslr.org/51/",
        "attribution": "F. Hernandez, V. Nguyen, S. Ghannay, N. Tomashenko and Y. Esteve: TED-LIUM 3, SPECOM 2018",
    }
]
LANGUAGE = "en"

PARTS = {"train": "legacy/train", "valid": "legacy/dev", "test": "legacy/test"}
FETCH = "download https://www.openslr.org/51/ (50 GB), unpack it and pass --source TEDLIUM_release-3"
_APOSTROPHE = re.compile(r" (?='\w)")


def prepare(source: Path | None, output: Path, *, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder ``TEDLIUM_release-3``, or its parent folder.
        output: Output folder.
        seed: Not used: the split is the published one.

    Raises:
        CorpusError: There is no source, a part is not there, a line is wrong, or a recording is missing or unreadable.
    """
    folders = find_parts(source, list(PARTS.values()), names=("TEDLIUM_release-3",), fetch=FETCH)
    write_parts(output, {name: _read(folder) for name, folder in zip(PARTS, folders, strict=True)})


def _read(folder: Path) -> list[Utterance]:
    entries = read_headers(read_stm(folder), where=folder)
    return [replace(entry, text=_APOSTROPHE.sub("", entry.text)) for entry in entries]
