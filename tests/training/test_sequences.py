"""Training on drawn series: learning, reproducibility, clipping and reported failures."""

import math

import numpy as np
import pytest
import torch

from speechrnn.acoustic.sequence import SequenceConfig
from speechrnn.errors import ConfigError
from speechrnn.training.sequences import (
    SequenceBatch,
    SequenceTraining,
    build_sequence_model,
    measure,
    measure_sequence_gradients,
    step_losses,
    train_sequences,
)


class Echo:
    """The target is the input of some steps ago, as a number or as one of two classes."""

    input_size = 1

    def __init__(self, lag=2, *, kind="squared_error", scale=1.0):
        self.lag, self.loss, self.scale = lag, kind, scale
        self.output_size = 1 if kind == "squared_error" else 2

    def draw(self, rng, batch_size):
        inputs = rng.normal(size=(batch_size, 12, 1)).astype(np.float32)
        wanted = np.roll(inputs, self.lag, axis=1)
        targets = torch.from_numpy(wanted) if self.output_size == 1 else torch.from_numpy(wanted[..., 0] > 0).long()
        counts = torch.arange(12).expand(batch_size, 12) >= self.lag
        return SequenceBatch(torch.from_numpy(inputs) * self.scale, torch.full((batch_size,), 12), targets, counts)


def learn(task, *, cell="gru", **training):
    settings = {"steps": 200, "learning_rate": 0.01, "validate_every": 50, "validation_size": 64, **training}
    return train_sequences(task, SequenceConfig(cell=cell, hidden_size=16), SequenceTraining(**settings))


@pytest.mark.parametrize("kind", ["squared_error", "cross_entropy"])
def test_a_model_learns_the_input_of_two_steps_ago(kind):
    result = learn(Echo(kind=kind))
    assert [step for step, _ in result.validation] == [50, 100, 150, 200]
    assert result.best < (0.15 if kind == "squared_error" else 0.1)
    assert result.losses[-1] < 0.5 * result.losses[0]
    assert (result.steps, result.failed) == (200, "")
    assert len(result.losses) == len(result.gradient_norms) == 200


def test_training_starts_from_the_untrained_model_that_is_returned():
    untrained = build_sequence_model(Echo(), SequenceConfig(hidden_size=16), seed=4)
    trained = train_sequences(
        Echo(), SequenceConfig(hidden_size=16), SequenceTraining(steps=1, optimizer="sgd", learning_rate=1e-12, seed=4)
    ).model
    for one, other in zip(untrained.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    runs = [learn(Echo(), steps=20, seed=seed).losses for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_validation_uses_its_own_task():
    class Opposite(Echo):
        def draw(self, rng, batch_size):
            batch = super().draw(rng, batch_size)
            return SequenceBatch(batch.inputs, batch.lengths, -batch.targets, batch.counts)

    training = SequenceTraining(steps=200, learning_rate=0.01, validate_every=200)
    model = SequenceConfig(hidden_size=16)
    own = train_sequences(Echo(lag=0), model, training)
    other = train_sequences(Echo(lag=0), model, training, valid=Opposite(lag=0))
    assert own.losses == other.losses
    assert own.last < 0.2
    assert other.last > 2.0


def test_training_ends_when_it_is_solved_twice_in_a_row():
    result = learn(Echo(lag=0), solved_below=0.5, steps=2000, validate_every=10)
    assert 20 <= result.steps < 2000
    assert all(value < 0.5 for _, value in result.validation[-2:])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_bounds_the_step_and_the_reported_norm_is_unclipped(algorithm):
    before, limit = {}, 1e-4

    def keep(result):
        before.setdefault(result.steps, [p.detach().clone() for p in result.model.parameters()])

    result = train_sequences(
        Echo(),
        SequenceConfig(hidden_size=16),
        SequenceTraining(
            steps=3, validate_every=1, optimizer="sgd", learning_rate=1.0, clip=limit, clip_algorithm=algorithm
        ),
        report=keep,
    )
    moved = [new - old for old, new in zip(before[2], before[3], strict=True)]
    assert result.gradient_norms[2] > 100 * limit
    if algorithm == "norm":
        assert float(torch.cat([part.flatten() for part in moved]).norm()) == pytest.approx(limit, rel=1e-2)
    else:
        assert max(float(part.abs().max()) for part in moved) == pytest.approx(limit, rel=1e-2)


def test_a_non_finite_loss_ends_training_and_is_reported():
    result = learn(Echo(scale=1e30), cell="gru", optimizer="sgd", learning_rate=1e9, clip=None, steps=50)
    assert result.steps < 50
    assert result.failed.startswith("the ")
    assert f"was not finite in step {result.steps}" in result.failed
    assert result.largest_gradient_norm > 1.0


def test_losses_are_at_the_scored_steps():
    task = Echo(kind="cross_entropy")
    batch = task.draw(np.random.default_rng(0), 3)
    losses = step_losses(task, torch.zeros(3, 12, 2), batch)
    assert losses[:, :2].abs().sum() == 0
    torch.testing.assert_close(losses[:, 2:], torch.full((3, 10), math.log(2)))


def test_a_model_with_zero_output_has_the_measure_of_chance():
    task = Echo()
    model = learn(task, steps=1).model
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    batch = task.draw(np.random.default_rng(0), 64)
    assert measure(task, model, batch) == pytest.approx(float(batch.targets[:, 2:].pow(2).mean()))


def test_gradients_reach_back_as_far_as_the_echo():
    """What is asked for is two steps back: there the trained model's gradient is, and little before it."""
    task = Echo(lag=2)
    [curve] = measure_sequence_gradients(task, learn(task).model, task.draw(np.random.default_rng(0), 32), steps=10)
    assert curve.norms.argmax() <= 2
    assert float(curve.norms[2]) > 5 * float(curve.norms[6])
    assert curve.counts[0] == 320


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"batch_size": 0}, {"validate_every": 0}, {"learning_rate": 0.0}, {"clip": -1.0}]
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SequenceTraining(**settings)
