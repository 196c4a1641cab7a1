"""Free Spoken Digit Dataset: isolated English digits, six speakers, 8 kHz.

The published layout is ``recordings/{digit}_{speaker}_{n}.wav`` with n from 0 to 49. The official split is by clip
number: n 0-4 is the test set, n 5-49 the training part. The validation set is n 45-49 of that part. It has the shape of
the test set (five clips of each digit and speaker), and like the test set it lies at an end of the numbers that are
trained on; clips from their middle would have training clips of about the same minute on both sides.

With a fold, one speaker is left out: all clips of that speaker are the test set, n 45-49 of the others validation, and
n 0-44 of the others training. That is a test on an unknown speaker; its numbers are not comparable with the official
split's. Five speakers are few to generalise to a sixth, so SYNTHETIC_CLIPS digits of many espeak-ng voices, made by the
quickstart recipe, are added to the training data.

With strings, a speaker's clips are joined into strings of digits with short pauses, for models that transcribe streams.
"""

import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speechrnn.audio.augment import AugmentConfig, add_pauses
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.corpus.download import fetch_corpus
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.recipe import load_prepare
from speechrnn.types import derive_seed

logger = logging.getLogger("speechrnn")

ATTRIBUTION = [
    {
        "corpus": "Free Spoken Digit Dataset",
        "license": "CC BY-SA 4.0",
        "source": "https://github.com/Jakobovski/free-spoken-digit-dataset",
        "attribution": "Zohar Jackson and contributors: Free Spoken Digit Dataset, v1.0.10, doi:10.5281/zenodo.1342401",
    }
]
FOLD_ATTRIBUTION = [
    {
        "corpus": "synthetic digits (no recordings of people)",
        "license": "Apache-2.0",
        "source": "https://github.com/espeak-ng/espeak-ng",
        "attribution": "Made by speechrnn's FSDD recipe with eSpeak NG (GPL-3.0-or-later), by espeakng-loader",
    }
]
LANGUAGE = "en"

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLIPS = range(50)
TEST_CLIPS = range(0, 5)
VALID_CLIPS = range(45, 50)
SYNTHETIC_CLIPS = 600
RATES = (110, 190)  # words per minute
PITCHES = (25, 75)  # 0 to 99; 50 is the voice's default
STRING_PAUSES = AugmentConfig(padding_seconds=0.15)  # before and after each clip of a string
STRING_ROUNDS = {"train": 1, "valid": 4, "test": 1}  # how often each clip occurs in strings

DOWNLOADS = Path(__file__).resolve().parents[2] / "data"
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.zip"
# Hash of the 3,000 recordings: the bytes of GitHub's archive are not stable.
CONTENT_SHA256 = "e0fb762c9bab2821a71965f6a9ac29ac25698541430c8a8b7c54ea3e49cc7afe"

_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<number>[0-9]+)\.wav")


