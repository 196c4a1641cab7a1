"""speechocean762: English sentences read by 250 native speakers of Mandarin, adults and children, 16 kHz.

The published layout has Kaldi data folders ``train`` and ``test`` (2,500 utterances each, no speaker in both) and
``resource/lexicon.txt``. Every VALID_EVERY-th speaker of the training part, in the order of their names, is the
validation set.

The lexicon that is written has the first pronunciation of each word in the corpus's own, without stress: what a
dictionary expects, not those that this reader spoke.
"""

from pathlib import Path

from speechrnn.atomic_io import write_atomic
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.splits import hold_out_speakers
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.text.phone_tokens import read_pronunciations

ATTRIBUTION = [
    {
        "corpus": "speechocean762 (OpenSLR 101)",
        "license": "CC BY 4.0",
        "source": "https://www.openslr.org/101/",
        "attribution": "J. Zhang et al.: speechocean762: An Open-Source Non-native English Speech Corpus For "
        "Pronunciation Assessment, Interspeech 2021",
    }
]
LANGUAGE = "en"

VALID_EVERY = 10


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None) -> None:
    """Write train.jsonl, valid.jsonl, test.jsonl and lexicon.txt.

    Args:
        source: The folder that the corpus's archive makes, with ``train``, ``test`` and ``resource`` in it.
        output: Output folder.
        seed: Not used: the split is fixed.
        fold: None; this recipe has no folds.

    Raises:
        CorpusError: No source, or it is not this corpus; a recording or the lexicon is missing; or a fold
            was asked for.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the speechocean762 recipe has no folds; leave it out")
    for name, entries in read_parts(source).items():
        write_manifest(output / f"{name}.jsonl", entries)
    pronunciations = read_pronunciations(find_folder(source) / "resource" / "lexicon.txt")
    lines = [f"{word} {' '.join(phones)}\n" for word, phones in pronunciations.items()]
    write_atomic(output / "lexicon.txt", "".join(lines), error=CorpusError)


def read_parts(source: Path | None) -> dict[str, list[Utterance]]:
    """The utterances of train, valid and test.

    Raises:
        CorpusError: No source, or it is not this corpus, or a recording is missing or unreadable.
    """
    folder = find_folder(source)
    training = read_corpus(folder / "train", "kaldi")
    train, valid = hold_out_speakers(training, every=VALID_EVERY, where=folder / "train")
    return {
        "train": train,
        "valid": valid,
        "test": read_corpus(folder / "test", "kaldi"),
    }


def find_folder(source: Path | None) -> Path:
    """The corpus's folder: the source itself, or ``speechocean762`` in it.

    Raises:
        CorpusError: No source was given, or it is not this corpus.
    """
    if source is None:
        raise CorpusError(
            "speechocean762 is not fetched: download https://www.openslr.org/resources/101/speechocean762.tar.gz "
            "(520 MB), unpack it and pass --source speechocean762"
        )
    for folder in (source, source / "speechocean762"):
        if (folder / "train" / "wav.scp").is_file() and (folder / "test" / "wav.scp").is_file():
            return folder
    raise CorpusError(
        f"{source}: no train/wav.scp and test/wav.scp there; pass the folder that speechocean762's archive makes"
    )
