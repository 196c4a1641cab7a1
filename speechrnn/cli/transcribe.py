"""``speechrnn transcribe``: recordings to text, subtitles or JSON."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from speechrnn.cli import arguments
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.output_folder import choose_names, write_files
from speechrnn.recognition.transcript import FORMATS

if TYPE_CHECKING:
    from speechrnn.recognition.transcript import Transcript

SUMMARY = "transcribe recordings to text, subtitles or JSON"
EXAMPLE = "speechrnn transcribe talk.flac interview.mp3 -m runs/fsdd/model -f srt -o subtitles"

# Formats of which several recordings can be printed one after the other.
_JOINABLE_FORMATS = ("txt", "json", "ctm")

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings: wav, flac, ogg, opus, mp3")
    parser.usage = "%(prog)s AUDIO … -m M [options]"
    arguments.add_group(parser, "audio", "--channel").add_argument(
        "--consecutive",
        action="store_true",
        help="the recordings are consecutive parts of one: start each from the final hidden state of the previous one",
    )
    output = arguments.add_group(parser, "output")
    files = (
        "write DIR/NAME.FORMAT for each recording, named like its file; a second one of that name becomes NAME-2 "
        "(default: print; of several recordings one line each: path, tab, text)"
    )
    output.add_argument("-o", "--output", metavar="DIR", help=files)
    names = f"{', '.join(FORMATS)} or all (default: txt)"
    output.add_argument("-f", "--format", metavar="NAME", choices=(*FORMATS, "all"), default="txt", help=names)
    arguments.add_model_argument(parser, "--device", "--batch-seconds", "--speaker", count="several")
    arguments.add_decoding_arguments(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Transcribe; 1 if some recordings failed, 2 if all did."""
    has_several = len(args.audio) > 1
    if args.output is None and (args.format == "all" or (has_several and args.format not in _JOINABLE_FORMATS)):
        raise ConfigError(f"-f {args.format}: needs a folder for several files; add -o DIR")
    write = partial(_print, args) if args.output is None else _make_writer(args)
    decoding = arguments.read_decoding(args)

    from speechrnn.recognition.recognizer import load

    recognizer = load(args.model, device=args.device)
    failed: list[str] = []
    done = 0
    is_wanted = has_several and bool(args.output or not sys.stdout.isatty())
    with ExitStack() as stack:
        advance = stack.enter_context(arguments.show_progress("transcribing")) if is_wanted else None

        def report(path: str | None, error: SpeechRNNError) -> None:
            failed.append(str(path))
            logger.error("%s", error)
            if advance is not None:
                advance(done + len(failed), len(args.audio))

        for transcript in recognizer.transcribe_many(
            args.audio,
            channel=args.channel,
            speaker=args.speaker,
            are_consecutive=args.consecutive,
            batch_seconds=args.batch_seconds,
            on_error=report,
            **decoding,
        ):
            try:
                write(transcript)
            except SpeechRNNError as error:
                report(transcript.audio, error)
            else:
                done += 1
                if advance is not None:
                    advance(done + len(failed), len(args.audio))
    return 0 if not failed else 1 if done else 2


def _make_writer(args: argparse.Namespace) -> Callable[[Transcript], None]:
    """Create the output folder, and return a function that writes a transcript there."""
    folder, names = arguments.make_output_folder(args.output), choose_names(args.audio)
    formats = list(FORMATS) if args.format == "all" else [args.format]
    return lambda transcript: write_files(transcript, formats, folder / names[str(transcript.audio)])


def _print(args: argparse.Namespace, transcript: Transcript) -> None:
    is_table = len(args.audio) > 1 and args.format == "txt"
    path = arguments.escape_controls(transcript.audio or "", is_column=True) + "\t" if is_table else ""
    arguments.print_text(path + FORMATS[args.format](transcript), end="")
