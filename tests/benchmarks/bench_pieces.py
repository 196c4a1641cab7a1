"""Errors of recordings that are transcribed in pieces, with and without carried states.

    python tests/benchmarks/bench_pieces.py --model MODEL --corpus valid.jsonl --seconds 0.5 1 2

Each recording is transcribed whole, in pieces of a given length that start from the initial state, and in the same
pieces with the forward state carried over. The log-probabilities of the pieces are joined before greedy decoding, so
that a word at a cut can be recognised. With ``front_end.normalization: utterance`` each piece is normalised by its own
frames, which costs more accuracy than the cuts.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from speechrnn.corpus.readers import read_corpus
from speechrnn.evaluation.evaluate import read_all
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import difference_interval, score, word_errors


def find_bounds(recognizer: Recognizer, num_samples: int, seconds: float) -> list[int]:
    """Bounds of the pieces, in samples. Each piece is a whole number of encoder frames and has at least one."""
    hop = round(recognizer.seconds_per_frame * recognizer.sample_rate)
    step = max(1, round(seconds / recognizer.seconds_per_frame)) * hop
    bounds = [start for start in range(0, num_samples, step) if recognizer.count_frames(num_samples - start) > 0]
    return [*bounds, num_samples]


def compute_pieces(recognizer: Recognizer, samples: Tensor, bounds: list[int], *, carries: bool) -> Tensor:
    """Joined log-probabilities (T', V) of the pieces of a recording."""
    own = recognizer.make_state(torch.zeros(0))
    state, parts = own, []
    for begin, end in pairwise(bounds):
        piece = samples[None, begin:end]
        emission = recognizer.emissions(piece, torch.tensor([end - begin]), state=state, return_state=True)
        parts.append(emission.log_probs[0])
        if carries and emission.state is not None:
            state = own.clone()
            state[:, :, 0] = emission.state[:, :, 0, 0]
    return torch.cat(parts)


def transcribe(recognizer: Recognizer, recordings: list[Tensor], seconds: float | None, carries: bool) -> Iterator[str]:
    """Texts; each recording is one piece without ``seconds``."""
    decode = recognizer.choose_decoder(decoder="greedy").decode
    for samples in recordings:
        bounds = [0, len(samples)] if seconds is None else find_bounds(recognizer, len(samples), seconds)
        log_probs = compute_pieces(recognizer, samples, bounds, carries=carries)
        [[best, *_]] = decode(log_probs[None], torch.tensor([len(log_probs)]))
        yield normalize_for_scoring(recognizer.tokens.decode(best.tokens))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    args = parser.parse_args()
    recognizer = load(args.model, device="cpu")
    cuts = {cut.id: cut for cut in read_corpus(args.corpus)}
    read = {str(each.name): torch.from_numpy(each.samples) for each in read_all(recognizer, cuts.values(), {})}
    recordings = list(read.values())
    references = [normalize_for_scoring(cuts[id].text) for id in read]
    speakers = [cuts[id].speaker for id in read]

    def measure(seconds: float | None, carries: bool = False) -> tuple[list, str]:
        texts = list(transcribe(recognizer, recordings, seconds, carries))
        scored = score(references, texts, speakers=speakers)
        counts = [word_errors(*pair) for pair in zip(references, texts, strict=True)]
        return counts, f"{100 * scored.wer:.1f} | {100 * scored.cer:.1f}"

    _, whole = measure(None)
    print(
        "| pieces, s | state | WER % | CER % | WER against begun anew, points (95 %) |\n| --- | --- | --- | --- | --- |"
    )
    print(f"| whole | | {whole} | |")
    for seconds in args.seconds:
        anew, shown = measure(seconds)
        print(f"| {seconds:g} | begins anew | {shown} | |")
        carried, shown = measure(seconds, carries=True)
        interval = difference_interval(anew, carried, speakers)
        lengths = sum(count.length for count in anew)
        gain = sum(count.errors for count in carried) - sum(count.errors for count in anew)
        points = f"{100 * gain / lengths:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
        print(f"| {seconds:g} | carried on | {shown} | {points} |", flush=True)


if __name__ == "__main__":
    main()
