"""Speed of the exported page in headless Chromium, one thread, for untrained models of 3 layers of 256 units.

Seconds of audio in a second, for a recording of 60 seconds at the model's rate, decoding of the file not counted; the
best of several runs, as the browser compiles in the first.

    python tests/benchmarks/bench_web.py [--onnxruntime-web PATH] [--repeats 3]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "web"))

from bench_lite import make_model
from browser import open_page, serve

from speechrnn.web.export import export_page

SECONDS = 60
READY = "document.getElementById('status').textContent === 'Ready' || !document.getElementById('error').hidden"
DONE = r"/transcribed in/.test(document.getElementById('status').textContent)"


def measure(folder: Path, audio: Path, repeats: int) -> float:
    """Seconds of the fastest transcription."""
    found = []
    with serve(folder) as url, open_page(url, seconds=150) as page:
        page.wait(READY)
        for _ in range(repeats):
            page.evaluate("document.getElementById('status').textContent = ''")
            page.choose_file(audio)
            page.wait(DONE)
            found.append(float(re.search(r"in ([\d.]+) s$", page.text("#status"))[1]))
    return min(found)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxruntime-web", metavar="PATH", help="the npm package (default: npm pack fetches it)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "noise.wav"
        soundfile.write(audio, 0.1 * np.random.default_rng(0).standard_normal(SECONDS * 16000), 16000)
        for cell, int8 in (("gru", False), ("lstm", False), ("lstm", True)):
            page = Path(folder) / f"{cell}-{int8}"
            exported = export_page(make_model(cell), page, int8=int8, onnxruntime_web=args.onnxruntime_web)
            rate = SECONDS / measure(page, audio, args.repeats)
            kind, size = "int8" if int8 else "float32", exported.num_bytes / 1e6
            print(f"{cell:<5}{kind:<8} {size:5.1f} MB {rate:6.1f} x real time")


if __name__ == "__main__":
    main()
