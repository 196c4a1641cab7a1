"""Training on series that are drawn anew for each step: what comes next, what came long ago, one of several classes.

The same recurrent stack as in the recogniser, and the same clipping; only what goes in and what is asked for differ.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from speechrnn.acoustic.gradient_flow import LagCurve, LagSums
from speechrnn.acoustic.sequence import SequenceConfig, SequenceModel
from speechrnn.settings import bounded, check_settings
from speechrnn.training.optimization import clip_gradients
from speechrnn.types import derive_seed

logger = logging.getLogger("speechrnn")

_FAR_FROM_TRAINING = 1_000_000_000  # the draws for validation are those of steps that no run reaches


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences.

    Attributes:
        inputs: (B, T, F), float32.
        lengths: Valid steps, (B,), int64.
        targets: (B, T, O), float32, or class numbers (B, T), int64.
        counts: Which steps are asked about, (B, T), bool; none past a length.
        reference: Earlier pieces of the same series, (B, T', F), for an encoded initial state.
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    counts: Tensor
    reference: Tensor | None = None


class Task(Protocol):
    """What is to be learned."""

    input_size: int
    output_size: int
    loss: Literal["squared_error", "cross_entropy"]

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """So many sequences, a function of the generator alone."""
        ...


@dataclass(frozen=True)
class SequenceTraining:
    """How a sequence model is trained.

    Attributes:
        steps: Most optimiser steps.
        batch_size: Sequences a step.
        learning_rate: Constant.
        optimizer: ``adam``, or ``sgd`` without momentum.
        clip: Norm or value that gradients are clipped at; None: not at all.
        clip_algorithm: ``norm`` or ``value``.
        validate_every: Steps from one validation to the next.
        validation_size: Sequences that validation is over, the same each time.
        solved_below: Training ends when the validation measure is below this twice in a row; None: never.
        seed: Of weights and draws.
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

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass
class SequenceResult:
    """How a training went.

    Attributes:
        model: As it was left.
        steps: Steps that were taken.
        losses: Training loss of each step.
        gradient_norms: Norm of each step's gradient before it was clipped.
        validation: Step and measure of each validation: mean squared error, or share of wrong classes.
        failed: In words, why it ended early; empty where it did not fail.
        seconds: How long it took.
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
        """Best measure of any validation; infinite where there was none."""
        return min((value for _, value in self.validation if not math.isnan(value)), default=math.inf)

    @property
    def last(self) -> float:
        """Measure of the last validation."""
        return self.validation[-1][1] if self.validation else math.inf

    @property
    def largest_gradient_norm(self) -> float:
        """Largest of the norms before clipping, infinite where one was not finite."""
        return max((norm if math.isfinite(norm) else math.inf for norm in self.gradient_norms), default=0.0)


def step_losses(task: Task, outputs: Tensor, batch: SequenceBatch) -> Tensor:
    """E_t, the loss of each step that is asked about and 0 elsewhere: (B, T).

    Args:
        task: What kind of loss it is.
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
    """Mean squared error, or share of wrong classes, over the steps that are asked about."""
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
    """How far back the errors of a batch reach, layer by layer; a frame of these curves is a step, and so is a second.

    Args:
        task: What the losses are.
        model: It is measured as it is when it does not train.
        batch: At least one sequence; each is asked about at least once.
        steps: At most so many of the steps that are asked about are followed back, spread evenly.
    """
    was_training = model.training
    model.eval()
    layers, outputs = model.unroll(batch.inputs, batch.lengths, reference=batch.reference)
    losses = step_losses(task, outputs, batch)
    asked = batch.counts.sum(dim=1)
    order = (~batch.counts).to(torch.int64).argsort(dim=1, stable=True)  # steps that are asked about come first
    sums, parts = LagSums(), min(steps, int(asked.min()))
    ranks = [((part + 0.5) / parts * asked).long() for part in range(parts)]
    sums.follow(layers, losses, batch.lengths, [order.gather(1, rank[:, None])[:, 0] for rank in ranks])
    model.train(was_training)
    return sums.finish(seconds_per_frame=1.0)


