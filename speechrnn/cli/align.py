"""``speechrnn align``: forced alignment of a known text."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from speechrnn.atomic_io import read_text, write_atomic
from speechrnn.cli.arguments import add_group, add_model_argument, print_text
from speechrnn.errors import ConfigError

SUMMARY = "forced alignment: find the times of the words of a known text"
EXAMPLE = "speechrnn align chapter.mp3 chapter.txt -m runs/en/model -f textgrid -o chapter.TextGrid"

FORMATS = ("textgrid", "ctm", "json", "srt")

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="a recording of any length: wav, flac, ogg, opus, mp3")
    parser.add_argument("text", metavar="TEXT", help="a text file in UTF-8, or the words themselves")
    add_group(parser, "audio", "--channel")
    output = add_group(parser, "output")
    output.add_argument(
        "-f", "--format", choices=FORMATS, default="ctm", help=f"{', '.join(FORMATS)} (default: ctm)", metavar="NAME"
    )
    output.add_argument("-o", "--output", metavar="FILE", help="write to FILE (default: standard output)")
    add_model_argument(parser, "--device")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Align; 1 if a part of the text does not match."""
    text = _read_text(args.text)

    from speechrnn.recognition.alignment import align
    from speechrnn.recognition.recognizer import load

    alignment = align(load(args.model, device=args.device), args.audio, text, channel=args.channel)
    content = alignment.write(args.format)
    if args.output is None:
        print_text(content, end="")
    else:
        write_atomic(Path(args.output), content, error=ConfigError)
        print_text(args.output)
    for misfit in alignment.misfits:
        logger.warning("%.2f to %.2f s: the recording does not match %r", misfit.start, misfit.end, misfit.text)
    return 1 if alignment.misfits else 0


def _read_text(given: str) -> str:
    """The content of a file, or the argument itself."""
    if os.path.exists(given):
        return read_text(given, error=ConfigError)
    if Path(given).suffix == ".txt":
        raise ConfigError(f"{given}: no such text file; check the path")
    return given
