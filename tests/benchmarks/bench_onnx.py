"""Exported models beside the originals: log-probabilities, speed on one thread, and what 8-bit weights cost.

    python tests/benchmarks/bench_onnx.py [--cells gru lstm] [--size 256x3] [--seconds 60] [--json FILE]
    python tests/benchmarks/bench_onnx.py --model MODEL --corpus test.jsonl

The first form takes untrained bidirectional models, with the statistics of the recordings, and real speech
(speechocean762 in $SPEECHRNN_CORPORA). Systems run in turn on every batch, in several rounds; the least time of each
counts, which another load on the machine disturbs least. The second form measures word error rates of a trained LSTM
model, greedy, of the original, of the file and of the file with 8-bit weights, and the largest difference of a
log-probability.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig, StatisticsAccumulator
from speechrnn.audio.files import read_audio
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.export.build import build_graph
from speechrnn.export.check import TOLERANCE, compare
from speechrnn.export.metadata import start_session
from speechrnn.model_folder import ModelFolder, load_model
from speechrnn.text.normalize import TextConfig
from speechrnn.text.scores import score
from speechrnn.text.tokens import BLANK, CharacterTokens

RATE = 16000
Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def read_speech(count: int) -> list[np.ndarray]:
    """Real utterances at 16 kHz."""
    folder = Path(os.environ["SPEECHRNN_CORPORA"]) / "speechocean762" / "WAVE"
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".opus", ".wav", ".WAV"))
    step = max(1, len(paths) // count)
    return [read_audio(path, sample_rate=RATE, check_levels=False).samples for path in paths[::step][:count]]


def pad(samples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms (B, N) and lengths (B,)."""
    lengths = np.array([len(each) for each in samples])
    waveforms = np.zeros((len(samples), lengths.max()), dtype=np.float32)
    for row, each in zip(waveforms, samples, strict=True):
        row[: len(each)] = each
    return waveforms, lengths


def run_torch(model: AcousticModel) -> Run:
    def run(waveforms: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            emission = model(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        return emission.log_probs.numpy(), emission.lengths.numpy()

    return run


def run_onnx(model: AcousticModel, *, int8: bool) -> Run:
    session = start_session(build_graph(model, int8=int8), threads=1, where="graph")

    def run(waveforms: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_probs, frames = session.run(None, {"waveforms": waveforms, "lengths": lengths})
        return log_probs, frames

    return run


def make_model(cell: str, size: str, speech: list[np.ndarray]) -> ModelFolder:
    """An untrained model of a size, with the statistics of the recordings."""
    units, layers = map(int, size.split("x"))
    torch.manual_seed(0)
    encoder = EncoderConfig(cell=cell, hidden_size=units, num_layers=layers)  # type: ignore[arg-type]
    tokens = CharacterTokens([BLANK, " ", *"abcdefghijklmnopqrstuvwxyz'"])
    acoustic = AcousticModel(FrontEndConfig(normalization="corpus"), encoder, len(tokens)).eval()
    accumulator = StatisticsAccumulator(acoustic.front_end)
    accumulator.add(*map(torch.from_numpy, pad(speech)))
    acoustic.front_end.set_statistics(*accumulator.compute())
    return ModelFolder(acoustic, tokens, TextConfig(), {})


def measure_speed(systems: dict[str, Run], speech: list[np.ndarray], batch: int, seconds: float) -> dict[str, float]:
    """Seconds of audio per second of each system."""
    ordered = sorted(speech, key=len)
    batches = [pad(ordered[start : start + batch]) for start in range(0, len(ordered), batch)]
    audio = sum(int(lengths.sum()) for _, lengths in batches) / RATE
    best = {name: [float("inf")] * len(batches) for name in systems}
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < 3:
        rounds += 1
        for number, each in enumerate(batches):
            for name, run in systems.items():
                started = time.perf_counter()
                run(*each)
                best[name][number] = min(best[name][number], time.perf_counter() - started)
    return {name: audio / sum(each) for name, each in best.items()}


def measure_untrained(cells: list[str], size: str, seconds: float) -> dict[str, object]:
    """Differences and speeds of all cells."""
    speech, report = read_speech(24), {}
    for cell in cells:
        model = make_model(cell, size, speech)
        systems = {"torch": run_torch(model.acoustic), "onnx": run_onnx(model.acoustic, int8=False)}
        compared = [compare(model, systems["onnx"], each) for each in speech]
        if cell == "lstm":
            systems["onnx int8"] = run_onnx(model.acoustic, int8=True)
        found: dict[str, object] = {
            "difference": max(each.difference for each in compared),
            "rounding of the original": max(each.rounding for each in compared),
        }
        for batch in (1, 8):
            found[f"batch {batch}"] = measure_speed(systems, speech, batch, seconds / (2 * len(cells)))
        report[f"{cell} {size}"] = found
        print(f"{cell} {size}: {json.dumps(found)}", flush=True)
    return report


def measure_errors(model: ModelFolder, corpus: str) -> dict[str, object]:
    """Word error rates of the original and its exports on a corpus."""
    from speechrnn.corpus.manifest import read_manifest
    from speechrnn.text.normalize import normalize_for_scoring

    acoustic, entries = model.acoustic, read_manifest(corpus)
    systems = {
        "torch": run_torch(acoustic),
        "onnx": run_onnx(acoustic, int8=False),
        "onnx int8": run_onnx(acoustic, int8=True),
    }
    texts: dict[str, list[str]] = {name: [] for name in systems}
    recordings: list[np.ndarray] = []
    worst = dict.fromkeys(systems, 0.0)
    for entry in entries:
        samples = read_audio(
            entry.audio_path,
            sample_rate=acoustic.sample_rate,
            start=entry.start,
            seconds=entry.seconds,
            check_levels=False,
        ).samples
        recordings.append(samples)
        found = {name: run(samples[None], np.array([len(samples)])) for name, run in systems.items()}
        for name, (log_probs, frames) in found.items():
            [best] = decode_greedy(torch.from_numpy(log_probs), torch.from_numpy(frames))
            texts[name].append(normalize_for_scoring(model.tokens.decode(best.tokens)))
            rows = slice(0, int(frames[0]))
            worst[name] = max(
                worst[name], float(np.abs(log_probs[0, rows] - found["torch"][0][0, rows]).max(initial=0))
            )
    references = [normalize_for_scoring(entry.text) for entry in entries]
    compared = [compare(model, systems["onnx"], samples, batched=False) for samples in recordings]
    shares: dict[str, object] = {
        "within 1e-4": sum(each.difference <= TOLERANCE for each in compared) / len(compared),
        "original's rounding within 1e-4": sum(each.rounding <= TOLERANCE for each in compared) / len(compared),
        "refused": sum(each.difference > each.allowed for each in compared),
    }
    return shares | {
        name: {
            "wer": score(references, each).wer,
            "cer": score(references, each).cer,
            "difference": worst[name],
            "same": each == texts["torch"],
        }
        for name, each in texts.items()
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["gru", "lstm"])
    parser.add_argument("--size", default="256x3", help="units x layers")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring speed")
    parser.add_argument("--model", help="a trained model, for error rates")
    parser.add_argument("--corpus", help="a NeMo manifest, for error rates")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.model:
        report = measure_errors(load_model(args.model), args.corpus)
        print(json.dumps(report, indent=2))
    else:
        report = measure_untrained(args.cells, args.size, args.seconds)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
