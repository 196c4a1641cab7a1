"""``speechrnn inspect``: a page that shows what a model does with one recording."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from speechrnn.atomic_io import write_atomic
from speechrnn.cli.arguments import add_model_argument
from speechrnn.errors import ConfigError

SUMMARY = "see inside a model: its states and what it says, over the time of a recording"
EXAMPLE = 'speechrnn inspect clip.wav -m runs/fsdd/model --text "seven" -o look'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="a recording: wav, flac, ogg, opus, mp3")
    add_model_argument(parser)
    parser.add_argument("--text", metavar="REFERENCE", help="what is said: it is aligned, and errors are marked")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin here, in seconds (default: 0)")
    parser.add_argument("--end", type=float, metavar="S", help="end here, in seconds (default: the end)")
    parser.add_argument("--channel", type=int, metavar="N", help="take channel N, from 0, instead of the mean of all")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        default=".",
        help="write NAME.inspect.html and NAME.inspect.png there (default: here)",
    )
    parser.add_argument("--state", action="store_true", help="also write NAME.inspect.npz: hidden states of each layer")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1 …")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write page and picture, and say where."""
    from speechrnn.inspection.inspect import inspect_recording
    from speechrnn.inspection.page import to_page
    from speechrnn.inspection.pictures import draw_inspection, require_matplotlib, to_png
    from speechrnn.recognition.loading import load

    require_matplotlib()  # before anything is computed
    recognizer = load(args.model, device=args.device)
    inspection = inspect_recording(
        recognizer, args.audio, text=args.text, start=args.start, end=args.end, channel=args.channel
    )
    folder, name = Path(args.output), Path(args.audio).stem
    files: dict[str, str | bytes] = {"html": to_page(inspection), "png": to_png(draw_inspection(inspection))}
    if args.state:
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **inspection.export_states())
        files["npz"] = buffer.getvalue()
    for ending, content in files.items():
        path = folder / f"{name}.inspect.{ending}"
        write_atomic(path, content, error=ConfigError)
        print(path)
    return 0
