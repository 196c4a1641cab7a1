"""Quickstart: digit strings and short commands spoken by espeak-ng. No download, no people: the voices are synthetic.

The three sets share no voice. A voice here is a variant of espeak-ng, which sets the timbre: pitch, formants, breath.
Variants that are near alike, by their settings or by the distance of their mean log-mel spectra (rob and robert; john
and pedro), stay in the same set. The accents of English occur in all three, so the test set has each accent only with
timbres that training lacks. Variants that hardly sound like people (whispers, echoing robots) are left out.

The texts come from one small grammar of about fifty words, so a command of the test set may have been said by other
voices in training; a string of digits is drawn at random. This measures new voices, not new words.

Texts, accents, rates and pitches are a function of the seed; which voice is in which set is fixed. The same seed, on
the same machine, gives the same samples.
"""

import importlib.util
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speechrnn.audio.files import audio_info
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

ATTRIBUTION = [
    {
        "corpus": "quickstart phrases (synthetic voices, no recordings of people)",
        "license": "Apache-2.0",
        "source": "https://github.com/espeak-ng/espeak-ng",
        "attribution": "Made by speechrnn's quickstart recipe with eSpeak NG (GPL-3.0-or-later), by espeakng-loader",
    }
]
LANGUAGE = "en"

UTTERANCES = {"train": 1600, "valid": 100, "test": 180}
DIGIT_SHARE = 0.4  # of the utterances; the others are commands
JOBS_PER_PROCESS = 800  # a constant, not the machine's cores: espeak-ng's samples depend on what a process said before
MAX_DIGITS = 6
RATES = (130, 210)  # words per minute
PITCHES = (30, 70)  # 0 to 99; 50 is the voice's default