class Clip(NamedTuple):
    """One recording, with the fields of its name."""

    path: Path
    digit: int
    speaker: str
    number: int


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None, digits: int = 1) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The folder that holds ``recordings``, or ``recordings`` itself; None downloads the corpus.
        output: Output folder.
        seed: Seed of the synthetic voices' rates and pitches, and of strings; the split is the official one.
        fold: A speaker to leave out of training and to test on; None for the official split.
        digits: Most digits of a string, which has 1 or more of them; 1: single clips.

    Raises:
        AudioError: A recording is not readable.
        CorpusError: The recordings are not there, or one of the three sets would be empty; or a fold is asked for and
            espeakng-loader is not installed; or `digits` is not from 1 to 100, or above 1 with a fold.
    """
    if not 1 <= digits <= 100 or (digits > 1 and fold is not None):
        raise CorpusError(f"prepare.digits: expected 1 to 100, and 1 with a fold, got {digits}")
    clips = find_clips(source)
    part_of = _choose_split(clips, fold)
    parts: dict[str, list[Clip]] = {"train": [], "valid": [], "test": []}
    for clip in clips:
        parts[part_of(clip)].append(clip)
    empty = [name for name, members in parts.items() if not members]
    if empty:
        raise CorpusError(f"{clips[0].path.parent}: no clips for {' and '.join(empty)}; expected clip numbers 0 to 49")
    synthetic = _speak_digits(output / "synthetic", seed=seed) if fold is not None else []
    for name, members in parts.items():
        entries = [_to_entry(clip) for clip in members]
        if digits > 1:
            rng = np.random.default_rng(derive_seed(seed, name))
            entries = list(_join(entries, output / "strings" / name, rng, STRING_ROUNDS[name], digits))
        write_manifest(output / f"{name}.jsonl", [*entries, *synthetic] if name == "train" else entries)


def folds(source: Path | None) -> list[str]:
    """The speakers that can be left out, in alphabetical order."""
    return sorted({clip.speaker for clip in find_clips(source)})


def find_clips(source: Path | None) -> list[Clip]:
    """Find the recordings, sorted by digit, speaker and number; warn of unknown names and gaps.

    Raises:
        CorpusError: There is no recording in `source`.
    """
    folder = _find_folder(source)
    wavs = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav")
    clips = sorted((clip for clip in map(_parse, wavs) if clip), key=lambda clip: clip[1:])
    if not clips:
        raise CorpusError(f"{folder}: {len(wavs)} wav files, none named like 7_jackson_32.wav; pass the folder of FSDD")
    _warn_of_others(wavs, clips)
    _warn_of_gaps(clips)
    return clips


def _find_folder(source: Path | None) -> Path:
    if source is None:
        return fetch_corpus(
            URL, DOWNLOADS / "fsdd", inside="*/recordings", pattern="*.wav", content_sha256=CONTENT_SHA256
        )
    if not source.is_dir():
        raise CorpusError(f"{source}: there is no such folder; pass the folder that holds FSDD's recordings")
    for folder in [source / "recordings", source, *sorted(source.glob("*/recordings"))]:
        if folder.is_dir() and any(folder.glob("*.wav")):
            return folder
    raise CorpusError(f"{source}: holds no wav file, nor does recordings in it; pass the folder that holds recordings")


def _parse(path: Path) -> Clip | None:
    match = _NAME.fullmatch(path.name)
    return Clip(path, int(match["digit"]), match["speaker"], int(match["number"])) if match else None


def _choose_split(clips: list[Clip], fold: str | None) -> Callable[[Clip], str]:
    """A function that gives the part of a clip."""
    speakers = sorted({clip.speaker for clip in clips})
    if fold is not None and fold not in speakers:
        raise CorpusError(f"fold {fold!r}: there is no such speaker; choose one of {', '.join(speakers)}")

    def part_of(clip: Clip) -> str:
        is_test = clip.number in TEST_CLIPS if fold is None else clip.speaker == fold
        return "test" if is_test else "valid" if clip.number in VALID_CLIPS else "train"

    return part_of


def _to_entry(clip: Clip) -> Utterance:
    return Utterance(
        id=clip.path.stem,
        audio_path=clip.path,
        seconds=audio_info(clip.path).seconds,
        text=WORDS[clip.digit],
        speaker=clip.speaker,
    )


def _join(
    clips: list[Utterance], folder: Path, rng: np.random.Generator, rounds: int, most: int
) -> Iterator[Utterance]:
    """Join each speaker's clips, shuffled, into strings of 1 to `most` digits; each clip occurs `rounds` times."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        for speaker in sorted({str(clip.speaker) for clip in clips}):
            own = [clip for clip in clips if clip.speaker == speaker]
            rest = [own[i] for i in rng.permutation(len(own))]
            while rest:
                size = int(rng.integers(1, most + 1))
                members, rest = rest[:size], rest[size:]
                yield _write_string(members, folder / f"{speaker}-{number}-{len(rest):04d}.wav", rng)


def _write_string(members: list[Utterance], path: Path, rng: np.random.Generator) -> Utterance:
    pieces = []
    for member in members:
        waveform = read_audio(member.audio_path, check_levels=False)
        seed = int(rng.integers(2**31))
        pieces.append(add_pauses(waveform.samples, STRING_PAUSES, sample_rate=waveform.sample_rate, seed=seed))
    samples = np.concatenate(pieces)
    soundfile.write(path, samples, waveform.sample_rate, subtype="PCM_16")
    text = " ".join(member.text for member in members)
    seconds = len(samples) / waveform.sample_rate
    return Utterance(path.stem, path, text, seconds=seconds, speaker=members[0].speaker)


def _speak_digits(folder: Path, *, seed: int) -> list[Utterance]:
    """Synthesise digits with all voices of the quickstart recipe, equally often (within one).

    Raises:
        CorpusError: espeakng-loader is not installed, or espeak-ng failed.
    """
    quickstart = load_prepare(Path(__file__).resolve().parents[1] / "quickstart")
    voices = sorted(voice for members in quickstart.VOICES.values() for voice in members)
    generator = random.Random(f"{seed} synthetic")
    generator.shuffle(voices)
    jobs = [
        quickstart.Job(
            id=f"synthetic-{index:04d}",
            text=WORDS[(index // len(voices) + index) % len(WORDS)],
            accent=generator.choice(quickstart.ACCENTS),
            variant=voices[index % len(voices)],
            rate=generator.randint(*RATES),
            pitch=generator.randint(*PITCHES),
        )
        for index in range(SYNTHETIC_CLIPS)
    ]
    quickstart.speak({folder: jobs})
    return [quickstart.to_entry(job, folder) for job in jobs]


def _warn_of_others(wavs: list[Path], clips: list[Clip]) -> None:
    understood = {clip.path for clip in clips}
    others = [path.name for path in wavs if path not in understood]
    if others:
        logger.warning(
            "%s: %d wav files left out, not named {digit}_{speaker}_{n}.wav: %s",
            wavs[0].parent,
            len(others),
            ", ".join(others),
        )


def _warn_of_gaps(clips: list[Clip]) -> None:
    present = {clip[1:] for clip in clips}
    speakers = sorted({clip.speaker for clip in clips})
    missing = [
        f"{digit}_{speaker}_{number}.wav"
        for digit in range(10)
        for speaker in speakers
        for number in CLIPS
        if (digit, speaker, number) not in present
    ]
    if missing:
        logger.warning("%s: %d clips are missing, the first is %s", clips[0].path.parent, len(missing), missing[0])
