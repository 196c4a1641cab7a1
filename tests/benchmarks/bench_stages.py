"""What of a transcription is reading, what the network, and what the search: CPU time of one thread for each.

    python tests/benchmarks/bench_stages.py --model MODEL --corpus valid.jsonl --language-model words.bin

The stages run in turns, the whole corpus in each; medians of the rounds. Where a device is given, the network's time
there is by the clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from speechrnn.corpus.readers import read_corpus
from speechrnn.evaluation.evaluate import read_all
from speechrnn.recognition.batches import collect_batches
from speechrnn.recognition.recognizer import load
from speechrnn.types import pad_sequences

BATCH_SECONDS = 120.0


def time_call(run: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    """What a call returns, and how long it took by a clock."""
    begun = clock()
    found = run()
    return found, clock() - begun


def main() -> None:
    """Time reading, network, greedy decoding and beam search in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--language-model", help="for the beam search; without it none is used")
    parser.add_argument("--beam", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = load(args.model, device=args.device)
    cuts = list(read_corpus(args.corpus))
    network_clock = time.process_time if args.device == "cpu" else time.perf_counter
    given = {} if args.language_model is None else {"language_model": args.language_model}
    searches = {
        "greedy": recognizer.choose_decoder(decoder="greedy").decode,
        f"beam {args.beam}": recognizer.choose_decoder(decoder="beam", beam_size=args.beam, **given).decode,
    }

    def run_network(recordings: list[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        budget = BATCH_SECONDS * recognizer.sample_rate
        batches = collect_batches(recordings, most_samples=budget)
        found = [
            recognizer.emissions(*pad_sequences([torch.from_numpy(each.samples) for each in batch]))
            for batch in batches
        ]
        return [(each.log_probs.float().cpu(), each.lengths.cpu()) for each in found]

    def run_search(decode: Callable[..., Any], emissions: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for log_probs, lengths in emissions:
            decode(log_probs, lengths)

    taken: dict[str, list[float]] = {name: [] for name in ("reading", "network", *searches)}
    for number in range(args.rounds + 1):
        recordings, reading = time_call(lambda: list(read_all(recognizer, cuts, {})), time.process_time)
        emissions, network = time_call(lambda found=recordings: run_network(found), network_clock)
        seconds = {"reading": reading, "network": network}
        for name, decode in searches.items():
            _, seconds[name] = time_call(lambda d=decode, e=emissions: run_search(d, e), time.process_time)
        if number > 0:  # the first round loads and compiles
            for name, each in seconds.items():
                taken[name].append(each)
    audio = sum(cut.seconds for cut in cuts)
    print(f"{audio:.0f} s of audio\n\n| stage | s | × real time |\n| --- | --- | --- |")
    for name, all_seconds in taken.items():
        median = statistics.median(all_seconds)
        print(f"| {name} | {median:.3f} | {audio / max(median, 1e-9):,.0f} |")


if __name__ == "__main__":
    main()
