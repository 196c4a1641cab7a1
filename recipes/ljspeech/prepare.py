"""LJ Speech: one woman reads English books, 22.05 kHz, 24 hours.

The corpus has one speaker and no published split: in the order of its metadata the last tenth tests, and the twentieth
before it validates, so that no chapter but those at the two seams is in two parts. With ``prepare.minutes``, for
fine-tuning, the first so many minutes train, a twentieth of the corpus after them validates, and all the rest tests.

Source: K. Ito and L. Johnson, "The LJ Speech Dataset", 2017.
"""

from pathlib import Path

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers import list_formats, read_corpus
from speechrnn.corpus.splits import take_minutes, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

ATTRIBUTION = [
    {
        "corpus": "LJ Speech",
        "license": "public domain",
        "source": "https://keithito.com/LJ-Speech-Dataset/",
        "attribution": "K. Ito and L. Johnson: The LJ Speech Dataset, 2017",
    }
]
LANGUAGE = "en"

TEST_SHARE, VALID_SHARE = 0.1, 0.05


def prepare(source: Path | None, output: Path, *, seed: int, minutes: float | None = None) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder with ``metadata.csv`` and ``wavs`` (or with ``LJSpeech-1.1`` in which they lie), or one
            with a NeMo ``manifest.jsonl``.
        output: Output folder.
        seed: Not used: the split is fixed.
        minutes: How much to train on; None: all that is not held out.

    Raises:
        CorpusError: There is no source, it is not this corpus, or too little of it.
    """
    write_parts(output, split_ljspeech(source, minutes))


def split_ljspeech(source: Path | None, minutes: float | None = None) -> dict[str, list[Utterance]]:
    """The utterances of train, valid and test, split by order.

    Raises:
        CorpusError: There is no source, it is not this corpus, or too little of it.
    """
    if source is None:
        raise CorpusError(
            "LJ Speech is not fetched: download https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2 (2.6 GB), "
            "unpack it and pass --source LJSpeech-1.1"
        )
    fits = list_formats()["ljspeech"].fits
    folder = next((each for each in (source, source / "LJSpeech-1.1") if fits(each)), None)
    manifest = source / "manifest.jsonl"
    if folder is None and not manifest.is_file():
        raise CorpusError(f"{source}: no metadata.csv with wavs beside it there; pass the folder LJSpeech-1.1")
    entries = read_corpus(folder, "ljspeech") if folder is not None else read_manifest(manifest)
    tested, validated = round(TEST_SHARE * len(entries)), round(VALID_SHARE * len(entries))
    if not validated:
        raise CorpusError(f"{source}: {len(entries)} utterances are too few to split; 20 or more will do")
    if minutes is not None:
        first = len(take_minutes(entries, minutes))
        if not 0 < first < len(entries) - validated:
            available = sum(entry.seconds for entry in entries) / 60
            raise CorpusError(
                f"prepare.minutes: {minutes:g} of {available:.0f} minutes leave nothing to train or to test on"
            )
        tested = len(entries) - validated - first
    last = len(entries) - tested
    return {
        "train": entries[: last - validated],
        "valid": entries[last - validated : last],
        "test": entries[last:],
    }
