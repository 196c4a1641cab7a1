"""``speechrnn align``: when each word of a known text is said."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from speechrnn.atomic_io import write_atomic
from speechrnn.cli.arguments import add_model_argument
from speechrnn.errors import ConfigError

SUMMARY = "find when each word of a known text is said"
EXAMPLE = "speechrnn align chapter.mp3 chapter.txt -m runs/en/model -f textgrid -o chapter.TextGrid"

FORMATS = ("textgrid", "ctm", "json", "srt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="a recording of any length: wav, flac, ogg, opus, mp3")
    parser.add_argument("text", metavar="TEXT", help="a text file in UTF-8, or the words themselves")
    add_model_argument(parser)
    parser.add_argument("-f", "--format", default="ctm", metavar="NAME", help="textgrid, ctm (default), json or srt")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there (default: standard output)")
    parser.add_argument("--channel", type=int, metavar="N", help="take channel N, from 0, instead of the mean of all")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1 …")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Align; 1 if a part of the text does not fit."""
    if args.format not in FORMATS:
        raise ConfigError(f"--format {args.format}: there is no such one; use {', '.join(FORMATS)}")
    text = _read_text(args.text)

    from speechrnn.recognition.alignment import align
    from speechrnn.recognition.loading import load

    alignment = align(load(args.model, device=args.device), args.audio, text, channel=args.channel)
    if args.format == "textgrid":
        content = alignment.to_textgrid()
    elif args.format == "json":
        content = json.dumps(alignment.to_dict(), ensure_ascii=False, indent=2) + "\n"
    else:
        transcript = alignment.to_transcript()
        content = transcript.to_ctm() if args.format == "ctm" else transcript.to_srt()
    if args.output is None:
        sys.stdout.write(content)
    else:
        write_atomic(Path(args.output), content, error=ConfigError)
        print(args.output)
    for misfit in alignment.misfits:
        print(
            f"speechrnn: {misfit.start:.2f} to {misfit.end:.2f} s: something else is said than {misfit.text!r}",
            file=sys.stderr,
        )
    return 1 if alignment.misfits else 0


def _read_text(given: str) -> str:
    """What a file holds, or what is given."""
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # too long for a file's name
        is_file = False
    if not is_file:
        if path.suffix == ".txt":
            raise ConfigError(f"{given}: there is no such text file; check the path")
        return given
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given}: expected a text file in UTF-8 ({error})") from error
