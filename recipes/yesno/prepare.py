"""YesNo: sixty files of one man who says eight times yes or no in Hebrew, 8 kHz (OpenSLR 1).

The published layout is ``waves_yesno/1_0_1_1_1_0_1_0.wav``; the name is the transcript, 1 for "ken" (yes) and 0 for
"lo" (no). The text is the English word, as is the custom with this corpus.

The split is icefall's: of the file names in order, the first, third, fifth and so on are the training part (30 files),
the others the test set (30 files). The validation set is every sixth file of the training part (5 files, 40 words):
taken evenly from the names in order, it has files that begin with no and with yes, and leaves 25 files to learn from.

A network that has heard these 25 rows of words over and over takes what was said before for a part of the next word.
So their words, cut apart in the pauses, are said once more in other orders: two to nine of them in a row, in every
fifth row one of the two words alone.

Source: the split is that of lhotse's ``prepare_yesno``, which icefall's yesno recipe calls.
"""

import logging
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speechrnn.audio.files import audio_info, read_audio
from speechrnn.corpus.download import fetch_corpus
from speechrnn.corpus.manifest import Entry, write_manifest
from speechrnn.errors import CorpusError
from speechrnn.whole_files import open_whole

logger = logging.getLogger("speechrnn")

ATTRIBUTION = [
    {
        "corpus": "YesNo (OpenSLR 1)",
        "license": "none stated by the source",
        "source": "https://www.openslr.org/1/",
        "attribution": "Made for the Kaldi project by a contributor who prefers to remain anonymous",
    }
]
LANGUAGE = "he"

WORDS = {"0": "no", "1": "yes"}
FILES = 60
VALID_EVERY = 6

DOWNLOADS = Path(__file__).resolve().parents[2] / "data"
URL = "https://www.openslr.org/resources/1/waves_yesno.tar.gz"
# The archive's hash is the one that torchaudio 2.11 states for it (torchaudio.datasets.YESNO).
ARCHIVE_SHA256 = "c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73"
CONTENT_SHA256 = "a8f90d7353f3b95579f9da339e322e2e37ff55184d3f00a1599e3703a7cc8bfa"

SPLICED = 75
SPLICED_WORDS = (2, 9)
ONE_WORD_EVERY = 5

_NAME = re.compile(r"[01](_[01]){7}\.wav")
_RATE = 8000
_STEP = _RATE // 100
# In steps of 10 ms; what is quiet lies so far below the loudest one.
_QUIET_DB = 15.0
_LONGEST_GAP = 12
_SHORTEST_WORD = 10


class Cut(NamedTuple):
    """A word, and its sound with half of the pauses around it, (N,)."""

    word: str
    samples: np.ndarray


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None, spliced: int = SPLICED) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl, and into output/spliced the training part's words in other orders.

    Args:
        source: The folder that holds ``waves_yesno``, or ``waves_yesno`` itself; None downloads the corpus.
        output: Where the manifests go.
        seed: Of the orders; the split is fixed.
        fold: None; this recipe has no folds.
        spliced: How many such rows of words; 0: none.

    Raises:
        AudioError: A recording is not readable.
        CorpusError: The recordings are not there, or too few of them, or a fold or fewer rows than none were asked for.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the yesno recipe has no folds; leave it out")
    if spliced < 0:
        raise CorpusError(f"prepare.spliced: expected 0 or more, got {spliced}")
    paths = find_recordings(source)
    training_part = paths[::2]
    parts = {
        "train": [path for index, path in enumerate(training_part, start=1) if index % VALID_EVERY],
        "valid": training_part[VALID_EVERY - 1 :: VALID_EVERY],
        "test": paths[1::2],
    }
    if not parts["valid"]:
        raise CorpusError(f"{paths[0].parent}: {len(paths)} recordings are too few to split; the corpus has {FILES}")
    entries = {name: [_to_entry(path) for path in members] for name, members in parts.items()}
    entries["train"] += splice(entries["train"], output / "spliced", count=spliced, seed=seed)
    for name, members in entries.items():
        write_manifest(output / f"{name}.jsonl", members)


