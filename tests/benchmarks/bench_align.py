"""An hour of audio with its text: how long the alignment takes, how much memory, and where it puts the words.

    python tests/benchmarks/bench_align.py --model MODEL --corpus valid.jsonl --minutes 60

The corpus's recordings are joined, half a second of silence between them, again and again until they are so long. An
utterance lies where it was put when none of its words is more than that away from it.
"""

import argparse
import resource
import time

import numpy as np

from speechrnn.audio.files import read_audio
from speechrnn.corpus.manifest import read_manifest
from speechrnn.recognition.alignment import align
from speechrnn.recognition.recognizer import load
from speechrnn.text.normalize import normalize_text

PAUSE_SECONDS = 0.5


def main() -> None:
    """Join, align, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True, help="a NeMo manifest")
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    recognizer = load(args.model, device="cpu")
    rate = recognizer.sample_rate
    entries = read_manifest(args.corpus)
    pause = np.zeros(round(PAUSE_SECONDS * rate), np.float32)
    pieces, texts, spans, length, number = [pause], [], [], len(pause), 0
    while length < 60 * args.minutes * rate:
        entry = entries[number % len(entries)]
        number += 1
        text = normalize_text(entry.text, recognizer.model.text)
        if recognizer.tokens.unknown(text) or not text:
            continue
        samples = read_audio(
            entry.audio_path, sample_rate=rate, start=entry.start, seconds=entry.seconds, check_levels=False
        ).samples
        spans.append((length / rate, (length + len(samples)) / rate, len(text.split())))
        texts.append(text)
        pieces += [samples, pause]
        length += len(samples) + len(pause)
    joined = np.concatenate(pieces)
    begun = time.perf_counter()
    found = align(recognizer, joined, "\n".join(texts), sample_rate=rate)
    seconds = time.perf_counter() - begun
    inside, at = 0, 0
    for start, end, count in spans:
        words = found.words[at : at + count]
        at += count
        inside += start - PAUSE_SECONDS <= words[0].start and words[-1].end <= end + PAUSE_SECONDS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(joined) / rate / 60:.1f} min, {len(found.words)} words: {seconds:.1f} s, {peak:.2f} GiB at most")
    print(f"{inside} of {len(spans)} utterances lie where they were put, {len(found.misfits)} stretches do not fit")


if __name__ == "__main__":
    main()
