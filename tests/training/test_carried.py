"""States carried on from an utterance to the next: what a step starts from, and where its gradient ends."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import TONE_SETTINGS
from safetensors.torch import load_file
from single_steps import make_batch, make_module, train_on, trainer_that_is_none  # noqa: F401
from stopping import stopped_in_call

from speechrnn.errors import ConfigError
from speechrnn.training.config import DataConfig
from speechrnn.training.config_file import load_config
from speechrnn.training.losses import CarriedStates
from speechrnn.training.replay import replay
from speechrnn.training.train import resume, train

CARRY = DataConfig(carry_state="speaker")


@pytest.mark.usefixtures("trainer_that_is_none")
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_batch_starts_from_the_last_state_of_the_previous_batch(make_tiny_model, tmp_path, bidirectional):
    model = make_tiny_model(bidirectional=bidirectional, cell="lstm", dropout=0.0)
    module = make_module(model, tmp_path, data=CARRY)
    first, second = make_batch(module, ("quick", "the fox")), make_batch(module, ("fox", "the", "quick fox"))
    second = replace(second, previous=["the fox", None, "gone"])
    with torch.no_grad():
        expected = model.acoustic(first.waveforms, first.waveform_lengths, return_state=True).state
    train_on(module, replace(first, previous=[None, None]), 0)
    assert set(module.carried.after) == {"quick", "the fox"}
    seen = {}
    original = model.acoustic.forward
    model.acoustic.forward = lambda *a, **k: (seen.update(state=k["state"]), original(*a, **k))[1]
    # The weights moved in the first step; what was kept is from before that, as it was computed.
    train_on(module, second, 1)
    state = seen["state"]
    torch.testing.assert_close(state[:, :, 0, 0], expected[:, :, 0, 1])
    assert state[:, :, :, 1:].abs().max() == 0
    if bidirectional:
        assert state[:, :, 1].abs().max() == 0  # the backward direction comes from the other side
    assert not state.requires_grad  # back-propagation is cut here


@pytest.mark.usefixtures("trainer_that_is_none")
def test_the_learned_initial_state_gets_gradients_if_no_state_is_carried(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(initial_state="learned"), tmp_path, data=CARRY)
    batch = make_batch(module, ("quick", "fox"))
    for previous, moves in (([None, None], True), (["a", "b"], False)):
        module.carried.after = {name: torch.ones(2, 1, 16) for name in "ab"}
        module.zero_grad()
        module.compute_losses(replace(batch, previous=previous))[0].sum().backward()
        gradient = module.model.encoder.stack.initial_state.grad
        assert bool(gradient[:, :, 0].abs().max() > 0) == moves
        assert gradient[:, :, 1].abs().max() > 0


def test_only_the_state_of_the_previous_batch_is_kept():
    carried = CarriedStates()
    final = torch.arange(4.0).reshape(1, 1, 1, 4, 1)
    carried.keep(SimpleNamespace(ids=["a", "b"]), final)  # two passes: the first one's states are kept
    assert carried.after == {}
    carried.advance()
    assert {name: float(state) for name, state in carried.after.items()} == {"a": 0.0, "b": 1.0}
    carried.advance()
    assert carried.after == {}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_utterance_after_a_non_finite_state_starts_from_the_initial_state(poison):
    carried = CarriedStates()
    final = torch.ones(2, 2, 1, 3, 4)
    final[1, 1, 0, 1, 2] = poison  # the cell of the second layer, of the second utterance
    carried.keep(SimpleNamespace(ids=["a", "b", "c"]), final)
    carried.advance()
    own = torch.full((2, 2, 1, 3, 4), 7.0)
    state = carried.begin(SimpleNamespace(previous=["a", "b", "c"]), own)
    assert torch.equal(state[:, :, 0, 0], torch.ones(2, 2, 4))
    assert torch.equal(state[:, :, 0, 1], own[:, :, 0, 1])
    assert torch.equal(state[:, :, 0, 2], torch.ones(2, 2, 4))


@pytest.mark.usefixtures("trainer_that_is_none")
def test_a_non_finite_step_does_not_affect_later_ones(make_tiny_model, tmp_path, caplog):
    module = make_module(make_tiny_model(), tmp_path, data=CARRY)
    batch = replace(make_batch(module, ("quick", "the fox")), previous=[None, None])
    batch.waveforms[1, 100] = float("nan")
    train_on(module, batch, 0)
    assert {name: bool(state.isfinite().all()) for name, state in module.carried.after.items()} == {
        "quick": True,
        "the fox": False,  # what follows it starts anew
    }
    rows = replay(tmp_path / "faults" / "epoch-1-batch-1")
    assert [row.id for row in rows if not row.is_finite] == ["the fox"]
    assert "carried states are not saved" in caplog.text


RUN = {
    **TONE_SETTINGS,
    "trainer.max_epochs": 2,
    "data.carry_state": "speaker",
    "encoder.cell": "lstm",
    "encoder.dropout": 0.2,
    "ctc.consistency": 0.2,
    "augment.spec_augment.time_masks": 1,
    "checkpoints.every_minutes": 0,
}


def test_a_resumed_run_restores_carried_states(tone_configuration, tmp_path, one_thread):
    train(tone_configuration, {**RUN, "output": str(tmp_path / "whole")})
    with stopped_in_call(6):
        train(tone_configuration, {**RUN, "output": str(tmp_path / "stopped")})
    resume(tmp_path / "stopped")
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    train(tone_configuration, {**RUN, "data.carry_state": "no", "output": str(tmp_path / "plain")})
    plain = load_file(tmp_path / "plain" / "model" / "model.safetensors")
    assert not all(torch.equal(value, plain[name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.weights": {"a": 2.0}}, "data.carry_state: cannot be combined with data.weights"),
        ({"encoder.initial_state": "encoded"}, "data.carry_state: not with encoder.initial_state encoded"),
        ({"data.carry_state": "chapter"}, "data.carry_state: expected one of no, recording, speaker, got chapter"),
    ],
)
def test_incompatible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"data.carry_state": "speaker", **settings})
