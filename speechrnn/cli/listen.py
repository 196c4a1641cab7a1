"""``speechrnn listen``: live transcription of a microphone, or of a recording played in real time."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.atomic_io import write_atomic
from speechrnn.cli import arguments
from speechrnn.errors import AudioError, ConfigError
from speechrnn.recognition.decoders import DecodingConfig
from speechrnn.recognition.endpoints import EndpointConfig
from speechrnn.recognition.latency_control import LatencyControlConfig
from speechrnn.recognition.transcript import FORMATS, Transcript

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.recognition.stream import PartialTranscript

    _Source = Callable[[Callable[[], bool]], Iterable[np.ndarray]]

SUMMARY = "transcribe a microphone live (Ctrl-C ends)"
EXAMPLE = "speechrnn listen -m runs/streaming/model"

PLAYED_SECONDS = 0.1
"""Audio of a recording that is given to the stream at once."""

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    audio = arguments.add_group(parser, "audio")
    audio.add_argument("--list-devices", action="store_true", help="print the input devices and end")
    audio.add_argument("--input", metavar="NAME", help="number or part of the name of the input device")
    audio.add_argument("--file", metavar="FILE", help="play a recording at real-time pace instead")
    audio.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="X",
        help="pace of --file; 2 is twice as fast, 0 as fast as possible (default: 1)",
    )
    arguments.add_group(parser, "audio", "--channel")
    output = arguments.add_group(parser, "output")
    output.add_argument("-o", "--output", metavar="FILE", help="also write the whole transcript to FILE at the end")
    output.add_argument(
        *("-f", "--format"),
        metavar="NAME",
        choices=tuple(FORMATS),
        default="txt",
        help=f"{', '.join(FORMATS)}: of FILE, or printed at the end (default: txt, a line for each segment at once)",
    )
    arguments.add_config_arguments(parser, EndpointConfig, "endpoints")
    arguments.add_group(parser, "bidirectional models").add_argument(
        "--latency-controlled",
        action="store_true",
        help="transcribe chunk by chunk, with more errors than a whole recording has; the options below imply it",
    )
    arguments.add_config_arguments(parser, LatencyControlConfig, "bidirectional models")
    arguments.add_model_argument(parser, "--device", "--speaker", count="optional")
    arguments.add_config_arguments(parser, DecodingConfig, "decoding")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Listen until the recording ends, Ctrl-C, or the device stops; 1 if audio was lost."""
    if args.list_devices:
        return _print_devices()
    if args.model is None:
        raise ConfigError("no model: give -m M, or set SPEECHRNN_MODEL")
    if not 0 <= args.speed < float("inf"):
        raise ConfigError(f"--speed {args.speed:g}: expected 0 or more")
    decoding = arguments.read_config(args, DecodingConfig)
    endpoints = EndpointConfig(**arguments.read_config(args, EndpointConfig))
    control = arguments.read_config(args, LatencyControlConfig)
    screen = _Screen(is_live=args.format == "txt" or args.output is not None)
    with _open_source(args, screen) as (sample_rate, chunks):
        from speechrnn.recognition.recognizer import load

        recognizer = load(args.model, device=args.device)
        stream = recognizer.stream(
            sample_rate=sample_rate,
            endpoints=endpoints,
            speaker=args.speaker,
            latency_controlled=LatencyControlConfig(**control) if control else args.latency_controlled,
            **decoding,
        )
        has_begun = is_broken = False
        with _stop_at_interrupt() as is_stopped:
            try:
                for chunk in chunks(is_stopped):
                    has_begun = True
                    screen.show(stream.feed(chunk))
            except AudioError as error:
                if not has_begun:
                    raise
                is_broken = True
                screen.clear()
                logger.error("%s", error)
        final = replace(stream.final(), audio=args.file)
        screen.finish(final)
    _write(args, final)
    return int(is_broken)


def _print_devices() -> int:
    from speechrnn.audio.microphone import list_microphones

    for each in list_microphones():
        default = "\tdefault" if each.is_default else ""
        name = arguments.escape_controls(each.name, is_column=True)
        arguments.print_text(f"{each.index}\t{name}\t{each.sample_rate} Hz{default}")
    return 0


@contextmanager
def _open_source(args: argparse.Namespace, screen: _Screen) -> Iterator[tuple[int, _Source]]:
    """The rate of the samples to come, and a function that begins to give them, until its argument says to stop."""
    if args.file is not None:
        if args.input is not None:
            raise ConfigError("--input: cannot be combined with --file; give one of them")
        from speechrnn.audio.blocks import open_blocks

        with open_blocks(args.file, channel=args.channel, block_seconds=PLAYED_SECONDS) as blocks:
            yield blocks.sample_rate, partial(_play, blocks, blocks.sample_rate, args.speed)
        return
    from speechrnn.audio.microphone import find_microphone, open_microphone

    microphone = find_microphone(args.input)

    def record(is_stopped: Callable[[], bool]) -> Iterator[np.ndarray]:
        on_overflow = partial(_report_overflow, screen)
        with open_microphone(microphone, on_overflow=on_overflow, is_stopped=is_stopped) as blocks:
            arguments.print_note(f"listening to {microphone.name} at {microphone.sample_rate} Hz; Ctrl-C ends")
            yield from blocks

    yield microphone.sample_rate, record


def _report_overflow(screen: _Screen, count: int) -> None:
    screen.clear()
    times = "once" if count == 1 else f"{count} times"
    logger.warning("the microphone overflowed %s: audio was lost", times, extra={"is_incomplete": True})


def _play(
    blocks: Iterable[np.ndarray], sample_rate: int, speed: float, is_stopped: Callable[[], bool]
) -> Iterator[np.ndarray]:
    """Give each block when it has been played."""
    due = time.monotonic()
    for block in blocks:
        due += len(block) / sample_rate / speed if speed else 0.0
        time.sleep(max(0.0, due - time.monotonic()))
        yield block
        if is_stopped():
            return


@contextmanager
def _stop_at_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed; the second one interrupts."""
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    earlier = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, earlier)


class _Screen:
    """Prints closed segments, one a line, and on a terminal the text so far, rewritten in place.

    Args:
        is_live: Whether to print at all before the end.
    """

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._is_terminal = is_live and sys.stdout.isatty()
        self._num_printed = 0
        self._shown = ""

    def show(self, known: PartialTranscript) -> None:
        """Print what is new."""
        self._print(known, known.num_closed)
        if not self._is_terminal:
            return
        text = " ".join(segment.text for segment in known.segments[known.num_closed :])
        text = arguments.escape_controls(text, is_column=True)[-(shutil.get_terminal_size().columns - 1) :]
        if text != self._shown:
            self.clear()
            self._write(text)
            self._shown = text

    def finish(self, final: Transcript) -> None:
        """Print the rest."""
        self._print(final, len(final.segments))

    def clear(self) -> None:
        """Remove the text so far."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = ""

    def _print(self, transcript: Transcript, count: int) -> None:
        if self._is_live and count > self._num_printed:
            self.clear()
            for segment in transcript.segments[self._num_printed : count]:
                arguments.print_text(segment.text)
            self._num_printed = count

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            raise arguments.OutputError(error) from error


def _write(args: argparse.Namespace, final: Transcript) -> None:
    content = final.to_json(indent=2) if args.format == "json" and args.output else FORMATS[args.format](final)
    if args.output is not None:
        write_atomic(Path(args.output), content, error=ConfigError)
    elif args.format != "txt":
        arguments.print_text(content, end="")
