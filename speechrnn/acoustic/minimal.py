"""minGRU and minLSTM: recurrences whose gates depend on the frame alone, so that all frames are computed at once.

Both are h_t = (1 - ζ_t) ⊙ h_{t-1} + ζ_t ⊙ ν_t with the update gate ζ and the new state ν = g(a_ν), where g(a) = a + 1/2
for a ≥ 0 and σ(a) otherwise. minGRU has ζ = σ(a_ζ). minLSTM normalises its input and forget gates, ι = σ(a_ι) and
φ = σ(a_φ), to ζ = ι / (ι + φ) = σ(log ι - log φ): computed from logarithms, which is exact where both gates are closed.

The authors' scan works on logarithms of the state throughout. It is not used: it needs positive states, so no learned
initial one, and its sums over a whole utterance lose digits: 1e-3 after 3,000 frames in float32. Here the factors
1 - ζ are multiplied, which are at most 1, for any state and any length.

Source:
    L. Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

MinimalCell = Literal["mingru", "minlstm"]

MINIMAL_GATES: dict[MinimalCell, int] = {"mingru": 2, "minlstm": 3}
"""Blocks of weights: update gate and new state; input gate, forget gate and new state."""

_LONGEST_FRAMES = 100.0
_LEAST_NUMBERS = 1024


class MinimalRNN(nn.Module):
    """A minGRU or minLSTM layer in one direction.

    Input weights are Xavier uniform per gate. The biases of the update gate give units initial time constants τ evenly
    spaced in logarithm from 2 to 100 frames where the frame contributes nothing, ζ = 1/τ.

    Source:
        Initial time constants: C. Tallec and Y. Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
    """

    def __init__(self, cell: MinimalCell, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.hidden_size = hidden_size
        self.weight_input = nn.Parameter(torch.empty(MINIMAL_GATES[cell] * hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(MINIMAL_GATES[cell] * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the input weights and the time constants."""
        for gate in self.weight_input.data.split(self.hidden_size):
            nn.init.xavier_uniform_(gate)
        rate = 1 / torch.logspace(math.log10(2), math.log10(_LONGEST_FRAMES), self.hidden_size)
        with torch.no_grad():
            self.bias.zero_()
            if self.cell == "mingru":
                self.bias[: self.hidden_size] = rate.logit()
            else:  # forget gates almost open: φ = 1 - 1/τ, ι = 1/τ
                self.bias[: 2 * self.hidden_size] = torch.cat([rate.logit(), -rate.logit()])

    def forward(self, inputs: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Run over whole sequences.

        Args:
            inputs: (B, T, F), T at least 1.
            initial: Hidden state before the first frame, (1, B, H), of any sign.

        Returns:
            Hidden state after every frame, (B, T, H), and after the last, (1, B, H).
        """
        blocks = nn.functional.linear(inputs, self.weight_input, self.bias)
        kind = blocks.dtype
        *gates, new = blocks.to(torch.promote_types(kind, torch.float32)).chunk(MINIMAL_GATES[self.cell], dim=-1)
        update = torch.sigmoid(gates[0] if self.cell == "mingru" else log_ratio(*gates))
        states = scan(update, new, initial[0].to(new.dtype)).to(kind)
        return states, states[:, -1][None]


def new_state(a: Tensor) -> Tensor:
    """g(a) = max(a + 1/2, σ(a)); any shape."""
    return torch.maximum(a + 0.5, torch.sigmoid(a))


def log_ratio(a_input: Tensor, a_forget: Tensor) -> Tensor:
    """log ι - log φ of the gates ι = σ(a_input) and φ = σ(a_forget); any shape."""
    return nn.functional.logsigmoid(a_input) - nn.functional.logsigmoid(a_forget)


def scan(update: Tensor, a_new: Tensor, initial: Tensor) -> Tensor:
    """Compute h_t = (1 - ζ_t) ⊙ h_{t-1} + ζ_t ⊙ g(a_t) for all t.

    Args:
        update: ζ, (B, T, H), in [0, 1].
        a_new: a, (B, T, H).
        initial: h before the first step, (B, H).

    Returns:
        h_1 to h_T, (B, T, H).
    """
    states: Tensor = _Scan.apply(update, a_new, initial)
    return states


class _Scan(torch.autograd.Function):
    """The recurrence and its gradient, which is a recurrence of the same kind backwards in time."""

    @staticmethod
    def forward(ctx: Any, update: Tensor, a_new: Tensor, initial: Tensor) -> Tensor:
        new = new_state(a_new)
        states = _run(_mix, update, new, initial)
        ctx.save_for_backward(update, new, states, initial)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        update, new, states, initial = ctx.saved_tensors
        # e_t = error_t + (1 - ζ_{t+1}) e_{t+1}
        after = nn.functional.pad(1 - update[:, 1:], (0, 0, 0, 1))
        error = _run(_add, after, errors, torch.zeros_like(initial), is_reversed=True)
        d_update = new.clone()  # (ν_t - h_{t-1}) ⊙ e_t
        d_update[:, 1:] -= states[:, :-1]
        d_update[:, 0] -= initial
        d_new = (new * (1 - new)).masked_fill_(new >= 0.5, 1.0)  # g'(a_t) ⊙ ζ_t ⊙ e_t
        return d_update.mul_(error), d_new.mul_(error).mul_(update), error[:, 0] * (1 - update[:, 0])


_Step = Callable[..., Tensor]


def _mix(before: Tensor, factor: Tensor, term: Tensor, out: Tensor) -> Tensor:
    return torch.lerp(before, term, factor, out=out)


def _add(before: Tensor, factor: Tensor, term: Tensor, out: Tensor) -> Tensor:
    return torch.addcmul(term, factor, before, out=out)


def _run(step: _Step, factors: Tensor, terms: Tensor, before: Tensor, *, is_reversed: bool = False) -> Tensor:
    """A linear recurrence over (B, T, H), also from the last step to the first.

    On a CPU a step over a batch is long enough that one pass over time is fastest. Otherwise time is cut into about √T
    pieces of √T steps. All run in parallel from zero, for their final states; these give the pieces' initial states,
    from which all run again.
    """
    rows, frames, units = terms.shape
    if terms.device.type == "cpu" and rows * units >= _LEAST_NUMBERS:
        return _loop(step, factors, terms, before, dim=1, is_reversed=is_reversed)
    size = math.isqrt(frames - 1) + 1
    padding = (0, 0, -frames % size, 0) if is_reversed else (0, 0, 0, -frames % size)
    # (B, T, H) → (B, K, √T, H)
    factors, terms = (nn.functional.pad(part, padding).unflatten(1, (-1, size)) for part in (factors, terms))
    alone = _loop(step, factors, terms, torch.zeros_like(terms[:, :, 0]), dim=2, is_reversed=is_reversed)
    last = alone[:, :, 0 if is_reversed else -1]
    kept = (factors if step is _add else 1 - factors).prod(dim=2)
    ends = _loop(_add, kept, last, before, dim=1, is_reversed=is_reversed)
    starts = [ends[:, 1:], before[:, None]] if is_reversed else [before[:, None], ends[:, :-1]]
    states = _loop(step, factors, terms, torch.cat(starts, dim=1), dim=2, is_reversed=is_reversed).flatten(1, 2)
    return states[:, -frames:] if is_reversed else states[:, :frames]


def _loop(
    step: _Step, factors: Tensor, terms: Tensor, before: Tensor, *, dim: int, is_reversed: bool = False
) -> Tensor:
    """The recurrence along one dimension, step by step, from the state before the first step."""
    states = torch.empty_like(terms)
    steps = list(zip(factors.unbind(dim), terms.unbind(dim), states.unbind(dim), strict=True))
    for factor, term, state in reversed(steps) if is_reversed else steps:
        before = step(before, factor, term, state)
    return states
