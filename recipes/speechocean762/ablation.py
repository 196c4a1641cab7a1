"""What each single change does: trains every change of ablation.yaml with every seed, compares on validation speakers.

    python recipes/speechocean762/ablation.py --source "$SPEECHOCEAN762" --output runs/ablation --jobs 2

Each run is one process on one core, or one at a time on a GPU. What is done is not done again, and a run that was
stopped goes on where it was. What the weights of each run's last epoch scored goes to ``scores.json``, speaker by
speaker; with ``--scores`` to another file, such as the ``ablation.json`` of this folder, so that a run on one day or
machine follows another's. (The epoch with the fewest word errors may be an early one that hardly says anything.)
``ablation.md`` and ``ablation.png`` (the latter needs matplotlib) show the rates of what is there so far: errors of
all seeds together, and the difference of character error rates from the baseline's, with a paired interval over
speakers and for each seed alone, as seeds may differ by more than speakers do. After so short a training most words
have an error in them, so that word error rates say little. The test set is not looked at.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder import load_model
from speechrnn.recipe import open_recipe, run_recipe
from speechrnn.text.scores import ErrorCounts, difference_interval
from speechrnn.training.run import LAST

FOLDER = Path(__file__).resolve().parent
BASELINE = "baseline"
TRIAL = "trial.json"


@dataclass(frozen=True)
class Trial:
    """One change, one seed.

    Attributes:
        change: Its name in ablation.yaml.
        seed: Of everything.
        settings: All that is set beside config.yaml.
        folder: Where it is trained.
    """

    change: str
    seed: int
    settings: dict[str, Any]
    folder: Path


class Scores:
    """What the trials scored, in one file that grows with each.

    Args:
        path: A JSON list with a row for each trial; it need not be there.

    Raises:
        ConfigError: It holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        if not path.is_file():
            return
        try:
            for row in json.loads(path.read_text(encoding="utf-8")):
                _ = [row[name] for name in ("settings", "speakers", "wer", "seconds")]
                self._rows[row["change"], row["seed"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--scores {path}: not what this script writes ({error}); move it away") from error

    def find(self, trial: Trial) -> dict[str, Any] | None:
        """A trial's scores; None where it was not done, or with other settings."""
        row = self._rows.get((trial.change, trial.seed))
        return row if row is not None and row["settings"] == trial.settings else None

    def keep(self, trial: Trial, scored: dict[str, Any]) -> None:
        """Add a trial's scores to the file, in the place of older ones."""
        row = {"change": trial.change, "seed": trial.seed, "settings": trial.settings, **scored}
        with self._lock:
            self._rows[trial.change, trial.seed] = row
            write_atomic(self.path, "[\n" + ",\n".join(map(json.dumps, self._rows.values())) + "\n]\n")


def plan(output: Path, seeds: list[int], only: list[str] | None) -> list[Trial]:
    """The trials in the order in which they are worth having: the baseline first, then seed by seed.

    Raises:
        ConfigError: A change is unknown.
    """
    known = yaml.safe_load((FOLDER / "ablation.yaml").read_text(encoding="utf-8"))
    changes = {BASELINE: {}, **known["changes"]}
    unknown = [name for name in only or [] if name not in changes]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: ablation.yaml has {', '.join(changes)}")
    chosen = {BASELINE: {}, **{name: changes[name] for name in only}} if only else changes
    return [
        Trial(name, seed, {**known["baseline"], **change}, output / name.replace(" ", "-") / f"seed-{seed}")
        for seed in seeds
        for name, change in chosen.items()
    ]


def run(trial: Trial, data: Path, device: str, scores: Scores) -> str | None:
    """Train and score one trial, unless that is done; what went wrong, or None."""
    if scores.find(trial) is not None:
        return None
    is_begun = is_same(trial)
    write_atomic(trial.folder / TRIAL, json.dumps(trial.settings))
    command = [sys.executable, "-m", "speechrnn.cli.main", "train"]
    if is_begun and (trial.folder / LAST).exists():
        command += ["--resume", str(trial.folder)]
    elif not (is_begun and (trial.folder / "model").is_dir()):
        command += ["--config", str(FOLDER / "config.yaml"), "--overwrite"]
        command += [f"--data.train={data / 'train.jsonl'}", f"--data.valid={data / 'valid.jsonl'}", "--data.test={}"]
        command += [f"--output={trial.folder}", f"--seed={trial.seed}", f"--trainer.accelerator={device}"]
        for name, value in trial.settings.items():
            shown = str(data / value) if name == "ctc.lexicon" and value else value
            command.append(f"--{name}={shown if isinstance(shown, str) else json.dumps(shown)}")
    else:
        command = []
    with (trial.folder / "log.txt").open("a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} if device == "cpu" else dict(os.environ)
        if command and subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode > 1:
            return f"{trial.change}, seed {trial.seed}: failed, see {trial.folder / 'log.txt'}"
    scores.keep(trial, score(trial, data, device))
    return None


def is_same(trial: Trial) -> bool:
    """Whether what lies in the trial's folder was trained with its settings."""
    try:
        return bool(json.loads((trial.folder / TRIAL).read_text(encoding="utf-8")) == trial.settings)
    except (OSError, ValueError):
        return False


def score(trial: Trial, data: Path, device: str) -> dict[str, Any]:
    """Character errors and characters of each validation speaker, the word error rate, and how long training took."""
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.recognition.recognizer import Recognizer

    model = load_model(trial.folder / "model")
    model.acoustic.load_state_dict(load_file(find_last_weights(trial.folder)))
    recognizer = Recognizer(model, device=device)
    evaluation = evaluate(recognizer, data / "valid.jsonl")
    speakers: dict[str, list[int]] = {}
    for utterance in sorted(evaluation.utterances, key=lambda utterance: utterance.id):
        sums = speakers.setdefault(utterance.speaker or utterance.id, [0, 0])
        sums[0] += utterance.character_counts.errors
        sums[1] += utterance.character_counts.length
    training = recognizer.provenance["training"]
    return {"speakers": speakers, "wer": evaluation.score.wer, "seconds": training["seconds"]}


def find_last_weights(folder: Path) -> Path:
    """The checkpoint of a run's last epoch; ``checkpoints.best`` is large enough that all are kept."""
    return max(folder.glob("checkpoints/epoch-*.safetensors"), key=lambda path: int(path.stem.rpartition("-")[2]))


def compare(trials: list[Trial], kept: Scores) -> list[dict[str, Any]]:
    """A row a change: rates over its seeds, and the difference from the baseline over the seeds that both have."""
    found = {(trial.change, trial.seed): kept.find(trial) for trial in trials}
    scores = {key: row for key, row in found.items() if row is not None}
    rows = []
    for change in dict.fromkeys(trial.change for trial in trials):
        seeds = [seed for name, seed in scores if name == change]
        shared = [seed for seed in seeds if (BASELINE, seed) in scores]
        if not shared:
            continue
        speakers = [(seed, speaker) for seed in shared for speaker in scores[BASELINE, seed]["speakers"]]
        counts = [
            [_to_counts(*scores[name, seed]["speakers"][speaker]) for seed, speaker in speakers]
            for name in (BASELINE, change)
        ]
        interval = difference_interval(*counts, [speaker for _, speaker in speakers])
        rates = [sum(each, ErrorCounts()).rate for each in counts]
        apart = [_find_rate(scores[change, seed]) - _find_rate(scores[BASELINE, seed]) for seed in shared]
        seconds = [sum(scores[name, seed]["seconds"] for seed in shared) for name in (change, BASELINE)]
        rows.append(
            {
                "change": change,
                "apart": apart,
                "cer": rates[1],
                "wer": float(np.mean([scores[change, seed]["wer"] for seed in shared])),
                "difference": rates[1] - rates[0],
                "low": interval.low,
                "high": interval.high,
                "time": seconds[0] / seconds[1],
            }
        )
    return [rows[0], *sorted(rows[1:], key=lambda row: row["difference"])] if rows else []


def _to_counts(errors: int, length: int) -> ErrorCounts:
    return ErrorCounts(errors, length=length)


def _find_rate(row: dict[str, Any]) -> float:
    """The character error rate of one trial."""
    errors, length = (sum(each[place] for each in row["speakers"].values()) for place in (0, 1))
    return float(errors / length)


def describe(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| change | CER % | WER % | CER against the baseline, points | 95 % interval | each seed | training time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        compared = ["", "", ""]
        if row["change"] != BASELINE:
            apart = ", ".join(f"{100 * each:+.1f}" for each in row["apart"])
            interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
            compared = [f"{100 * row['difference']:+.1f}", interval, apart]
        rates = [f"{100 * row['cer']:.1f}", f"{100 * row['wer']:.1f}"]
        lines.append(f"| {' | '.join([row['change'], *rates, *compared])} | × {row['time']:.2f} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The picture: differences with their intervals, crosses for single seeds, the best at the top; what they do not
    agree on is grey.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["change"] != BASELINE][::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.28 * len(rows)), layout="constrained")
    for height, row in enumerate(rows):
        is_worse, is_better = min(row["low"], *row["apart"]) > 0, max(row["high"], *row["apart"]) < 0
        colour = "tab:green" if is_better else "tab:red" if is_worse else "0.6"
        axes.plot([100 * each for each in row["apart"]], [height] * len(row["apart"]), "x", color=colour)
        axes.plot([100 * row["low"], 100 * row["high"]], [height, height], color=colour, linewidth=2)
        axes.plot(100 * row["difference"], height, "o", color=colour)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["change"] for row in rows])
    axes.set_xlabel("validation CER against the baseline, percentage points (left is better)")
    axes.margins(y=0.02)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, then compare what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the corpus, as for the recipe")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", metavar="CHANGE", help="these changes alone, and the baseline")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each on one core")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="where scores are kept; OUTPUT/scores.json")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    data = args.output / "data"
    try:
        trials = plan(args.output, args.seeds, args.only)
        scores = Scores(args.scores or args.output / "scores.json")
        run_recipe(open_recipe(FOLDER, source=args.source, output=data), stage="prepare")
    except SpeechRNNError as error:
        parser.exit(2, f"error: {error}\n")
    with ThreadPoolExecutor(args.jobs) as pool:
        for trial, problem in zip(
            trials, pool.map(lambda trial: run(trial, data, args.device, scores), trials), strict=True
        ):
            print(problem or f"{trial.change}, seed {trial.seed}: done", file=sys.stderr, flush=True)
            rows = compare(trials, scores)
            write_atomic(args.output / "ablation.md", describe(rows))
    try:
        draw(rows, args.output / "ablation.png")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    print(describe(rows))


if __name__ == "__main__":
    main()
