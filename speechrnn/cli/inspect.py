"""``speechrnn inspect``: a page with the states and outputs of a model on one recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechrnn.cli.arguments import add_group, add_model_argument, print_text

SUMMARY = "show the states and outputs of a model over the time of a recording"
EXAMPLE = 'speechrnn inspect clip.wav -m runs/fsdd/model --text "seven" -o look'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="a recording: wav, flac, ogg, opus, mp3")
    audio = add_group(parser, "audio")
    audio.add_argument("--text", metavar="REFERENCE", help="reference text, to align it and mark errors")
    audio.add_argument("--start", type=float, default=0.0, metavar="S", help="start, in seconds (default: 0)")
    audio.add_argument("--end", type=float, metavar="S", help="end, in seconds (default: the recording's end)")
    add_group(parser, "audio", "--channel")
    output = add_group(parser, "output")
    files = "write NAME.inspect.html and NAME.inspect.png to DIR (default: the current folder)"
    output.add_argument("-o", "--output", metavar="DIR", default=".", help=files)
    output.add_argument("--state", action="store_true", help="also write NAME.inspect.npz: hidden states of each layer")
    add_model_argument(parser, "--device")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write page and picture, and print their paths."""
    from speechrnn.inspection.inspect import inspect_recording
    from speechrnn.inspection.page import write_inspection
    from speechrnn.inspection.pictures import require_matplotlib
    from speechrnn.recognition.recognizer import load

    require_matplotlib()  # before anything is computed
    recognizer = load(args.model, device=args.device)
    inspection = inspect_recording(
        recognizer, args.audio, text=args.text, start=args.start, end=args.end, channel=args.channel
    )
    for path in write_inspection(inspection, Path(args.output), Path(args.audio).stem, has_states=args.state):
        print_text(str(path))
    return 0
