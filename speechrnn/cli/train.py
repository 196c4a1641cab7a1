"""``speechrnn train``: train a model from a configuration, or resume a stopped run."""

from __future__ import annotations

import argparse

from speechrnn.cli.arguments import add_group, print_text
from speechrnn.errors import ConfigError

SUMMARY = "train a model from a YAML configuration"
EXAMPLE = "speechrnn train --config recipes/fsdd/config.yaml --encoder.hidden_size 256 --trainer.max_epochs 10"
TAKES_REST = True
TRAINS = True

_SOURCES = {"config": "--config FILE", "resume": "--resume DIR", "rerun_step": "--rerun-step DIR"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = (
        "%(prog)s --config FILE [--overwrite] [-v] [--KEY VALUE …]\n"
        "       %(prog)s --resume DIR\n"
        "       %(prog)s --rerun-step DIR"
    )
    group = add_group(parser, "run")
    group.add_argument("--config", metavar="FILE", help="YAML file with the settings that differ from the defaults")
    group.add_argument("--overwrite", action="store_true", help="replace a run in the output folder")
    group.add_argument("--resume", metavar="DIR", help="resume the stopped or interrupted run in this folder")
    group.add_argument("--rerun-step", metavar="DIR", help="repeat a skipped step: a folder of a run's faults/")
    group.add_argument("--replay", dest="rerun_step", help=argparse.SUPPRESS)  # its name in version 0.1
    parser.add_argument_group(
        "settings",
        "--KEY VALUE overrides the file, as in --encoder.hidden_size 256, --output runs/mine, --seed 1, or\n"
        "--augment.speed '[0.9, 1.0, 1.1]'; Lightning's own options begin with --trainer.; names must be\n"
        "complete. --print_config prints all settings and trains nothing.",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train and print the path of the model; 1 if utterances were left out."""
    wanted = [name for name in _SOURCES if getattr(args, name) is not None]
    if len(wanted) != 1:
        given = " and ".join(_SOURCES[name].split()[0] for name in wanted)
        if not given and rest and not rest[0].startswith("-"):
            given = f"{rest[0]}; did you mean --config {rest[0]}?"
        given = given or "none of them"
        raise ConfigError(f"expected one of --config FILE, --resume DIR and --rerun-step DIR, got {given}")
    if wanted != ["config"] and (rest or args.overwrite):
        extra = rest[0] if rest else "--overwrite"
        raise ConfigError(f"{_SOURCES[wanted[0]].split()[0]}: uses the settings of the run; remove {extra}")
    if args.rerun_step is not None:
        return _rerun_step(args.rerun_step)
    from speechrnn.training.train import resume, train

    result = resume(args.resume) if args.resume else train(args.config, rest, overwrite=args.overwrite)
    print_text(str(result.model))
    return 1 if result.left_out else 0


def _rerun_step(folder: str) -> int:
    from speechrnn.training.replay import describe_replay, replay

    rows = replay(folder)
    print_text(describe_replay(rows))
    return 0 if all(row.is_finite for row in rows) else 1
