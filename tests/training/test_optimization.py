"""The learning rate's way, and which parameters decay."""

import math
import warnings

import pytest
import torch

from speechrnn.errors import ConfigError
from speechrnn.training.config import OptimizerConfig
from speechrnn.training.optimization import build_optimizer, build_schedule, one_cycle_factor, step_schedule


def test_one_cycle_rises_to_one_and_falls_to_a_thousandth():
    factors = [one_cycle_factor(step, total_steps=100, warmup_share=0.2) for step in range(101)]
    assert factors[:21] == sorted(factors[:21])
    assert factors[20] == 1.0
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[60] == pytest.approx((1 + 1e-3) / 2)
    assert factors[100] == pytest.approx(1e-3)
    assert one_cycle_factor(500, total_steps=100, warmup_share=0.2) == pytest.approx(1e-3)


def test_vectors_have_no_weight_decay():
    model = torch.nn.GRU(3, 4)
    decayed, free = build_optimizer(model.parameters(), OptimizerConfig(weight_decay=0.1)).param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_not_optimised():
    model = torch.nn.GRU(3, 4)
    model.weight_ih_l0.requires_grad = False
    groups = build_optimizer(model.parameters(), OptimizerConfig()).param_groups
    assert not any(p is model.weight_ih_l0 for group in groups for p in group["params"])


def test_single_parameters_learn_at_their_own_rates():
    model = torch.nn.GRU(3, 4)
    groups = build_optimizer(
        model.parameters(), OptimizerConfig(learning_rate=0.1), factors={model.weight_ih_l0: 0.5, model.bias_hh_l0: 0.5}
    ).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(model.weight_ih_l0)] == rates[id(model.bias_hh_l0)] == 0.05
    assert rates[id(model.weight_hh_l0)] == rates[id(model.bias_ih_l0)] == 0.1
    assert groups[0]["lr"] == 0.1  # what is logged
    schedule = build_schedule(
        torch.optim.AdamW(groups), OptimizerConfig(schedule="one_cycle", warmup_share=0.5), total_steps=10
    )
    assert schedule.get_last_lr() == [pytest.approx(group["initial_lr"] / 6) for group in groups]


def test_one_cycle_without_an_end_is_refused():
    optimizer = build_optimizer(torch.nn.Linear(2, 2).parameters(), OptimizerConfig())
    with pytest.raises(ConfigError, match="one_cycle needs an end"):
        build_schedule(optimizer, OptimizerConfig(schedule="one_cycle"), total_steps=math.inf)
    assert build_schedule(optimizer, OptimizerConfig(schedule="constant"), total_steps=math.inf) is None


def test_a_schedule_counts_skipped_steps_without_a_warning():
    """In float16 the loss scale can skip the first step of the optimiser."""
    optimizer = build_optimizer([torch.nn.Parameter(torch.ones(2))], OptimizerConfig(), fused=False)
    schedule = build_schedule(optimizer, OptimizerConfig(schedule="one_cycle"), total_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step_schedule(schedule)
    assert schedule.last_epoch == 1


def test_a_plateau_is_not_stepped_between_validations():
    optimizer = build_optimizer([torch.nn.Parameter(torch.ones(2))], OptimizerConfig(), fused=False)
    schedule = build_schedule(optimizer, OptimizerConfig(schedule="plateau"), total_steps=10)
    step_schedule(schedule)
    assert schedule.last_epoch == 0
