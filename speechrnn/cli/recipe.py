"""``speechrnn recipe``: from a published dataset to a released model and its error rates."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from speechrnn.cli.arguments import add_group, print_text

if TYPE_CHECKING:
    from speechrnn.recipe import Recipe

SUMMARY = "run a recipe: prepare, check, train, evaluate, report"
EXAMPLE = 'speechrnn recipe recipes/fsdd --source "$FSDD" --seed 1 --encoder.hidden_size 192'
TAKES_REST = True
TRAINS = True

_STAGES_WITH_RESULTS = (None, "evaluate", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = "%(prog)s FOLDER [options] [--KEY VALUE …]"
    parser.add_argument("folder", metavar="FOLDER", help="a recipe: a folder with prepare.py and config.yaml")
    group = add_group(parser, "run")
    group.add_argument("--source", metavar="DIR", help="the downloaded dataset (default: download it)")
    group.add_argument("--output", metavar="DIR", help="output folder (default: runs/NAME)")
    stages = "prepare, check, train, evaluate or report: run this stage again, and stop after it"
    group.add_argument("--stage", metavar="NAME", help=stages)
    group.add_argument("--seed", type=int, metavar="N", help="random seed (default: from the configuration)")
    folds = "leave out this part (such as a speaker) and test on it; all: each part in turn"
    group.add_argument("--fold", metavar="NAME", help=folds)
    parser.add_argument_group(
        "settings",
        "--KEY VALUE overrides the recipe's config.yaml, as in --encoder.hidden_size 192, --trainer.max_epochs 10, or\n"
        "--augment.speed '[0.9, 1.0, 1.1]'; names must be complete. --print_config prints all settings and runs\n"
        "nothing.",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run missing stages and print the table; 1 if utterances were left out or failed."""
    from speechrnn.evaluation.tables import describe_folds, describe_results
    from speechrnn.recipe import run_recipe

    results: dict[str, dict[str, Any]] = {}
    is_incomplete = False
    for recipe in _open(args, rest):
        result = run_recipe(recipe, stage=args.stage)
        is_incomplete |= _has_left_out(recipe, args.stage)
        if args.stage in _STAGES_WITH_RESULTS:
            print_text(describe_results(result, recipe.output), end="\n\n")
            results[str(recipe.fold)] = result
            is_incomplete |= any(scores["failed"] for scores in result["sets"].values())
    if len(results) > 1:
        print_text(describe_folds(results))
    return 1 if is_incomplete else 0


def _open(args: argparse.Namespace, rest: list[str]) -> list[Recipe]:
    """The requested recipe, or one per fold."""
    from speechrnn.recipe import list_folds, open_recipe

    def open_fold(fold: str | None) -> Recipe:
        return open_recipe(
            args.folder, source=args.source, output=args.output, seed=args.seed, fold=fold, overrides=rest
        )

    if args.fold != "all":
        return [open_fold(args.fold)]
    open_fold(None)  # reports errors before the data is read or downloaded
    return [open_fold(fold) for fold in list_folds(args.folder, args.source)]


def _has_left_out(recipe: Recipe, stage: str | None) -> bool:
    """Whether the preflight left out utterances."""
    path = recipe.output / "left_out.jsonl"
    return stage != "prepare" and path.is_file() and path.stat().st_size > 0
