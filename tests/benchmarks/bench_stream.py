"""Streams: the same text as the whole recording, the delay of each word, how often shown words change, and speed.

    python tests/benchmarks/bench_stream.py equality MODEL CORPUS [--limit N]
    python tests/benchmarks/bench_stream.py delay MODEL CORPUS [--limit N] [--decoder beam]
    python tests/benchmarks/bench_stream.py speed [--size small] [--seconds 60]

``equality`` cuts each recording of a corpus in several ways and compares with ``transcribe``; the n-gram model of the
beam search is built from the corpus's own texts, as only the comparison matters. ``delay`` plays the recordings one
after the other as one stream, in chunks of 40 ms: a word is shown when the first chunk whose text has it from then on
has been computed, on a core of its own; its end is that of the final transcript's word times. ``speed`` takes a model
that was never trained. All of them use one thread.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.audio.files import read_audio
from speechrnn.corpus.readers import read_corpus
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.model_folder import ModelFolder
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import CharacterTokens

CHUNKS = {"10 ms": (0.01, 0.01), "10 to 500 ms": (0.01, 0.5), "160 ms": (0.16, 0.16), "2 s": (2.0, 2.0)}
"""Shortest and longest chunk, in seconds."""
PLAYED_SECONDS = 0.04


def read_recordings(corpus: Path, recognizer: Recognizer, limit: int | None):
    """Samples at the model's rate, and text, of each utterance."""
    utterances = list(read_corpus(corpus))[:limit]
    return [
        (read_audio(each.audio_path, sample_rate=recognizer.sample_rate, check_levels=False).samples, each.text)
        for each in utterances
    ]


def cut(samples: np.ndarray, shortest: int, longest: int, rng: np.random.Generator):
    """Pieces of random sizes."""
    at = 0
    while at < len(samples):
        size = int(rng.integers(shortest, longest + 1))
        yield samples[at : at + size]
        at += size


def measure_equality(args: argparse.Namespace) -> None:
    recognizer = load(args.model, device="cpu")
    recordings = read_recordings(args.corpus, recognizer, args.limit)
    language = CompiledNgram.of(build_ngram([text.split() for _, text in recordings], order=2))
    decodings = {"greedy": {}, "beam 16 + 2-gram": {"language_model": language, "language_weight": 0.5}}
    rate = recognizer.sample_rate
    print(f"{len(recordings)} recordings, {sum(len(samples) for samples, _ in recordings) / rate:.0f} s")
    for name, decoding in decodings.items():
        wanted = [recognizer.transcribe(samples, sample_rate=rate, **decoding) for samples, _ in recordings]
        for chunk, (shortest, longest) in CHUNKS.items():
            rng, same, times = np.random.default_rng(1), 0, 0
            for (samples, _), whole in zip(recordings, wanted, strict=True):
                stream = recognizer.stream(**decoding)
                for piece in cut(samples, round(shortest * rate), round(longest * rate), rng):
                    stream.feed(piece)
                final = stream.final()
                same += final.text == whole.text
                times += [(word.start, word.end) for word in final.words] == [
                    (word.start, word.end) for word in whole.words
                ]
            print(f"{name}, chunks of {chunk}: same text {same} of {len(wanted)}, same word times {times}")


