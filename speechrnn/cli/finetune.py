"""``speechrnn finetune``: fine-tune a model on one's own recordings."""

from __future__ import annotations

import argparse

from speechrnn.cli.arguments import add_group, add_model_argument, print_text
from speechrnn.errors import ConfigError

SUMMARY = "fine-tune a model on minutes to hours of your own recordings with their texts"
EXAMPLE = "speechrnn finetune -m runs/english/model --train mine/train --valid mine/valid --output runs/mine"
TAKES_REST = True
TRAINS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = "%(prog)s -m M --train CORPUS [--valid CORPUS] --output DIR [options] [--KEY VALUE …]"
    add_model_argument(parser)
    data = add_group(parser, "data")
    data.add_argument("--train", metavar="CORPUS", required=True, help="training data, in any known format")
    data.add_argument("--valid", metavar="CORPUS", help="validation data (default: a tenth of --train)")
    data.add_argument(
        "--replay", metavar="CORPUS", help="original-domain recordings, mixed into training to reduce forgetting"
    )
    data.add_argument(
        "--old-valid", metavar="CORPUS", help="original-domain validation data: measures what the model forgets"
    )
    alphabet = add_group(parser, "alphabet")
    alphabet.add_argument(
        "--alphabet",
        choices=("keep", "extend", "replace", "map"),
        help="symbols that the model lacks: leave out utterances with them (keep), add them (extend), start a new "
        "alphabet (replace), or replace them as in --map (map); default: chosen for the texts",
    )
    alphabet.add_argument("--map", metavar="A=B …", help="for --alphabet map: replacements of letters: 'ä=ae ß=ss'")
    add_group(parser, "training").add_argument(
        "--freeze",
        metavar="N",
        help="do not train the subsampling and the N lowest recurrent layers; encoder: train the output layer only "
        "(default: train everything)",
    )
    output = add_group(parser, "output")
    output.add_argument(
        "--output", metavar="DIR", required=True, help="folder of the run; repeating the command resumes a stopped run"
    )
    output.add_argument("--overwrite", action="store_true", help="replace a run in the output folder")
    parser.add_argument_group(
        "settings",
        "--KEY VALUE overrides a chosen setting, as in --trainer.max_epochs 20, --start.replay_share 0.5,\n"
        "--start.unfreeze_every 2 or --optimizer.learning_rate 2e-4; speechrnn train --print_config shows all.",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Fine-tune and print the error rates before and after; 1 if utterances were left out."""
    replacements = _read_map(args.map)

    from speechrnn.fine_tuning import describe_finetuning, finetune

    outcome = finetune(
        args.model,
        args.train,
        args.valid,
        output=args.output,
        alphabet=args.alphabet,
        replacements=replacements,
        freeze=args.freeze,
        replay=args.replay,
        old_valid=args.old_valid,
        overrides=rest,
        overwrite=args.overwrite,
    )
    print_text(describe_finetuning(outcome))
    return 1 if outcome.training.left_out else 0


def _read_map(given: str | None) -> dict[str, str]:
    replacements = {}
    for part in (given or "").split():
        old, sign, new = part.partition("=")
        if not sign or not old:
            raise ConfigError(f"--map {part}: expected a letter, = and its replacement, as in ä=ae")
        replacements[old] = new
    return replacements
