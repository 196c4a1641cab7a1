"""The written-out recurrences against torch's kernels and against autograd, in float64."""

import pytest
import torch

from speechrnn.acoustic.recurrent import RecurrentLayer
from speechrnn.acoustic.unrolled import CellWeights, backpropagate, unroll

CELLS = ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"]


def make_layer(cell, *, features=5, hidden=7, bidirectional=True, seed=0):
    torch.manual_seed(seed)
    layer = RecurrentLayer(cell, features, hidden, bidirectional=bidirectional).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no bias stays zero
    return layer


def make_inputs(lengths, *, features=5, seed=1):
    torch.manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), features, dtype=torch.float64), torch.tensor(lengths)


def unroll_layer(layer, inputs, lengths, initial):
    return [
        unroll(layer.cell, CellWeights.of(direction), inputs, lengths, initial[:, number], is_reversed=number == 1)
        for number, direction in enumerate(layer.directions)
    ]


def mask(outputs, lengths):
    return outputs * (torch.arange(outputs.shape[1]) < lengths[:, None])[..., None]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("lengths", "is_zero"), [([1], True), ([1], False), ([2, 1], False), ([9, 3, 9, 1], False), ([200, 17, 90], False)]
)
def test_unrolled_equals_torch_forwards_and_backwards(cell, lengths, is_zero):
    """Both directions, any initial state, lengths 1 to 200; an error at every output and at the final state."""
    layer = make_layer(cell)
    inputs, lengths = make_inputs(lengths)
    inputs.requires_grad_()
    parts = 2 if layer.cell == "lstm" else 1
    initial = torch.randn(parts, 2, len(lengths), 7, dtype=torch.float64) * (0.0 if is_zero else 1.0)
    initial.requires_grad_()
    outputs, final = layer(inputs, lengths, initial=initial, return_state=True)
    outputs = mask(outputs, lengths)
    errors = torch.randn_like(outputs)
    final_errors = torch.randn_like(final)
    ((outputs * errors).sum() + (final * final_errors).sum()).backward()

    unrolled = unroll_layer(layer, inputs.detach(), lengths, initial.detach())
    torch.testing.assert_close(torch.cat([part.outputs for part in unrolled], dim=-1), outputs, atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.stack([part.final for part in unrolled], dim=1), final, atol=1e-10, rtol=0)

    input_gradient = torch.zeros_like(inputs)
    for number, (part, direction) in enumerate(zip(unrolled, layer.directions, strict=True)):
        gradients = backpropagate(part, errors.chunk(2, dim=-1)[number], final_errors[:, number])
        input_gradient += gradients.inputs
        torch.testing.assert_close(gradients.states[0], initial.grad[:, number], atol=1e-8, rtol=1e-8)
        for got, parameter in zip(vars(gradients.weights).values(), named_parameters(direction), strict=True):
            if parameter is not None:
                torch.testing.assert_close(got, parameter.grad, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(input_gradient, inputs.grad, atol=1e-8, rtol=1e-8)


def named_parameters(direction):
    parameters = list(direction.parameters())
    if len(parameters) == 4:
        return parameters
    return [direction.weight_input, getattr(direction, "weight_recurrent", None), direction.bias, None]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_error_of_every_step_equals_autograd(cell, is_reversed):
    """∂E/∂h_t at each step, through the loop itself."""
    layer = make_layer(cell, bidirectional=False)
    inputs, lengths = make_inputs([6, 4])
    initial = torch.randn((2 if layer.cell == "lstm" else 1), 2, 7, dtype=torch.float64).requires_grad_()
    unrolled = unroll(cell, CellWeights.of(layer.directions[0]), inputs, lengths, initial, is_reversed=is_reversed)
    errors = mask(torch.randn(2, 6, 7, dtype=torch.float64), lengths)
    expected = torch.autograd.grad((unrolled.outputs * errors).sum(), unrolled.states)
    got = backpropagate(unrolled, errors).states
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_the_total_error_is_the_sum_over_steps(cell):
    """Each step's own error sent back alone, and the results added, is the whole gradient."""
    layer = make_layer(cell, bidirectional=False)
    inputs, lengths = make_inputs([8, 5])
    initial = torch.zeros((2 if layer.cell == "lstm" else 1), 2, 7, dtype=torch.float64)
    unrolled = unroll(cell, CellWeights.of(layer.directions[0]), inputs, lengths, initial)
    errors = mask(torch.randn(2, 8, 7, dtype=torch.float64), lengths)
    whole = backpropagate(unrolled, errors)
    alone = []
    for t in range(8):
        own = torch.zeros_like(errors)
        own[:, t] = errors[:, t]
        alone.append(backpropagate(unrolled, own))
    for name, total in vars(whole.weights).items():
        torch.testing.assert_close(sum(getattr(part.weights, name) for part in alone), total, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(sum(part.states for part in alone), whole.states, atol=1e-12, rtol=1e-10)
    assert all(float(part.states[t + 2 :].abs().sum()) == 0.0 for t, part in enumerate(alone))  # never forwards in time


def test_step_norms_are_norms_of_each_steps_contribution():
    layer = make_layer("gru", bidirectional=False)
    inputs, lengths = make_inputs([1])
    unrolled = unroll("gru", CellWeights.of(layer.directions[0]), inputs, lengths, torch.ones(1, 1, 7).double())
    gradients = backpropagate(unrolled, torch.ones(1, 1, 7).double())
    assert gradients.step_norms.tolist() == [gradients.weights.weight_recurrent.norm().item()]


@pytest.mark.parametrize("cell", CELLS)
def test_padding_does_not_change_the_result(cell):
    layer = make_layer(cell)
    inputs, lengths = make_inputs([9, 4])
    initial = torch.zeros((2 if layer.cell == "lstm" else 1), 2, 2, 7, dtype=torch.float64)
    other = inputs.clone()
    other[1, 4:] = 1e3
    for first, second in zip(
        unroll_layer(layer, inputs, lengths, initial), unroll_layer(layer, other, lengths, initial), strict=True
    ):
        assert torch.equal(first.outputs, second.outputs)
        assert torch.equal(first.final, second.final)
        errors = torch.ones_like(first.outputs)
        assert torch.equal(backpropagate(first, errors).inputs, backpropagate(second, errors).inputs)
        assert float(backpropagate(first, errors).inputs[1, 4:].abs().sum()) == 0.0


@pytest.mark.parametrize("cell", CELLS)
def test_zero_frames_leave_the_state_unchanged(cell):
    layer = make_layer(cell, bidirectional=False)
    initial = torch.ones((2 if layer.cell == "lstm" else 1), 2, 7, dtype=torch.float64)
    inputs, lengths = torch.zeros(2, 0, 5, dtype=torch.float64), torch.tensor([0, 0])
    unrolled = unroll(cell, CellWeights.of(layer.directions[0]), inputs, lengths, initial)
    assert unrolled.outputs.shape == (2, 0, 7)
    assert torch.equal(unrolled.final, initial)
    gradients = backpropagate(unrolled, torch.zeros(2, 0, 7).double(), torch.ones_like(initial))
    assert torch.equal(gradients.states, torch.ones(1, *initial.shape).double())
