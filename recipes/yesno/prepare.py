"""YesNo: sixty files of one man who says yes or no eight times in Hebrew, 8 kHz (OpenSLR 1).

The published layout is ``waves_yesno/1_0_1_1_1_0_1_0.wav``; the name is the transcript, 1 for "ken" (yes) and 0 for
"lo" (no). The text is the English word, as is the custom with this corpus.

The split is icefall's: of the file names in order, the first, third, fifth and so on are the training part (30 files),
the others the test set (30 files). The validation set is every sixth file of the training part (5 files, 40 words):
taken evenly from the names in order, it has files that begin with no and with yes, and leaves 25 files to learn from.

Source: the split is that of lhotse's ``prepare_yesno``, which icefall's yesno recipe calls.
"""

import logging
import re
from pathlib import Path

from speechrnn.audio.files import audio_info
from speechrnn.corpus.download import fetch_corpus
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

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

_NAME = re.compile(r"[01](_[01]){7}\.wav")


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder that holds ``waves_yesno``, or ``waves_yesno`` itself; None downloads the corpus.
        output: Output folder.
        seed: Not used: the split is fixed.
        fold: None; this recipe has no folds.

    Raises:
        AudioError: A recording is not readable.
        CorpusError: The recordings are not there, or too few of them, or a fold was asked for.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the yesno recipe has no folds; leave it out")
    paths = find_recordings(source)
    training_part = paths[::2]
    parts = {
        "train": [path for index, path in enumerate(training_part, start=1) if index % VALID_EVERY],
        "valid": training_part[VALID_EVERY - 1 :: VALID_EVERY],
        "test": paths[1::2],
    }
    if not parts["valid"]:
        raise CorpusError(f"{paths[0].parent}: {len(paths)} recordings are too few to split; the corpus has {FILES}")
    for name, members in parts.items():
        write_manifest(output / f"{name}.jsonl", [_to_entry(path) for path in members])


def find_recordings(source: Path | None) -> list[Path]:
    """Find the recordings, in the order of their names; warn of unknown names and missing files.

    Raises:
        CorpusError: There is no recording in `source`.
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


def _to_entry(path: Path) -> Utterance:
    text = " ".join(WORDS[word] for word in path.stem.split("_"))
    return Utterance(id=path.stem, audio_path=path, seconds=audio_info(path).seconds, text=text, speaker="anonymous")