def build_sequence_model(task: Task, config: SequenceConfig, *, seed: int) -> SequenceModel:
    """The model of a training with this seed, before its first step."""
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
        task: What is to be learned.
        config: The model.
        training: How.
        valid: What it is validated on, where that is not the same task (other recordings, the rest of a series).
        report: Called after each validation.

    Returns:
        The model, and how it went. A loss or gradient that is not finite ends the training; the result says so.
    """
    result = SequenceResult(build_sequence_model(task, config, seed=training.seed))
    module = _SequenceModule(task, valid or task, training, result, report)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = pl.Trainer(
            max_steps=training.steps,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        started = time.perf_counter()
        loader = DataLoader(_Draws(task, training), batch_size=None)
        trainer.fit(module, train_dataloaders=loader)
    result.seconds = time.perf_counter() - started
    result.model.cpu().eval()
    return result


class _Draws(IterableDataset[SequenceBatch]):
    """A batch for each step, a function of the seed and the step."""

    def __init__(self, task: Task, training: SequenceTraining) -> None:
        self.task = task
        self.training = training

    def __iter__(self) -> Iterator[SequenceBatch]:
        for step in range(self.training.steps):
            yield self.task.draw(np.random.default_rng(derive_seed(self.training.seed, step)), self.training.batch_size)


class _SequenceModule(pl.LightningModule):
    """Loss, clipping and validation."""

    def __init__(
        self,
        task: Task,
        valid: Task,
        training: SequenceTraining,
        result: SequenceResult,
        report: Callable[[SequenceResult], None] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = result.model
        self.task, self.training_config, self.result, self.report = task, training, result, report
        draw = np.random.default_rng(derive_seed(training.seed, _FAR_FROM_TRAINING))
        self.validation = valid.draw(draw, training.validation_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Lightning's hook."""
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.training_config.optimizer]
        return kind(self.model.parameters(), lr=self.training_config.learning_rate)

    def transfer_batch_to_device(
        self, batch: SequenceBatch, device: torch.device, dataloader_idx: int
    ) -> SequenceBatch:
        """Lightning's hook."""
        return _to(batch, device)

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """One step: the errors of all steps of all sequences, summed, over their number."""
        optimizer: Any = self.optimizers()
        outputs, _ = self.model(batch.inputs, batch.lengths, reference=batch.reference)
        loss = step_losses(self.task, outputs, batch).sum() / batch.counts.sum()
        optimizer.zero_grad()
        self.manual_backward(loss)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.result.losses.append(float(loss.detach()))
        self.result.gradient_norms.append(float(norm))
        self.result.steps += 1
        if not (math.isfinite(self.result.losses[-1]) and math.isfinite(self.result.gradient_norms[-1])):
            what = "gradient" if math.isfinite(self.result.losses[-1]) else "loss"
            self.result.failed = f"the {what} was not finite in step {self.result.steps}"
            self.trainer.should_stop = True
            return
        clip_gradients(parameters, norm, self.training_config.clip, self.training_config.clip_algorithm)
        optimizer.step()
        if self.result.steps % self.training_config.validate_every == 0:
            self._validate()

    def _validate(self) -> None:
        value = measure(self.task, self.model, _to(self.validation, self.device))
        self.result.validation.append((self.result.steps, value))
        limit = self.training_config.solved_below
        recent = self.result.validation[-2:]
        if limit is not None and len(recent) == 2 and all(value < limit for _, value in recent):
            self.trainer.should_stop = True
        if self.report is not None:
            self.report(self.result)


def _to(batch: SequenceBatch, device: torch.device) -> SequenceBatch:
    return SequenceBatch(
        batch.inputs.to(device),
        batch.lengths.to(device),
        batch.targets.to(device),
        batch.counts.to(device),
        None if batch.reference is None else batch.reference.to(device),
    )
