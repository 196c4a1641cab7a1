"""English from several corpora at once: speechocean762, LibriSpeech and LJ Speech, whichever of them are there.

The source is a folder that holds any of ``speechocean762``, ``librispeech`` and ``ljspeech``, each as its own archive
makes it (LJ Speech also as a NeMo manifest). Each corpus is split by itself, and tested by itself:

- speechocean762 as its own recipe splits it;
- LibriSpeech by its parts, where ``train-*`` is among them: ``dev-clean`` validates and ``test-clean`` tests; else by
  its readers: in the order of their names every fifth one tests, and the first one of the others validates;
- LJ Speech, which has one speaker, by its order: the last tenth tests, and the twentieth before it validates.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.recipe import load_prepare

logger = logging.getLogger("speechrnn")

_RECIPES = Path(__file__).resolve().parents[1]
_speechocean762, _ljspeech, _librispeech = (
    load_prepare(_RECIPES / name) for name in ("speechocean762", "ljspeech", "librispeech")
)

ATTRIBUTION = [*_speechocean762.ATTRIBUTION, *_librispeech.ATTRIBUTION, *_ljspeech.ATTRIBUTION]
LANGUAGE = "en"

CORPORA = ("speechocean762", "librispeech", "ljspeech")
TEST_READER_EVERY = 5
TRAINING_PARTS = "train-*"
VALID_PART, TEST_PART = "dev-clean", "test-clean"

Parts = dict[str, list[Utterance]]


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None) -> None:
    """Write train.jsonl and valid.jsonl with all corpora in them, and for each corpus its test set, as in
    librispeech-test.jsonl.

    Args:
        source: The folder that holds the corpora's folders.
        output: Where the manifests go.
        seed: Not used: the splits are fixed.
        fold: None; this recipe has no folds.

    Raises:
        CorpusError: No source, or none of the corpora is there; one of them is not as it was published; or a fold was
            asked for.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the english recipe has no folds; leave it out")
    readers: dict[str, Callable[[Path], Parts]] = {
        "speechocean762": _speechocean762.read_parts,
        "librispeech": split_librispeech,
        "ljspeech": _ljspeech.split_ljspeech,
    }
    present = [name for name in CORPORA if source is not None and (source / name).is_dir()]
    if source is None or not present:
        raise CorpusError(
            f"{source or 'no --source'}: pass a folder that holds one or more of {', '.join(CORPORA)}, each as its own "
            "archive makes it; none is fetched"
        )
    joined: Parts = {"train": [], "valid": []}
    for name in present:
        parts = readers[name](source / name)
        for part, entries in joined.items():
            entries += [_label(entry, name) for entry in parts[part]]
        write_manifest(output / f"{name}-test.jsonl", [_label(entry, name) for entry in parts["test"]])
        hours = sum(entry.seconds for entry in parts["train"]) / 3600
        logger.info("%s: %d utterances (%.2f h) to train on", name, len(parts["train"]), hours)
    for part, entries in joined.items():
        write_manifest(output / f"{part}.jsonl", entries)


def split_librispeech(folder: Path) -> Parts:
    """By parts where there is one to train on, else by readers.

    Raises:
        CorpusError: The recordings are not there, or too few readers or parts to split.
    """
    tree = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    training = sorted(path for path in tree.glob(TRAINING_PARTS) if path.is_dir())
    if training:
        for part in (VALID_PART, TEST_PART):
            if not (tree / part).is_dir():
                raise CorpusError(f"{tree}: no {part} beside {training[0].name}; it is needed to choose and to test")
        return {
            "train": [entry for part in training for entry in read_corpus(part, "librispeech")],
            "valid": read_corpus(tree / VALID_PART, "librispeech"),
            "test": read_corpus(tree / TEST_PART, "librispeech"),
        }
    entries = read_corpus(tree, "librispeech")
    readers = sorted({entry.speaker for entry in entries})
    tested = readers[TEST_READER_EVERY - 1 :: TEST_READER_EVERY]
    others = [reader for reader in readers if reader not in tested]
    if not tested or len(others) < 2:
        raise CorpusError(f"{tree}: {len(readers)} readers are too few to split; {TEST_READER_EVERY} or more will do")
    return {
        "train": [entry for entry in entries if entry.speaker in others[1:]],
        "valid": [entry for entry in entries if entry.speaker == others[0]],
        "test": [entry for entry in entries if entry.speaker in tested],
    }


def _label(entry: Utterance, corpus: str) -> Utterance:
    """The entry under a name that no other corpus has."""
    return replace(entry, id=f"{corpus}-{entry.id}", corpus=corpus, speaker=f"{corpus}-{entry.speaker}")
