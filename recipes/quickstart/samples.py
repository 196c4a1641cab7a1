"""Write a few of the quickstart recipe's test recordings into data/samples: ``python recipes/quickstart/samples.py``.

Their voices are in no training set of that recipe, whatever its seed. The recordings are synthetic, and this project's
own.
"""

import sys
import tempfile
from pathlib import Path

import soundfile

from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.utterance import Utterance

# Found on sys.path because this file is run as a program: Python puts its folder there.
from prepare import DIGITS, Job, draw_jobs, speak  # isort: skip

SEED = 0
DIGIT_SAMPLES = 2
COMMAND_SAMPLES = 3
MIN_WORDS = 4

FOLDER = Path(__file__).resolve().parents[2] / "data" / "samples"


def write_samples(folder: Path) -> list[Utterance]:
    """Write digits-1.flac, command-1.flac and so on, 16 kHz, and manifest.jsonl, which says what they say.

    Args:
        folder: Where to write; made if need be, and what is there under these names is replaced.

    Returns:
        What the manifest holds.
    """
    jobs = draw_jobs("test", seed=SEED)
    chosen = choose(jobs)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        speak({Path(scratch): jobs})  # all of them: the samples of one depend on those before it
        entries = [
            _convert(name, job, Path(scratch) / f"{job.id}.wav", folder / f"{name}.flac")
            for name, job in chosen.items()
        ]
    write_manifest(folder / "manifest.jsonl", entries)
    return entries


def choose(jobs: list[Job]) -> dict[str, Job]:
    """Take the first long ones of each kind; no voice (rob and robert are one) and no first word twice."""
    chosen: dict[str, Job] = {}
    for kind, count in (("digits", DIGIT_SAMPLES), ("command", COMMAND_SAMPLES)):
        for number in range(1, count + 1):
            taken = {mark for job in chosen.values() for mark in _marks(job)}
            chosen[f"{kind}-{number}"] = next(job for job in jobs if _kind(job) == kind and not taken & _marks(job))
    return chosen


def _marks(job: Job) -> set[str]:
    return {job.variant[:3], job.text.split()[0]}


def _kind(job: Job) -> str:
    words = job.text.split()
    if len(words) < MIN_WORDS:
        return "short"
    return "digits" if set(words) <= set(DIGITS) else "command"


def _convert(name: str, job: Job, wav: Path, flac: Path) -> Utterance:
    samples, sample_rate = soundfile.read(wav, dtype="int16")
    soundfile.write(flac, samples, sample_rate)
    return Utterance(id=name, audio_path=flac, seconds=len(samples) / sample_rate, text=job.text, speaker=job.variant)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
