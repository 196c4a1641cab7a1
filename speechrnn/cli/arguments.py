"""Arguments that several commands have, and the bar that shows their progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.errors import ConfigError

if TYPE_CHECKING:
    from speechrnn.recognition.decoders import DecodingOptions

_HOTWORD_BONUS = 6.0


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how recordings become text: decoder, device, size of a batch."""
    parser.add_argument(
        "--decoder",
        metavar="NAME",
        help="greedy: the best token of every frame; beam: the most probable text over all of its paths; lexicon: the "
        "same among what --words or --sentences allow (default: what the other options ask for, else greedy)",
    )
    parser.add_argument(
        "--words", metavar="FILE", help="only sequences of these words can be said, a word a line (lexicon)"
    )
    parser.add_argument(
        "--sentences", metavar="FILE", help="only one of these can be said, a sentence a line (lexicon)"
    )
    _add_language_arguments(parser)
    parser.add_argument(
        "--beam-size", type=int, default=16, metavar="N", help="prefixes that a beam search keeps (default: 16)"
    )
    parser.add_argument(
        "--least-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="reject a recording with a word less sure than this, 0 to 1: its transcript is empty (default: 0)",
    )
    parser.add_argument(
        "--nbest", type=int, default=1, metavar="N", help="readings in JSON output, the best first (beam or lexicon)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="most audio to transcribe together, in seconds (default: 120); less needs less memory",
    )


def _add_language_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language-model", metavar="FILE", help="what speechrnn lm build writes, or any ARPA file (beam or lexicon)"
    )
    parser.add_argument(
        "--language-weight", type=float, metavar="X", help="how much it counts (default: as tuned, or 0.5)"
    )
    parser.add_argument(
        "--word-bonus", type=float, metavar="X", help="for each word that it scores (default: as tuned, or 1)"
    )
    parser.add_argument(
        "--hotwords",
        metavar="LIST",
        help='words and phrases to be favoured, and by how many nats: "cuDNN:8,New York" (default: 6)',
    )


def read_decoding(args: argparse.Namespace) -> DecodingOptions:
    """What :func:`add_decoding_arguments` has declared, the files of ``--words`` and ``--sentences`` read.

    Raises:
        ConfigError: A file cannot be read.
    """
    return {
        "decoder": args.decoder,
        "beam_size": args.beam_size,
        "words": _read_allowed("--words", args.words),
        "sentences": _read_allowed("--sentences", args.sentences),
        "language_model": args.language_model,
        "language_weight": args.language_weight,
        "word_bonus": args.word_bonus,
        "hotwords": _parse_hotwords(args.hotwords),
        "nbest": args.nbest,
        "least_confidence": args.least_confidence,
    }


def _parse_hotwords(written: str | None) -> dict[str, float]:
    """``phrase:bonus`` with commas between, the bonus left out where it is the usual one."""
    hotwords = {}
    for part in (written or "").split(","):
        phrase, colon, bonus = part.strip().rpartition(":")
        if not colon:
            phrase, bonus = part.strip(), str(_HOTWORD_BONUS)
        if not phrase.strip():
            if written is None:
                continue
            raise ConfigError(f'--hotwords {written}: expected phrases with commas between, as in "cuDNN:8,New York"')
        try:
            hotwords[phrase.strip()] = float(bonus)
        except ValueError:
            raise ConfigError(f"--hotwords {part.strip()}: expected a number behind the colon, got {bonus!r}") from None
    return hotwords


def _read_allowed(option: str, path: str | None) -> list[str] | None:
    """What may be said, line by line."""
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {path}: expected a text file in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]


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
