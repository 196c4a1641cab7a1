"""minGRU and minLSTM: against the formulas of their paper, and the scan against one step after the other."""

import pytest
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.minimal import MinimalRNN, scan
from speechrnn.acoustic.sequence import SequenceConfig
from speechrnn.errors import ConfigError

CELLS = ("mingru", "minlstm")


def log_g(x):
    return torch.where(x >= 0, (x.relu() + 0.5).log(), -torch.nn.functional.softplus(-x))


def paper(cell, a, initial):
    """Appendix B of the paper, in log space: Heinsen's scan over log factors and log terms; positive states only."""
    softplus = torch.nn.functional.softplus
    if cell == "mingru":
        k, new = a.chunk(2, dim=-1)
        log_keep, log_update = -softplus(k), -softplus(-k)
    else:
        i, f, new = a.chunk(3, dim=-1)
        diff = softplus(-f) - softplus(-i)
        log_keep, log_update = -softplus(diff), -softplus(-diff)
    terms = torch.cat([initial.log()[:, None], log_update + log_g(new)], dim=1)
    total = torch.nn.functional.pad(log_keep.cumsum(dim=1), (0, 0, 1, 0))
    return (total + (terms - total).logcumsumexp(dim=1)).exp()[:, 1:]


@pytest.mark.parametrize("cell", CELLS)
def test_the_cells_equal_the_log_space_formulas_of_the_paper(cell):
    torch.manual_seed(0)
    module = MinimalRNN(cell, 6, 5).double()
    inputs, initial = 3 * torch.randn(3, 40, 6).double(), torch.rand(1, 3, 5).double() + 0.1
    outputs, last = module(inputs, initial)
    expected = paper(cell, inputs @ module.weight_input.T + module.bias, initial[0])
    torch.testing.assert_close(outputs, expected, atol=1e-9, rtol=1e-9)
    assert torch.equal(last[0], outputs[:, -1])


@pytest.mark.parametrize("frames", [1, 2, 3, 10, 3000])
def test_the_scan_equals_single_steps_over_any_length_with_extreme_gates_and_any_state(frames, monkeypatch):
    torch.manual_seed(1)
    update = torch.sigmoid(30 * torch.randn(2, frames, 7)).requires_grad_()
    a_new = torch.randn(2, frames, 7)
    a_new = (a_new + 1e-3 * a_new.sign()).requires_grad_()  # g has a kink at 0
    initial, errors = torch.randn(2, 7).requires_grad_(), torch.randn(2, frames, 7)

    exact = [part.detach().double().requires_grad_() for part in (update, a_new, initial)]
    state, states = exact[2], []
    for gate, a in zip(exact[0].unbind(1), exact[1].unbind(1), strict=True):
        state = (1 - gate) * state + gate * torch.where(a >= 0, a + 0.5, torch.sigmoid(a))
        states.append(state)
    expected = torch.stack(states, dim=1)
    of_exact = torch.autograd.grad((expected * errors).sum(), exact)

    for least in (0, 10**9):  # over all frames, and in pieces
        monkeypatch.setattr("speechrnn.acoustic.minimal._LEAST_NUMBERS", least)
        outputs = scan(update, a_new, initial)
        gradients = torch.autograd.grad((outputs * errors).sum(), (update, a_new, initial))
        for actual, wanted in zip((outputs, *gradients), (expected, *of_exact), strict=True):
            torch.testing.assert_close(actual.double(), wanted, atol=1e-5, rtol=1e-5)


def test_minlstm_normalises_gates_that_are_both_closed():
    module = MinimalRNN("minlstm", 1, 2)
    with torch.no_grad():
        module.weight_input.zero_()
        module.bias.copy_(torch.tensor([-200.0, -203.0, -200.0, -200.0, 1.0, 1.0]))  # input, forget, new
    outputs, _ = module(torch.zeros(1, 1, 1), torch.zeros(1, 1, 2))
    expected = 1.5 * torch.tensor([0.0, -3.0]).exp() / (1 + torch.tensor([0.0, -3.0]).exp())
    torch.testing.assert_close(outputs[0, 0], expected)


@pytest.mark.parametrize("cell", CELLS)
def test_half_precision_rounds_the_frames_and_not_the_states(cell):
    """The state has 24 bits from frame to frame: over 2,000 frames the error does not grow."""
    torch.manual_seed(2)
    module = MinimalRNN(cell, 6, 8)
    inputs, initial = torch.randn(1, 2000, 6), torch.zeros(1, 1, 8)
    exact, _ = module(inputs, initial)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, last = module(inputs, initial)
    assert rounded.dtype == last.dtype == torch.bfloat16
    error = (rounded.float() - exact).detach().abs()
    assert float(error[:, -500:].mean()) < 1.2 * float(error[:, :500].mean()) < 0.02


@pytest.mark.parametrize("cell", CELLS)
def test_units_begin_with_memories_from_2_to_100_frames(cell):
    outputs, _ = MinimalRNN(cell, 3, 4)(torch.zeros(1, 1, 3), torch.ones(1, 1, 4))
    update = (1 - outputs[0, 0]) / 0.5  # h = 1 - ζ + ζ / 2
    assert update.tolist() == pytest.approx([1 / 2, 1 / 7.37, 1 / 27.1, 1 / 100], rel=0.01)


def test_recurrent_weights_that_do_not_exist_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"encoder.recurrent_dropout: cell mingru has no recurrent weights"):
        EncoderConfig(cell="mingru", recurrent_dropout=0.1)
    with pytest.raises(ConfigError, match="spectral_radius: cell minlstm has no recurrent weights; leave it out"):
        SequenceConfig(cell="minlstm", spectral_radius=1.0)
