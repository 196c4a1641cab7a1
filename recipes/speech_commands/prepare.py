"""Speech Commands: single English words by many speakers, a second each, 16 kHz (P. Warden, 2018; version 0.02).

The published layout is ``{word}/{speaker}_nohash_{n}.wav``, with ``validation_list.txt`` and ``testing_list.txt``
beside the words; what stands in neither list is the training part. No speaker is in two parts. ``_background_noise_``
has no words and is left out.

Source: P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv:1804.03209.
"""

import logging
from pathlib import Path

from speechrnn.corpus.download import download, extract
from speechrnn.corpus.manifest import read_lines, write_manifest
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError, name_some

logger = logging.getLogger("speechrnn")

ATTRIBUTION = [
    {
        "corpus": "Speech Commands 0.02",
        "license": "CC BY 4.0",
        "source": "https://arxiv.org/abs/1804.03209",
        "attribution": "P. Warden (Google) and contributors: Speech Commands",
    }
]
LANGUAGE = "en"

LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"

DOWNLOADS = Path(__file__).resolve().parents[2] / "data"
URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
# As torchaudio 2.11 states it (torchaudio.datasets.SPEECHCOMMANDS).
ARCHIVE_SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder with the words' folders and the two lists; None downloads the corpus (2.3 GB).
        output: Output folder.
        seed: Not used: the split is the published one.
        fold: None; this recipe has no folds.

    Raises:
        CorpusError: The corpus is not there, a list names a recording that is not, or a part would be empty.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the speech_commands recipe has no folds; leave it out")
    folder = find_folder(source)
    names = find_names(folder)
    parts = {part: read_list(folder / file, names) for part, file in LISTS.items()}
    held_out = {name for part in parts.values() for name in part}
    parts["train"] = [name for name in names if name not in held_out]
    empty = [part for part in ("train", *LISTS) if not parts[part]]
    if empty:
        raise CorpusError(f"{folder}: no recordings for {' and '.join(empty)}; is the copy whole?")
    for part, members in parts.items():
        entries = read_headers([_list(folder, name) for name in members], where=folder)
        write_manifest(output / f"{part}.jsonl", entries)


def find_folder(source: Path | None) -> Path:
    """The folder with the words' folders and the lists.

    Raises:
        CorpusError: It is not there.
    """
    if source is None:
        source = DOWNLOADS / "speech_commands"
        if not source.exists():
            extract(download(URL, DOWNLOADS, sha256=ARCHIVE_SHA256), source)
    missing = [file for file in LISTS.values() if not (source / file).is_file()]
    if missing:
        raise CorpusError(f"{source}: no {missing[0]} there; pass the folder of Speech Commands that holds it")
    return source


def find_names(folder: Path) -> list[str]:
    """``word/speaker_nohash_n.wav`` of every recording, sorted; files with other names are logged and left out."""
    found = sorted(path for path in folder.glob("*/*.wav") if path.parent.name != NOISE)
    named = [path for path in found if "_nohash_" in path.stem]
    if len(named) < len(found):
        others = [str(path.relative_to(folder)) for path in found if "_nohash_" not in path.stem]
        logger.warning(
            "%s: %d recordings left out, not named SPEAKER_nohash_N.wav: %s", folder, len(others), name_some(others)
        )
    return [path.relative_to(folder).as_posix() for path in named]


def read_list(path: Path, names: list[str]) -> list[str]:
    """The names in a list, in order.

    Raises:
        CorpusError: A recording is missing from this copy.
    """
    known = set(names)
    wanted = [line.strip() for _, line in read_lines(path, kind="list of recordings")]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise CorpusError(
            f"{path}: {len(missing)} of its recordings are not there, such as {missing[0]}; is the copy whole?"
        )
    return wanted


def _list(folder: Path, name: str) -> Utterance:
    word, file = name.split("/")
    return Utterance(f"{word}-{Path(file).stem}", folder / name, word, speaker=file.split("_nohash_")[0])
