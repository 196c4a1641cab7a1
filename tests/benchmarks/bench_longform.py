"""Long recordings: word error rate, memory, throughput of a folder, and words in what is not speech.

    python tests/benchmarks/bench_longform.py --model MODEL --corpus valid.jsonl --wer --minutes 60
    python tests/benchmarks/bench_longform.py --model MODEL --corpus valid.jsonl --memory --hours 10
    python tests/benchmarks/bench_longform.py --model MODEL --corpus valid.jsonl --folder --minutes 20
    python tests/benchmarks/bench_longform.py --model MODEL --noise FOLDER
    python tests/benchmarks/bench_longform.py --vad AUDIO

A long recording is utterances of the corpus, in a random order, with pauses of 0.2 to 3 seconds of noise at the level
of the quietest tenth of the utterances. ``--wer`` compares its word error rate with that of the utterances one by one.
``--memory`` transcribes recordings of ten minutes and of ``--hours`` hours in a process each, and compares the peaks.
``--folder`` makes files of 1 to 120 seconds, and compares with the same network called file by file in plain PyTorch.
``--noise`` counts words a minute in recordings without speech. ``--vad`` times voice activity detection.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PAUSES = (0.2, 3.0)
WAYS: dict[str, dict[str, Any]] = {
    "vad": {"cut": "vad"},
    "vad_filter": {"vad_filter": True},
    "windows": {"cut": "windows"},
}


def read_rows(corpus: Path) -> list[tuple[Path, str]]:
    """Recording and text of each utterance of a manifest."""
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    return [(corpus.parent / row["audio_filepath"], row["text"]) for row in rows]


def join_utterances(
    rows: list[tuple[Path, str]], seconds: float, rate: int, *, seed: int = 0
) -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
    """Samples, text, and the pause after it, of utterances that together last so long."""
    from speechrnn.audio.files import read_audio
    from speechrnn.recognition.word_times import measure_levels

    rng, order = np.random.default_rng(seed), random.Random(seed)
    waiting: list[tuple[Path, str]] = []
    total = 0
    while total < seconds * rate:
        if not waiting:
            waiting = order.sample(rows, len(rows))
        path, text = waiting.pop()
        samples = read_audio(path, sample_rate=rate, check_levels=False).samples
        level = 10 ** (np.quantile(measure_levels(samples, rate), 0.1) / 20)
        pause = (level * rng.standard_normal(round(rng.uniform(*PAUSES) * rate))).astype(np.float32)
        total += len(samples) + len(pause)
        yield samples, text, pause


def measure_wer(model: Any, args: argparse.Namespace) -> None:
    """Print the word error rates of utterances one by one, and of their recording by each way of cutting."""
    from speechrnn.text.scores import score
    from speechrnn.types import Waveform

    rate = model.sample_rate
    parts = list(join_utterances(read_rows(args.corpus), 60 * args.minutes, rate, seed=args.seed))
    texts = [text for _, text, _ in parts]
    singles = list(model.transcribe_many([Waveform(samples, rate) for samples, _, _ in parts], max_seconds=None))
    apart = score([" ".join(texts)], [" ".join(each.text for each in singles)]).wer
    whole = Waveform(np.concatenate([piece for samples, _, pause in parts for piece in (samples, pause)]), rate)
    print(f"{len(parts)} utterances, {whole.seconds / 60:.1f} minutes: {100 * apart:.2f} % WER one by one")
    for name, options in WAYS.items():
        begun = time.perf_counter()
        found = model.transcribe(whole, **options)
        wer = score([" ".join(texts)], [found.text]).wer
        worse = 100 * (wer / apart - 1) if apart else 0.0
        print(
            f"{name}: {100 * wer:.2f} % WER, {worse:+.1f} % relative, {len(found.segments)} segments, "
            f"{found.skipped_seconds:.0f} s skipped, {whole.seconds / (time.perf_counter() - begun):.0f} x real time"
        )


def measure_memory(model: Any, args: argparse.Namespace) -> None:
    """Print the peak memory of a process that transcribes ten minutes, and of one that transcribes hours."""
    import soundfile

    rate = model.sample_rate
    for cut in ("vad", "windows"):
        peaks = {}
        for seconds in (600.0, 3600.0 * args.hours):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "long.wav"
                with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
                    block = np.concatenate(
                        [
                            part
                            for samples, _, pause in join_utterances(read_rows(args.corpus), 300, rate)
                            for part in (samples, pause)
                        ]
                    )
                    for _ in range(max(1, round(seconds * rate / len(block)))):
                        file.write(block)
                done = subprocess.run(
                    [sys.executable, __file__, "--model", args.model, "--peak", str(path), "--cut", cut],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peaks[seconds], words, elapsed = json.loads(done.stdout)
                print(f"{cut}: {seconds / 3600:.2f} h: peak {peaks[seconds]:.0f} MiB, {words} words, {elapsed:.0f} s")
        print(f"{cut}: ratio {peaks[3600.0 * args.hours] / peaks[600.0]:.3f}")


def print_peak(model: Any, args: argparse.Namespace) -> None:
    """Transcribe a file, and print the peak memory of this process in MiB, the number of words and the seconds."""
    begun = time.perf_counter()
    found = model.transcribe(args.peak, cut=args.cut)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([peak, len(found.words), time.perf_counter() - begun]))


def measure_folder(model: Any, args: argparse.Namespace) -> None:
    """Print the speed of a folder of mixed lengths, and of the same network called file by file."""
    import soundfile
    import torch

    from speechrnn.audio.files import read_audio

    rate, rng = model.sample_rate, np.random.default_rng(args.seed)
    acoustic = model.model.acoustic

    def run_plainly(paths: list[Path]) -> int:
        count = 0
        for path in paths:
            samples = torch.from_numpy(read_audio(path, sample_rate=rate, check_levels=False).samples)
            with torch.inference_mode():
                emission = acoustic(samples[None], torch.tensor([len(samples)]))
            best = emission.log_probs[0].argmax(dim=-1).unique_consecutive()
            count += len(model.tokens.decode(best[best != 0].tolist()).split())
        return count

    with tempfile.TemporaryDirectory() as folder:
        paths, total = [], 0.0
        while total < 60 * args.minutes:
            seconds = float(np.exp(rng.uniform(0, np.log(120))))
            parts = join_utterances(read_rows(args.corpus), seconds, rate, seed=len(paths))
            joined = np.concatenate([part for samples, _, pause in parts for part in (samples, pause)])
            paths.append(Path(folder) / f"{len(paths):04}.flac")
            soundfile.write(paths[-1], joined[: round(seconds * rate)], rate)
            total += len(joined[: round(seconds * rate)]) / rate
        print(f"{len(paths)} files of 1 to 120 s, {total / 60:.1f} minutes, {torch.get_num_threads()} threads")
        speeds: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for name, run in {
                "plain": lambda: run_plainly(paths),
                "vad": lambda: sum(len(each.words) for each in model.transcribe_many(paths, cut="vad")),
                "windows": lambda: sum(len(each.words) for each in model.transcribe_many(paths, cut="windows")),
            }.items():
                begun = time.perf_counter()
                count = run()
                speeds.setdefault(name, []).append(total / (time.perf_counter() - begun))
                print(f"  {name}: {speeds[name][-1]:.0f} x real time, {count} words")
        for name in ("vad", "windows"):
            print(f"{name}: {np.median(speeds[name]) / np.median(speeds['plain']):.2f} times as fast as plain")


def measure_noise(model: Any, args: argparse.Namespace) -> None:
    """Print words a minute in recordings without speech."""
    paths = sorted(path for path in args.noise.iterdir() if path.suffix in (".opus", ".wav", ".flac", ".mp3"))
    for name, options in {"windows": WAYS["windows"], "vad": WAYS["vad"], "vad_filter": WAYS["vad_filter"]}.items():
        found = list(model.transcribe_many(paths, **options))
        rates = {path.stem: 60 * len(each.words) / each.seconds for path, each in zip(paths, found, strict=True)}
        total = 60 * sum(len(each.words) for each in found) / sum(each.seconds for each in found)
        print(f"{name}: {total:.1f} words a minute; " + ", ".join(f"{key} {rate:.0f}" for key, rate in rates.items()))


def measure_vad(args: argparse.Namespace) -> None:
    """Print the speed of voice activity detection, on one thread."""
    from speechrnn.audio.blocks import open_blocks
    from speechrnn.audio.vad import SpeechDetector, VadOptions

    for rate in (16000, 8000):
        with open_blocks(args.vad, sample_rate=rate) as blocks:
            detector, found, count, used = SpeechDetector(VadOptions(), rate), [], 0, 0.0
            for block in blocks:
                begun = time.process_time()
                found += detector.feed(block)
                used += time.process_time() - begun
                count += len(block)
            found += detector.flush()
        share = sum(end - begin for begin, end in found) / count
        print(f"{rate} Hz: {count / rate / used:.0f} x real time; {len(found)} stretches, {100 * share:.0f} % speech")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--corpus", type=Path, help="manifest")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cut", default="auto")
    for name in ("--wer", "--memory", "--folder"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--noise", type=Path, help="folder of recordings without speech")
    parser.add_argument("--vad", help="recording")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.vad:
        measure_vad(args)
        return
    from speechrnn.recognition.recognizer import load

    model = load(args.model, device="cpu")
    wanted = {
        "wer": measure_wer,
        "memory": measure_memory,
        "folder": measure_folder,
        "noise": measure_noise,
        "peak": print_peak,
    }
    for name, measure in wanted.items():
        if getattr(args, name):
            measure(model, args)


if __name__ == "__main__":
    main()
