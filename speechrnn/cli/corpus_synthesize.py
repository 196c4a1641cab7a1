"""``speechrnn corpus synthesize``: training recordings made from text by a speech synthesiser."""

from __future__ import annotations

import argparse
import logging
import re
from typing import Any

from speechrnn.cli.arguments import add_group, print_text, show_progress
from speechrnn.errors import ConfigError

SUMMARY = "make training recordings from text with espeak-ng or another speech synthesiser"
EXAMPLE = "speechrnn corpus synthesize sentences.txt -o synthetic --num-sentences 1000 --processes 2"

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="text files in UTF-8, one sentence per line")
    target = "folder of the corpus; if it holds a part already, the rest is added"
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help=target)
    command = "my-tts --voice {voice} --speed {speed} --text {text} --output {out}"
    engine = add_group(parser, "engine")
    engine.add_argument(
        "--engine",
        metavar="E",
        help=f"espeak (default), or a command that writes a wav file: '{command}', also with {{pitch}}, {{seed}}",
    )
    engine.add_argument(
        "--voices",
        metavar="LIST",
        help="speakers, separated by commas: en-us+f2,en+m1 or values of {voice} (default: all of espeak-ng's)",
    )
    engine.add_argument("--language", metavar="CODE", help="language of espeak-ng's voices (default: en)")
    engine.add_argument("--processes", type=int, default=1, metavar="N", help="engines at the same time (default: 1)")
    longest = "longest time that the engine may take for a recording (default: 120)"
    engine.add_argument("--timeout-seconds", type=float, metavar="S", help=longest)
    drawn = add_group(parser, "sentences and speakers")
    drawn.add_argument("--num-sentences", type=int, metavar="N", help="sentences to speak (default: all)")
    drawn.add_argument("--words", metavar="MIN,MAX", help="length of the sentences to use (default: 2,20)")
    drawn.add_argument("--sentences-per-block", type=int, metavar="N", help="in a row by one speaker (default: 20)")
    drawn.add_argument("--speed", metavar="MIN,MAX", help="drawn for each recording (default: 0.85,1.15)")
    drawn.add_argument("--pitch", metavar="MIN,MAX", help="drawn for each block (default: 0.8,1.2)")
    drawn.add_argument("--seed", type=int, metavar="N", help="of order and draws (default: 0)")
    output = add_group(parser, "output")
    output.add_argument("--encoding", metavar="E", help="flac, wav or opus (default: flac)")
    output.add_argument("--sample-rate", type=int, metavar="HZ", help="of the recordings (default: 16000)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Synthesise; 1 if recordings failed."""
    from speechrnn.corpus.synthesize import SynthesisConfig, synthesize

    names = (
        *("engine", "language", "timeout_seconds", "num_sentences", "sentences_per_block", "seed"),
        *("encoding", "sample_rate"),
    )
    options: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.voices is not None:
        options["voices"] = tuple(voice.strip() for voice in args.voices.split(",") if voice.strip())
    if args.words is not None:
        options["min_words"], options["max_words"] = map(int, _read_range("--words", args.words))
    options |= {
        name: _read_range(f"--{name}", getattr(args, name)) for name in ("speed", "pitch") if getattr(args, name)
    }
    with show_progress(args.output) as advance:
        made = synthesize(
            args.texts, args.output, SynthesisConfig(**options), num_processes=args.processes, advance=advance
        )
    for text, reason in made.failed.items():
        logger.warning("%.60r is left out: %s", text, reason)
    hours = made.seconds / 3600
    print_text(f"{args.output}: {made.recordings:,} recordings ({hours:.2f} h), {made.new:,} of them new")
    return 1 if made.failed else 0


def _read_range(option: str, written: str) -> tuple[float, float]:
    found = re.fullmatch(r"\s*([\d.]+)\s*,\s*([\d.]+)\s*", written)
    try:
        return float(found[1]), float(found[2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise ConfigError(f"{option}: expected two numbers such as 0.9,1.1, got {written!r}") from None
