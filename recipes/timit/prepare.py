"""TIMIT: English sentences with their phones, 16 kHz, 5 hours; the output is phones.

The published layout is ``{TRAIN,TEST}/DR1/FCJF0/SX37.{WAV,PHN,TXT,WRD}``, in either case of letters; the recordings are
NIST SPHERE whatever their ending. Training leaves out the two sentences that everybody read (SA), as everybody does.
Test is the core test set of 24 speakers, validation the 50 speakers that Kaldi and lhotse take (A. Halberstadt's).

The 61 phones are written as 39: closures, pauses and silence are ``sil``, the glottal stop is left out, allophones are
joined; of neighbouring ``sil`` one stays.

Source: J. Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus", LDC93S1; K.-F. Lee and H.-W. Hon,
"Speaker-Independent Phone Recognition Using Hidden Markov Models", IEEE Trans. ASSP, 1989 (the 39 phones).
"""

from collections.abc import Iterator
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import read_headers, walk
from speechrnn.corpus.splits import write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

ATTRIBUTION = [
    {
        "corpus": "TIMIT (LDC93S1)",
        "license": "LDC User Agreement",
        "source": "https://catalog.ldc.upenn.edu/LDC93S1",
        "attribution": "J. Garofolo et al.: TIMIT Acoustic-Phonetic Continuous Speech Corpus, 1993",
    }
]
LANGUAGE = "en"

READ_BY_ALL = "sa"
SILENCE = "sil"
_JOINED = {
    "aa": ["ao"],
    "ah": ["ax", "ax-h"],
    "er": ["axr"],
    "hh": ["hv"],
    "ih": ["ix"],
    "l": ["el"],
    "m": ["em"],
    "n": ["en", "nx"],
    "ng": ["eng"],
    "sh": ["zh"],
    "uw": ["ux"],
    SILENCE: ["pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"],
    "": ["q"],
}
_ALONE = [
    "ae",
    "aw",
    "ay",
    "b",
    "ch",
    "d",
    "dh",
    "dx",
    "eh",
    "ey",
    "f",
    "g",
    "ih",
    "iy",
    "jh",
    "k",
    "ow",
    "oy",
    "p",
    "r",
]
_ALONE += ["s", "t", "th", "uh", "v", "w", "y", "z"]
PHONES = {
    **{phone: phone for phone in [*_ALONE, *(name for name in _JOINED if name and name != SILENCE)]},
    **{other: phone for phone, others in _JOINED.items() for other in others},
}
"""Maps 61 phones to 39; the glottal stop is removed."""


def prepare(source: Path | None, output: Path, *, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl, whose texts are phones.

    Args:
        source: The folder with ``TRAIN`` and ``TEST``, or one above it.
        output: Output folder.
        seed: Not used: the split is the published one.

    Raises:
        CorpusError: There is no source, it is not this corpus, a phone is unknown, or a recording is missing.
    """
    from lhotse.recipes.timit import get_speakers

    if source is None:
        raise CorpusError(
            "TIMIT is sold by the LDC (https://catalog.ldc.upenn.edu/LDC93S1); pass its folder as --source"
        )
    held = dict(zip(("valid", "test"), map(set, get_speakers()), strict=True))
    parts: dict[str, list[Utterance]] = {"train": [], "valid": [], "test": []}
    for part, path in _find(source):
        speaker = path.parent.name.lower()
        name = "train" if part == "train" else next((name for name, who in held.items() if speaker in who), None)
        if name is not None and not path.stem.lower().startswith(READ_BY_ALL):
            recording = _find_recording(path)
            parts[name].append(
                Utterance(f"{speaker}-{path.stem.lower()}", recording, read_phones(path), speaker=speaker)
            )
    if not all(parts.values()):
        empty = next(name for name, found in parts.items() if not found)
        raise CorpusError(f"{source}: no .PHN files of {empty} under TRAIN and TEST there; pass the folder of TIMIT")
    write_parts(output, {name: read_headers(found, where=source) for name, found in parts.items()})


def _find(source: Path) -> Iterator[tuple[str, Path]]:
    """Files of phones, with ``train`` or ``test``."""
    for path in walk(source):
        if path.suffix.lower() == ".phn":
            parts = [part.lower() for part in path.relative_to(source.absolute()).parts]
            part = next((name for name in ("train", "test") if name in parts), None)
            if part is not None:
                yield part, path


def _find_recording(phones: Path) -> Path:
    for ending in (".WAV.wav", ".WAV", ".wav", ".flac"):
        path = phones.with_name(phones.stem + ending)
        if path.is_file():
            return path
    raise CorpusError(f"{phones}: no recording {phones.stem}.WAV beside it")


def read_phones(path: Path) -> str:
    """The phones of a ``.PHN`` file: one ``begin end phone`` per line.

    Raises:
        CorpusError: A line is wrong, or a phone is unknown.
    """
    found: list[str] = []
    for number, line in read_lines(path, kind="file of phones"):
        values = line.split()
        if len(values) != 3 or values[2] not in PHONES:
            raise CorpusError(
                f"{path} line {number}: expected begin, end and a phone of TIMIT's, found {line.strip()!r}"
            )
        phone = PHONES[values[2]]
        if phone and not (phone == SILENCE and found[-1:] == [SILENCE]):
            found.append(phone)
    return " ".join(found)
