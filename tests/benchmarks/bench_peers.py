"""speechrnn beside other recurrent recognisers and feature extractors, in turns in one run.

    python tests/benchmarks/bench_peers.py [--tasks train transcribe features whole] [--threads 1] [--rounds 3]
        [--environment ENVIRONMENT] [--audio FILE… --model M] [--output docs/benchmarks]

The peers are installed in a virtual environment of their own, at the first run (4 GB with torch). Each measurement is a
process; the systems of a task follow one another, and the rounds repeat that, so that what else the machine does falls
on all of them. The table has the median of the rounds. ``whole`` measures recognisers from file to text and needs
recordings at 16 kHz. With --output, OUTPUT.json, OUTPUT.svg (needs matplotlib) and the tables of OUTPUT.md are written
after each task; other tasks in OUTPUT.json, and what else the page says, are kept.

sherpa-onnx is not among them: its models are downloads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from peer_systems import TASKS

SYSTEMS = Path(__file__).with_name("peer_systems.py")
REQUIREMENTS = (
    "torch==2.14.*",
    "torchaudio==2.11.*",
    "speechbrain",
    "pocketsphinx",
    "kaldi-native-fbank",
    "librosa",
    "soundfile",
)
TITLES = {
    "train": "Training steps (features, forward, CTC, backward, clipping, AdamW)",
    "transcribe": "Networks (features, forward, best token of each frame)",
    "features": "40 MFCCs",
    "whole": "Recognisers, from file to text",
}
_LINE = {"arrowstyle": "-", "color": "lightgray", "linewidth": 0.5}
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


def prepare_environment(folder: Path) -> Path:
    """The Python of the peers' environment, which is made where it does not exist."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing the peers into {folder} …", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def measure(task: str, system: str, args: argparse.Namespace, peers: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    is_ours = system.startswith("speechrnn")
    command = [sys.executable if is_ours else str(peers), str(SYSTEMS), task, system, "--threads", str(args.threads)]
    if args.audio:
        command += ["--audio", *args.audio]
    if args.model:
        command += ["--model", args.model]
    threads = {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    paths = {} if is_ours else {"PYTHONPATH": ""}
    done = subprocess.run(command, env={**os.environ, **threads, **paths}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(task: str, args: argparse.Namespace, peers: Path) -> dict[str, dict[str, Any]]:
    """The systems of a task in turns; the median of the rounds of each."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in TASKS[task]}
    for number in range(args.rounds):
        for name, found in rounds.items():
            found.append(measure(task, name, args, peers))
            print(f"{task}, round {number + 1}: {name}: {found[-1]['times_real_time']:.1f} x", file=sys.stderr)
    return {
        name: {**found[0], "times_real_time": statistics.median(each["times_real_time"] for each in found)}
        for name, found in rounds.items()
    }


def write_table(task: str, rows: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown, fastest first."""
    has_parameters = any("parameters" in row for row in rows.values())
    lines = [
        f"## {TITLES[task]}\n",
        f"| system |{' parameters, M |' if has_parameters else ''} × real time |",
        f"| --- |{' --- |' if has_parameters else ''} --- |",
    ]
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["times_real_time"]):
        parameters = f" {row['parameters'] / 1e6:.1f} |" if has_parameters else ""
        lines.append(f"| {name} |{parameters} {row['times_real_time']:.0f} |")
    return "\n".join(lines) + "\n"


def draw(path: Path, results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Speed against size, a panel for training and one for transcription."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "speechrnn"
    tasks = [task for task in ("train", "transcribe") if task in results]
    figure, panels = pyplot.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False, layout="constrained")
    for task, panel in zip(tasks, panels[0], strict=True):
        last = math.inf
        for name, row in sorted(results[task].items(), key=lambda item: -item[1]["times_real_time"]):
            color = "tab:blue" if name.startswith("speechrnn") else "tab:gray"
            place = (row["parameters"] / 1e6, row["times_real_time"])
            panel.scatter(*place, color=color, s=16)
            last = min(place[1], last / 1.09)
            panel.annotate(name, place, (6, last), textcoords="data", fontsize=7, va="center", arrowprops=_LINE)
        panel.set(title=TITLES[task].split(" (")[0], xlabel="parameters, million", ylabel="× real time", yscale="log")
        panel.set(xlim=(1, 9), xticks=range(1, 6))
        panel.yaxis.set_major_formatter("{x:.0f}")
        panel.yaxis.set_minor_formatter("{x:.0f}")
    figure.savefig(path, metadata={"Date": None})


def write_page(path: Path, tables: str) -> None:
    """Replace the tables of a page; a new page has only these."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{tables}{END}{after}", encoding="utf-8")


def write(output: Path, results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Write what has been measured, in this run or an earlier one."""
    output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_page(output.with_suffix(".md"), "\n".join(write_table(*each) for each in results.items()))
    if {"train", "transcribe"} & results.keys():
        draw(output.with_suffix(".svg"), results)


def main() -> None:
    """Measure, print the tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["train", "transcribe", "features"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environment", type=Path, default=Path("runs/peers"))
    parser.add_argument("--audio", nargs="+", default=[])
    parser.add_argument("--model")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    peers, results = prepare_environment(args.environment), {}
    if args.output is not None and args.output.with_suffix(".json").exists():
        results = json.loads(args.output.with_suffix(".json").read_text(encoding="utf-8"))
    for task in args.tasks:
        results[task] = run_task(task, args, peers)
        print(write_table(task, results[task]))
        if args.output is not None:
            write(args.output, results)


if __name__ == "__main__":
    main()
