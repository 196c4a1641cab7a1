"""``speechrnn lm tune``: choose the weights of a language model on validation data."""

from __future__ import annotations

import argparse
import logging

from speechrnn.cli import arguments
from speechrnn.recognition.decoders import DecodingConfig

SUMMARY = "tune the weights of a language model on validation data, and store them with the acoustic model"
EXAMPLE = "speechrnn lm tune mine/valid -m runs/mine/model --language-model lm.bin"

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    arguments.add_corpus_argument(parser, "validation data, neither training nor test data")
    arguments.add_model_argument(parser, "--device", "--batch-seconds")
    arguments.add_group(parser, "language model").add_argument(
        "--language-model", required=True, metavar="FILE", help="output of lm build, or any ARPA file"
    )
    arguments.add_group(parser, "language model").add_argument(
        "--set-default",
        action="store_true",
        help="copy the language model into the model folder; decoding uses it by default",
    )
    arguments.add_config_arguments(parser, DecodingConfig, "decoding", "beam_size")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Tune, and store the weights; 1 if the language model does not lower the error rate."""
    from speechrnn.evaluation.tune import describe_tuning, store_weights, tune_weights
    from speechrnn.language.compiled import read_language_model, write_compiled
    from speechrnn.model_folder import find_folder
    from speechrnn.model_folder.additions import LANGUAGE_MODEL_FILE
    from speechrnn.recognition.recognizer import load

    decoding, folder = arguments.read_config(args, DecodingConfig), find_folder(args.model, to_change=True)
    model = read_language_model(args.language_model)
    with arguments.show_progress(args.corpus) as advance:
        found = tune_weights(
            load(args.model, device=args.device),
            args.corpus,
            model,
            beam_size=decoding.get("beam_size"),
            format=args.format,
            batch_seconds=args.batch_seconds,
            advance=advance,
        )
    arguments.print_text(describe_tuning(found))
    if found.gain <= 0:
        logger.warning(
            "this language model gave no improvement; build it from text that is closer to the speech, or omit it"
        )
        return 1
    store_weights(folder, model, found, corpus=args.corpus, file=args.language_model)
    if args.set_default:
        write_compiled(folder / LANGUAGE_MODEL_FILE, model)
    return 0
