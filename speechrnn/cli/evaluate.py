"""``speechrnn evaluate``: error rates of a model on a corpus."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.atomic_io import write_json, write_json_lines
from speechrnn.cli.arguments import (
    add_batch_arguments,
    add_decoding_arguments,
    add_format_argument,
    add_model_argument,
    add_speaker_argument,
    read_decoding,
)
from speechrnn.errors import ConfigError

if TYPE_CHECKING:
    from speechrnn.evaluation.evaluate import Evaluation

logger = logging.getLogger("speechrnn")

SUMMARY = "score a model on a corpus: WER with a 95 % interval, CER, every hypothesis beside its reference"
EXAMPLE = "speechrnn evaluate runs/fsdd/test.jsonl -m runs/fsdd/model -o runs/fsdd/again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("corpus", metavar="CORPUS", help="a corpus in any known format, such as a manifest")
    add_format_argument(parser)
    add_model_argument(parser, several=True)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write hypotheses.jsonl (worst first) and results.json there, and reliability.png with matplotlib",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="keep with the model what makes confidences of this decoder probabilities: for validation data",
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON, rates as fractions")
    parser.add_argument(
        "--carry-state",
        choices=("no", "recording", "speaker"),
        default="no",
        help="utterances start from the hidden state in which the one before ended: in the same recording, or of the "
        "same speaker in the corpus's order",
    )
    add_speaker_argument(parser)
    parser.add_argument(
        "--unknown-speakers",
        action="store_true",
        help="a model that normalises by speaker is not to hear each speaker's recordings beforehand (without texts)",
    )
    add_batch_arguments(parser)
    add_decoding_arguments(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Score and print; 1 if recordings could not be transcribed."""
    if args.output is not None:
        _make_folder(Path(args.output))
    decoding = read_decoding(args)
    if args.calibrate and not isinstance(args.model, str):
        raise ConfigError("--calibrate: what it finds is kept with a model; give -m once")

    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.recognition.loading import load

    recognizer = load(args.model, device=args.device)
    if args.calibrate:
        recognizer.calibrations.clear()
    evaluation = evaluate(
        recognizer,
        args.corpus,
        batch_seconds=args.batch_seconds,
        format=args.format,
        speaker=args.speaker,
        unknown_speakers=args.unknown_speakers,
        carry_state=args.carry_state,
        **decoding,
    )
    if args.output is not None:
        _write(evaluation, Path(args.output))
    if args.calibrate:
        _calibrate(args, recognizer.choose_decoder(**decoding).name, evaluation)
    if args.json:
        print(json.dumps(evaluation.to_dict()))
    else:
        _print(evaluation, Path(args.corpus).stem)
    return 1 if any(utterance.problem for utterance in evaluation.utterances) else 0


def _make_folder(folder: Path) -> None:
    """Make the output folder before anything else: nobody wants to hear after an hour that it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"-o {folder}: no folder can be made there ({error.strerror}); choose another") from error


def _write(evaluation: Evaluation, folder: Path) -> None:
    from speechrnn.evaluation.calibration import draw_reliability

    write_json_lines(folder / "hypotheses.jsonl", (utterance.to_dict() for utterance in evaluation.utterances))
    write_json(folder / "results.json", evaluation.to_dict())
    try:
        draw_reliability(evaluation.reliability, folder / "reliability.png")
    except ImportError:
        logger.info("no picture of the confidences: it needs matplotlib (pip install 'speechrnn[pictures]')")


def _calibrate(args: argparse.Namespace, decoder: str, evaluation: Evaluation) -> None:
    from speechrnn.evaluation.calibration import calibrate
    from speechrnn.model_folder import find_folder
    from speechrnn.model_folder.additions import add_calibration

    words = [utterance.words for utterance in sorted(evaluation.utterances, key=lambda utterance: utterance.id)]
    calibration = calibrate(words, corpus=str(args.corpus))
    add_calibration(find_folder(args.model), decoder, calibration)
    print(
        f"speechrnn: confidences of {decoder} are calibrated on {calibration.words:,} words: expected calibration "
        f"error {100 * calibration.error:.1f} %, before {100 * calibration.raw_error:.1f} %",
        file=sys.stderr,
    )


def _print(evaluation: Evaluation, name: str) -> None:
    from speechrnn.evaluation.evaluate import describe_errors, describe_score

    print(describe_score(name, evaluation.score))
    print(
        f"as written, capitals and punctuation included: WER {100 * evaluation.raw.wer:.2f} %, "
        f"CER {100 * evaluation.raw.cer:.2f} %"
    )
    if any(evaluation.reliability.counts):
        print(f"confidences: expected calibration error {100 * evaluation.reliability.error:.1f} %")
    wrong = sum(utterance.errors > 0 for utterance in evaluation.utterances)
    lines = describe_errors(evaluation.utterances)
    if lines:
        shown = "all" if len(lines) == wrong else f"the worst {len(lines)}"
        print(f"{wrong} utterances with errors, {shown} here (-said +recognised):", *lines, sep="\n")
