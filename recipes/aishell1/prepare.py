"""AISHELL-1: 400 people read Mandarin sentences, 16 kHz, 178 hours.

The published layout is ``data_aishell/wav/{train,dev,test}/SPEAKER/UTTERANCE.wav`` and one file of transcripts,
``data_aishell/transcript/aishell_transcript_v0.8.txt``, with blanks between words; they are removed here, as Mandarin
is written without. Recordings without a transcript (the archive has some) are counted and left out.

Source: H. Bu et al., "AISHELL-1: An open-source Mandarin speech corpus and a speech recognition baseline", 2017.
"""

import logging
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.splits import find_parts, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

logger = logging.getLogger("speechrnn")

ATTRIBUTION = [
    {
        "corpus": "AISHELL-1 (OpenSLR 33)",
        "license": "Apache-2.0",
        "source": "https://www.openslr.org/33/",
        "attribution": "H. Bu, J. Du, X. Na, B. Wu and H. Zheng: AISHELL-1, O-COCOSDA 2017",
    }
]
LANGUAGE = "zh"

PARTS = {"train": "wav/train", "valid": "wav/dev", "test": "wav/test"}
TRANSCRIPTS = "transcript/aishell_transcript_v0.8.txt"
FETCH = (
    "download https://www.openslr.org/33/ (15 GB), unpack it and the archive of each speaker in wav, and pass "
    "--source data_aishell"
)


def prepare(source: Path | None, output: Path, *, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder ``data_aishell``, or its parent folder.
        output: Output folder.
        seed: Not used: the split is the published one.

    Raises:
        CorpusError: There is no source, a part or the transcripts are not there, or a recording is unreadable.
    """
    folders = find_parts(source, list(PARTS.values()), names=("data_aishell",), fetch=FETCH)
    texts = read_transcripts(folders[0].parents[1] / TRANSCRIPTS)
    write_parts(output, {name: _read(folder, texts) for name, folder in zip(PARTS, folders, strict=True)})


def read_transcripts(path: Path) -> dict[str, str]:
    """The text of each utterance, without the blanks between words."""
    texts = {}
    for number, line in read_lines(path, kind="file of transcripts"):
        name, *words = line.split()
        if name in texts:
            raise CorpusError(f"{path} line {number}: {name} has a text already; remove one of them")
        texts[name] = "".join(words)
    return texts


def _read(folder: Path, texts: dict[str, str]) -> list[Utterance]:
    recordings = sorted(folder.glob("*/*.wav"))
    listings = [
        Utterance(path.stem, path.absolute(), texts[path.stem], speaker=path.parent.name)
        for path in recordings
        if path.stem in texts
    ]
    if len(listings) < len(recordings):
        logger.warning("%s: %d recordings have no transcript and are left out", folder, len(recordings) - len(listings))
    if not listings:
        raise CorpusError(f"{folder}: no recording with a transcript; unpack the archives of the speakers there")
    return read_headers(listings, where=folder)
