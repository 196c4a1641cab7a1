"""Recurrent layers against torch's packed modules, against their formula, and against themselves in other batches."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn.acoustic.recurrent import (
    ElementwiseRNN,
    LockedDropout,
    RecurrentLayer,
    RecurrentStack,
    reverse_within_lengths,
)
from speechrnn.types import mask_padding

CELLS = ("tanh", "elementwise", "gru", "lstm", "mingru", "minlstm")
WITH_RECURRENT_WEIGHTS = CELLS[:4]
LENGTHS = torch.tensor([7, 3, 1, 5])


def make_batch(features: int = 6, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mask_padding(torch.randn(len(LENGTHS), int(LENGTHS.max()), features, generator=generator), LENGTHS)


def zeros_for(layer: RecurrentLayer, batch_size: int) -> torch.Tensor:
    return torch.zeros((2 if layer.cell == "lstm" else 1), len(layer.directions), batch_size, layer.hidden_size)


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_bidirectional_layer_equals_torchs_packed_module(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 6, 5, bidirectional=True)
    oracle = {"tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](6, 5, batch_first=True, bidirectional=True)
    for number, suffix in enumerate(("", "_reverse")):
        for name, value in layer.directions[number].named_parameters():
            getattr(oracle, name + suffix).data.copy_(value)
    inputs = make_batch()
    packed = pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, expected_state = oracle(packed)
    expected, _ = pad_packed_sequence(expected, batch_first=True)
    outputs, state = layer(inputs, LENGTHS, initial=zeros_for(layer, 4), return_state=True)
    torch.testing.assert_close(mask_padding(outputs, LENGTHS), expected, atol=1e-6, rtol=0)
    expected_state = torch.stack(expected_state) if cell == "lstm" else expected_state[None]
    torch.testing.assert_close(state, expected_state, atol=1e-6, rtol=0)


def test_elementwise_rnn_equals_its_formula():
    torch.manual_seed(1)
    module = ElementwiseRNN(6, 5)
    inputs, hidden = torch.randn(3, 9, 6), torch.randn(3, 5)
    outputs, last = module(inputs, hidden[None])
    for t in range(9):
        hidden = torch.tanh(module.weight_recurrent * hidden + inputs[:, t] @ module.weight_input.T + module.bias)
        torch.testing.assert_close(outputs[:, t], hidden, atol=1e-6, rtol=0)
    torch.testing.assert_close(last[0], hidden, atol=1e-6, rtol=0)


def test_elementwise_unit_does_not_depend_on_other_units():
    module = ElementwiseRNN(2, 3)
    start = torch.zeros(1, 1, 3)
    before, _ = module(torch.zeros(1, 6, 2), start)
    start[0, 0, 1] = 0.5
    after, _ = module(torch.zeros(1, 6, 2), start)
    changed = (before != after).any(dim=1)[0]
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_every_cell_equal_finite_differences(cell):
    torch.manual_seed(2)
    layer = RecurrentLayer(cell, 2, 3, bidirectional=True).double()
    inputs = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    initial = torch.randn((2 if layer.cell == "lstm" else 1), 2, 2, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 2])
    parameters = list(layer.parameters())

    def run(inputs, initial, *_):
        outputs, state = layer(inputs, lengths, initial=initial, return_state=True)
        return mask_padding(outputs, lengths), state

    assert torch.autograd.gradcheck(run, (inputs, initial, *parameters), fast_mode=True)


def test_reversal_leaves_padding_and_undoes_itself():
    inputs = torch.arange(12.0).reshape(2, 6, 1)
    lengths = torch.tensor([6, 2])
    reversed_once = reverse_within_lengths(inputs, lengths)
    assert reversed_once[:, :, 0].tolist() == [[5, 4, 3, 2, 1, 0], [7, 6, 8, 9, 10, 11]]
    torch.testing.assert_close(reverse_within_lengths(reversed_once, lengths), inputs)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_neighbours_and_padding_change_neither_outputs_nor_states(cell, bidirectional):
    torch.manual_seed(3)
    stack = RecurrentStack(cell, 6, hidden_size=5, num_layers=2, bidirectional=bidirectional).eval()
    inputs = make_batch()
    noise = torch.where(mask_padding(torch.ones_like(inputs), LENGTHS) > 0, inputs, torch.full_like(inputs, 99.0))
    together, state, _ = stack(noise, LENGTHS, return_state=True)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, alone_state, _ = stack(inputs[row : row + 1, :length], LENGTHS[row : row + 1], return_state=True)
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(state[:, :, :, row], alone_state[:, :, :, 0], atol=1e-5, rtol=0)
        assert (together[row, length:] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_state_carried_over_a_cut_continues_the_sequence(cell):
    torch.manual_seed(4)
    stack = RecurrentStack(cell, 6, hidden_size=5, num_layers=3, bidirectional=False).eval()
    inputs = torch.randn(2, 11, 6)
    whole, whole_state, _ = stack(inputs, torch.tensor([11, 11]), return_state=True)
    first, state, _ = stack(inputs[:, :4], torch.tensor([4, 4]), return_state=True)
    second, state, _ = stack(inputs[:, 4:], torch.tensor([7, 7]), state=state, return_state=True)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(state, whole_state, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_learned_initial_state_matters_and_is_trained(cell):
    torch.manual_seed(5)
    stack = RecurrentStack(cell, 6, hidden_size=5, num_layers=2, bidirectional=True, initial_state="learned")
    inputs = make_batch()
    at_zero, _, _ = stack(inputs, LENGTHS)
    at_zero.square().sum().backward()
    assert stack.initial_state.grad.abs().sum(dim=-1).gt(0).all()  # every layer, part and direction
    with torch.no_grad():
        stack.initial_state.fill_(0.5)
    moved, _, _ = stack(inputs, LENGTHS)
    assert not torch.allclose(moved, at_zero)
    given, _, _ = stack(inputs, LENGTHS, state=torch.zeros(2, stack.state_shape[1], 2, 4, 5))
    torch.testing.assert_close(given, at_zero)


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_utterance_keeps_its_initial_state(cell):
    stack = RecurrentStack(cell, 6, hidden_size=5, num_layers=1, bidirectional=True).eval()
    given = torch.randn(1, stack.state_shape[1], 2, 2, 5)
    outputs, state, _ = stack(torch.randn(2, 3, 6), torch.tensor([3, 0]), state=given, return_state=True)
    assert torch.isfinite(outputs).all()
    torch.testing.assert_close(state[:, :, :, 1], given[:, :, :, 1])
    outputs, state, _ = stack(torch.zeros(2, 0, 6), torch.tensor([0, 0]), state=given, return_state=True)
    assert outputs.shape == (2, 0, 10)
    torch.testing.assert_close(state, given)


def test_recurrent_weights_begin_orthogonal_and_forget_gates_open():
    layer = RecurrentLayer("lstm", 6, 8, bidirectional=True)
    for direction in layer.directions:
        for gate in direction.weight_hh_l0.chunk(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
        bias = direction.bias_ih_l0 + direction.bias_hh_l0
        assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def test_residual_layers_add_their_input():
    stack = RecurrentStack("gru", 6, hidden_size=5, num_layers=2, bidirectional=False, layer_norm=False).eval()
    for parameter in stack.layers[1].parameters():
        parameter.data.zero_()  # a GRU without weights stays at its zero state
    inputs = make_batch()
    both, _, _ = stack(inputs, LENGTHS)
    first, _ = stack.layers[0](inputs, LENGTHS, initial=zeros_for(stack.layers[0], 4))
    torch.testing.assert_close(both, mask_padding(first, LENGTHS))


def test_locked_dropout_drops_the_same_units_in_every_frame_of_an_utterance():
    torch.manual_seed(0)
    dropped = LockedDropout(0.25)(torch.ones(200, 9, 40))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.max()) == pytest.approx(1 / 0.75)
    frames = torch.randn(2, 3, 4)
    assert LockedDropout(0.5).eval()(frames) is frames


@pytest.mark.parametrize("cell", WITH_RECURRENT_WEIGHTS)
def test_recurrent_dropout_drops_weights_only_in_training(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 6, 5, bidirectional=False, recurrent_dropout=0.5)
    inputs, lengths = make_batch(), LENGTHS
    run = lambda: layer(inputs, lengths, initial=zeros_for(layer, 4))[0]  # noqa: E731
    first, second = run(), run()
    assert torch.equal(first[:, 0], second[:, 0])  # there is no memory yet
    assert not torch.equal(first[0, 1:], second[0, 1:])
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    layer.eval()
    plain = RecurrentLayer(cell, 6, 5, bidirectional=False)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(run(), plain(inputs, lengths, initial=zeros_for(layer, 4))[0])


@pytest.mark.parametrize("cell", WITH_RECURRENT_WEIGHTS)
def test_recurrent_dropout_equals_a_layer_with_those_weights_at_zero(cell, monkeypatch):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 6, 5, bidirectional=False, recurrent_dropout=0.5)
    name = "weight_recurrent" if cell == "elementwise" else "weight_hh_l0"
    mask = (torch.rand_like(getattr(layer.directions[0], name)) < 0.5).float() * 2
    monkeypatch.setattr(nn.functional, "dropout", lambda weights, share, *_: weights * mask if share else weights)
    dropped = layer(make_batch(), LENGTHS, initial=zeros_for(layer, 4))[0]
    with torch.no_grad():
        getattr(layer.directions[0], name).mul_(mask)
    torch.testing.assert_close(dropped, layer.eval()(make_batch(), LENGTHS, initial=zeros_for(layer, 4))[0])


def test_collected_outputs_are_the_inputs_of_the_next_layer():
    torch.manual_seed(0)
    stack = RecurrentStack("gru", 6, hidden_size=5, num_layers=3, bidirectional=True, residual=False).eval()
    outputs, _, collected = stack(make_batch(), LENGTHS, collect=(1, 3))
    assert len(collected) == 2
    assert torch.equal(mask_padding(collected[1], LENGTHS), outputs)
    hidden = collected[0]
    for number in (1, 2):
        state = stack.make_initial_state(4, like=hidden)[number]
        hidden = stack.norms[number](stack.layers[number](hidden, LENGTHS, initial=state)[0])
    torch.testing.assert_close(mask_padding(hidden, LENGTHS), outputs)


@pytest.mark.parametrize("rows", [0, 1, 8, 13, 130])
def test_groups_for_cudnn_change_nothing(rows, monkeypatch):
    torch.manual_seed(0)
    layer = RecurrentLayer("lstm", 6, 5, bidirectional=True)
    inputs, lengths, initial = torch.randn(rows, 7, 6), torch.randint(1, 8, (rows,)), torch.randn(2, 2, rows, 5)
    sizes = []
    for direction in layer.directions:
        direction.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    def run():
        layer.zero_grad()
        outputs, _ = layer(inputs, lengths, initial=initial)
        outputs.square().sum().backward()
        return [outputs, *(parameter.grad.clone() for parameter in layer.parameters())]

    expected = run()
    sizes.clear()
    monkeypatch.setattr("speechrnn.acoustic.recurrent._is_half", lambda inputs: True)
    for actual, wanted in zip(run(), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)
    assert all(size % 8 == 0 and size <= 128 for size in sizes)
    assert sum(sizes) < 2 * (rows + 16)
