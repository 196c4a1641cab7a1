"""How long ``--resume`` takes to see that nothing is left to do in a folder of many recordings.

    python tests/benchmarks/bench_resume.py [--recordings N]

The recordings are empty files, which are found, compared with the state file, and never read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from speechrnn.audio.folders import find_recordings
from speechrnn.recognition.output_folder import open_output
from speechrnn.recognition.transcript import Transcript


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--recordings", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        calls, output = Path(name) / "calls", Path(name) / "out"
        output.mkdir()
        for number in range(args.recordings):
            folder = calls / f"{number // 100:04}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06}.wav").touch()
        times = [run(calls, output) for _ in range(2)]
    print(json.dumps(dict(zip(("write_seconds", "resume_seconds"), times, strict=True))))


def run(calls: Path, output: Path) -> float:
    """Processor seconds to find the recordings and to write what is not complete."""
    start = time.process_time()
    found = find_recordings(str(calls), is_recursive=True, skipped=str(output))
    places = {path: Path(path).parent.name for path in found}
    with open_output(output, formats=["txt"], settings={}, is_resumed=True) as opened:
        for path in opened.add(places):
            opened.write(path, Transcript("", (), 0.0))
    return round(time.process_time() - start, 2)


if __name__ == "__main__":
    main()
