"""The optimiser, its schedule, clipping, and the totals of an epoch: AdamW without decay on vectors; one cycle, plateau
or constant. Nothing in a step reads a tensor on the host.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from speechrnn.errors import ConfigError
from speechrnn.processes import sum_over_processes
from speechrnn.training.config import OptimizerConfig

_LAST_LEARNING_RATE_SHARE = 1e-3


def one_cycle_factor(step: int, *, total_steps: int, warmup_share: float) -> float:
    """Factor of the highest learning rate at a step: a linear warm-up, then a cosine decay to a thousandth.

    Source:
        After L. Smith and N. Topin, "Super-Convergence", arXiv:1708.07120.
    """
    warmup = warmup_share * total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
    cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
    return _LAST_LEARNING_RATE_SHARE + (1.0 - _LAST_LEARNING_RATE_SHARE) * cosine


def build_optimizer(
    parameters: Iterable[Parameter],
    config: OptimizerConfig,
    *,
    fused: bool = True,
    factors: Mapping[Parameter, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, not on vectors (biases, normalisation).

    Args:
        parameters: A model's parameters.
        config: Learning rate and decay.
        fused: Use torch's fused kernel: several times as fast on a CPU, and it skips a step without a host read
            (:func:`skip_step`). Not with fp16: the fused kernel would divide out the loss scale after the norm is
            measured.
        factors: Factors of the learning rates of single parameters; 1 for others.
    """
    groups: dict[tuple[float, bool], list[Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault(((factors or {}).get(parameter, 1.0), parameter.ndim >= 2), []).append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    ordered = [
        {"params": groups[factor, is_matrix], "lr": factor * rate, "weight_decay": decay if is_matrix else 0.0}
        for factor, is_matrix in sorted(groups, reverse=True)
    ]
    return torch.optim.AdamW(ordered, lr=rate, fused=fused)


def clip_gradients(parameters: Sequence[Parameter], norm: Tensor, limit: float | None, algorithm: str) -> Tensor:
    """Clip gradients in place.

    Args:
        parameters: Those that have gradients.
        norm: Norm of all of their gradients, a scalar.
        limit: Maximum norm or absolute value; None or 0: no clipping.
        algorithm: ``norm`` scales all gradients by the same factor, ``value`` clips each number.

    Returns:
        Whether anything was clipped, a scalar.
    """
    if not limit:
        return torch.zeros_like(norm, dtype=torch.bool)
    if algorithm == "value":
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
        torch.nn.utils.clip_grad_value_(parameters, limit)
        return largest > limit
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm > limit


class WeightNoise:
    """Adds noise to the weights while gradients are computed.

    Args:
        deviation: Standard deviation of the noise; 0: no noise.
    """

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation
        self._before: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def add(self, parameters: Iterable[Parameter]) -> None:
        """Add noise to every matrix."""
        matrices = [p for p in parameters if p.ndim >= 2 and p.requires_grad] if self.deviation else []
        self._before = [(matrix, matrix.clone()) for matrix in matrices]
        for matrix in matrices:
            matrix.add_(torch.randn_like(matrix), alpha=self.deviation)

    @torch.no_grad()
    def remove(self) -> None:
        """Restore the weights."""
        for matrix, before in self._before:
            matrix.copy_(before)
        self._before = []


def skip_step(optimizer: torch.optim.Optimizer, is_skipped: Tensor) -> None:
    """Make the optimiser's next step change nothing if a flag is set: weights, moments and step counts stay.

    A fused AdamW reads the flag on the device (``found_inf``, as torch's GradScaler sets it). For others, as with fp16,
    the flag is read here, and gradients are removed.

    Args:
        optimizer: The optimiser that steps next.
        is_skipped: A scalar on the parameters' device.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = is_skipped.float()  # type: ignore[attr-defined]
    elif bool(is_skipped):
        optimizer.zero_grad()


@dataclass
class EpochTotals:
    """Sums over an epoch; part of a checkpoint, so that a resumed epoch reports all of itself.

    Each is a number, or a scalar in float64 on the training device until :meth:`read`.

    Attributes:
        loss: CTC losses of all utterances, in nats.
        consistency: Divergences of all utterances, in nats.
        utterances: Number of utterances, one for each pass.
        seconds: Audio trained on; always a number.
        norms: Gradient norms before clipping, of all steps taken.
        steps: Steps taken.
        clipped: Steps whose gradient was clipped.
        skipped: Steps skipped because loss or gradient was not finite.
    """

    loss: Tensor | float = 0.0
    consistency: Tensor | float = 0.0
    utterances: Tensor | float = 0.0
    seconds: float = 0.0
    norms: Tensor | float = 0.0
    steps: Tensor | float = 0.0
    clipped: Tensor | float = 0.0
    skipped: Tensor | float = 0.0

    def add(self, **values: Tensor) -> None:
        """Add scalars to the sums of these names."""
        for name, value in values.items():
            setattr(self, name, value.double() + getattr(self, name))

    def read(self) -> EpochTotals:
        """The same sums as numbers; waits for the device."""
        return EpochTotals(**{each.name: float(getattr(self, each.name)) for each in fields(self)})

    def gather(self, device: torch.device) -> EpochTotals:
        """The sums over all processes, as numbers; all processes take the same steps.

        Args:
            device: The training device.
        """
        own = self.read()
        names = ("loss", "consistency", "utterances", "seconds")
        sums = sum_over_processes([getattr(own, name) for name in names], device)
        return replace(own, **dict(zip(names, sums, strict=True)))

    def mean(self, name: str) -> float:
        """The mean of ``loss`` or ``consistency`` over utterances, or of ``norms`` or ``clipped`` over steps."""
        count = self.utterances if name in ("loss", "consistency") else self.steps
        return float(getattr(self, name) / count) if count else 0.0


def count_steps(trainer: pl.Trainer) -> float:
    """Number of optimiser steps of a whole run; infinite if nothing ends it."""
    total = trainer.estimated_stepping_batches
    schedulers = [each for each in trainer.callbacks if isinstance(each, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    if schedulers and trainer.max_epochs is not None and trainer.max_epochs > 0:
        factors = [schedulers[0].get_accumulate_grad_batches(epoch) for epoch in range(trainer.max_epochs)]
        total = sum(math.ceil(trainer.num_training_batches / factor) for factor in factors)
        total = min(total, trainer.max_steps) if trainer.max_steps > 0 else total
    return total if total > 0 else math.inf


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, total_steps: float
) -> LambdaLR | ReduceLROnPlateau | None:
    """The schedule; None for a constant rate.

    Args:
        optimizer: The optimiser.
        config: The schedule's settings.
        total_steps: Optimiser steps of the whole run; infinite if nothing ends it.

    Raises:
        ConfigError: One cycle in a run without an end.
    """
    if config.schedule == "constant":
        return None
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    if not math.isfinite(total_steps):
        raise ConfigError(
            "optimizer.schedule: one_cycle needs an end; set trainer.max_epochs or trainer.max_steps, "
            "or use the schedule plateau"
        )
    factor = partial(one_cycle_factor, total_steps=int(total_steps), warmup_share=config.warmup_share)
    return LambdaLR(optimizer, factor)


def step_schedule(schedule: LambdaLR | ReduceLROnPlateau) -> None:
    """Advance the schedule by one step, also where the optimiser skipped it; a plateau waits for the validation.

    In float16 the first steps can be skipped while the loss scale adapts, and torch warns about the order of the calls.
    """
    if isinstance(schedule, ReduceLROnPlateau):
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step")
        schedule.step()
