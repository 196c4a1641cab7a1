"""What recurrent cells remember, what clipping does for them, what they begin with: all experiments of this recipe.

    python recipes/memory/memory.py --fsdd "$FSDD" --output runs/memory --jobs 2
    python recipes/memory/memory.py --series prices.csv --columns open close --ahead 5 --output runs/prices

Each experiment is a process on one core. What is done is not done again. ``memory.md`` has the tables; the pictures
beside it need matplotlib. Without ``--fsdd`` the experiments on speech are left out. With ``--series`` there is only
one: what comes next in a CSV file of numbers.
"""

import argparse
import json
import math
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
from report import CELLS, LAGS, SOLVED_BELOW, describe, draw

from speechrnn.acoustic.gradient_flow import measure_recurrent_weights, measure_saturation
from speechrnn.acoustic.sequence import SequenceConfig, SequenceModel
from speechrnn.atomic_io import write_atomic, write_json
from speechrnn.errors import CorpusError, SpeechRNNError
from speechrnn.inspection.pictures import has_matplotlib
from speechrnn.training.sequences import (
    SequenceResult,
    SequenceTraining,
    build_sequence_model,
    measure,
    measure_sequence_gradients,
    step_losses,
    train_sequences,
)

STEPS = dict(zip(LAGS, (1500, 2000, 3000), strict=True))
"""Most training steps for each lag."""
FAR = 1000
"""Lag to which gradients are followed."""

_TRAIN_CLIPS, _VALID_CLIPS = range(5, 45), range(45, 50)  # 0 to 4 are FSDD's test clips: not for this


@dataclass(frozen=True)
class Experiment:
    """One training.

    Attributes:
        name: Also of its file.
        task: A key of :func:`make_task`.
        lag: Steps, or how far ahead.
        model: What is trained.
        training: How.
    """

    name: str
    task: str
    lag: int
    model: SequenceConfig
    training: SequenceTraining = field(default_factory=SequenceTraining)


def plan(*, with_speech: bool, seed: int) -> list[Experiment]:
    """All experiments, the longest first."""
    found = list(_plan_memory(with_speech, seed)) + list(_plan_clipping(seed)) + list(_plan_states(seed))
    next_step = SequenceTraining(steps=1500, learning_rate=3e-3, seed=seed)
    model = SequenceConfig(cell="gru", hidden_size=128)
    # Five thousand symbols are soon known by heart.
    found.append(Experiment("next-symbol", "text", 1, model, replace(next_step, steps=200, validate_every=50)))
    if with_speech:
        found += [Experiment(f"next-mfcc-{ahead}", "mfcc", ahead, model, next_step) for ahead in (1, 5)]
    return sorted(found, key=lambda experiment: -experiment.lag)


def _plan_memory(with_speech: bool, seed: int) -> Iterator[Experiment]:
    for task in SOLVED_BELOW:
        if task == "first digit" and not with_speech:
            continue
        for lag, steps in STEPS.items():
            for cell in CELLS:
                for clip in (1.0, None):
                    name = f"{task.replace(' ', '-')}-{lag}-{cell}-{'clipped' if clip else 'unclipped'}"
                    training = SequenceTraining(
                        steps=steps, learning_rate=1e-2, clip=clip, solved_below=SOLVED_BELOW[task] / 2, seed=seed
                    )
                    yield Experiment(name, task, lag, SequenceConfig(cell=cell), training)


def _plan_clipping(seed: int) -> Iterator[Experiment]:
    model = SequenceConfig(cell="tanh", spectral_radius=2.0)
    for optimizer, rate in (("sgd", 0.1), ("adam", 3e-3)):
        for how, clip in (("none", None), ("norm", 1.0), ("value", 0.1)):
            training = SequenceTraining(
                steps=1000, learning_rate=rate, optimizer=optimizer, clip=clip, seed=seed,
                clip_algorithm="value" if how == "value" else "norm",
            )  # fmt: skip
            yield Experiment(f"clipping-{optimizer}-{how}", "delay", 3, model, training)


def _plan_states(seed: int) -> Iterator[Experiment]:
    for state in ("zero", "learned", "encoded"):
        training = SequenceTraining(steps=2000, learning_rate=3e-3, seed=seed)
        yield Experiment(f"state-{state}", "waves", 1, SequenceConfig(cell="gru", initial_state=state), training)


