"""Fine-tuning to an unknown speaker with ten clips, one of each digit; the other 490 clips are the test set.

    for seed in 0 1 2 3; do
        speechrnn recipe recipes/fsdd --source "$FSDD" --fold all --seed $seed --output runs/fsdd-folds-$seed
    done
    python recipes/fsdd/ten_clips.py --folds runs/fsdd-folds-[0-3] --output runs/fsdd-ten

The model of each fold was trained on five speakers. It is fine-tuned on clip number CLIP of each digit by the sixth
speaker, with the clips of the other five as replay data. There is no validation data: the best epoch is chosen on the
ten clips. The model is scored as it is, with speaker statistics of the ten clips (without texts and training),
fine-tuned, and fine-tuned with ``sentences``, which allows exactly one digit. With several folders of folds, the models
that leave out the same speaker are fine-tuned separately and transcribe as an ensemble.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechrnn.atomic_io import write_atomic
from speechrnn.corpus.manifest import read_manifest, write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.evaluation.evaluate import Evaluation, evaluate
from speechrnn.fine_tuning import FineTuning, finetune
from speechrnn.recognition.recognizer import load

CLIP = 5
SETTINGS = {
    "data.batch_seconds": 16.0,
    "start.replay_share": 0.75,
    "trainer.max_epochs": 400,
    "optimizer.learning_rate": 2e-3,
}
"""More epochs and a higher learning rate than `finetune` chooses; replay allows it. ``--set`` takes precedence."""


def split(entries: list[Utterance], clip: int) -> tuple[list[Utterance], list[Utterance]]:
    """Split into the clip of each digit with this number, and all others; an id is digit_speaker_number.

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


def tune(folds: Sequence[Path], output: Path, ten: Path, overrides: dict[str, Any]) -> list[FineTuning]:
    """Fine-tune the models that leave out the same speaker, each by itself; what is finished stays as it is."""
    return [
        finetune(
            fold / "model",
            ten,
            ten,
            output=output / f"run{number or ''}",
            replay=fold / "train.jsonl",
            overrides={**SETTINGS, **overrides},
        )
        for number, fold in enumerate(folds)
    ]


def split_files(fold: Path, output: Path, clip: int) -> tuple[list[Utterance], Path, Path]:
    """The ten clips of a fold's speaker, their manifest, and that of the rest."""
    ten, rest = split(read_manifest(fold / "test.jsonl"), clip)
    paths = output / "ten.jsonl", output / "rest.jsonl"
    for path, entries in zip(paths, (ten, rest), strict=True):
        write_manifest(path, entries)
    return ten, *paths


def run(folds: Sequence[Path], output: Path, *, clip: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune the models of a fold; score before, with speaker statistics, after, and with a closed vocabulary."""
    ten, ten_path, rest_path = split_files(folds[0], output, clip)
    outcomes = tune(folds, output, ten_path, overrides)
    old = load([fold / "model" for fold in folds])
    new = load([outcome.training.model for outcome in outcomes])
    clips = [str(entry.audio_path) for entry in ten]
    before = evaluate(old, rest_path, use_speaker_stats=False)
    stats, after = (evaluate(each, rest_path, speaker=each.estimate_speaker(clips)) for each in (old, new))
    digits = sorted({entry.text for entry in ten})
    closed = evaluate(new, rest_path, speaker=new.estimate_speaker(clips), sentences=digits)
    return {
        "speaker": folds[0].name.removeprefix("fold-"),
        "clips": len(before.utterances),
        "before": share_exact(before),
        "stats": share_exact(stats),
        "after": share_exact(after),
        "closed": share_exact(closed),
        "seconds": sum(outcome.training.seconds for outcome in outcomes),
    }


def describe(rows: list[dict[str, Any]]) -> str:
    """The table, with the mean of all speakers."""
    names = ("before", "stats", "after", "closed")
    heads = "exact % before | with speaker statistics | fine-tuned | fine-tuned, one digit only | training, s"
    lines = [f"| speaker | clips | {heads} |", "|" + " --- |" * 7]
    for row in rows:
        shares = " | ".join(f"{row[name]:.1f}" for name in names)
        lines.append(f"| {row['speaker']} | {row['clips']} | {shares} | {row['seconds']:.0f} |")
    means = " | ".join(f"{sum(row[name] for row in rows) / len(rows):.1f}" for name in names)
    lines.append(f"| mean | | {means} | |")
    return "\n".join(lines) + "\n"


def find_speakers(folder: Path) -> list[str]:
    """The left-out speakers of folds with a model."""
    return sorted(path.parent.name.removeprefix("fold-") for path in folder.glob("fold-*/model") if path.is_dir())


def main() -> None:
    """Fine-tune and score all present folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folds",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="output of the recipe with --fold all; several folders (one seed each) are scored as an ensemble",
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clip", type=int, default=CLIP, help="number of the clip of each digit (default: 5)")
    parser.add_argument("--only", nargs="+", metavar="SPEAKER")
    parser.add_argument(
        "--set", type=parse_settings, default="{}", metavar="JSON", help='settings, as in {"trainer.max_epochs": 20}'
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    speakers = find_speakers(args.folds[0])
    if args.only:
        speakers = [speaker for speaker in speakers if speaker in args.only]
    if not speakers:
        parser.error(f"{args.folds[0]}: no fold-SPEAKER/model; run the recipe with --fold all first")
    for folder in args.folds:
        missing = sorted(set(speakers) - set(find_speakers(folder)))
        if missing:
            parser.error(f"{folder}: no fold-{missing[0]}/model; run the recipe with --fold all first")
    rows = []
    for speaker in speakers:
        name = f"fold-{speaker}"
        folds = [folder / name for folder in args.folds]
        rows.append(run(folds, args.output / name, clip=args.clip, overrides=args.set))
    table = describe(rows)
    print(table, end="")
    write_atomic(args.output / "ten_clips.md", table)


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
