"""The optimiser and its schedule: AdamW without decay on vectors; one cycle, plateau or constant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from speechrnn.errors import ConfigError
from speechrnn.training.config import OptimizerConfig

_LAST_LEARNING_RATE_SHARE = 1e-3


def one_cycle_factor(step: int, *, total_steps: int, warmup_share: float) -> float:
    """Factor of the highest learning rate at a step: a linear rise, then a cosine down to a thousandth.

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
    """AdamW; matrices decay, vectors (biases, normalisation) do not.

    Args:
        parameters: A model's.
        config: Learning rate and decay.
        fused: One kernel for all of it, on a CPU several times as fast. Not with fp16, where it would divide out the
            loss scale itself, after the norm has been measured.
        factors: Of the learning rates of single parameters; 1 for others.
    """
    groups: dict[tuple[float, bool], list[Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault(((factors or {}).get(parameter, 1.0), parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "lr": factor * config.learning_rate,
                "weight_decay": config.weight_decay if is_matrix else 0.0,
            }
            for (factor, is_matrix), members in sorted(groups.items(), key=lambda group: group[0], reverse=True)
        ],
        lr=config.learning_rate,
        fused=fused,
    )


def clip_gradients(parameters: Sequence[Parameter], norm: Tensor, limit: float | None, algorithm: str) -> bool:
    """Clip gradients in place.

    Args:
        parameters: Those that have gradients.
        norm: Norm of all of their gradients, a scalar.
        limit: Norm, or greatest absolute value, that is left as it is; None: any.
        algorithm: ``norm`` scales all gradients alike, ``value`` cuts off each number by itself.

    Returns:
        Whether that changed anything.
    """
    if limit is None:
        return False
    if algorithm == "value":
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
        torch.nn.utils.clip_grad_value_(parameters, limit)
        return bool(largest > limit)
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return bool(norm > limit)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, total_steps: float
) -> LambdaLR | ReduceLROnPlateau | None:
    """The schedule; None for a constant rate.

    Args:
        optimizer: Whose rate it moves.
        config: Which schedule.
        total_steps: Optimiser steps of the whole run; infinite where nothing ends it.

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
            "or take the schedule plateau"
        )
    factor = partial(one_cycle_factor, total_steps=int(total_steps), warmup_share=config.warmup_share)
    return LambdaLR(optimizer, factor)
