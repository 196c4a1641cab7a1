"""What a limited right context costs a bidirectional model: error rates over context lengths, against whole recordings.

    python tests/benchmarks/bench_latency_controlled.py --model MODEL --corpus valid.jsonl \
        --chunk-seconds 0.5 --context-seconds 0.1 0.25 0.5 1

Each recording is computed whole and in chunks, as a latency-controlled stream computes it, and decoded greedily. The
delay is that of a chunk's first frame, and on average over the frames; the cost is the share of frames computed again.
A model that normalises by utterance cannot stream; here its features are those of the whole recording.
"""

import argparse
from collections.abc import Sequence

import torch

from speechrnn.acoustic.chunked import Chunks
from speechrnn.corpus.readers import read_corpus
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.evaluation.evaluate import read_all
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import ErrorCounts, difference_interval, score, word_errors
from speechrnn.types import pad_sequences

BATCH = 32


@torch.inference_mode()
def transcribe(recognizer: Recognizer, recordings: Sequence[torch.Tensor], chunks: Chunks | None) -> list[str]:
    texts = []
    for start in range(0, len(recordings), BATCH):
        emission = recognizer.model.acoustic(*pad_sequences(recordings[start : start + BATCH]), chunks=chunks)
        found = decode_greedy(emission.log_probs, emission.lengths)
        texts += [normalize_for_scoring(recognizer.tokens.decode(each.tokens)) for each in found]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--chunk-seconds", type=float, default=0.5)
    parser.add_argument("--context-seconds", type=float, nargs="*", default=[0.1, 0.25, 0.5, 1.0])
    args = parser.parse_args()
    recognizer = load(args.model, device="cpu")
    step = recognizer.model.acoustic.seconds_per_step
    utterances = {each.id: each for each in read_corpus(args.corpus)}
    read = {str(each.name): torch.from_numpy(each.samples) for each in read_all(recognizer, utterances.values(), {})}
    recordings = list(read.values())
    references = [normalize_for_scoring(utterances[id].text) for id in read]
    speakers = [utterances[id].speaker_key for id in read]

    def measure(chunks: Chunks | None) -> tuple[list[ErrorCounts], str, float]:
        texts = transcribe(recognizer, recordings, chunks)
        scored = score(references, texts, speakers=speakers)
        counts = [word_errors(*pair) for pair in zip(references, texts, strict=True)]
        return counts, f"{100 * scored.wer:.2f} ({sum(each.errors for each in counts)})", scored.wer

    whole, shown, whole_wer = measure(None)
    print(f"{len(recordings)} recordings, {sum(count.length for count in whole)} words\n")
    print(
        "| right context, s | delay, s: most, mean | cost | WER % (errors) | against whole, points (95 %) | relative |"
    )
    print("|" + " --- |" * 6)
    print(f"| whole recording | | 1 | {shown} | | |", flush=True)
    for seconds in args.context_seconds:
        chunks = Chunks.from_seconds(args.chunk_seconds, seconds, seconds_per_step=step)
        counts, shown, wer = measure(chunks)
        interval = difference_interval(whole, counts, speakers)
        most, mean = (step * (n + chunks.context_steps) for n in (chunks.steps, (chunks.steps + 1) / 2))
        points = f"{100 * (wer - whole_wer):+.2f} ({100 * interval.low:+.2f} to {100 * interval.high:+.2f})"
        relative = f"{100 * (wer / whole_wer - 1):+.0f} %" if whole_wer else ""
        cost = 1 + chunks.context_steps / chunks.steps
        print(
            f"| {step * chunks.context_steps:.2f} | {most:.2f}, {mean:.2f} | {cost:.2f} | {shown} | {points} | "
            f"{relative} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
