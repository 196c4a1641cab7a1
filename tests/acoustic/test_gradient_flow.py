"""Gradients through time: against formulas where there is one, and the words that are said about them."""

import math

import pytest
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.gradient_flow import (
    LagCurve,
    measure_lag_curves,
    measure_recurrent_weights,
    measure_saturation,
)
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.unrolled import unroll_model
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import SpeechRNNError
from speechrnn.types import Batch

FRONT_END = FrontEndConfig(sample_rate=8000, n_mels=12, num_coefficients=6)


def make_model(cell, *, layers=1, **encoder):
    torch.manual_seed(3)
    config = EncoderConfig(cell=cell, hidden_size=8, num_layers=layers, subsampling_factor=2, **encoder)
    return AcousticModel(FRONT_END, config, 5)


def make_batch(seconds=(1.0, 0.6), *, targets=((1, 2, 3), (4, 1))):
    torch.manual_seed(4)
    lengths = torch.tensor([int(8000 * s) for s in seconds])
    waveforms = 0.1 * torch.randn(len(seconds), int(lengths.max()))
    ids = [f"u{number}" for number in range(len(seconds))]
    return Batch(
        waveforms=waveforms,
        waveform_lengths=lengths,
        targets=torch.nn.utils.rnn.pad_sequence([torch.tensor(t) for t in targets], batch_first=True),
        target_lengths=torch.tensor([len(t) for t in targets]),
        ids=ids,
    )


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_step_by_step_log_probs_equal_those_of_one_pass(cell, bidirectional):
    more = {} if bidirectional else {"lookahead_frames": 2, "initial_state": "learned", "layer_norm": False}
    model = make_model(cell, layers=3, bidirectional=bidirectional, **more).eval()
    batch = make_batch()
    expected = model(batch.waveforms, batch.waveform_lengths)
    _, log_probs, lengths = unroll_model(model, batch)
    assert lengths.tolist() == expected.lengths.tolist()
    for one, other, length in zip(log_probs, expected.log_probs, lengths, strict=True):
        torch.testing.assert_close(one[:length], other[:length], atol=1e-5, rtol=0)


def make_forgetful(*, forward, backward=None):
    """One layer of units that each keep a share of their state per frame and almost ignore the input."""
    model = make_model("elementwise", bidirectional=backward is not None, layer_norm=False)
    with torch.no_grad():
        for direction, kept in zip(model.encoder.stack.layers[0].directions, (forward, backward), strict=False):
            direction.weight_input.mul_(1e-6)
            direction.weight_recurrent.fill_(kept)
    return model


def test_a_curve_falls_as_its_units_forget_in_each_direction():
    """Where h ≈ 0, ∂h_t/∂h_{t-k} = u^k."""
    forward, backward = measure_lag_curves(make_forgetful(forward=0.9, backward=0.5), [make_batch()])
    for curve, kept, name in ((forward, 0.9, "forward"), (backward, 0.5, "backward")):
        assert (curve.layer, curve.direction) == (1, name)
        assert curve.half_life_frames == pytest.approx(math.log(0.5) / math.log(kept), rel=1e-4)
        assert curve.half_life_seconds == pytest.approx(0.02 * curve.half_life_frames)
        assert curve.seconds_per_frame == pytest.approx(0.02)
    assert backward.reach_frames == 6  # 0.5^6 = 0.016, 0.5^7 = 0.008
    assert "beyond 6 frames, 0.12 s, nothing is learned: gradients vanish" in backward.describe()


