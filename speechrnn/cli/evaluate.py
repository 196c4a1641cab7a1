"""``speechrnn evaluate``: error rates of a model on a corpus."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from speechrnn.cli import arguments
from speechrnn.errors import ConfigError
from speechrnn.recognition.decoders import DecodingConfig

SUMMARY = "score a model on a corpus: WER with a 95 % interval, CER, every hypothesis with its reference"
EXAMPLE = "speechrnn evaluate runs/fsdd/test.jsonl -m runs/fsdd/model -o runs/fsdd/again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = "%(prog)s CORPUS -m M [options]"
    arguments.add_corpus_argument(parser)
    output = arguments.add_group(parser, "output")
    output.add_argument(
        *("-o", "--output"),
        metavar="DIR",
        help="write hypotheses.jsonl (worst first), results.json and, with matplotlib, reliability.png to DIR",
    )
    output.add_argument("--json", action="store_true", help="print the scores as JSON, rates as fractions")
    output.add_argument(
        "--calibrate",
        action="store_true",
        help="fit confidence calibration of this decoder on CORPUS (validation data), store it with the model",
    )
    engine = ("--device", "--backend", "--precision")
    arguments.add_model_argument(parser, *engine, "--batch-seconds", "--speaker", count="several")
    statistics = (
        "normalise each recording by itself: a model that normalises by speaker otherwise estimates the statistics of "
        "each speaker from all their recordings, without their texts"
    )
    for option, meaning in {"--no-speaker-stats": statistics, "--unknown-speakers": argparse.SUPPRESS}.items():
        arguments.add_group(parser, "model").add_argument(
            option, dest="use_speaker_stats", action="store_false", help=meaning
        )
    arguments.add_config_arguments(parser, DecodingConfig, "decoding")
    arguments.add_group(parser, "decoding").add_argument(
        "--carry-state",
        choices=("no", "recording", "speaker"),
        default="no",
        help="start each utterance from the final hidden state of the previous one of the same recording, or of the "
        "same speaker (default: no)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Score and print; 1 if recordings could not be transcribed."""
    folder = None if args.output is None else arguments.make_output_folder(args.output)
    decoding = arguments.read_config(args, DecodingConfig)
    if args.calibrate and not isinstance(args.model, str):
        raise ConfigError("--calibrate: the calibration is stored with one model; give -m once")

    from speechrnn.evaluation.calibration import store_calibration
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.evaluation.report import describe_evaluation, write_evaluation
    from speechrnn.model_folder import find_folder
    from speechrnn.recognition.recognizer import load

    model_folder = find_folder(args.model, to_change=True) if args.calibrate else None
    recognizer = load(args.model, device=args.device, backend=args.backend, precision=args.precision)
    if args.calibrate:
        recognizer.calibrations.clear()
    evaluation = evaluate(
        recognizer,
        args.corpus,
        batch_seconds=args.batch_seconds,
        format=args.format,
        speaker=args.speaker,
        use_speaker_stats=args.use_speaker_stats,
        carry_state=args.carry_state,
        **decoding,
    )
    if folder is not None:
        write_evaluation(evaluation, folder)
    if model_folder is not None:
        decoder = recognizer.choose_decoder(**decoding).name
        calibration = store_calibration(model_folder, decoder, evaluation, corpus=args.corpus)
        arguments.print_note(
            f"confidences of {decoder} are calibrated on {calibration.words:,} words: expected calibration error "
            f"{100 * calibration.error:.1f} %, before {100 * calibration.raw_error:.1f} %"
        )
    arguments.print_text(
        json.dumps(evaluation.to_dict()) if args.json else describe_evaluation(evaluation, Path(args.corpus).stem)
    )
    return 1 if any(utterance.problem for utterance in evaluation.utterances) else 0
