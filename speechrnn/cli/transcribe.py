"""``speechrnn transcribe``: recordings to text, subtitles or JSON."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from speechrnn.audio.vad_options import VadOptions
from speechrnn.cli import arguments
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.cutting import CutConfig
from speechrnn.recognition.decoders import DecodingConfig
from speechrnn.recognition.subtitles import SubtitleOptions
from speechrnn.recognition.transcript import FORMATS, PART_FORMATS, SUBTITLE_FORMATS

if TYPE_CHECKING:
    from speechrnn.recognition.output_folder import OutputFolder
    from speechrnn.recognition.transcriber import Transcriber
    from speechrnn.recognition.transcript import Transcript

SUMMARY = "transcribe recordings to text, subtitles or JSON"
EXAMPLE = "speechrnn transcribe talk.flac interview.mp3 -m runs/fsdd/model -f srt -o subtitles"

_EXAMPLES = {
    "audio": "calls/ --recursive --channels separate --speaker-names Agent,Customer",
    "output": "calls/ -o out -f all --resume",
    "subtitles": "film.mp3 -f srt --max-line-width 32 --min-gap-seconds 0.08",
    "long recordings": "meeting.ogg --vad-filter --vad-threshold 0.6",
    "model": "talk.flac -m runs/seed-0/model -m runs/seed-1/model --device cuda",
    "decoding": "talk.flac --decoder beam --beam-size 32 --nbest 5 -f json",
    "cluster": "corpus/ --recursive --ray auto -o out -f parquet --resume",
    "language model": 'talk.flac --language-model news.arpa --hotwords "cuDNN:8,New York"',
}
"""An example for each group of options."""

STANDARD_INPUT = "-"
# Formats of which several recordings can be printed one after the other.
_JOINABLE_FORMATS = ("txt", "json", "ctm")
_OPTIONS = {"channel": "channels", "are_consecutive": "consecutive"}
"""Options whose names differ from those of their keyword arguments."""

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    what = (
        "recordings (wav, flac, ogg, opus, mp3; with the extra video also m4a, mp4, webm, mkv …), folders of "
        "recordings, or - for standard input"
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help=what)
    parser.usage = "%(prog)s AUDIO|FOLDER|- … -m M [options]"
    audio = arguments.add_group(parser, "audio")
    channels: dict[str, Any] = {"dest": "channels", "type": _read_channels, "metavar": "WHICH"}
    what = "mix: the mean of all (default); separate: each channel is one speaker; or the number of one, from 0"
    audio.add_argument("--channels", help=what, **channels)
    audio.add_argument("--channel", help=argparse.SUPPRESS, **channels)
    named = "names of the speakers of separate channels, with commas (default: Channel 1,Channel 2)"
    audio.add_argument("--speaker-names", metavar="NAMES", help=named)
    audio.add_argument("--recursive", action="store_true", help="search sub-folders of folders too")
    audio.add_argument(
        "--consecutive",
        action="store_true",
        help="the recordings are consecutive parts of one: start each from the final hidden state of the previous one",
    )
    output = arguments.add_group(parser, "output")
    files = (
        "write DIR/NAME.FORMAT for each recording, named like its file; a second one of that name becomes NAME-2; "
        "recordings in sub-folders get the same sub-folders (default: print; of several recordings one line each: "
        "path, tab, text)"
    )
    output.add_argument("-o", "--output", metavar="DIR", help=files)
    names = f"{', '.join(FORMATS)} or all (default: txt); with --ray jsonl (default), parquet or all"
    formats = (*FORMATS, *PART_FORMATS, "all")
    output.add_argument("-f", "--format", metavar="NAME", choices=formats, help=names)
    output.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run into DIR: skip recordings whose files are complete",
    )
    cluster = arguments.add_group(parser, "cluster")
    where = (
        "transcribe on a Ray cluster (extra cluster): auto, the one that this machine is part of; HOST:PORT of its "
        "head node; or local, all cores of this machine. Files of many recordings are written to -o DIR"
    )
    cluster.add_argument("--ray", metavar="ADDRESS", help=where)
    arguments.add_config_arguments(parser, SubtitleOptions, "subtitles")
    cutting = ("max_seconds", "cut", "context_seconds", "vad_filter")
    arguments.add_config_arguments(parser, CutConfig, "long recordings", *cutting)
    arguments.add_config_arguments(parser, VadOptions, "long recordings", prefix="vad_")
    engine = ("--device", "--backend", "--precision")
    arguments.add_model_argument(parser, *engine, "--batch-seconds", "--speaker", count="several")
    arguments.add_config_arguments(parser, DecodingConfig, "decoding")
    for title, example in _EXAMPLES.items():
        arguments.add_group(parser, title).description = f"speechrnn transcribe {example}"


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Transcribe; 1 if some recordings failed, 2 if all did."""
    has_several = len(args.audio) > 1 or any(map(os.path.isdir, args.audio))
    options = _read_options(args, has_several)
    subtitles = SubtitleOptions(**arguments.read_config(args, SubtitleOptions))
    failed: list[str] = []
    advance: Callable[..., None] | None = None

    def report(source: Any, error: SpeechRNNError) -> None:
        failed.append(source if isinstance(source, str) else STANDARD_INPUT)
        logger.error("%s", error)
        if advance is not None:
            advance(failed[-1], None)

    if args.ray is not None:
        from speechrnn.cli import transcribe_cluster

        return transcribe_cluster.run(args, options, partial(_describe_settings, args, options, subtitles), report)
    with ExitStack() as stack, ExitStack() as bars:
        paths, done, output = list(args.audio), 0, None
        if has_several or args.output is not None or args.resume:
            paths, done, output = _plan(args, options, subtitles, report, stack)
        recognizer: Transcriber | None = None
        if paths and str(args.model).endswith(".onnx"):
            recognizer = _load_exported(args)
        elif paths:
            from speechrnn.recognition.recognizer import load

            recognizer = load(args.model, device=args.device, backend=args.backend, precision=args.precision)
        if sys.stderr.isatty() and (args.output or not (has_several and sys.stdout.isatty())):
            advance = bars.enter_context(_show_progress(paths))
            options["on_progress"] = partial(advance, is_done=False)
        sources = [_open_standard_input() if path == STANDARD_INPUT else path for path in paths]
        for transcript in recognizer.transcribe_many(sources, on_error=report, **options) if recognizer else ():
            path = transcript.audio or STANDARD_INPUT
            try:
                if args.speaker_names:
                    transcript = _name_speakers(transcript, args.speaker_names)
                if not has_several:
                    bars.close()
                if output is not None:
                    output.write(path, transcript)
                else:
                    _print(transcript, args.format, subtitles, name=path if has_several else None)
            except SpeechRNNError as error:
                report(path, error)
            else:
                done += 1
                if advance is not None and has_several:
                    advance(path, transcript.seconds)
    return 0 if not failed else 1 if done else 2