def splice(entries: Sequence[Entry], folder: Path, *, count: int, seed: int) -> list[Entry]:
    """Say the words of some recordings in other orders; the sound goes to `folder`.

    Args:
        entries: What to cut apart. A recording whose pauses do not tell its words apart is left out, and counted.
        folder: Where the new recordings go.
        count: How many; none where nothing can be cut.
        seed: Of the orders.
    """
    cut = [cut_words(read_audio(each.audio_path, sample_rate=_RATE).samples, each.text.split()) for each in entries]
    words = [word for each in cut for word in each]
    if not count or not words:
        return []
    logger.info("%d of %d recordings are cut into words and spliced to %d more", sum(map(bool, cut)), len(cut), count)
    folder.mkdir(parents=True, exist_ok=True)
    draw, made = random.Random(seed), []
    for number in range(count):
        one = sorted(WORDS.values())[number // ONE_WORD_EVERY % 2] if number % ONE_WORD_EVERY == 0 else None
        among = [each for each in words if one in (None, each.word)] or words
        row = draw.sample(among, k=min(len(among), draw.randint(*SPLICED_WORDS)))
        samples, path = np.concatenate([each.samples for each in row]), (folder / f"{number:03d}.wav").resolve()
        with open_whole(path, error=CorpusError) as file:
            soundfile.write(file, samples, _RATE, format="WAV", subtype="PCM_16")
        text = " ".join(each.word for each in row)
        made.append(Entry(f"spliced-{number:03d}", path, len(samples) / _RATE, text, speaker="anonymous"))
    return made


def cut_words(samples: np.ndarray, words: Sequence[str]) -> list[Cut]:
    """Cut a recording in the middle of its pauses.

    Args:
        samples: (N,), at 8 kHz.
        words: What is said in it.

    Returns:
        One for each word; none where the pauses leave more or fewer parts than words.
    """
    num_steps = len(samples) // _STEP
    powers = np.square(samples[: num_steps * _STEP], dtype=np.float64).reshape(num_steps, _STEP).mean(axis=1)
    loud = np.flatnonzero(powers > powers.max(initial=0.0) * 10.0 ** (-_QUIET_DB / 10.0))
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > _LONGEST_GAP) + 1)
    sounding = [part for part in parts if len(part) and part[-1] - part[0] >= _SHORTEST_WORD]
    if len(sounding) != len(words):
        return []
    between = [int(before[-1] + 1 + after[0]) // 2 * _STEP for before, after in pairwise(sounding)]
    edges = [0, *between, len(samples)]
    return [Cut(word, samples[a:b]) for word, (a, b) in zip(words, pairwise(edges), strict=True)]


def find_recordings(source: Path | None) -> list[Path]:
    """Find the recordings, in the order of their names; warn of names that are not understood, and of missing files.

    Raises:
        CorpusError: There is no recording where `source` points.
    """
    folder = _find_folder(source)
    wavs = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav")
    paths = [path for path in wavs if _NAME.fullmatch(path.name)]
    others = [path.name for path in wavs if path not in paths]
    if not paths:
        raise CorpusError(f"{folder}: {len(wavs)} wav files, none named like 1_0_1_1_1_0_1_0.wav; pass waves_yesno")
    if others:
        logger.warning("%s: %d wav files left out, not eight times 0 or 1: %s", folder, len(others), ", ".join(others))
    if len(paths) != FILES:
        logger.warning("%s: %d recordings of %d: the split is not the published one", folder, len(paths), FILES)
    return paths


def _find_folder(source: Path | None) -> Path:
    if source is None:
        return fetch_corpus(
            URL,
            DOWNLOADS / "yesno",
            inside="waves_yesno",
            pattern="*.wav",
            content_sha256=CONTENT_SHA256,
            archive_sha256=ARCHIVE_SHA256,
        )
    if not source.is_dir():
        raise CorpusError(f"{source}: there is no such folder; pass the folder with the recordings")
    for folder in (source / "waves_yesno", source):
        if folder.is_dir() and any(folder.glob("*.wav")):
            return folder
    raise CorpusError(
        f"{source}: holds no wav file, nor does waves_yesno in it; pass the folder that holds waves_yesno"
    )


def _to_entry(path: Path) -> Entry:
    text = " ".join(WORDS[word] for word in path.stem.split("_"))
    return Entry(id=path.stem, audio_path=path, seconds=audio_info(path).seconds, text=text, speaker="anonymous")