def test_each_step_counts_once_per_lag_and_shares_are_per_utterance():
    model = make_forgetful(forward=0.8)
    batch = make_batch((1.0,), targets=((1, 2, 3),))
    frames = int(model.count_frames(8000))
    [curve] = measure_lag_curves(model, [batch, batch], steps=frames)
    assert curve.counts.tolist() == [2 * (frames - lag) for lag in range(int(0.9 * frames) + 1)]
    [once] = measure_lag_curves(model, [batch], steps=frames)
    torch.testing.assert_close(once.norms, curve.norms)
    # At lag 0 it is the mean over frames of the error that the head hands down.
    layers, log_probs, lengths = unroll_model(model, batch)
    loss = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), batch.targets, lengths, batch.target_lengths, reduction="sum"
    )
    (error,) = torch.autograd.grad(loss, log_probs, retain_graph=True)
    handed_down = torch.autograd.grad(log_probs, layers[-1].outputs, error)[0]
    assert float(curve.norms[0]) == pytest.approx(float(handed_down.norm(dim=-1).mean()), rel=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_every_layer_and_direction_has_a_curve_and_the_model_is_unchanged(cell):
    model = make_model(cell, layers=2, dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curves = measure_lag_curves(model, [make_batch()])
    assert [(c.layer, c.direction) for c in curves] == [
        (1, "forward"), (1, "backward"), (2, "forward"), (2, "backward"),
    ]  # fmt: skip
    assert all(float(curve.norms.min()) > 0 for curve in curves)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_growing_error_is_called_exploding():
    model = make_model("tanh", bidirectional=False, layer_norm=False)
    with torch.no_grad():
        direction = model.encoder.stack.layers[0].directions[0]
        direction.weight_ih_l0.mul_(1e-9)
        direction.weight_hh_l0.mul_(2.0 / torch.linalg.eigvals(direction.weight_hh_l0).abs().max())
    [curve] = measure_lag_curves(model, [make_batch()])
    assert curve.is_exploding
    assert curve.growth > 1e3
    assert "gradients explode; clip them" in curve.describe()
    assert curve.half_life_frames == math.inf


def make_curve(norms):
    return LagCurve(2, "forward", torch.tensor(norms), torch.ones(len(norms)), 0.01)


def test_a_curve_is_described_in_words():
    assert make_curve([1.0] * 20).describe() == (
        "layer 2, forward: gradients reach over all measured lags, 19 frames, 0.19 s"
    )
    far = make_curve([1.0] * 60 + [0.0] * 5)
    assert far.describe() == "layer 2, forward: beyond 59 frames, 0.59 s, nothing is learned"
    assert make_curve([1.0, 4.0, 2.0, 1.0]).half_life_frames == 2.0
    assert make_curve([0.0, 0.0]).half_life_frames == math.inf
    assert make_curve([1.0, math.inf]).is_exploding


@pytest.mark.parametrize(
    "batch", [make_batch((0.05, 0.05), targets=((1, 2, 3) * 9, (1,) * 9)), make_batch((0.0,), targets=((1,),))]
)
def test_utterances_that_cannot_be_aligned_give_no_gradient(batch):
    with pytest.raises(SpeechRNNError, match="no utterance has enough frames"):
        measure_lag_curves(make_model("gru"), [batch])


def test_an_utterance_that_cannot_be_aligned_does_not_affect_its_neighbour():
    model = make_model("gru")
    alone = measure_lag_curves(model, [make_batch((1.0,), targets=((1, 2, 3),))])
    both = make_batch((1.0, 0.05), targets=((1, 2, 3), (1, 2, 3) * 9))
    both.waveforms[0] = make_batch((1.0,), targets=((1, 2, 3),)).waveforms[0]
    for one, other in zip(alone, measure_lag_curves(model, [both]), strict=True):
        torch.testing.assert_close(one.norms, other.norms, atol=1e-6, rtol=1e-4)


def test_radius_and_singular_values_are_those_of_each_gate():
    model = make_model("lstm", bidirectional=False)
    direction = model.encoder.stack.layers[0].directions[0]
    with torch.no_grad():
        for number, block in enumerate(direction.weight_hh_l0.chunk(4)):
            block.copy_(torch.diag(torch.linspace(0.1, 0.5 + number, 8)))
    found = measure_recurrent_weights(model.encoder.stack)
    assert [weights.gate for weights in found] == ["input gate", "forget gate", "new cell", "output gate"]
    assert [weights.spectral_radius for weights in found] == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert found[1].singular_values.tolist() == pytest.approx(torch.linspace(1.5, 0.1, 8).tolist(), rel=1e-5)
    [diagonal] = measure_recurrent_weights(make_forgetful(forward=-0.7).encoder.stack)
    assert (diagonal.gate, diagonal.spectral_radius) == ("state", pytest.approx(0.7))


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_saturation_counts_units_at_their_limits_in_valid_frames(cell):
    model = make_model(cell, bidirectional=False)
    with torch.no_grad():
        direction = model.encoder.stack.layers[0].directions[0]
        for parameter in direction.parameters():
            parameter.zero_()
        for number, block in enumerate(direction.bias_ih_l0.chunk({"tanh": 1, "gru": 3, "lstm": 4}[cell])):
            block[:4] = 9.0 if number % 2 == 0 else -9.0
    layers, _, _ = unroll_model(model, make_batch())
    for number, part in enumerate(measure_saturation(layers)):
        assert (part.high, part.low) == ((0.5, 0.0) if number % 2 == 0 else (0.0, 0.5))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_error_of_a_final_state_is_that_of_the_last_step_of_each_direction(bidirectional):
    kept = {"forward": 0.9, "backward": 0.5} if bidirectional else {"forward": 0.9}
    model = make_model("elementwise", bidirectional=bidirectional, layer_norm=False, output="final_state")
    with torch.no_grad():
        for direction, share in zip(model.encoder.stack.layers[0].directions, kept.values(), strict=True):
            direction.weight_input.mul_(1e-6)
            direction.weight_recurrent.fill_(share)
    curves = measure_lag_curves(model, [make_batch(targets=((1,), (4,)))])
    assert len(curves) == len(kept)
    for curve in curves:
        assert curve.half_life_frames == pytest.approx(math.log(0.5) / math.log(kept[curve.direction]), rel=1e-4)
        assert curve.counts[0] == 2
