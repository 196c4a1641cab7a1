"""``speechrnn train``: one training run from a configuration, or one that was stopped, taken up again."""

from __future__ import annotations

import argparse

from speechrnn.errors import ConfigError

SUMMARY = "train a model from a YAML configuration"
EXAMPLE = "speechrnn train --config recipes/fsdd/config.yaml --encoder.hidden_size 256 --trainer.max_epochs 10"
TAKES_REST = True
"""Settings of the configuration stand on the command line as --KEY VALUE."""
TRAINS = True
"""Of several processes that train together the first one speaks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.usage = (
        "%(prog)s --config FILE [--overwrite] [-v] [--KEY VALUE …]\n"
        "       %(prog)s --resume DIR\n"
        "       %(prog)s --replay DIR"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file: what differs from the defaults")
    parser.add_argument("--overwrite", action="store_true", help="replace a run in the output folder")
    parser.add_argument(
        "--resume", metavar="DIR", help="go on with the run in this folder, which was stopped, killed or interrupted"
    )
    parser.add_argument(
        "--replay",
        metavar="DIR",
        help="compute a step that was not taken once more: a folder of a run's faults/",
    )
    parser.add_argument_group(
        "settings",
        "--KEY VALUE wins over the file, as in --encoder.hidden_size 256, --output runs/mine, --seed 1, or\n"
        "--augment.speed '[0.9, 1.0, 1.1]'; Lightning's own options stand under --trainer.*; names are\n"
        "written in full. --print_config shows every setting with its value, and trains nothing.",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, print where the model lies; 1 if utterances were left out."""
    wanted = [name for name in ("config", "resume", "replay") if getattr(args, name) is not None]
    if len(wanted) != 1:
        given = " and ".join(f"--{name}" for name in wanted) or "none of them"
        raise ConfigError(f"expected one of --config FILE, --resume DIR and --replay DIR, got {given}")
    if wanted != ["config"] and (rest or args.overwrite):
        extra = rest[0] if rest else "--overwrite"
        raise ConfigError(f"--{wanted[0]}: takes its settings from the run itself; leave {extra} out")
    if wanted == ["replay"]:
        return _replay(args.replay)
    from speechrnn.training.train import resume, train

    result = resume(args.resume) if args.resume else train(args.config, rest, overwrite=args.overwrite)
    print(result.model)
    return 1 if result.left_out else 0


def _replay(folder: str) -> int:
    from speechrnn.training.replay import describe_replay, replay

    rows = replay(folder)
    print(describe_replay(rows))
    return 0 if all(row.is_finite for row in rows) else 1