def _load_exported(args: argparse.Namespace) -> Transcriber:
    """The recogniser of an exported model."""
    from speechrnn.lite import load

    for name in ("backend", "precision"):
        if getattr(args, name) != "auto":
            raise ConfigError(f"--{name}: {args.model} is exported, and its engine is chosen")
    return load(args.model, device=args.device)


def _read_options(args: argparse.Namespace, has_several: bool) -> dict[str, Any]:
    """The keyword arguments of ``transcribe_many`` that are given; the format is set where it is not."""
    args.format = args.format or ("txt" if args.ray is None else "jsonl")
    if args.format in PART_FORMATS and args.ray is None:
        raise ConfigError(f"-f {args.format}: needs --ray; -f json prints one line for each of several recordings")
    is_printed = args.output is None and args.ray is None
    if is_printed and (args.format == "all" or (has_several and args.format not in _JOINABLE_FORMATS)):
        raise ConfigError(f"-f {args.format}: needs a folder for several files; add -o DIR")
    if args.speaker_names and args.channels != "separate":
        raise ConfigError("--speaker-names: needs --channels separate")
    options = {**arguments.read_config(args, DecodingConfig), **arguments.read_config(args, CutConfig)}
    if vad := arguments.read_config(args, VadOptions, prefix="vad_"):
        options["vad"] = VadOptions(**vad)
    given = {"channel": args.channels, "speaker": args.speaker, "are_consecutive": args.consecutive or None}
    options |= {name: value for name, value in given.items() if value is not None}
    return {**options, "batch_seconds": args.batch_seconds}


