"""``speechrnn benchmark``: where the time of training, transcription or decoding goes."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

from speechrnn.cli import arguments
from speechrnn.errors import ConfigError
from speechrnn.recognition.decoders import DecodingConfig

SUMMARY = "measure where the time of training, transcription or decoding goes, and the share of the machine's speed"
EXAMPLE = "speechrnn benchmark transcribe calls/ -m runs/fsdd/model"

_BATCH_SECONDS = {"train": 60.0, "transcribe": 120.0, "decode": 120.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = "%(prog)s train|transcribe|decode [AUDIO|FOLDER|CORPUS …] [-m M] [options]"
    parser.add_argument("what", choices=tuple(_BATCH_SECONDS), metavar="WHAT", help="train, transcribe or decode")
    audio = "recordings, folders of recordings, or corpora in any known format (default: noise)"
    parser.add_argument("audio", nargs="*", metavar="AUDIO", help=audio)
    model = arguments.add_group(parser, "model")
    arguments.add_model_argument(parser, "--device", "--backend", "--precision", count="optional")
    model.add_argument("--size", metavar="NAME", help="without -m: tiny, small (default), medium or large, untrained")
    model.add_argument("--cell", metavar="NAME", help="without -m: its cell (default: gru)")
    measured = arguments.add_group(parser, "measurement")
    numbers: dict[str, tuple[type, Any, str, str]] = {
        "--audio-seconds": (float, 120.0, "S", "use at most so much audio (default: 120)"),
        "--batch-seconds": (float, None, "S", "seconds of audio per batch (default: 120; train: 60)"),
        "--rounds": (int, 3, "N", "repeat N times, and take medians (default: 3)"),
        "--threads": (int, None, "N", "torch's threads (default: as many as cores)"),
    }
    for option, (kind, default, metavar, meaning) in numbers.items():
        measured.add_argument(option, type=kind, default=default, metavar=metavar, help=meaning)
    arguments.add_group(parser, "output").add_argument("--json", action="store_true", help="print JSON")
    arguments.add_config_arguments(parser, DecodingConfig, "decoding")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Measure and print."""
    decoding = arguments.read_config(args, DecodingConfig)
    _check(args, decoding)

    import torch

    from speechrnn.benchmarking import stages
    from speechrnn.benchmarking.inputs import find_audio, make_noise, make_untrained
    from speechrnn.recognition.engines import choose_engine
    from speechrnn.recognition.recognizer import Recognizer, load

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    untrained = {name: value for name in ("size", "cell") if (value := getattr(args, name)) is not None}
    with ExitStack() as stack:
        audio = find_audio(args.audio, most_seconds=args.audio_seconds)
        if args.model is not None:
            recognizer = load(args.model, device=args.device)
        else:
            recognizer = Recognizer(make_untrained(**untrained), device=args.device)
        if not audio:
            audio = stack.enter_context(make_noise(recognizer.sample_rate, seconds=args.audio_seconds))
        options = {"rounds": args.rounds, "batch_seconds": args.batch_seconds or _BATCH_SECONDS[args.what]}
        if args.what == "train":
            found = stages.measure_training(
                recognizer.model.acoustic, audio, uses_bfloat16=args.precision == "bfloat16", **options
            )
        elif args.what == "transcribe":
            chosen = {"backend": args.backend, "precision": args.precision}
            engine = choose_engine(recognizer.model, recognizer.device, **chosen)
            found = stages.measure_transcription(recognizer, audio, engine=engine, **options, **decoding)
        else:
            found = stages.measure_decoding(recognizer, audio, **options, **decoding)
    arguments.print_text(json.dumps(found.to_dict()) if args.json else found.to_text())
    return 0


def _check(args: argparse.Namespace, decoding: dict[str, Any]) -> None:
    """Refuse options that make no sense, before anything is loaded."""
    for name in ("audio_seconds", "batch_seconds", "rounds", "threads"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
    if args.model is not None and (args.size or args.cell):
        raise ConfigError("--size and --cell describe an untrained model; they cannot be combined with -m")
    if args.what == "train" and decoding:
        raise ConfigError(f"--{next(iter(decoding)).replace('_', '-')}: training does not decode; remove it")
    if args.what == "decode" and (args.backend, args.precision) != ("auto", "auto"):
        raise ConfigError("--backend and --precision: decode measures the search alone; use benchmark transcribe")
    if args.what == "train" and (args.backend not in ("auto", "torch") or args.precision == "int8"):
        raise ConfigError("--backend and --precision: training is with torch, in float32 or bfloat16 (bf16-mixed)")
