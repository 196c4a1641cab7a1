"""LibriSpeech: read English books, 16 kHz; parts of 5 (mini) to 960 hours in the tree of its archives.

Source: V. Panayotov, G. Chen, D. Povey and S. Khudanpur, "Librispeech: an ASR corpus based on public domain audio
books", ICASSP 2015.
"""

from collections.abc import Sequence
from pathlib import Path

from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.splits import find_parts, write_parts

ATTRIBUTION = [
    {
        "corpus": "LibriSpeech (OpenSLR 12 and 31)",
        "license": "CC BY 4.0",
        "source": "https://www.openslr.org/12/",
        "attribution": "V. Panayotov, G. Chen, D. Povey and S. Khudanpur: Librispeech: an ASR corpus based on public "
        "domain audio books, ICASSP 2015",
    }
]
LANGUAGE = "en"

FETCH = (
    "download the parts from https://www.openslr.org/12/ (mini: https://www.openslr.org/31/), unpack them into one "
    "folder and pass it with --source"
)


def prepare(
    source: Path | None,
    output: Path,
    *,
    seed: int,
    train: Sequence[str] = ("train-clean-100",),
    valid: Sequence[str] = ("dev-clean",),
    test: Sequence[str] = ("test-clean", "test-other"),
) -> None:
    """Write train.jsonl, valid.jsonl and a manifest of each test part by its name.

    Args:
        source: The folder with the parts, or with ``LibriSpeech`` in which they lie.
        output: Output folder.
        seed: Not used: the parts are the published ones.
        train: Parts to train on.
        valid: Parts to choose checkpoints on.
        test: Test parts, scored separately.

    Raises:
        CorpusError: There is no source, a part is not there, or a recording is missing or unreadable.
    """
    wanted = {"train": train, "valid": valid, **{part: [part] for part in test}}
    folders = {
        name: find_parts(source, parts, names=("LibriSpeech",), fetch=FETCH) for name, parts in wanted.items()
    }  # before any of them is read
    write_parts(
        output,
        {
            name: [entry for each in found for entry in read_corpus(each, "librispeech")]
            for name, found in folders.items()
        },
    )