def _plan(
    args: argparse.Namespace,
    options: dict[str, Any],
    subtitles: SubtitleOptions,
    report: Callable[[str, SpeechRNNError], None],
    stack: ExitStack,
) -> tuple[list[str], int, OutputFolder | None]:
    """Find the recordings to transcribe, count those that are complete, and open the output folder with the stack."""
    from speechrnn.recognition.output_folder import open_output

    if args.resume and (args.output is None or args.consecutive):
        raise ConfigError(f"--resume: {'cannot follow --consecutive' if args.consecutive else 'needs -o DIR'}")
    folder = None if args.output is None else arguments.make_output_folder(args.output)
    places = _find_places(args, report)
    if folder is None or not places:
        return list(places), 0, None
    formats = list(FORMATS) if args.format == "all" else [args.format]
    settings = _describe_settings(args, options, subtitles)
    output = stack.enter_context(
        open_output(folder, formats=formats, settings=settings, is_resumed=args.resume, subtitles=subtitles)
    )
    unfinished = output.add(places)
    if not args.resume:
        return list(places), 0, output
    done = len(places) - len(unfinished)
    note = f"{done} of {len(places)} recordings are complete" if unfinished else f"all {done} recordings are complete"
    arguments.print_note(f"{folder}: {note}")
    return unfinished, done, output


def _find_places(args: argparse.Namespace, report: Callable[[str, SpeechRNNError], None]) -> dict[str, str]:
    """The recordings named, and those in folders, each with the sub-folder for its files."""
    from speechrnn.audio.folders import find_recordings

    places: dict[str, str] = {}
    for path in args.audio:
        if not os.path.isdir(path):
            places.setdefault(path, "")
            continue
        try:
            found = find_recordings(path, is_recursive=args.recursive, skipped=args.output, on_error=report)
        except SpeechRNNError as error:
            report(path, error)
        else:
            for each in found:
                places.setdefault(each, os.path.dirname(os.path.relpath(each, path)))
    return places


def _describe_settings(args: argparse.Namespace, options: dict[str, Any], subtitles: SubtitleOptions) -> dict[str, Any]:
    """What the transcripts depend on, by the names of the options; those that are not given are left out."""
    from speechrnn.recognition.output_folder import describe_file, fingerprint_model

    models = args.model if isinstance(args.model, list) else [args.model]
    settings = {_OPTIONS.get(name, name): value for name, value in options.items() if name != "batch_seconds"}
    configs = {"": subtitles, **({"vad_": settings.pop("vad")} if "vad" in settings else {})}
    for prefix, config in configs.items():
        changed = {name: value for name, value in vars(config).items() if value != getattr(type(config), name)}
        settings |= {prefix + name: value for name, value in changed.items()}
    if (language_model := settings.get("language_model")) is not None:
        settings["language_model"] = [language_model, describe_file(language_model)]
    if args.speaker_names:
        settings["speaker_names"] = args.speaker_names
    if args.precision not in ("auto", "float32"):
        settings["precision"] = args.precision
    return {**settings, "model": [fingerprint_model(model) for model in models]}


@contextmanager
def _show_progress(paths: list[str]) -> Iterator[Callable[..., None]]:
    """A progress bar of seconds of audio, from the first progress on.

    Yields:
        A function of a recording, its seconds, None if it failed, and ``is_done``.
    """
    from speechrnn.audio.folders import Workload

    workload = Workload(paths)
    with ExitStack() as stack:
        bars: list[Callable[[float, float], None]] = []

        def advance(path: str | None, seconds: float | None, *, is_done: bool = True) -> None:
            if not bars:
                bars.append(stack.enter_context(arguments.show_progress("transcribing")))
            name = path or STANDARD_INPUT
            bars[0](*(workload.finish(name, seconds) if is_done else workload.advance(name, seconds or 0.0)))

        yield advance


def _read_channels(text: str) -> str | int:
    if text in ("mix", "separate"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected mix, separate or a number from 0, got {text!r}") from None


def _name_speakers(transcript: Transcript, names: str) -> Transcript:
    return transcript.rename_speakers(dict(zip(transcript.speakers, map(str.strip, names.split(",")), strict=False)))


def _open_standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise ConfigError("-: standard input is not a recording; pipe one in, as in speechrnn transcribe - < talk.wav")
    return sys.stdin.buffer


def _print(transcript: Transcript, form: str, subtitles: SubtitleOptions, *, name: str | None) -> None:
    """Print a transcript, as one row of a table if it has a name and the format is text."""
    options = {"options": subtitles} if form in SUBTITLE_FORMATS else {}
    is_row = name is not None and form == "txt"
    if not is_row:
        arguments.print_text(FORMATS[form](transcript, **options), end="")
    else:
        arguments.print_text(f"{arguments.escape_controls(str(name), is_column=True)}\t{transcript.to_txt()}", end="")
