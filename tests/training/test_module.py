"""One step at a time: clipping, accumulation, parts, faults; what consistency adds; how validation ranks."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from single_steps import (  # noqa: F401
    TEXTS,
    make_batch,
    make_module,
    read_weights,
    step_with,
    train_on,
    trainer_that_is_none,
)

from speechrnn.acoustic.ctc import CTCConfig
from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.spectral_augment import SpecAugmentConfig, WarpConfig
from speechrnn.corpus.batches import collate
from speechrnn.errors import CorpusError, SpeechRNNError
from speechrnn.training.config import FaultsConfig, OptimizerConfig
from speechrnn.training.faults import Step, Unreadable
from speechrnn.training.optimization import build_optimizer
from speechrnn.training.replay import replay
from speechrnn.training.validation import Validation
from speechrnn.types import derive_seed

pytestmark = pytest.mark.usefixtures("trainer_that_is_none")


def step_with_these_gradients(module):
    """The hooks of a step, without the optimiser's."""
    module._step = Step(epoch=0)
    module.on_before_optimizer_step(module.optimizer)
    options = module.config.trainer
    limit, algorithm = options.get("gradient_clip_val"), options.get("gradient_clip_algorithm")
    module.configure_gradient_clipping(module.optimizer, limit, algorithm)


@pytest.mark.parametrize(
    ("algorithm", "limit", "is_clipped"),
    [("norm", 4.9, True), ("norm", 5.1, False), ("value", 3.9, True), ("value", 4.1, False)],
)
def test_a_step_counts_as_clipped_exactly_when_clipping_changes_it(
    make_tiny_model, tmp_path, algorithm, limit, is_clipped
):
    clip = {"gradient_clip_val": limit, "gradient_clip_algorithm": algorithm}
    module = make_module(make_tiny_model(), tmp_path, trainer=clip)
    first, second = list(module.parameters())[:2]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    first.grad.view(-1)[0], second.grad.view(-1)[0] = 3.0, 4.0  # norm 5, largest value 4
    step_with_these_gradients(module)
    assert float(module._norm) == pytest.approx(5.0)
    assert module.totals.clipped == is_clipped
    expected = min(4.0, limit) if algorithm == "value" else 4.0 * min(1.0, limit / 5.0)
    assert float(second.grad.view(-1)[0]) == pytest.approx(expected, rel=1e-5)


