"""Training on sequences that are drawn again for each step: prediction, recall, classification.

The recurrent stack and the clipping are those of speech recognition; only inputs and targets differ.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speechrnn.acoustic.gradient_flow import LagCurve, LagSums
from speechrnn.acoustic.sequence import SequenceConfig, SequenceModel
from speechrnn.settings import Settings, bounded
from speechrnn.training.optimization import clip_gradients
from speechrnn.types import derive_seed

_VALIDATION_STEP = 1_000_000_000  # no run reaches this step, so its draws are for validation


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences.

    Attributes:
        inputs: (B, T, F), float32.
        lengths: Valid steps, (B,), int64.
        targets: (B, T, O), float32, or class numbers (B, T), int64.
        counts: Which steps count in the loss, (B, T), bool; none past a length.
        reference: Earlier parts of the same sequences, (B, T', F), for an encoded initial state.
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    counts: Tensor
    reference: Tensor | None = None

    def to(self, device: torch.device) -> SequenceBatch:
        """The same batch on a device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return SequenceBatch(**tensors)


class Task(Protocol):
    """A task for a sequence model."""

    input_size: int
    output_size: int
    loss: Literal["squared_error", "cross_entropy"]

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """Draw ``batch_size`` sequences, a function of the generator alone."""
        ...


@dataclass(frozen=True)
class SequenceTraining(Settings):
    """Options of :func:`train_sequences`.

    Attributes:
        steps: Maximum number of optimiser steps.
        batch_size: Sequences a step.
        learning_rate: Constant.
        optimizer: ``adam``, or ``sgd`` without momentum.
        clip: Norm or value to clip gradients at; None: no clipping.
        clip_algorithm: ``norm`` or ``value``.
        validate_every: Steps between validations.
        validation_size: Number of validation sequences, the same at each validation.
        solved_below: Stop when the validation measure is below this twice in a row; None: never.
        seed: Seed of weights and draws.
    """

    steps: int = bounded(2000, 1, 10**9)
    batch_size: int = bounded(32, 1, 10**6)
    learning_rate: float = bounded(1e-3, 0, 10**9, open="low")
    optimizer: Literal["adam", "sgd"] = "adam"
    clip: float | None = bounded(1.0, 0, 10**6, open="low")
    clip_algorithm: Literal["norm", "value"] = "norm"
    validate_every: int = bounded(100, 1, 10**9)
    validation_size: int = bounded(256, 1, 10**6)
    solved_below: float | None = bounded(None, 0, 10**6)
    seed: int = bounded(0, 0, 2**32 - 1)


@dataclass
class SequenceResult:
    """The result of :func:`train_sequences`.

    Attributes:
        model: The trained model.
        steps: Number of steps.
        losses: Training loss of each step.
        gradient_norms: Norm of each step's gradient before clipping.
        validation: Step and measure of each validation: mean squared error, or share of wrong classes.
        failed: Why training failed; empty where it did not.
        seconds: Duration.
    """

    model: SequenceModel
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    failed: str = ""
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """Best validation measure; infinite without a validation."""
        return min((value for _, value in self.validation if not math.isnan(value)), default=math.inf)

    @property
    def last(self) -> float:
        """Last validation measure; infinite without a validation."""
        return self.validation[-1][1] if self.validation else math.inf

    @property
    def largest_gradient_norm(self) -> float:
        """Largest norm before clipping; infinite where one was not finite."""
        return max((norm if math.isfinite(norm) else math.inf for norm in self.gradient_norms), default=0.0)


def step_losses(task: Task, outputs: Tensor, batch: SequenceBatch) -> Tensor:
    """The loss of each step that counts, 0 elsewhere: (B, T).

    Args:
        task: Its ``loss`` is the kind of loss.
        outputs: (B, T, O).
        batch: Targets, and which steps count.
    """
    if task.loss == "squared_error":
        losses = (outputs - batch.targets).pow(2).mean(dim=-1)
    else:
        losses = nn.functional.cross_entropy(outputs.transpose(1, 2), batch.targets, reduction="none")
    return losses.masked_fill(~batch.counts, 0.0)


