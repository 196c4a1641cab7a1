"""Rejection in a closed task: spoken digits against parts of other speech.

    python tests/benchmarks/bench_rejection.py --model runs/fsdd/model --digits runs/fsdd/valid.jsonl --others FOLDER

Each digit is decoded greedily and with ``sentences`` (exactly one digit). The others are parts of the recordings in a
folder, as long as the digits, from places with speech. At the equal error rate, the share of digits below the
confidence threshold equals the share of others above it.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.audio.files import read_audio
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.recognition.word_times import FRAME_SECONDS, find_loud, measure_levels
from speechrnn.types import Waveform


def cut_others(folder: Path, lengths: list[float], sample_rate: int, *, seed: int = 0) -> list[Waveform]:
    """A part of a recording for each length, in seconds, starting where the recording is loud."""
    rng = random.Random(seed)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_ENDINGS)
    found: list[Waveform] = []
    while len(found) < len(lengths):
        waveform = read_audio(rng.choice(paths), sample_rate=sample_rate, check_levels=False)
        loud = np.flatnonzero(find_loud(measure_levels(waveform.samples, sample_rate)))
        size = round(lengths[len(found)] * sample_rate)
        starts = (loud * FRAME_SECONDS * sample_rate).astype(int)
        begins = starts[starts + size < len(waveform.samples)].tolist()
        if begins:
            first = int(rng.choice(begins))
            found.append(Waveform(waveform.samples[first : first + size], sample_rate))
    return found


def find_equal_error(digits: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Equal error rate and its confidence threshold."""
    thresholds = np.unique(np.concatenate([digits, others, [np.inf]]))
    rates = np.array([((digits < limit).mean(), (others >= limit).mean()) for limit in thresholds])
    at = int(np.argmin(np.abs(rates[:, 0] - rates[:, 1])))
    return float(rates[at].mean()), float(thresholds[at])


def find_confidences(model: Recognizer, sounds: list[Waveform], sentences: list[str]) -> np.ndarray:
    """Lowest word confidence of each recording; 0 without words."""
    transcripts = model.transcribe_many(sounds, sentences=sentences)
    return np.array([min((word.confidence for word in one.words), default=0.0) for one in transcripts])


def main() -> None:
    """Print errors with and without the closed task, and the equal error rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--digits", type=Path, required=True, help="manifest")
    parser.add_argument("--others", type=Path, required=True, help="folder with recordings of other speech")
    args = parser.parse_args()
    model = load(args.model)
    rows = [json.loads(line) for line in args.digits.read_text().splitlines()]
    sentences = sorted({row["text"] for row in rows})
    sounds = [read_audio(row["audio_filepath"], sample_rate=model.sample_rate, check_levels=False) for row in rows]
    for name, options in (("greedy", {}), ("closed", {"sentences": sentences})):
        transcripts = model.transcribe_many(sounds, **options)
        wrong = sum(one.text != row["text"] for one, row in zip(transcripts, rows, strict=True))
        print(f"{name}: {wrong} of {len(rows)} wrong")
    others = cut_others(args.others, [len(sound.samples) / sound.sample_rate for sound in sounds], model.sample_rate)
    rate, threshold = find_equal_error(*(find_confidences(model, each, sentences) for each in (sounds, others)))
    print(f"equal error rate {100 * rate:.1f} % at a confidence of {threshold:.4f}; {len(others)} parts")


if __name__ == "__main__":
    main()
