"""``speechrnn finetune``: a given model and recordings of one's own make a model that knows them."""

from __future__ import annotations

import argparse

from speechrnn.cli.arguments import add_model_argument
from speechrnn.errors import ConfigError

SUMMARY = "make a model your own: from minutes to hours of recordings with their texts"
EXAMPLE = "speechrnn finetune -m runs/english/model --train mine/train --valid mine/valid --output runs/mine"
TAKES_REST = True
"""Settings of the configuration stand on the command line as --KEY VALUE."""
TRAINS = True
"""Of several processes that train together the first one speaks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = (
        "%(prog)s -m M --train CORPUS [--valid CORPUS] --output DIR\n"
        "       [--alphabet {keep,extend,replace,map}] [--map 'A=B …'] [--freeze N] [--replay CORPUS]\n"
        "       [--old-valid CORPUS] [--overwrite] [-v] [--KEY VALUE …]"
    )
    add_model_argument(parser)
    parser.add_argument(
        "--train", metavar="CORPUS", required=True, help="recordings to learn from, in any known format"
    )
    parser.add_argument("--valid", metavar="CORPUS", help="recordings to choose on; without, a tenth of --train")
    parser.add_argument("--output", metavar="DIR", required=True, help="the run's folder; the same call goes on there")
    parser.add_argument(
        "--alphabet",
        choices=("keep", "extend", "replace", "map"),
        help="symbols that the model lacks: leave utterances with them out, add them, begin a new alphabet, or write "
        "them as --map says; without, what suits the texts",
    )
    parser.add_argument("--map", metavar="A=B …", help="for --alphabet map: what letters are written as: 'ä=ae ß=ss'")
    parser.add_argument(
        "--freeze",
        metavar="N",
        help="what stays as it is: the subsampling and the N lowest recurrent layers, or encoder (all but the output "
        "layer); without, nothing",
    )
    parser.add_argument("--replay", metavar="CORPUS", help="what the model knew before: mixed in, lest it be forgotten")
    parser.add_argument(
        "--old-valid", metavar="CORPUS", help="what the model knew before, to choose on: what did it forget?"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a run in the output folder")
    parser.add_argument_group(
        "settings",
        "--KEY VALUE wins over what is chosen, as in --trainer.max_epochs 20, --start.replay_share 0.5,\n"
        "--start.unfreeze_every 2 or --optimizer.learning_rate 2e-4; speechrnn train --print_config shows all.",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Fine-tune and print what it brought; 1 if utterances were left out."""
    replacements = _read_map(args.map)
    settings = list(rest)
    if args.freeze is not None:
        settings += ["--start.layers", str(_count_moving_layers(args.model, args.freeze))]

    from speechrnn.fine_tuning import describe_finetuning, finetune

    outcome = finetune(
        args.model,
        args.train,
        args.valid,
        output=args.output,
        alphabet=args.alphabet,
        replacements=replacements,
        replay=args.replay,
        old_valid=args.old_valid,
        overrides=settings,
        overwrite=args.overwrite,
    )
    print(describe_finetuning(outcome))
    return 1 if outcome.training.left_out else 0


def _read_map(given: str | None) -> dict[str, str]:
    replacements = {}
    for part in (given or "").split():
        old, sign, new = part.partition("=")
        if not sign or not old:
            raise ConfigError(f"--map {part}: expected a letter, = and what it is written as, as in ä=ae")
        replacements[old] = new
    return replacements


def _count_moving_layers(model: str, freeze: str) -> int:
    from speechrnn.model_folder import load_model

    layers = load_model(model).acoustic.encoder.config.resolved_num_layers
    if freeze == "encoder":
        return 0
    if not freeze.isdecimal() or not 0 <= int(freeze) < layers:
        raise ConfigError(f"--freeze {freeze}: expected encoder, or 0 to {layers - 1} of the model's {layers} layers")
    return layers - int(freeze)