def test_without_clipping_the_norm_is_still_measured(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    step_with_these_gradients(module)
    assert float(module._norm) == pytest.approx(math.sqrt(module.model.num_parameters))
    assert module.totals.read().clipped == 0
    assert all((parameter.grad == 1).all() for parameter in module.parameters())


def test_a_step_is_the_mean_gradient_of_its_utterances(make_tiny_model, tmp_path):
    model = make_tiny_model()
    module = make_module(model, tmp_path)
    batch = make_batch(module)
    change = step_with(module, batch)
    reference = make_module(make_tiny_model(), tmp_path)
    losses, _ = reference.compute_losses(batch)
    losses.mean().backward()
    torch.testing.assert_close(change, -torch.cat([p.grad.flatten() for p in reference.parameters()]))


@pytest.mark.parametrize(("precision", "is_fused"), [(None, True), ("bf16-mixed", True), ("16-mixed", False)])
def test_with_float16_the_optimiser_does_not_unscale_gradients(
    make_tiny_model, tmp_path, monkeypatch, precision, is_fused
):
    """A fused one would, after the norm has been measured and clipped."""
    options = {"precision": precision} if precision else {}
    module = make_module(make_tiny_model(), tmp_path, trainer=options, optimizer=OptimizerConfig(schedule="constant"))
    monkeypatch.setattr("speechrnn.training.module.count_steps", lambda trainer: 10)
    assert module.configure_optimizers().defaults["fused"] is is_fused


def test_accumulated_batches_make_one_step_the_mean_of_theirs(make_tiny_model, tmp_path):
    together = make_module(make_tiny_model(), tmp_path, trainer={"accumulate_grad_batches": 2})
    batches = [make_batch(together, TEXTS[:2]), make_batch(together, TEXTS[2:])]
    before = read_weights(together)
    train_on(together, batches[0], 0)
    assert together.is_in_a_step
    assert torch.equal(read_weights(together), before)
    train_on(together, batches[1], 1)
    assert not together.is_in_a_step
    alone = [step_with(make_module(make_tiny_model(), tmp_path), batch) for batch in batches]
    torch.testing.assert_close(read_weights(together) - before, (alone[0] + alone[1]) / 2)


def test_an_epochs_last_group_steps_even_if_it_is_short(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path, trainer={"accumulate_grad_batches": 3})
    module._trainer.is_last_batch = True
    assert step_with(module, make_batch(module)).abs().max() > 0
    assert not module.is_in_a_step


def test_out_of_memory_halves_the_batch_without_changing_gradients(make_tiny_model, tmp_path, caplog):
    module = make_module(make_tiny_model(), tmp_path)
    batch = make_batch(module)
    expected = step_with(make_module(make_tiny_model(), tmp_path), batch)
    compute, sizes = module.compute_losses, []

    def compute_small(part):
        sizes.append(len(part.ids))
        if len(part.ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")
        return compute(part)

    module.compute_losses = compute_small
    assert (step_with(module, batch) - expected).norm() < 1e-4 * expected.norm()
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert "out of memory in a batch of 4 utterances" in caplog.text
    assert module.totals.utterances == 4
    sizes.clear()
    step_with(module, batch)
    assert sizes == [1, 1, 1, 1]  # it has learned


def test_out_of_memory_in_an_accumulated_step_keeps_all_batches(make_tiny_model, tmp_path):
    batches, changes = None, []
    for is_short in (False, True):
        module = make_module(make_tiny_model(), tmp_path, trainer={"accumulate_grad_batches": 2})
        batches = batches or [make_batch(module, TEXTS[:2]), make_batch(module, TEXTS[1:])]
        compute = module.compute_losses

        def compute_small(part, compute=compute, is_short=is_short):
            if is_short and len(part.ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")
            return compute(part)

        module.compute_losses = compute_small
        changes.append(step_with(module, *batches))
        assert module.totals.utterances == 5
    assert (changes[1] - changes[0]).norm() < 1e-4 * changes[0].norm()


def test_out_of_memory_with_one_utterance_names_it(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path)

    def fail(part):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory")

    module.compute_losses = fail
    with pytest.raises(SpeechRNNError, match="single utterance, the quick fox"):
        train_on(module, make_batch(module, TEXTS[3:]), 0)


def test_other_runtime_errors_are_not_treated_as_out_of_memory(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path)

    def fail(part):
        raise RuntimeError("shapes disagree")

    module.compute_losses = fail
    with pytest.raises(RuntimeError, match="shapes disagree"):
        train_on(module, make_batch(module), 0)


def spoil(batch, value):
    waveforms = batch.waveforms.clone()
    waveforms[1, 100] = value
    return replace(batch, waveforms=waveforms)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_step_is_skipped_and_can_be_rerun(make_tiny_model, tmp_path, caplog, value):
    module = make_module(make_tiny_model(), tmp_path)
    batch = make_batch(module)
    assert step_with(module, spoil(batch, value)).abs().max() == 0
    assert module.totals.skipped == 1
    assert module.totals.steps == 0
    assert "the fox" in caplog.text
    folder = tmp_path / "faults" / "epoch-1-batch-1"
    assert str(folder) in caplog.text
    rows = replay(folder)
    assert [row.id for row in rows if not row.is_finite] == ["the fox"]
    assert {row.id for row in rows} == set(TEXTS)
    assert step_with(module, batch).abs().max() > 0  # and the next one is
    assert module.skipped.in_a_row == 0


def test_the_saved_step_is_that_of_the_process_with_the_utterance(make_tiny_model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("speechrnn.training.faults.gather_from_processes", lambda own: [[], *own])
    monkeypatch.setattr("speechrnn.training.faults.get_rank", lambda: 1)
    module = make_module(make_tiny_model(), tmp_path)
    monkeypatch.setattr(type(module), "global_rank", 1)
    step_with(module, spoil(make_batch(module), math.nan))
    folder = tmp_path / "faults" / "epoch-1-batch-1" / "process-1"
    assert (
        f"non-finite loss in the fox; step skipped (1 in a row); inspect it with: speechrnn train --rerun-step {folder}"
        in (caplog.text)
    )
    assert [row.id for row in replay(folder) if not row.is_finite] == ["the fox"]


def test_non_finite_steps_in_a_row_end_the_run(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path, faults=FaultsConfig(nonfinite_in_a_row=3))
    bad = spoil(make_batch(module), math.nan)
    for index in range(2):
        train_on(module, bad, index)
    train_on(module, make_batch(module), 2)  # breaks the row
    for index in range(3, 5):
        train_on(module, bad, index)
    with pytest.raises(SpeechRNNError, match="non-finite loss in 3 steps in a row, the last with the fox;"):
        train_on(module, bad, 5)


def test_a_batch_without_readable_recordings_changes_nothing(make_tiny_model, tmp_path, caplog):
    module = make_module(make_tiny_model(), tmp_path)
    batch = collate([], [], ids=[], texts=[], failed=[("broken", "quick", "no audio in it")])
    assert step_with(module, batch).abs().max() == 0
    assert "skipped in training: broken: no audio in it" in caplog.text


def test_unreadable_recordings_are_named_once_and_end_the_run_above_the_allowed_share(caplog):
    unreadable = Unreadable(FaultsConfig(unreadable_share=0.02))
    unreadable.corpus_size = 100
    for _ in range(3):
        unreadable.count([("a", "gone"), ("b", "cut off")])
    assert caplog.text.count("skipped in training: a: gone") == 1
    assert unreadable.reasons == {"a": "gone", "b": "cut off"}
    with pytest.raises(CorpusError, match="3 of 100 recordings could not be read"):
        unreadable.count([("c", "empty")])


def test_the_random_draws_of_a_step_depend_only_on_seed_epoch_and_batch(make_tiny_model, tmp_path):
    changes = []
    for noise in (1, 2):
        module = make_module(make_tiny_model(dropout=0.5), tmp_path).train()
        torch.manual_seed(noise)
        torch.rand(noise)
        changes.append(step_with(module, make_batch(module)))
    assert torch.equal(*changes)
    module = make_module(make_tiny_model(dropout=0.5), tmp_path, seed=7).train()
    assert not torch.equal(step_with(module, make_batch(module)), changes[0])


def test_consistency_warps_once_and_masks_each_pass_by_itself(make_tiny_model, tmp_path):
    masks = SpecAugmentConfig(frequency_masks=1, time_masks=1)
    module = make_module(
        make_tiny_model(),
        tmp_path,
        ctc=CTCConfig(consistency=0.2, consistency_warmup_steps=0),
        augment=AugmentConfig(warp=WarpConfig(vocal_tract=0.2), spec_augment=masks),
    )
    log_mels = torch.randn(2, 40, module.model.front_end.config.n_mels)
    changed, lengths = module.compute_losses._make_augment([3, 4])(log_mels, torch.tensor([40, 30]))
    assert lengths.tolist() == [40, 30, 40, 30]
    warped = module.compute_losses.warp(
        log_mels, torch.tensor([40, 30]), [derive_seed(seed, "warp") for seed in (3, 4)]
    )
    for first, second, expected in zip(changed[:2], changed[2:], warped, strict=True):
        is_kept = torch.isclose(first, expected) & torch.isclose(second, expected)
        assert is_kept.any()
        assert not torch.equal(first, second)


def test_consistency_contributes_to_the_gradient_by_its_weight(make_tiny_model, tmp_path):
    changes = []
    for weight in (0.1, 0.2, 0.4):
        module = make_module(
            make_tiny_model(),
            tmp_path,
            ctc=CTCConfig(consistency=weight, consistency_warmup_steps=0),
            augment=AugmentConfig(spec_augment=SpecAugmentConfig(frequency_masks=2)),
        )
        changes.append(step_with(module, make_batch(module)))
        assert module.totals.utterances == 2 * len(TEXTS)
        assert module.totals.mean("consistency") > 0
    by_02, by_01 = changes[2] - changes[1], changes[1] - changes[0]
    assert by_01.norm() > 1e-3 * changes[0].norm()
    assert (by_02 - 2 * by_01).norm() < 1e-3 * by_02.norm()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((0, 5, 5.0), (1, 5, 0.1)),
        ((1, 5, 0.1), (1, 5, 0.2)),
        ((0, 5, 0.1), (0, 5, math.inf)),
        ((4, 50, 0.1), (5, 0, 0.1)),  # while half of the words are right, they alone say it
        ((9, 15, 0.1), (8, 48, 0.1)),  # hardly a word of either, but one spells
        ((8, 20, 0.1), (9, 18, 0.1)),
        ((13, 20, 0.1), (10, 45, 0.1)),  # more words than were said, but half of what is in them
        ((10, 45, 0.1), (10, 45, 0.2)),
    ],
)
def test_checkpoints_rank_by_words_then_characters_then_loss(make_tiny_model, tmp_path, better, worse):
    module = make_module(make_tiny_model(), tmp_path)
    ranks = []
    for words, characters, loss in (better, worse):
        sums = {"word_substitutions": words, "word_length": 10}
        sums |= {"character_substitutions": characters, "character_length": 50}
        if math.isfinite(loss):
            sums |= {"loss": loss, "losses": 1}
        module.validations[0] = Validation()
        module.validations[0].sums.update(sums)
        ranks.append(module.validations[0].finish(module.device)["rank"])
    assert ranks[0] < ranks[1]


def test_a_validation_recording_that_cannot_be_read_counts_as_wrong(make_tiny_model, tmp_path, caplog):
    module = make_module(make_tiny_model(), tmp_path)
    nothing = collate([], [], ids=[], texts=[], failed=[("broken", "the quick fox", "cut off")])
    module.validation_step(nothing, 0)
    assert module.validations[0].finish(module.device)["wer"] == 1.0
    assert "counted as wrong in validation: broken: cut off" in caplog.text


def test_validation_in_parts_gives_the_same_rates(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path)
    batch = make_batch(module)
    with torch.no_grad():
        module.validation_step(batch, 0)
        whole = module.validations[0].finish(module.device)
        module.memory.seconds_that_fit = 0.6
        module.validation_step(batch, 0)
    assert module.validations[0].finish(module.device) == pytest.approx(whole, rel=1e-5)


def test_plateau_lowers_the_rate_after_validation(tmp_path, make_tiny_model):
    module = make_module(make_tiny_model(), tmp_path, optimizer=OptimizerConfig(schedule="plateau", plateau_patience=1))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    module.lr_schedulers = lambda: schedule
    with torch.no_grad():
        for _ in range(4):
            module.validation_step(make_batch(module), 0)
            module.on_validation_epoch_end()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_losses_of_lower_layers_are_weighted_by_their_share(make_tiny_model, tmp_path):
    losses = {}
    for share in (0.0, 0.25, 0.5):
        ctc = CTCConfig(intermediate_layers=(1,), intermediate_weight=share)
        module = make_module(make_tiny_model(), tmp_path, ctc=ctc)
        batch = make_batch(module)
        losses[share] = module.compute_losses(batch)[0].detach()
    plain = make_module(make_tiny_model(), tmp_path).compute_losses(batch)[0].detach()
    torch.testing.assert_close(losses[0.0], plain)
    lower = (losses[0.5] - 0.5 * plain) / 0.5
    assert (lower - plain).abs().min() > 0.1
    torch.testing.assert_close(losses[0.25], 0.75 * plain + 0.25 * lower)


def test_weight_noise_moves_the_gradient_and_not_the_weights(make_tiny_model, tmp_path):
    changes = {}
    for noise in (0.0, 0.0, 0.1):
        module = make_module(make_tiny_model(), tmp_path, optimizer=OptimizerConfig(weight_noise=noise))
        before, seen = read_weights(module), []
        compute = module.compute_losses
        module.compute_losses = lambda part, m=module, s=seen, c=compute: (s.append(read_weights(m)), c(part))[1]
        train_on(module, make_batch(module), 0)
        gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
        torch.testing.assert_close(read_weights(module), before - gradient)
        changes[noise] = gradient
        moved = (seen[0] - before)[seen[0] != before]
        if noise:
            assert float(moved.std()) == pytest.approx(0.1, rel=0.1)
            assert len(moved) > 0.9 * sum(p.numel() for p in module.parameters() if p.ndim >= 2)
        else:
            assert not len(moved)
    assert not torch.allclose(changes[0.0], changes[0.1])


def test_dropout_differs_between_epochs_and_batches(make_tiny_model, tmp_path):
    changes = []
    for epoch, batch_idx in ((0, 0), (1, 0), (0, 1), (0, 0)):
        module = make_module(make_tiny_model(dropout=0.5), tmp_path).train()
        module._trainer.current_epoch = epoch
        before = read_weights(module)
        train_on(module, make_batch(module), batch_idx)
        changes.append(read_weights(module) - before)
    assert torch.equal(changes[0], changes[3])
    assert not torch.equal(changes[0], changes[1])
    assert not torch.equal(changes[0], changes[2])


def test_two_equal_passes_give_the_gradient_of_one(make_tiny_model, tmp_path):
    """Without masks both passes are the same and diverge in nothing: their loss is that of one, not of two."""
    changes = []
    for weight in (0.0, 0.5):
        ctc = CTCConfig(consistency=weight, consistency_warmup_steps=0)
        module = make_module(make_tiny_model(), tmp_path, ctc=ctc)
        changes.append(step_with(module, make_batch(module)))
    torch.testing.assert_close(changes[1], changes[0], rtol=1e-3, atol=1e-5)


def test_the_consistency_weight_is_warmed_up(make_tiny_model, tmp_path):
    """After s of w steps its weight is (s + 1) / (w + 1) of the whole."""
    masks = AugmentConfig(spec_augment=SpecAugmentConfig(frequency_masks=2))

    def change(weight, warmup, step):
        ctc = CTCConfig(consistency=weight, consistency_warmup_steps=warmup)
        module = make_module(make_tiny_model(), tmp_path, ctc=ctc, augment=masks)
        module._trainer.global_step = step
        return step_with(module, make_batch(module))

    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        warming, plain = change(0.4, 3, step), change(0.4 * share, 0, 0)
        assert (warming - plain).norm() < 1e-5 * plain.norm()


def test_a_resumed_run_continues_the_count_of_consecutive_faults(make_tiny_model, tmp_path):
    faults = FaultsConfig(nonfinite_in_a_row=3)
    module = make_module(make_tiny_model(), tmp_path, faults=faults)
    bad = spoil(make_batch(module), math.nan)
    for index in range(2):
        train_on(module, bad, index)
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    resumed = make_module(make_tiny_model(), tmp_path, faults=faults)
    resumed.on_load_checkpoint(checkpoint)
    with pytest.raises(SpeechRNNError, match="non-finite loss in 3 steps in a row"):
        train_on(resumed, bad, 2)


def test_a_skipped_step_of_the_fused_optimiser_changes_nothing(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(), tmp_path)
    module.optimizer = build_optimizer(module.parameters(), OptimizerConfig(), fused=True)
    step_with(module, make_batch(module))  # moments and step counts are there
    before = copy.deepcopy(module.optimizer.state_dict())
    assert step_with(module, spoil(make_batch(module), math.nan)).abs().max() == 0
    after = module.optimizer.state_dict()
    for number, state in before["state"].items():
        assert all(torch.equal(value, after["state"][number][name]) for name, value in state.items())
    assert step_with(module, make_batch(module)).abs().max() > 0
    assert all(float(state["step"]) == 2 for state in module.optimizer.state_dict()["state"].values())


def test_a_skipped_step_is_saved_at_the_next_read_with_its_delay(make_tiny_model, tmp_path, caplog):
    module = make_module(make_tiny_model(), tmp_path)
    module._trainer.log_every_n_steps = 4
    for index in range(4):
        module._trainer.global_step = index + 1
        train_on(module, spoil(make_batch(module), math.nan) if index == 1 else make_batch(module), index)
        assert ("step skipped" in caplog.text) == (index == 3)
    fault = json.loads((tmp_path / "faults" / "epoch-1-batch-2" / "fault.json").read_text())
    assert fault["saved_steps_later"] == 2
    assert module.skipped.in_a_row == 0
