"""A voice that the model has never heard, and ten clips of it: one of each digit, the other 490 test.

    speechrnn recipe recipes/fsdd --source "$FSDD" --fold all --output runs/fsdd-folds
    python recipes/fsdd/ten_clips.py --folds runs/fsdd-folds --output runs/fsdd-ten

Each fold's model, which knows five speakers, is fine-tuned on clip number CLIP of each digit by the sixth, with the
five others' clips mixed in. There is nothing to validate on: the ten clips themselves say which epoch is the best. All
that a model hears of the sixth speaker are these ten clips: it is scored as it is, told of the voice in them (without
what they say, and without learning), fine-tuned, and that once more with ``sentences``, so that it writes exactly one
digit, as everyone who speaks says one.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from speechrnn.corpus.manifest import Entry, read_manifest, write_manifest
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.evaluation.evaluate import Evaluation, evaluate
from speechrnn.fine_tuning import finetune
from speechrnn.recognition.recognizer import load
from speechrnn.whole_files import write_whole

CLIP = 5
SETTINGS = {
    "data.batch_seconds": 16.0,
    "start.replay_share": 0.75,
    "trainer.max_epochs": 400,
    "optimizer.learning_rate": 2e-3,
}
"""Faster and longer than what `finetune` chooses, as the clips that are replayed allow; ``--set`` wins over it."""


def split(entries: list[Entry], clip: int) -> tuple[list[Entry], list[Entry]]:
    """The clip of each digit with this number, and all others; an id is digit_speaker_number.

    Raises:
        ConfigError: There is no such number.
    """
    ten = [entry for entry in entries if int(entry.id.rsplit("_", 1)[1]) == clip]
    if not ten:
        raise ConfigError(f"--clip {clip}: no clip has this number; FSDD numbers those of each digit from 0 to 49")
    chosen = {entry.id for entry in ten}
    return ten, [entry for entry in entries if entry.id not in chosen]


def parse_settings(text: str) -> dict[str, Any]:
    """Settings from JSON."""
    try:
        settings = json.loads(text)
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f'{text}: expected JSON such as {{"trainer.max_epochs": 20}}')
    return settings


def share_exact(evaluation: Evaluation) -> float:
    """Clips whose one word is right and nothing else is written, in percent."""
    return 100 * (1 - evaluation.score.sentence_error_rate)


def run(fold: Path, output: Path, *, clip: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune one fold's model; score it as it is, told of the voice, fine-tuned, and that closed to one digit."""
    ten, rest = split(read_manifest(fold / "test.jsonl"), clip)
    paths = {name: output / f"{name}.jsonl" for name in ("ten", "rest")}
    for path, entries in zip(paths.values(), (ten, rest), strict=True):
        write_manifest(path, entries)
    outcome = finetune(
        fold / "model",
        paths["ten"],
        paths["ten"],
        output=output / "run",
        replay=fold / "train.jsonl",
        overrides={**SETTINGS, **overrides},
    )
    old, new = load(fold / "model"), load(outcome.training.model)
    heard = [str(entry.audio_path) for entry in ten]
    before = evaluate(old, paths["rest"], unknown_speakers=True)
    told, after = (evaluate(each, paths["rest"], speaker=each.hear(heard)) for each in (old, new))
    digits = sorted({entry.text for entry in ten})
    closed = evaluate(new, paths["rest"], speaker=new.hear(heard), sentences=digits)
    return {
        "speaker": fold.name.removeprefix("fold-"),
        "clips": len(rest),
        "before": share_exact(before),
        "told": share_exact(told),
        "after": share_exact(after),
        "closed": share_exact(closed),
        "seconds": outcome.training.seconds,
    }


def describe(rows: list[dict[str, Any]]) -> str:
    """The table, with the mean of all speakers."""
    names = ("before", "told", "after", "closed")
    heads = "exact % before | voice heard | fine-tuned | nothing but one digit can be said | training, s"
    lines = [f"| speaker | clips | {heads} |", "|" + " --- |" * 7]
    for row in rows:
        shares = " | ".join(f"{row[name]:.1f}" for name in names)
        lines.append(f"| {row['speaker']} | {row['clips']} | {shares} | {row['seconds']:.0f} |")
    means = " | ".join(f"{sum(row[name] for row in rows) / len(rows):.1f}" for name in names)
    lines.append(f"| mean | | {means} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All folds that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True, help="what the recipe wrote with --fold all")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clip", type=int, default=CLIP, help="number of the clip of each digit (default: 5)")
    parser.add_argument("--only", nargs="+", metavar="SPEAKER")
    parser.add_argument(
        "--set", type=parse_settings, default="{}", metavar="JSON", help='settings, as in {"trainer.max_epochs": 20}'
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folds = [fold for fold in sorted(args.folds.glob("fold-*")) if (fold / "model").is_dir()]
    if args.only:
        folds = [fold for fold in folds if fold.name.removeprefix("fold-") in args.only]
    if not folds:
        parser.error(f"{args.folds}: no fold-SPEAKER/model there; run the recipe with --fold all first")
    rows = [run(fold, args.output / fold.name, clip=args.clip, overrides=args.set) for fold in folds]
    table = describe(rows)
    print(table, end="")
    write_whole(args.output / "ten_clips.md", table)


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