@torch.no_grad()
def measure(task: Task, model: SequenceModel, batch: SequenceBatch) -> float:
    """Mean squared error, or share of wrong classes, over the steps that count."""
    was_training = model.training
    model.eval()
    outputs, _ = model(batch.inputs, batch.lengths, reference=batch.reference)
    model.train(was_training)
    if task.loss == "squared_error":
        errors = (outputs - batch.targets).pow(2).mean(dim=-1)
    else:
        errors = (outputs.argmax(dim=-1) != batch.targets).float()
    return float(errors[batch.counts].mean())


def measure_sequence_gradients(
    task: Task, model: SequenceModel, batch: SequenceBatch, *, steps: int = 8
) -> list[LagCurve]:
    """Gradient norm by lag, layer by layer; a frame and a second of these curves are one step.

    Args:
        task: Its losses are differentiated.
        model: Measured in evaluation mode.
        batch: At least one sequence; each has a step that counts.
        steps: Maximum number of steps to follow back, spread evenly over those that count.
    """
    was_training = model.training
    model.eval()
    layers, outputs = model.unroll(batch.inputs, batch.lengths, reference=batch.reference)
    losses = step_losses(task, outputs, batch)
    asked = batch.counts.sum(dim=1)
    order = (~batch.counts).to(torch.int64).argsort(dim=1, stable=True)  # steps that count come first
    sums, parts = LagSums(), min(steps, int(asked.min()))
    ranks = [((part + 0.5) / parts * asked).long() for part in range(parts)]
    sums.follow(layers, losses, batch.lengths, [order.gather(1, rank[:, None])[:, 0] for rank in ranks])
    model.train(was_training)
    return sums.finish(seconds_per_frame=1.0)


def build_sequence_model(task: Task, config: SequenceConfig, *, seed: int) -> SequenceModel:
    """The untrained model of a training with this seed."""
    torch.manual_seed(derive_seed(seed, "weights"))
    return SequenceModel(config, task.input_size, task.output_size)


def train_sequences(
    task: Task,
    config: SequenceConfig,
    training: SequenceTraining,
    *,
    valid: Task | None = None,
    report: Callable[[SequenceResult], None] | None = None,
) -> SequenceResult:
    """Train a sequence model on a task.

    Args:
        task: The task.
        config: The model.
        training: Options.
        valid: Validation task; None: the same task.
        report: Called after each validation.

    Returns:
        The model and its history. A loss or gradient that is not finite ends training; ``failed`` says so.
    """
    result = SequenceResult(build_sequence_model(task, config, seed=training.seed))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = result.model.to(device)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[training.optimizer]
    optimizer = kind(model.parameters(), lr=training.learning_rate)
    held_out = (valid or task).draw(_make_rng(training, _VALIDATION_STEP), training.validation_size).to(device)
    started = time.perf_counter()
    for step in range(training.steps):
        batch = task.draw(_make_rng(training, step), training.batch_size).to(device)
        _take_step(task, result, optimizer, batch, training)
        if result.failed:
            break
        if result.steps % training.validate_every == 0:
            result.validation.append((result.steps, measure(task, model, held_out)))
            if report is not None:
                report(result)
            if _is_solved(result, training.solved_below):
                break
    result.seconds = time.perf_counter() - started
    model.cpu().eval()
    return result


def _make_rng(training: SequenceTraining, step: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(training.seed, step))


def _take_step(
    task: Task,
    result: SequenceResult,
    optimizer: torch.optim.Optimizer,
    batch: SequenceBatch,
    training: SequenceTraining,
) -> None:
    """One step on the mean loss of the steps that count; none where the loss or the gradient is not finite."""
    outputs, _ = result.model(batch.inputs, batch.lengths, reference=batch.reference)
    loss = step_losses(task, outputs, batch).sum() / batch.counts.sum()
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for p in result.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    result.losses.append(float(loss.detach()))
    result.gradient_norms.append(float(norm))
    result.steps += 1
    for name, values in (("loss", result.losses), ("gradient", result.gradient_norms)):
        if not math.isfinite(values[-1]):
            result.failed = f"the {name} was not finite in step {result.steps}"
            return
    clip_gradients(parameters, norm, training.clip, training.clip_algorithm)
    optimizer.step()


def _is_solved(result: SequenceResult, limit: float | None) -> bool:
    recent = result.validation[-2:]
    return limit is not None and len(recent) == 2 and all(value < limit for _, value in recent)