def make_task(experiment: Experiment, fsdd: Path | None) -> tuple[Any, Any]:
    """What an experiment trains on, and what it is validated on.

    Raises:
        CorpusError: A recording or text is missing.
    """
    lag = experiment.lag
    if experiment.task == "first digit":
        return tuple(tasks.FirstDigit(tasks.read_digits(fsdd, clips), lag) for clips in (_TRAIN_CLIPS, _VALID_CLIPS))
    if experiment.task == "mfcc":
        series = [_join(tasks.read_digits(fsdd, clips)) for clips in (_TRAIN_CLIPS, _VALID_CLIPS)]
        train = tasks.Series(series[0], ahead=lag)
        return train, tasks.Series(series[1], ahead=lag, mean=train.mean, std=train.std)
    if experiment.task == "text":
        text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8").lower()
        train = tasks.Text(text[: len(text) * 4 // 5])
        return train, tasks.Text(text[len(text) * 4 // 5 :], symbols=train.symbols)
    made = {"adding": tasks.Adding, "copy": tasks.Copy}
    one = {"delay": tasks.Delay, "waves": tasks.Waves}
    task = made[experiment.task](lag) if experiment.task in made else one[experiment.task]()
    return task, task


def _join(clips: list[list[np.ndarray]]) -> np.ndarray:
    """Digits in turn, one after the other, (T, F)."""
    return np.concatenate([clip for turn in zip(*clips, strict=False) for clip in turn])


def run(experiment: Experiment, path: Path, fsdd: Path | None) -> dict[str, Any]:
    """Train, measure, and write down what came out; in a process of its own."""
    torch.set_num_threads(1)
    task, valid = make_task(experiment, fsdd)
    kept: dict[str, Any] = {"experiment": asdict(experiment)}
    if experiment.name.endswith("-clipped"):
        untrained = build_sequence_model(task, experiment.model, seed=experiment.training.seed)
        kept["curve_before"] = _curve(experiment, valid, untrained)
        kept["gates_before"] = _measure_gates(valid, untrained)
    result = train_sequences(task, experiment.model, experiment.training, valid=valid)
    if experiment.name.endswith("-clipped"):
        kept["curve_after"] = _curve(experiment, valid, result.model)
        kept["gates_after"] = _measure_gates(valid, result.model)
    kept |= _describe(experiment, valid, result)
    write_json(path, kept)
    return kept


def _curve(experiment: Experiment, task: Any, model: SequenceModel) -> list[float]:
    """Mean norm of the last answer's error at every state before it: to lag 1,000 for the longest sums."""
    if experiment.task == "adding" and experiment.lag == max(LAGS):
        task = replace(task, lag=FAR)
    batch = task.draw(np.random.default_rng(0), 32)
    [curve] = measure_sequence_gradients(task, model, batch, steps=1)
    return curve.norms.tolist()


def _measure_gates(task: Any, model: SequenceModel) -> dict[str, dict[str, float]]:
    """What the recurrent weights of each gate do to a state, and how many of its units stand at their limits."""
    batch = task.draw(np.random.default_rng(0), 32)
    with torch.no_grad():
        layers, _ = model.unroll(batch.inputs, batch.lengths, reference=batch.reference)
    return {
        weights.gate: {
            "spectral_radius": weights.spectral_radius,
            "largest": float(weights.singular_values[0]),
            "smallest": float(weights.singular_values[-1]),
            "saturated": units.low + units.high,
        }
        for weights, units in zip(measure_recurrent_weights(model.stack), measure_saturation(layers), strict=True)
    }


def _describe(experiment: Experiment, valid: Any, result: SequenceResult) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "best": result.best if math.isfinite(result.best) else None,
        "validation": result.validation,
        "failed": result.failed,
        "losses": result.losses,
        "gradient_norms": [norm if math.isfinite(norm) else None for norm in result.gradient_norms],
    }
    if result.failed:
        return kept
    batch = valid.draw(np.random.default_rng(1), 512)
    with torch.no_grad():
        outputs, _ = result.model(batch.inputs, batch.lengths, reference=batch.reference)
        losses = step_losses(valid, outputs, batch)
        if experiment.task == "waves":
            kept["by_step"] = losses.mean(dim=0).tolist()
            if experiment.model.initial_state == "encoded":
                wrong = replace(batch, reference=batch.reference.roll(1, dims=0))
                outputs, _ = result.model(wrong.inputs, wrong.lengths, reference=wrong.reference)
                kept["by_step_wrong"] = step_losses(valid, outputs, wrong).mean(dim=0).tolist()
    if experiment.task == "text":
        kept["bits"] = float(losses[batch.counts].mean()) / math.log(2)
        kept["bits_unigram"] = valid.entropy_bits()
    if experiment.task in ("mfcc", "series"):
        kept["naive"] = valid.naive_error
        kept["measure"] = measure(valid, result.model, batch)
    return kept


def run_all(
    experiments: list[Experiment], output: Path, *, fsdd: Path | None, jobs: int, only: str = ""
) -> dict[str, dict[str, Any]]:
    """Run what is missing and whose name begins so, side by side; the results of all that are there, by name."""
    folder = output / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for experiment in experiments:
        path = folder / f"{experiment.name}.json"
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["experiment"] == json.loads(json.dumps(asdict(experiment))):
                results[experiment.name] = kept
    missing = [one for one in experiments if one.name not in results and one.name.startswith(only)]
    print(f"{len(results)} of {len(experiments)} experiments are there", file=sys.stderr)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(run, one, folder / f"{one.name}.json", fsdd): one for one in missing}
        for done in as_completed(waiting):
            name = waiting[done].name
            results[name] = kept = done.result()
            said = kept["failed"] or f"{kept['best']:.4f}"
            count = f"{len(results)}/{len(experiments)}"
            print(f"{count} {name}: {said}, {kept['seconds']:.0f} s", file=sys.stderr, flush=True)
            write_atomic(output / "memory.md", describe(results))
    write_atomic(output / "memory.md", describe(results))
    return results


def predict_series(
    path: Path, columns: list[str], ahead: int, output: Path, *, seed: int, training_steps: int = 1500
) -> None:
    """Train on the first four fifths of a CSV series and write down what it says of the rest.

    Raises:
        CorpusError: The file is no series of numbers, or too short.
    """
    if ahead < 1:
        raise CorpusError(f"--ahead {ahead}: expected 1 or more steps")
    values = tasks.read_series(path, columns)
    border = len(values) * 4 // 5
    if len(values) - border <= 2 * ahead:
        raise CorpusError(
            f"{path}: {len(values)} rows: expected more than {10 * ahead} to predict {ahead} ahead; the last fifth is "
            "kept to see how well that goes"
        )
    steps = max(1, min(50, (len(values) - border) // 2 - ahead))
    train = tasks.Series(values[:border], ahead=ahead, steps=steps)
    rest = tasks.Series(values[border:], ahead=ahead, steps=steps, mean=train.mean, std=train.std)
    training = SequenceTraining(steps=training_steps, learning_rate=3e-3, seed=seed)
    result = train_sequences(train, SequenceConfig(cell="gru"), training, valid=rest)
    inputs = torch.from_numpy(rest.values[None].astype(np.float32))
    with torch.no_grad():
        said = result.model(inputs, torch.tensor([inputs.shape[1]]))[0][0].double().numpy()
    error = float(np.mean((said[:-ahead] - rest.values[ahead:]) ** 2))
    said = said * train.std + train.mean
    names = columns or [str(number + 1) for number in range(values.shape[1])]
    lines = [",".join(["row", *names])]
    lines += [",".join([str(border + at + ahead + 1), *map(repr, map(float, row))]) for at, row in enumerate(said)]
    write_atomic(output / "predicted.csv", "\n".join(lines) + "\n")
    print(
        f"{len(values):,} rows, the first {border:,} trained on; {ahead} ahead on the others: mean squared error "
        f"{error:.3f} (in units of the variance), {rest.naive_error:.3f} for 'as it is now'; {output / 'predicted.csv'}"
    )


def main() -> None:
    """Run what is missing, then tell what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fsdd", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--jobs", type=int, default=1, help="experiments side by side, each on one core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="run those alone whose names begin so")
    parser.add_argument("--series", type=Path, help="a CSV file of numbers, instead of all experiments")
    parser.add_argument("--columns", nargs="+", default=[], help="of the CSV file, by its header; default: all")
    parser.add_argument("--ahead", type=int, default=1, help="how many steps ahead to predict the series")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        if args.series is not None:
            predict_series(args.series, args.columns, args.ahead, args.output, seed=args.seed)
            return
        if args.fsdd is not None:
            tasks.read_digits(args.fsdd, _VALID_CLIPS)  # a wrong folder is reported before an hour of training
        experiments = plan(with_speech=args.fsdd is not None, seed=args.seed)
        if not any(one.name.startswith(args.only) for one in experiments):
            raise CorpusError(f"--only {args.only}: no experiment has a name that begins with it")
        results = run_all(experiments, args.output, fsdd=args.fsdd, jobs=args.jobs, only=args.only)
    except SpeechRNNError as error:
        parser.exit(2, f"error: {error}\n")
    print(describe(results))
    if has_matplotlib():
        draw(results, args.output)
    else:
        print("no pictures: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
