"""Schedules, gradient clipping with the unclipped norm in view, and which checkpoint is chosen."""

import math

import numpy as np
import pytest
import torch

from speechrnn.acoustic.ctc import CTCConfig
from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.spectral_augment import SpecAugmentConfig, WarpConfig
from speechrnn.seeds import derive_seed
from speechrnn.training.config import OptimizerConfig
from speechrnn.training.module import MONITOR, SpeechModule, one_cycle_factor


@pytest.fixture
def module(make_tiny_model):
    model = make_tiny_model()
    return SpeechModule(model.acoustic, model.tokens, optimizer=OptimizerConfig())


def test_one_cycle_rises_to_one_and_falls_to_a_thousandth():
    factors = [one_cycle_factor(step, total_steps=100, warmup_share=0.2) for step in range(101)]
    assert factors[:21] == sorted(factors[:21])
    assert factors[20] == 1.0
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[60] == pytest.approx((1 + 1e-3) / 2)
    assert factors[100] == pytest.approx(1e-3)
    assert one_cycle_factor(500, total_steps=100, warmup_share=0.2) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("algorithm", "limit", "is_clipped"),
    [("norm", 4.9, True), ("norm", 5.1, False), ("value", 3.9, True), ("value", 4.1, False)],
)
def test_a_step_counts_as_clipped_exactly_when_clipping_changes_it(module, monkeypatch, algorithm, limit, is_clipped):
    first, second = list(module.parameters())[:2]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    first.grad.view(-1)[0], second.grad.view(-1)[0] = 3.0, 4.0  # norm 5, largest value 4
    clipped_with = []
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "clip_gradients", lambda _, value, kind: clipped_with.append((value, kind)))
    module.configure_gradient_clipping(None, limit, algorithm)
    assert module.mean_gradient_norm == pytest.approx(5.0)
    assert module.clipped_share == float(is_clipped)
    assert clipped_with == [(limit, algorithm)]


def test_without_clipping_the_norm_is_still_measured(module, monkeypatch):
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "clip_gradients", lambda *_: None)
    module.configure_gradient_clipping(None, None, None)
    assert module.mean_gradient_norm == pytest.approx(math.sqrt(module.model.num_parameters))
    assert module.clipped_share == 0.0


@pytest.mark.parametrize(
    ("better", "worse"),
    [((0, 9, 5.0), (1, 9, 0.1)), ((1, 9, 0.1), (1, 9, 0.2)), ((0, 9, 0.1), (0, 9, float("inf")))],
)
def test_checkpoints_rank_by_word_errors_and_then_by_loss(module, monkeypatch, better, worse):
    from speechrnn.text.metrics import ErrorCounts

    ranks = []
    for errors, words, loss in (better, worse):
        logged = {}
        monkeypatch.setattr(module, "log", lambda name, value, logged=logged: logged.update({name: value}))
        module._word_counts = ErrorCounts(errors, 0, 0, words)
        module._valid_loss = [torch.tensor([loss])]
        module.on_validation_epoch_end()
        ranks.append(logged[MONITOR])
    assert ranks[0] < ranks[1]


def test_vectors_have_no_weight_decay(module, monkeypatch):
    module.optimizer_config = OptimizerConfig(schedule="constant", weight_decay=0.1)
    decayed, free = module.configure_optimizers().param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(module.parameters()))


def make_batch(module, texts=("quick", "the fox")):
    from speechrnn.corpus.batches import collate

    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(4000 + 800 * i).astype(np.float32) / 10 for i in range(len(texts))]
    targets = [module.tokens.encode(text) for text in texts]
    return collate(waveforms, targets, ids=list(texts), texts=list(texts), augment_seeds=list(range(len(texts))))


def test_consistency_warps_once_and_masks_each_pass_by_itself(make_tiny_model):
    model = make_tiny_model()
    module = SpeechModule(
        model.acoustic,
        model.tokens,
        optimizer=OptimizerConfig(),
        ctc=CTCConfig(consistency=0.2, consistency_warmup_steps=0),
        augment=AugmentConfig(
            warp=WarpConfig(vocal_tract=0.2), spec_augment=SpecAugmentConfig(frequency_masks=1, time_masks=1)
        ),
    )
    log_mels = torch.randn(2, 40, model.acoustic.front_end.config.n_mels)
    changed, lengths = module._make_augment([3, 4], passes=2)(log_mels, torch.tensor([40, 30]))
    assert lengths.tolist() == [40, 30, 40, 30]
    warped = module.warp(log_mels, torch.tensor([40, 30]), [derive_seed(seed, "warp") for seed in (3, 4)])
    for first, second, expected in zip(changed[:2], changed[2:], warped, strict=True):
        is_kept = torch.isclose(first, expected) & torch.isclose(second, expected)
        assert is_kept.any()
        assert not torch.equal(first, second)


def test_the_weight_of_consistency_is_part_of_the_loss(make_tiny_model, monkeypatch):
    model = make_tiny_model()
    losses, logged = {}, {}
    for weight in (0.1, 0.2, 0.4):
        ctc = CTCConfig(consistency=weight, consistency_warmup_steps=0)
        spec_augment = SpecAugmentConfig(frequency_masks=2)
        module = SpeechModule(
            model.acoustic, model.tokens, optimizer=OptimizerConfig(), ctc=ctc,
            augment=AugmentConfig(spec_augment=spec_augment),
        )  # fmt: skip
        module.eval()
        monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
        losses[weight] = float(module.training_step(make_batch(module), 0))
    assert logged["train/consistency"] > 0
    assert losses[0.2] - losses[0.1] == pytest.approx(0.1 * logged["train/consistency"], rel=1e-3)
    assert losses[0.4] - losses[0.2] == pytest.approx(0.2 * logged["train/consistency"], rel=1e-3)
