"""A GRU layer for training on a CPU: torch's forward pass, and a backward pass with few products of few rows.

torch differentiates a GRU on a CPU step by step, and adds the gradient of each weight at each step. Here only the error
of the state passes step by step; the gates are computed again for all frames at once, and so are the gradients of
weights and inputs. The notation is that of :mod:`speechrnn.acoustic.unrolled`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_ROWS = 1024  # frames of all utterances that are computed at once: their values stay in the cache


def run_gru(inputs: Tensor, initial: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        inputs: (B, T, F), float32, on the CPU; T at least 1.
        initial: State before the first frame, (1, B, H).
        weights: W, U, b and d, shaped as in torch's module.

    Returns:
        Hidden state after every frame, (B, T, H), and after the last, (1, B, H).
    """
    found: tuple[Tensor, Tensor] = _GRU.apply(inputs, initial, *weights)
    return found


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, initial: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        # has_biases, num_layers, dropout, train, bidirectional, batch_first
        outputs, last = torch.gru(inputs, initial, list(weights), True, 1, 0.0, False, False, True)
        ctx.save_for_backward(inputs, initial, outputs, *weights)
        return outputs, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor, last_error: Tensor) -> tuple[Tensor | None, ...]:
        inputs, initial, outputs, *weights = ctx.saved_tensors
        w, u, *_ = weights
        x, h, error = (each.transpose(0, 1).contiguous() for each in (inputs, outputs, error))  # (T, B, …)
        before, carried = torch.cat([initial, h[:-1]]), last_error[0]
        dw, du = torch.zeros_like(w), torch.zeros_like(u)
        db, dd = w.new_zeros(len(w)), u.new_zeros(len(u))
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        size = max(1, _BLOCK_ROWS // x.shape[1])
        for start in reversed(range(0, len(x), size)):
            block = slice(start, start + size)
            flat_x, flat_before = x[block].flatten(0, 1), before[block].flatten(0, 1)
            slopes, update, to_new = _differentiate(x[block], before[block], weights)
            errors, recurrent, carried = _propagate(error[block], carried, slopes, update, u)
            flat = recurrent.flatten(0, 1).flatten(1)  # ∂E/∂r_t, (rows, 3 · H)
            du.addmm_(flat.T, flat_before)
            dd += flat.sum(0)
            torch.mul(errors, to_new, out=recurrent[:, :, 2])  # ∂E/∂a_t from here on
            dw.addmm_(flat.T, flat_x)
            db += flat.sum(0)
            if dx is not None:
                torch.mm(flat, w, out=dx[block].flatten(0, 1))
        return None if dx is None else dx.transpose(0, 1), carried[None], dw, du, db, dd


def _differentiate(x: Tensor, before: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gates of frames again, and the slopes.

    Args:
        x: Inputs, (T, B, F).
        before: State before each frame, (T, B, H).
        weights: W, U, b and d.

    Returns:
        ∂h_t/∂r_t by gate, (T, B, 3, H); the update gate, (T, B, H); and ∂h_t/∂ of the argument of tanh, (T, B, H).
    """
    w, u, b, d = weights
    shape = (*before.shape[:2], 3, before.shape[2])
    a_reset, a_update, a_new = torch.addmm(b, x.flatten(0, 1), w.T).view(shape).unbind(2)
    r_reset, r_update, r_new = torch.addmm(d, before.flatten(0, 1), u.T).view(shape).unbind(2)
    reset, update = a_reset.add_(r_reset).sigmoid_(), a_update.add_(r_update).sigmoid_()
    new = a_new.addcmul_(reset, r_new).tanh_()
    to_new = (1 - update) * (1 - new * new)
    of_reset = to_new * r_new * reset * (1 - reset)
    return torch.stack([of_reset, (before - new) * update * (1 - update), to_new * reset], dim=2), update, to_new


def _propagate(
    error: Tensor, carried: Tensor, slopes: Tensor, update: Tensor, u: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pass the error back in time.

    Args:
        error: ∂E_t/∂h_t, (T, B, H).
        carried: ∂E/∂ the last state, (B, H).
        slopes: ∂h_t/∂r_t by gate, (T, B, 3, H).
        update: The update gate, (T, B, H).
        u: U, (3 · H, H).

    Returns:
        ∂E/∂h_t, (T, B, H); ∂E/∂r_t, (T, B, 3, H); ∂E/∂ the initial state, (B, H).
    """
    errors, recurrent = torch.empty_like(update), torch.empty_like(slopes)
    steps = zip(*(each.unbind(0) for each in (error, slopes, update, errors, recurrent)), strict=True)
    for of_output, slope, gate, total, to_past in reversed(list(steps)):
        torch.add(of_output, carried, out=total)
        torch.mul(slope, total[:, None], out=to_past)
        carried = torch.addmm(total * gate, to_past.flatten(1), u)
    return errors, recurrent, carried
