"""How far word times are from the truth: FSDD's spoken digits, cut to where they sound, one after the other.

    python tests/benchmarks/bench_word_times.py --fsdd "$FSDD" --output runs/word-times

Clips of one speaker are joined, with pauses of up to half a second, so that each word's start and end are known. A
model is trained on joined training clips (some minutes; once, kept in the output folder) and asked about joined
validation clips; the test clips are not used. Only words that were recognised are compared.
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechrnn.cli.main import main as speechrnn_command
from speechrnn.recipe import open_recipe, run_recipe
from speechrnn.recognition.recognizer import load
from speechrnn.text.scores import align_words

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "fsdd"
QUIET_DB = 30.0  # a clip sounds where its level is within this of its loudest 10 ms
PAUSES = ((0.0, 0.0), (0.0, 0.5))
JOINED = 5


@dataclass(frozen=True)
class Joined:
    """Clips one after the other: samples at 8 kHz, and each word with its start and end in seconds."""

    samples: np.ndarray
    words: list[tuple[str, float, float]]


def read_trimmed(path: str) -> np.ndarray:
    """A clip from where it begins to sound to where it ends."""
    samples, rate = soundfile.read(path, dtype="float32")
    step = rate // 200  # 5 ms
    levels = np.array([np.square(samples[at : at + 2 * step]).mean() for at in range(0, len(samples) - 2 * step, step)])
    loud = np.flatnonzero(levels > levels.max() * 10 ** (-QUIET_DB / 10))
    return samples[loud[0] * step : (loud[-1] + 2) * step]


def join(manifest: Path, pauses: tuple[float, float], rng: random.Random) -> list[Joined]:
    """Join the clips of each speaker in chance order."""
    by_speaker = defaultdict(list)
    for line in manifest.read_text().splitlines():
        row = json.loads(line)
        by_speaker[row["speaker"]].append(row)
    found = []
    for _, rows in sorted(by_speaker.items()):
        rng.shuffle(rows)
        for first in range(0, len(rows) - JOINED + 1, JOINED):
            parts, words, at = [], [], 0
            for row in rows[first : first + JOINED]:
                clip = read_trimmed(row["audio_filepath"])
                words.append((row["text"], at / 8000, (at + len(clip)) / 8000))
                parts += [clip, np.zeros(int(8000 * rng.uniform(*pauses)), np.float32)]
                at += len(parts[-2]) + len(parts[-1])
            found.append(Joined(np.concatenate(parts), words))
    return found


def train(output: Path, fsdd: Path, tokens: str) -> Path:
    """A model of joined clips; the clips of each epoch's order are joined twice over."""
    folder = output / tokens
    if (folder / "model").is_dir():
        return folder / "model"
    run_recipe(open_recipe(RECIPE, source=fsdd, output=output / "clips"), stage="prepare")
    rng = random.Random(0)
    for name, times in (("train", 2), ("valid", 1)):
        audio = output / "joined" / name
        audio.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, each in enumerate(
            one for _ in range(times) for one in join(output / "clips" / f"{name}.jsonl", (0, 0.5), rng)
        ):
            path = audio / f"{number:05}.wav"
            soundfile.write(path, each.samples, 8000, subtype="PCM_16")
            text = " ".join(word for word, _, _ in each.words)
            rows.append(json.dumps({"audio_filepath": str(path), "duration": len(each.samples) / 8000, "text": text}))
        (output / "joined" / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    data = {name: (output / "joined" / f"{name}.jsonl").resolve() for name in ("train", "valid")}
    settings = [f"--data.{name}={path}" for name, path in data.items()]
    settings += ["--data.test={}", f"--tokens.kind={tokens}", "--data.batch_seconds=60", "--trainer.max_epochs=30"]
    settings += ["--encoder.subsampling_factor=2", f"--output={folder}", "--overwrite"]
    if speechrnn_command(["train", "--config", str(RECIPE / "config.yaml"), *settings]) != 0:
        sys.exit("the training failed")
    return folder / "model"


def compare(model: Path, recordings: list[Joined]) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Words, how many of them were recognised, and how late those start and end, in seconds."""
    recognizer = load(model)
    starts, ends, total = [], [], 0
    samples = [recording.samples for recording in recordings]
    for recording, transcript in zip(recordings, recognizer.transcribe_many(samples, sample_rate=8000), strict=True):
        references, words = iter(recording.words), iter(transcript.words)
        for operation, reference, hypothesis in align_words(
            " ".join(w for w, _, _ in recording.words), transcript.text
        ):
            truth = next(references) if reference is not None else None
            word = next(words) if hypothesis is not None else None
            total += truth is not None
            if operation == "equal" and truth is not None and word is not None:
                starts.append(word.start - truth[1])
                ends.append(word.end - truth[2])
    return total, len(starts), np.array(starts), np.array(ends)


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fsdd", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokens", nargs="+", default=["characters", "words"])
    args = parser.parse_args()
    print("| tokens | pauses, s | recognised | start off by, ms | late by | 90 % within | end off by, ms | late by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for tokens in args.tokens:
        model = train(args.output, args.fsdd, tokens)
        for pauses in PAUSES:
            recordings = join(args.output / "clips" / "valid.jsonl", pauses, random.Random(1))
            total, right, starts, ends = compare(model, recordings)
            row = [
                np.median(abs(starts)),
                np.median(starts),
                np.quantile(abs(starts), 0.9),
                np.median(abs(ends)),
                np.median(ends),
            ]
            shown = " | ".join(f"{1000 * value:.0f}" for value in row)
            print(f"| {tokens} | {pauses[0]}–{pauses[1]} | {right} of {total} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
