"""Start-up and memory of exported models without torch, each in a process of its own.

For untrained models of 3 layers of 256 units, bidirectional: seconds from the first import to the first transcript of
3 seconds of audio, those of the processor, the interpreter's start included, and the highest resident memory; the least
of several processes each. Linux only.

    python tests/benchmarks/bench_lite.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.export.build import build_graph
from speechrnn.export.describe import describe_model
from speechrnn.model_folder import ModelFolder
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import CharacterTokens

SCRIPT = """
import time
begin = time.perf_counter()
import resource, sys
from speechrnn.lite import load
loaded = load(sys.argv[1]).transcribe(sys.argv[2])
seconds = time.perf_counter() - begin
assert "torch" not in sys.modules
usage = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which includes what the parent had when it started this process.
highest = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, usage.ru_utime + usage.ru_stime, int(highest) / 1024)
"""


def make_model(cell: str) -> ModelFolder:
    """An untrained model; its weights are of the usual size, so that its time is that of a trained one."""
    tokens = CharacterTokens.build(["abcdefghijklmnopqrstuvwxyz '"])
    torch.manual_seed(0)
    encoder = EncoderConfig(cell=cell, hidden_size=256, num_layers=3)
    acoustic = AcousticModel(FrontEndConfig(), encoder, len(tokens)).eval()
    return ModelFolder(acoustic, tokens, TextConfig(), {})


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes for each model")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "noise.wav"
        noise = np.random.default_rng(0).standard_normal(3 * 16000)
        soundfile.write(audio, 0.1 * noise, 16000)
        print("cell  size    first transcript  (of that CPU)  memory")
        for cell in ("gru", "lstm"):
            model = make_model(cell)
            path = Path(folder) / f"{cell}.onnx"
            path.write_bytes(build_graph(model.acoustic, metadata=describe_model(model).pack()))
            runs = [
                [float(value) for value in subprocess.check_output([sys.executable, "-c", SCRIPT, path, audio]).split()]
                for _ in range(repeats)
            ]
            seconds, cpu, memory = np.min(runs, axis=0)
            size = path.stat().st_size / 1e6
            print(f"{cell:<5} {size:4.1f} MB {seconds:12.2f} s  {cpu:12.2f} s {memory:9.0f} MB")


if __name__ == "__main__":
    main()