def measure_delay(args: argparse.Namespace) -> None:
    recognizer = load(args.model, device="cpu")
    rate = recognizer.sample_rate
    samples = np.concatenate([samples for samples, _ in read_recordings(args.corpus, recognizer, args.limit)])
    stream = recognizer.stream(endpoints=True, decoder=args.decoder)
    shown, stable, clock, computed, size = [], [], 0.0, 0.0, round(PLAYED_SECONDS * rate)
    for at in range(0, len(samples), size):
        piece = samples[at : at + size]
        begin = time.process_time()  # of this process alone: the machine may have other work
        known = stream.feed(piece)
        took = time.process_time() - begin
        computed += took
        clock = max(clock, (at + len(piece)) / rate) + took  # a chunk waits for the one before it
        shown.append((clock, [word.text for word in known.words]))
        stable.append((clock, known.stable.split()))
    final = stream.final().words
    growing, changed = count_revisions([words for _, words in shown])
    _, broken = count_revisions([words for _, words in stable])
    print(
        f"{len(samples) / rate:.0f} s of audio, {len(final)} words, decoder {args.decoder}, "
        f"model delay {1000 * stream._acoustics.delay_seconds:.0f} ms from the start of a frame"
    )
    for what, texts in (("its text", shown), ("its stable text", stable)):
        delays = [find_time(texts, number, word.text) - word.end for number, word in enumerate(final)]
        known = [1000 * delay for delay in delays if np.isfinite(delay)]
        median, late = np.quantile(known, [0.5, 0.95])
        print(
            f"from a word's end to {what}: median {median:.0f} ms, 95th percentile {late:.0f} ms ({len(known)} words)"
        )
    print(f"computing: {computed / (len(samples) / rate):.4f} of real time")
    print(
        f"revisions per word: {changed / len(final):.3f}, of stable words {broken / len(final):.4f}; a word grew by "
        f"letters {growing / len(final):.3f} times"
    )


def find_time(shown: list[tuple[float, list[str]]], number: int, text: str) -> float:
    """When a word appeared that did not change again; infinite if it appeared at the end of the stream."""
    found = float("inf")
    for clock, words in reversed(shown):
        if len(words) <= number or words[number] != text:
            break
        found = clock
    return found


def count_revisions(shown: list[list[str]]) -> tuple[int, int]:
    """How often a shown word grew at its end, and how often it changed otherwise or vanished."""
    growing = changed = 0
    for before, after in pairwise(shown):
        for number, word in enumerate(before):
            now = after[number] if number < len(after) else ""
            growing += now != word and now.startswith(word)
            changed += not now.startswith(word)
    return growing, changed


def measure_speed(args: argparse.Namespace) -> None:
    tokens = CharacterTokens.build(["abcdefghijklmnopqrstuvwxyz' "])
    front_end = FrontEndConfig(kind="log_mel", n_mels=80, normalization="sliding")
    encoder = EncoderConfig(
        size=args.size, cell=args.cell, bidirectional=False, subsampling_factor=4, lookahead_frames=4
    )
    torch.manual_seed(0)
    acoustic = AcousticModel(front_end, encoder, len(tokens), blank_bias=2.0)
    recognizer = Recognizer(ModelFolder(acoustic, tokens, TextConfig(), {}), device="cpu")
    samples = (0.1 * np.random.default_rng(0).standard_normal(round(args.seconds * 16000))).astype(np.float32)
    for decoder in ("greedy", "beam"):
        for seconds in (0.04, 0.16):
            stream, size = recognizer.stream(endpoints=True, decoder=decoder), round(seconds * 16000)
            stream.feed(samples[:16000])  # compiles the beam search
            begin = time.process_time()
            for at in range(16000, len(samples), size):
                stream.feed(samples[at : at + size])
            factor = (time.process_time() - begin) / (args.seconds - 1)
            print(
                f"{args.size} {args.cell}, {recognizer.num_parameters:,} parameters, {decoder}, chunks of "
                f"{1000 * seconds:.0f} ms: real-time factor {factor:.4f} on one core"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("equality", measure_equality), ("delay", measure_delay)):
        command = commands.add_parser(name)
        command.add_argument("model")
        command.add_argument("corpus", type=Path)
        command.add_argument("--limit", type=int)
        command.add_argument("--decoder", default="greedy", choices=("greedy", "beam"))
        command.set_defaults(run=function)
    command = commands.add_parser("speed")
    command.add_argument("--size", default="small")
    command.add_argument("--cell", default="gru")
    command.add_argument("--seconds", type=float, default=60.0)
    command.set_defaults(run=measure_speed)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
