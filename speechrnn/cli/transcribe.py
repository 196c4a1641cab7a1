"""``speechrnn transcribe``: recordings to text, subtitles or JSON."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.atomic_io import write_atomic
from speechrnn.cli.arguments import (
    add_batch_arguments,
    add_decoding_arguments,
    add_model_argument,
    add_speaker_argument,
    read_decoding,
)
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.transcript import FORMATS

if TYPE_CHECKING:
    from speechrnn.recognition.transcript import Transcript

SUMMARY = "write down what is said in recordings"
EXAMPLE = "speechrnn transcribe talk.flac interview.mp3 -m runs/fsdd/model -f srt -o subtitles"

# Of these, several recordings make one stream that a program can take apart again.
_JOINABLE_FORMATS = ("txt", "json", "ctm")

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings: wav, flac, ogg, opus, mp3")
    add_model_argument(parser, several=True)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write DIR/NAME.FORMAT for each recording, NAME being the file's own without its ending (a second one of "
        "that name gets NAME-2); without this, results go to standard output: of one recording the text, of several a "
        "line each: path, tab, text; as json a line each",
    )
    parser.add_argument(
        "-f",
        "--format",
        choices=(*FORMATS, "all"),
        default="txt",
        help="txt (default), json, srt, vtt, tsv, ctm or all",
    )
    parser.add_argument("--channel", type=int, metavar="N", help="take channel N, from 0, instead of the mean of all")
    parser.add_argument(
        "--carry-state",
        action="store_true",
        help="they are consecutive pieces of one recording: each starts from the hidden state in which the one before "
        "it ended",
    )
    add_speaker_argument(parser)
    add_batch_arguments(parser)
    add_decoding_arguments(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Transcribe; 1 if some recordings failed, 2 if all did."""
    show, decoding = _make_output(args), read_decoding(args)

    from speechrnn.recognition.loading import load

    recognizer = load(args.model, device=args.device)
    failed: list[str] = []
    with _progress(args) as advance:

        def report(path: str, error: SpeechRNNError) -> None:
            failed.append(path)
            logger.error("%s", error)
            advance()

        for transcript in recognizer.transcribe_many(
            args.audio,
            channel=args.channel,
            speaker=args.speaker,
            carry_state=args.carry_state,
            batch_seconds=args.batch_seconds,
            on_error=report,
            **decoding,
        ):
            show(transcript)
            advance()
    if len(failed) == len(args.audio):
        return 2
    return 1 if failed else 0


def choose_names(paths: Sequence[str]) -> dict[str, str]:
    """Choose a file name, without ending, for each recording: its own, or with a number where that is taken.

    Args:
        paths: Recordings; the same path gets the same name.

    Returns:
        The name of each path: no two equal, upper and lower case being the same.
    """
    own = {path.casefold() for path in (Path(path).stem for path in paths)}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        name, number = Path(path).stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in own):
            number += 1
            name = f"{Path(path).stem}-{number}"
        names[path] = name
        taken.add(name.casefold())
    return names


def _make_output(args: argparse.Namespace) -> Callable[[Transcript], None]:
    """Check where results go, and return what takes them there."""
    if args.output is None:
        if args.format == "all" or (len(args.audio) > 1 and args.format not in _JOINABLE_FORMATS):
            raise ConfigError(f"-f {args.format} makes several files here; say where to with -o DIR")
        return lambda transcript: _print(transcript, args.format, has_several=len(args.audio) > 1)
    folder, names = Path(args.output), choose_names(args.audio)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"-o {folder}: no folder can be made there ({error.strerror}); choose another") from error
    formats = list(FORMATS) if args.format == "all" else [args.format]
    return lambda transcript: _write(transcript, formats, folder / names[str(transcript.audio)])


def _print(transcript: Transcript, format_name: str, *, has_several: bool) -> None:
    prefix = f"{transcript.audio}\t" if has_several and format_name == "txt" else ""
    print(prefix + FORMATS[format_name](transcript), end="", flush=True)


def _write(transcript: Transcript, formats: Sequence[str], path: Path) -> None:
    for name in formats:
        content = transcript.to_json(indent=2) if name == "json" else FORMATS[name](transcript)
        write_atomic(path.with_name(f"{path.name}.{name}"), content, error=ConfigError)


@contextmanager
def _progress(args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, where there is more than one recording and the results themselves do not go there."""
    is_shown = len(args.audio) > 1 and sys.stderr.isatty() and (args.output or not sys.stdout.isatty())
    if not is_shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Standard output is left alone: rich would send it to the terminal.
    with Progress(console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task("transcribing", total=len(args.audio))
        yield lambda: bar.advance(task)
