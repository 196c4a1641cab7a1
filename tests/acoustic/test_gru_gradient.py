"""The backward pass of a GRU for training on a CPU gives torch's gradients, and is taken where it is faster."""

import pytest
import torch
from torch import nn

from speechrnn.acoustic import gru_gradient
from speechrnn.acoustic.recurrent import RecurrentLayer


def compute_gradients(run, inputs, initial, weights, errors):
    outputs, last = run(inputs, initial)
    loss = (outputs * errors).sum() + (last * errors[:, 0]).sum()
    return torch.autograd.grad(loss, [inputs, initial, *weights])


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("block", [1024, 7])
def test_gradients_are_those_of_torch(rows, block, monkeypatch):
    monkeypatch.setattr(gru_gradient, "_BLOCK_ROWS", block)  # one block of time, or several
    torch.manual_seed(0)
    module = nn.GRU(6, 8, batch_first=True).double()
    inputs = torch.randn(rows, 11, 6, dtype=torch.float64, requires_grad=True)
    initial = torch.randn(1, rows, 8, dtype=torch.float64, requires_grad=True)
    errors, weights = torch.randn(rows, 11, 8, dtype=torch.float64), list(module.parameters())
    expected = compute_gradients(module, inputs, initial, weights, errors)
    found = compute_gradients(lambda *given: gru_gradient.run_gru(*given, weights), inputs, initial, weights, errors)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_inputs_without_gradient_and_frozen_weights_get_none():
    module = nn.GRU(6, 8, batch_first=True)
    module.weight_hh_l0.requires_grad_(False)
    outputs, _ = gru_gradient.run_gru(torch.randn(2, 5, 6), torch.zeros(1, 2, 8), list(module.parameters()))
    outputs.sum().backward()
    assert module.weight_hh_l0.grad is None
    assert module.weight_ih_l0.grad.abs().sum() > 0


def run_layer(layer, rows, **options):
    lengths = torch.arange(rows) + 3
    inputs = torch.randn(rows, rows + 3, 6, generator=torch.Generator().manual_seed(1))
    initial = torch.zeros(1, 2, rows, 8)
    return layer(inputs, lengths, initial=initial, **options)[0]


@pytest.mark.parametrize(
    ("rows", "is_training", "dtype", "is_taken"),
    [(2, True, None, True), (17, True, None, False), (2, False, None, False), (2, True, torch.bfloat16, False)],
)
def test_it_is_taken_in_training_in_float32_for_few_utterances(rows, is_training, dtype, is_taken, monkeypatch):
    taken, original = [], gru_gradient.run_gru
    monkeypatch.setattr(gru_gradient, "run_gru", lambda *given: taken.append(1) or original(*given))
    layer = RecurrentLayer("gru", 6, 8, bidirectional=True).train(is_training)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        found = run_layer(layer, rows)
    assert bool(taken) == is_taken
    torch.testing.assert_close(found, run_layer(layer.eval(), rows), rtol=0, atol=2e-2 if dtype else 1e-6)
