"""AN4: people spell their addresses and say numbers, English, 16 kHz, 50 minutes (CMU, 1991).

The published layout (``an4_sphere.tar.gz``) has ``etc/an4_{train,test}.fileids`` and ``.transcription``, and SPHERE
recordings under ``wav``. Every tenth speaker of the training part, in the order of their names, validates.

Source: A. Acero, "Acoustical and Environmental Robustness in Automatic Speech Recognition", 1993 (the census database).
"""

import re
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.splits import find_parts, hold_out_speakers, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

ATTRIBUTION = [
    {
        "corpus": "AN4",
        "license": "free for use, as its README says",
        "source": "http://www.speech.cs.cmu.edu/databases/an4/",
        "attribution": "Carnegie Mellon University, 1991",
    }
]
LANGUAGE = "en"

VALID_EVERY = 10
FETCH = "download http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz (64 MB), unpack it and pass --source an4"
_TRANSCRIPT = re.compile(r"(?:<s>)?(?P<text>.*?)(?:</s>)?\s*\((?P<name>[^()]+)\)")


def prepare(source: Path | None, output: Path, *, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder ``an4``, or its parent folder.
        output: Output folder.
        seed: Not used: the split is fixed.

    Raises:
        CorpusError: There is no source, it is not this corpus, a line is wrong, or a recording is missing.
    """
    [lists] = find_parts(source, ["etc"], names=("an4",), fetch=FETCH)
    training, tested = (_read(lists.parent, part) for part in ("train", "test"))
    train, valid = hold_out_speakers(training, every=VALID_EVERY, where=lists.parent)
    write_parts(output, {"train": train, "valid": valid, "test": tested})


def _read(folder: Path, part: str) -> list[Utterance]:
    """One part: the n-th path belongs to the n-th transcript."""
    path = folder / "etc" / f"an4_{part}.transcription"
    names = [line.strip() for _, line in read_lines(folder / "etc" / f"an4_{part}.fileids", kind="list of recordings")]
    lines = list(read_lines(path, kind="file of transcripts"))
    if len(names) != len(lines):
        raise CorpusError(f"{path}: {len(lines)} transcripts for {len(names)} recordings; is the copy whole?")
    listings = []
    for name, (number, line) in zip(names, lines, strict=True):
        match = _TRANSCRIPT.fullmatch(line.strip())
        if match is None or not name.endswith(match["name"].strip()):
            raise CorpusError(f"{path} line {number}: expected the transcript of {name}, found {line.strip()!r}")
        recording = (folder / "wav" / name).with_suffix(".sph")
        listings.append(Utterance(Path(name).name, recording, match["text"].strip(), speaker=Path(name).parent.name))
    return read_headers(listings, where=folder)
