"""Plan storage and machines for many hours of audio: ``python tests/benchmarks/capacity.py --core-rate 60``.

Prints the tables of docs/many_machines.md. Rates are audio time over processing time; put in those of your model and
machines. ``--measure FOLDER`` prints the bytes of a second of the recordings in a folder, as they are and as FLAC.
"""

import argparse
import io
import math
from collections.abc import Iterator
from pathlib import Path

import soundfile

from speechrnn.audio.folders import find_recordings

BYTES = {"wav": 32_000, "FLAC": 17_000, "packed (FLAC in tar)": 17_300}
"""Bytes of a second of speech at 16 kHz, 16 bits, one channel."""


def plan_storage(hours: float) -> dict[str, str]:
    """Space of the recordings in each format."""
    return {name: write_bytes(3600 * hours * rate) for name, rate in BYTES.items()}


def plan_machines(hours: float, *, rate: float | None, days: float, unit: str) -> dict[str, str]:
    """Hours of one core or GPU, and how many of them finish within some days."""
    if rate is None:
        return {f"{unit} hours": "not measured", f"{unit}s for {days:g} days": "not measured"}
    needed = hours / rate
    count = math.ceil(needed / (24 * days))
    return {f"{unit} hours": f"{needed:,.0f}", f"{unit}s for {days:g} days": f"{count:,}"}


def write_bytes(count: float) -> str:
    """A number of bytes in GB or TB, two digits at least."""
    gigabytes = count / 1e9
    return f"{gigabytes / 1000:,.1f} TB" if gigabytes >= 1000 else f"{gigabytes:,.0f} GB"


def measure(folder: str) -> Iterator[str]:
    """Bytes of a second of the recordings of a folder, as they are and as FLAC."""
    size = compressed = seconds = 0.0
    for path in find_recordings(folder, is_recursive=True):
        samples, rate = soundfile.read(path, dtype="float32")
        written = io.BytesIO()
        soundfile.write(written, samples, rate, format="FLAC", subtype="PCM_16")
        size, compressed = size + Path(path).stat().st_size, compressed + len(written.getvalue())
        seconds += len(samples) / rate
    yield f"{seconds:.0f} s: {size / seconds:,.0f} bytes a second, as FLAC {compressed / seconds:,.0f}"


def write_table(rows: list[dict[str, str]]) -> Iterator[str]:
    """A table in Markdown."""
    names = list(rows[0])
    for cells in (names, ["---"] * len(names), *(list(row.values()) for row in rows)):
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--core-rate", type=float, metavar="X", help="transcription on one core, times real time")
    parser.add_argument("--gpu-rate", type=float, metavar="X", help="transcription on one GPU, times real time")
    parser.add_argument("--train-rate", type=float, metavar="X", help="training on one GPU or machine, times real time")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--days", type=float, default=7, help="within which the work is to be done")
    parser.add_argument("--measure", metavar="FOLDER")
    args = parser.parse_args()
    if args.measure:
        print(*measure(args.measure), sep="\n")
        return
    tables: dict[str, list[dict[str, str]]] = {"Storage": [], "Transcription": [], f"{args.epochs:g} epochs": []}
    for hours in args.hours:
        audio = {"audio": f"{hours:,.0f} h"}
        storage, transcription, training = tables.values()
        storage.append(audio | plan_storage(hours))
        transcription.append(
            audio
            | plan_machines(hours, rate=args.core_rate, days=args.days, unit="core")
            | plan_machines(hours, rate=args.gpu_rate, days=args.days, unit="GPU")
        )
        passes = hours * args.epochs
        training.append(audio | plan_machines(passes, rate=args.train_rate, days=args.days, unit="machine"))
    for title, rows in tables.items():
        print(f"{title}\n", *write_table(rows), "", sep="\n")


if __name__ == "__main__":
    main()
