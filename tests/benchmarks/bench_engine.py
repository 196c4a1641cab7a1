"""Engines of a CPU against torch in float32, from files to text: a bidirectional GRU and LSTM of 3 layers of 256 units.

    python tests/benchmarks/bench_engine.py [--model LSTM --corpus valid.jsonl] [--utterances 200]

Greedy, recordings of 10 s, one at a time and eight at a time; the engines take turns. With one thread: CPU time of the
process, so that a busy machine matters less; with two: time by the clock. The encoder's share is that of the measured
rate of large matrix products in float32. With a trained LSTM and a corpus: the error rates of each engine.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from speechrnn.benchmarking.inputs import make_noise, make_untrained
from speechrnn.benchmarking.measurement import measure_matrix_rates
from speechrnn.benchmarking.stages import measure_transcription
from speechrnn.corpus.readers import read_corpus
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.recognition.recognizer import Recognizer, load

ENGINES = {
    "gru": ({"backend": "torch"}, {"backend": "onnx"}),
    "lstm": (
        {"backend": "torch"},
        {"backend": "onnx"},
        {"backend": "torch", "precision": "bfloat16"},
        {"backend": "onnx", "precision": "int8"},
    ),
}
SECONDS = 10.0


def name_engine(options: dict[str, Any]) -> str:
    """Backend and precision."""
    return f"{options['backend']} {options.get('precision', 'float32')}"


def transcribe(recognizer: Recognizer, paths: list[str], rows: int) -> None:
    """Transcribe batches of so many recordings."""
    if rows == 1:
        for path in paths:
            recognizer.transcribe(path)
    else:
        list(recognizer.transcribe_many(paths, batch_seconds=rows * SECONDS + 0.1))


def measure(cell: str, paths: list[str], threads: int, rounds: int) -> Iterator[list[Any]]:
    """Rows of the table: cell, threads, rows of a batch, engine, × real time, ratio to torch in float32."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    recognizers = {
        name_engine(each): Recognizer(make_untrained(cell=cell), device="cpu", **each) for each in ENGINES[cell]
    }
    for rows in (1, 8):
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds + 1):
            for name, recognizer in recognizers.items():
                begun = clock()
                transcribe(recognizer, paths, rows)
                if number > 0:
                    taken[name].append(clock() - begun)
        first, *_ = (medians := {name: statistics.median(each) for name, each in taken.items()}).values()
        for name, median in medians.items():
            yield [cell, threads, rows, name, len(paths) * SECONDS / median, first / median]


def print_shares(seconds: float) -> None:
    """The encoder's rate in float32 with one thread, and its share of the matrix rate."""
    torch.set_num_threads(1)
    rate = measure_matrix_rates(torch.device("cpu"))["float32"]
    for cell in ENGINES:
        for engine in (None, "onnx"):
            recognizer = Recognizer(make_untrained(cell=cell), device="cpu", backend=engine or "torch")
            for rows in (1, 8):
                with make_noise(recognizer.sample_rate, seconds=seconds) as audio:
                    found = measure_transcription(
                        recognizer, audio, engine=recognizer._chosen, batch_seconds=rows * SECONDS + 0.1, rounds=2
                    )
                print(
                    f"{cell}, {found.engine}, {rows} rows: {found.encoder_rate:.0f} of {rate:.0f} GFLOP/s, "
                    f"{100 * found.encoder_rate / rate:.0f} %"
                )


def print_error_rates(model: str, corpus: str, count: int) -> None:
    """Error rates of a trained LSTM with each engine."""
    utterances = list(read_corpus(corpus))[:count]
    print("\n| engine | WER % | CER % |\n| --- | --- | --- |")
    for options in ENGINES["lstm"]:
        score = evaluate(load(model, device="cpu", **options), utterances).score
        print(f"| {name_engine(options)} | {100 * score.wer:.2f} | {100 * score.cer:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=80.0, help="audio of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", help="a trained LSTM")
    parser.add_argument("--corpus", help="for its error rates")
    parser.add_argument("--utterances", type=int, default=200)
    args = parser.parse_args()
    if args.corpus is not None:
        print_error_rates(args.model, args.corpus, args.utterances)
        return
    print("| cell | threads | rows | engine | × real time | ratio |\n| --- | --- | --- | --- | --- | --- |")
    with make_noise(16000, seconds=args.seconds) as audio:
        paths = [str(each.audio_path) for each in audio]
        for threads in args.threads:
            for cell in ENGINES:
                for *names, speed, ratio in measure(cell, paths, threads, args.rounds):
                    print("|", " | ".join(map(str, names)), f"| {speed:.0f} | {ratio:.2f} |", flush=True)
    print_shares(args.seconds)


if __name__ == "__main__":
    main()
