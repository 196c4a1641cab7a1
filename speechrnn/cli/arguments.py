"""Arguments that several commands have, and the bar that shows their progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from speechrnn.errors import ConfigError
from speechrnn.recognition.decoders import DEFAULT_HOTWORD_BONUS, OLD_NAMES, DecodingConfig


def add_decoding_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """Declare the fields of :class:`DecodingConfig` as options: those of these names, or all."""
    chosen = [option for option in fields(DecodingConfig) if not names or option.name in names]
    groups = {title: parser.add_argument_group(title) for title in ("decoding", "language model")}
    for option in chosen:
        is_language = option.name.startswith(("language", "word_", "hot"))
        groups["language model" if is_language else "decoding"].add_argument(
            _to_option(option.name),
            type=option.metadata["kind"] if option.metadata["bounds"] else str,
            metavar=option.metadata["metavar"],
            help=option.metadata["help"],
        )
    for old, new in OLD_NAMES.items():
        if new in {option.name for option in chosen}:
            parser.add_argument(_to_option(old), dest=new, type=float, help=argparse.SUPPRESS)


def read_decoding(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_decoding_arguments` that were given, checked, their files read.

    Raises:
        ConfigError: A file cannot be read, or an option is wrong; the message begins with the option.
    """
    given = {
        option.name: _READERS[option.name](value) if option.name in _READERS else value
        for option in fields(DecodingConfig)
        if (value := getattr(args, option.name, None)) is not None
    }
    try:
        DecodingConfig(**given)
    except ConfigError as error:
        name, colon, reason = str(error).partition(":")
        raise ConfigError(_to_option(name) + colon + reason) from None
    return given


def _to_option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parse_hotwords(written: str) -> dict[str, float]:
    """``phrase:bonus`` separated by commas; without a bonus the default one."""
    hotwords = {}
    for part in written.split(","):
        phrase, colon, bonus = part.strip().rpartition(":")
        if not colon:
            phrase, bonus = part.strip(), str(DEFAULT_HOTWORD_BONUS)
        if not phrase.strip():
            raise ConfigError(f'--hotwords {written}: expected phrases separated by commas, as in "cuDNN:8,New York"')
        try:
            hotwords[phrase.strip()] = float(bonus)
        except ValueError:
            raise ConfigError(f"--hotwords {part.strip()}: expected a number after the colon, got {bonus!r}") from None
    return hotwords


def _read_allowed(option: str, path: str) -> list[str]:
    """Allowed texts, one a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {path}: expected a text file in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]


_READERS: dict[str, Callable[[str], Any]] = {
    "words": partial(_read_allowed, "--words"),
    "sentences": partial(_read_allowed, "--sentences"),
    "hotwords": _parse_hotwords,
}


@contextmanager
def show_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; what it gives is told how much is done, and of how much."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(Path(name).name)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--device`` and ``--batch-seconds``."""
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="most audio to transcribe together, in seconds (default: 120); less needs less memory",
    )


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--format``, for a corpus that two formats fit."""
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="the corpus's format: nemo, kaldi, ljspeech, librispeech, table (CSV, TSV, audiofolder), stm, lhotse or "
        "sidecar (default: found by looking)",
    )


def add_speaker_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--speaker``, who speaks in all recordings."""
    parser.add_argument("--speaker", metavar="NAME", help="who speaks: use what speechrnn adapt found for this name")


def add_model_argument(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Declare ``-m/--model``, to be read by :func:`read_model` once all is parsed.

    Args:
        parser: Of the command.
        several: Whether it may be given more than once.
    """
    more = "; give -m again for each of several that are to decide together" if several else ""
    parser.add_argument(
        "-m",
        "--model",
        metavar="M",
        action="append",
        help=f"model folder, or owner/name on the Hugging Face Hub (default: the variable SPEECHRNN_MODEL){more}",
    )
    parser.set_defaults(takes_several_models=several)


def read_model(args: argparse.Namespace) -> str | list[str]:
    """What :func:`add_model_argument` has declared, or else SPEECHRNN_MODEL: a model, or several, as a list.

    Raises:
        ConfigError: There is none, or there are several where the command takes one.
    """
    models = args.model or [name for name in [os.environ.get("SPEECHRNN_MODEL")] if name]
    if not models:
        raise ConfigError("no model: give -m M, or set SPEECHRNN_MODEL")
    if len(models) == 1:
        return str(models[0])
    if not args.takes_several_models:
        raise ConfigError(
            f"-m {' -m '.join(models)}: this command takes one model; transcribe and evaluate take several"
        )
    return list(models)