ACCENTS = ("en", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")
VOICES = {
    "train": (
        *("m1", "m3", "m4", "m5", "m6", "m7", "Mike", "Alex", "Nguyen", "f1", "f3", "f4", "linda", "belinda"),
        *("aunty", "Hugo", "Henrique", "Diogo", "michel", "miguel", "anika", "Andy", "Lee", "Mario", "Michael"),
        *("gustave", "marcelo", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "Reed", "adam"),
        *("david", "mike2", "announcer", "edward", "edward2", "benjamin", "max", "paul", "iven", "iven2"),
        *("iven3", "iven4", "Storm", "victor", "Denis", "shelby", "Alicia", "antonio", "ian", "norbert"),
        *("pablo", "Tweaky", "grandma", "grandpa"),
    ),
    "valid": ("ed", "Andrea", "Annie", "Gene", "Gene2", "travis", "sandro"),
    "test": ("f2", "f5", "steph", "steph2", "steph3", "m2", "m8", "rob", "robert", "quincy", "john", "pedro"),
}

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = (
    "turn {switch} the {room} light",
    "set a timer for {minutes} minutes",
    "call {person}",
    "send a message to {person}",
    "play the {which} song",
    "{move} the {thing}",
    "what is the weather {day}",
    "what is the time",
    "volume {direction}",
    "{word}",
)
SLOTS = {
    "switch": ("on", "off"),
    "room": ("kitchen", "bedroom", "garden"),
    "minutes": DIGITS[2:],
    "person": ("mum", "dad", "home"),
    "which": ("next", "last"),
    "move": ("open", "close"),
    "thing": ("door", "window"),
    "day": ("today", "tomorrow"),
    "direction": ("up", "down"),
    "word": ("stop", "pause", "yes", "no"),
}


class Job(NamedTuple):
    """A recording to synthesise; the fields are those of espeak_program.py's jobs."""

    id: str
    text: str
    accent: str
    variant: str
    rate: int
    pitch: int


def prepare(source: Path | None, output: Path, *, seed: int, fold: str | None = None) -> None:
    """Synthesise recordings into output/audio and write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: None; this recipe makes its own recordings.
        output: Where recordings and manifests go.
        seed: What texts, accents, rates and pitches are drawn from.
        fold: None; this recipe has no folds.

    Raises:
        CorpusError: espeakng-loader is not installed, or a source or a fold was given.
    """
    if source is not None or fold is not None:
        raise CorpusError("quickstart: speaks its own recordings and has no folds; leave out the source and the fold")
    # Remove old manifests before their recordings are replaced.
    for name in UTTERANCES:
        (output / f"{name}.jsonl").unlink(missing_ok=True)
    jobs = {name: draw_jobs(name, seed=seed) for name in UTTERANCES}
    speak({output / "audio" / name: members for name, members in jobs.items()})
    for name, members in jobs.items():
        entries = [to_entry(job, output / "audio" / name) for job in members]
        write_manifest(output / f"{name}.jsonl", entries)


def draw_jobs(name: str, *, seed: int) -> list[Job]:
    """Draw texts and voices of one of the sets.

    Args:
        name: "train", "valid" or "test".
        seed: Each seed gives its own texts, accents, rates and pitches.

    Returns:
        The jobs; each voice has equally many (within one).
    """
    generator = random.Random(f"{seed} {name}")
    voices = VOICES[name]
    return [
        Job(
            id=f"{name}-{index:04d}",
            text=draw_text(generator),
            accent=generator.choice(ACCENTS),
            variant=voices[index % len(voices)],
            rate=generator.randint(*RATES),
            pitch=generator.randint(*PITCHES),
        )
        for index in range(UTTERANCES[name])
    ]


def draw_text(generator: random.Random) -> str:
    """Draw a string of one to six digits, or a command."""
    if generator.random() < DIGIT_SHARE:
        return " ".join(generator.choices(DIGITS, k=generator.randint(1, MAX_DIGITS)))
    command = generator.choice(COMMANDS)
    return command.format(**{slot: generator.choice(words) for slot, words in SLOTS.items()})


def speak(jobs: dict[Path, list[Job]]) -> None:
    """Synthesise recordings in parallel processes.

    Args:
        jobs: For each folder what is to be spoken into it, as ``{id}.wav``: 16 kHz, int16.

    Raises:
        CorpusError: espeakng-loader is not installed, or espeak-ng failed; the message quotes its output.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise CorpusError("quickstart: the package espeakng-loader is not installed; run pip install '.[quickstart]'")
    program = importlib.util.find_spec("speechrnn.corpus.espeak_program")
    assert program is not None
    assert program.origin is not None
    with tempfile.TemporaryDirectory() as scratch:
        processes = []
        for number, lines in enumerate(_deal(jobs)):
            list_path = Path(scratch) / f"{number}.jsonl"
            list_path.write_text("".join(lines), encoding="utf-8")
            command = [sys.executable, program.origin, str(list_path)]
            processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        messages = [process.communicate()[1] for process in processes]
    for process, message in zip(processes, messages, strict=True):
        if process.returncode != 0:
            reason = (message.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise CorpusError(f"quickstart: the recordings could not be spoken ({reason}); reinstall espeakng-loader")


def _deal(jobs: dict[Path, list[Job]]) -> Iterator[list[str]]:
    """Yield the lines for each process; each process writes to one folder."""
    for folder, members in jobs.items():
        for start in range(0, len(members), JOBS_PER_PROCESS):
            yield [_to_line(job, folder) for job in members[start : start + JOBS_PER_PROCESS]]


def _to_line(job: Job, folder: Path) -> str:
    fields = {key: value for key, value in job._asdict().items() if key != "id"}
    return json.dumps({"path": str(folder / f"{job.id}.wav"), **fields}) + "\n"


def to_entry(job: Job, folder: Path) -> Utterance:
    """The manifest entry of a synthesised recording."""
    path = folder / f"{job.id}.wav"
    return Utterance(id=job.id, audio_path=path, seconds=audio_info(path).seconds, text=job.text, speaker=job.variant)
