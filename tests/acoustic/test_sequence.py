"""Sequence models: outputs at every step, states carried over, encoded and learned initial states."""

import pytest
import torch

from speechrnn.acoustic.gradient_flow import measure_recurrent_weights
from speechrnn.acoustic.sequence import SequenceConfig, SequenceModel
from speechrnn.errors import ConfigError

CELLS = ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"]


def make_model(**settings):
    torch.manual_seed(0)
    return SequenceModel(SequenceConfig(**{"hidden_size": 6, "num_layers": 2, **settings}), 3, 4)


def make_inputs(steps=9):
    torch.manual_seed(1)
    return torch.randn(2, steps, 3), torch.tensor([steps, steps - 4])


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_do_not_depend_on_later_inputs(cell):
    model = make_model(cell=cell).eval()
    inputs, lengths = make_inputs()
    later = inputs.clone()
    later[:, 5:] += 1.0
    one, other = model(inputs, lengths)[0], model(later, lengths)[0]
    torch.testing.assert_close(one[:, :5], other[:, :5])
    assert not torch.allclose(one[0, 5:], other[0, 5:])


@pytest.mark.parametrize("cell", CELLS)
def test_two_pieces_with_carried_state_equal_the_whole(cell):
    model = make_model(cell=cell).eval()
    inputs, _ = make_inputs()
    whole, final = model(inputs, torch.tensor([9, 9]), return_state=True)
    first, state = model(inputs[:, :4], torch.tensor([4, 4]), return_state=True)
    second, last = model(inputs[:, 4:], torch.tensor([5, 5]), state=state, return_state=True)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(last, final)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("initial_state", ["zero", "learned", "encoded"])
def test_step_by_step_outputs_equal_the_whole(cell, initial_state):
    model = make_model(cell=cell, initial_state=initial_state).eval()
    if initial_state == "learned":
        torch.nn.init.normal_(model.stack.initial_state)
    inputs, lengths = make_inputs()
    reference = torch.randn(2, 7, 3) if initial_state == "encoded" else None
    expected, _ = model(inputs, lengths, reference=reference)
    layers, outputs = model.unroll(inputs, lengths, reference=reference)
    torch.testing.assert_close(outputs[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs[1, :5], expected[1, :5], atol=1e-5, rtol=0)
    assert len(layers) == 2


def test_an_encoded_state_depends_on_its_reference_and_its_encoder_learns():
    model = make_model(initial_state="encoded")
    inputs, lengths = make_inputs()
    one, other = (model(inputs, lengths, reference=torch.full((2, 7, 3), value))[0] for value in (1.0, -1.0))
    assert not torch.allclose(one, other)
    one.sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model.reference.parameters() if p.ndim > 1)
    with pytest.raises(ConfigError, match="expected a reference for each sequence"):
        model(inputs, lengths)


@pytest.mark.parametrize("cell", CELLS[:4])
def test_the_spectral_radius_is_as_requested(cell):
    weights = measure_recurrent_weights(make_model(cell=cell, spectral_radius=2.0).stack)
    assert [gate.spectral_radius for gate in weights] == pytest.approx([2.0] * len(weights), rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"hidden_size": 0}, {"num_layers": 0}, {"dropout": 1.0}, {"spectral_radius": 0.0}],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SequenceConfig(**settings)
