"""The recurrences, written out: one step of each, the loop over time, and back-propagation through it by hand.

The model runs on torch's own kernels (:mod:`speechrnn.acoustic.recurrent`), which hide the steps. This module computes
the same step by step, for reading and inspection; tests compare the two.

A step maps the frame x_t and the previous state h_{t-1} to the state h_t, through affine maps with one block of H rows
per gate:

    a_t = W x_t + b        (from the frame)
    r_t = U h_{t-1} + d    (from the past)

σ is the logistic function, ⊙ the element-wise product:

    tanh          h_t = tanh(a_t + r_t)
    elementwise   the same with r_t = u ⊙ h_{t-1}: no connections between units
    gru           reset   ρ = σ(a_ρ + r_ρ)
                  update  ζ = σ(a_ζ + r_ζ)
                  new     ν = tanh(a_ν + ρ ⊙ r_ν)
                  h_t = (1 - ζ) ⊙ ν + ζ ⊙ h_{t-1}
    lstm          input   ι = σ(a_ι + r_ι)
                  forget  φ = σ(a_φ + r_φ)
                  new     γ = tanh(a_γ + r_γ)
                  output  ω = σ(a_ω + r_ω)
                  c_t = φ ⊙ c_{t-1} + ι ⊙ γ
                  h_t = ω ⊙ tanh(c_t)
    mingru        update  ζ = σ(a_ζ)
                  new     ν = a_ν + 1/2 where a_ν ≥ 0, else σ(a_ν)
                  h_t = (1 - ζ) ⊙ h_{t-1} + ζ ⊙ ν
    minlstm       input   ι = σ(a_ι)
                  forget  φ = σ(a_φ)
                  the same with ζ = ι / (ι + φ)

Backwards, the error of a state is that of its own output plus that propagated from the next step:
∂E/∂h_t = ∂E_t/∂h_t + (∂h_{t+1}/∂h_t)ᵀ ∂E/∂h_{t+1}, where E = Σ_t E_t. All steps share the weights, so the gradient of a
weight is the sum over steps.

Source:
    J. Elman, "Finding structure in time", 1990; S. Li et al., "Independently Recurrent Neural Network", CVPR 2018;
    K. Cho et al., EMNLP 2014 (GRU; the reset gate after the product, as in cuDNN); S. Hochreiter and J. Schmidhuber,
    "Long short-term memory", 1997, with F. Gers's forget gate, 2000; L. Feng et al., "Were RNNs All We Needed?", 2024
    (minGRU, minLSTM); P. Werbos, "Backpropagation through time", 1990.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechrnn.acoustic.minimal import MinimalRNN, log_ratio, new_state
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import Cell, ElementwiseRNN, RecurrentLayer, RecurrentStack, reverse_within_lengths
from speechrnn.errors import ModelError
from speechrnn.types import Batch, mask_padding, move

Saved = tuple[Tensor, ...]


@dataclass(frozen=True)
class CellWeights:
    """The weights of one layer in one direction; G gates (tanh and elementwise 1, minGRU 2, GRU and
    minLSTM 3, LSTM 4), H units, F features.

    Attributes:
        weight_input: W, (G·H, F).
        weight_recurrent: U, (G·H, H); u, (H,), of the elementwise cell; (0, H) of minGRU and minLSTM, which have none.
        bias_input: b, (G·H,).
        bias_recurrent: d, (G·H,), or (0,).
    """

    weight_input: Tensor
    weight_recurrent: Tensor
    bias_input: Tensor
    bias_recurrent: Tensor

    @classmethod
    def of(cls, direction: nn.Module) -> CellWeights:
        """The weights (not copied) of one direction of a :class:`speechrnn.acoustic.recurrent.RecurrentLayer`.

        The elementwise cell has one bias; the other one is zero here. minGRU and minLSTM have no recurrent part.

        Raises:
            ModelError: The equations of this cell are unknown here.
        """
        if isinstance(direction, ElementwiseRNN):
            zero = torch.zeros_like(direction.bias)
            return cls(direction.weight_input, direction.weight_recurrent, direction.bias, zero)
        if isinstance(direction, MinimalRNN):
            bias = direction.bias
            return cls(direction.weight_input, bias.new_zeros(0, direction.hidden_size), bias, bias.new_zeros(0))
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        if not isinstance(direction, nn.RNNBase) or any(not hasattr(direction, name) for name in names):
            raise ModelError(
                f"{type(direction).__name__}: expected a tanh, elementwise, GRU, LSTM, minGRU or minLSTM layer with "
                "weights and biases; other layers cannot be unrolled"
            )
        return cls(*(getattr(direction, name) for name in names))

    def from_past(self, hidden: Tensor) -> Tensor:
        """r_t from h_{t-1}: (B, H) → (B, G·H)."""
        if self.weight_recurrent.ndim == 1:
            return self.weight_recurrent * hidden + self.bias_recurrent
        return hidden @ self.weight_recurrent.T + self.bias_recurrent

    def to_past(self, error: Tensor) -> Tensor:
        """∂E/∂h_{t-1} from ∂E/∂r_t: (B, G·H) → (B, H)."""
        return error * self.weight_recurrent if self.weight_recurrent.ndim == 1 else error @ self.weight_recurrent

    def recurrent_gradient(self, error: Tensor, hidden: Tensor) -> Tensor:
        """∂E/∂U, or ∂E/∂u, of one step from ∂E/∂r_t, (B, G·H), and h_{t-1}, (B, H)."""
        return (error * hidden).sum(dim=0) if self.weight_recurrent.ndim == 1 else error.T @ hidden


# One step of each cell, and its derivative. A state is (P, B, H): h, and for an LSTM c. Forwards: a_t, r_t and the
# previous state → the new state, and the values that the derivative needs. Backwards: the error of the new state → the
# errors of a_t, of r_t, and of the previous state, without the part that passes through r_t.


def step_tanh(a: Tensor, r: Tensor, state: Tensor) -> tuple[Tensor, Saved]:
    """h_t = tanh(a_t + r_t)."""
    h = torch.tanh(a + r)
    return h[None], (h,)


def step_tanh_back(error: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """tanh' = 1 - tanh²: a saturated unit passes no error."""
    (h,) = saved
    da = error[0] * (1 - h * h)
    return da, da, torch.zeros_like(error)


def step_gru(a: Tensor, r: Tensor, state: Tensor) -> tuple[Tensor, Saved]:
    """h_t = (1 - ζ) ⊙ ν + ζ ⊙ h_{t-1}."""
    (before,) = state
    a_reset, a_update, a_new = a.chunk(3, dim=-1)
    r_reset, r_update, r_new = r.chunk(3, dim=-1)
    reset, update = torch.sigmoid(a_reset + r_reset), torch.sigmoid(a_update + r_update)
    new = torch.tanh(a_new + reset * r_new)
    return ((1 - update) * new + update * before)[None], (reset, update, new, r_new, before)


def step_gru_back(error: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Through ζ ⊙ h_{t-1} the error passes unchanged where the update gate is open."""
    reset, update, new, r_new, before = saved
    (dh,) = error
    d_new = dh * (1 - update) * (1 - new * new)
    d_update = dh * (before - new) * update * (1 - update)
    d_reset = d_new * r_new * reset * (1 - reset)
    da = torch.cat([d_reset, d_update, d_new], dim=-1)
    dr = torch.cat([d_reset, d_update, d_new * reset], dim=-1)
    return da, dr, (dh * update)[None]


def step_lstm(a: Tensor, r: Tensor, state: Tensor) -> tuple[Tensor, Saved]:
    """c_t = φ ⊙ c_{t-1} + ι ⊙ γ; h_t = ω ⊙ tanh(c_t)."""
    _, before = state
    a_input, a_forget, a_new, a_output = (a + r).chunk(4, dim=-1)
    gate_input, gate_forget, gate_output = (torch.sigmoid(x) for x in (a_input, a_forget, a_output))
    new = torch.tanh(a_new)
    cell = gate_forget * before + gate_input * new
    squashed = torch.tanh(cell)
    saved = (gate_input, gate_forget, new, gate_output, before, squashed)
    return torch.stack([gate_output * squashed, cell]), saved


def step_lstm_back(error: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Through φ ⊙ c_{t-1} the error passes unchanged where the forget gate is open."""
    gate_input, gate_forget, new, gate_output, before, squashed = saved
    dh, dc = error
    dc = dc + dh * gate_output * (1 - squashed * squashed)
    da = torch.cat(
        [
            dc * new * gate_input * (1 - gate_input),
            dc * before * gate_forget * (1 - gate_forget),
            dc * gate_input * (1 - new * new),
            dh * squashed * gate_output * (1 - gate_output),
        ],
        dim=-1,
    )
    return da, da, torch.stack([torch.zeros_like(dh), dc * gate_forget])


def step_mingru(a: Tensor, r: Tensor, state: Tensor) -> tuple[Tensor, Saved]:
    """h_t = (1 - ζ) ⊙ h_{t-1} + ζ ⊙ ν."""
    (before,) = state
    a_update, a_new = a.chunk(2, dim=-1)
    keep, update, new = torch.sigmoid(-a_update), torch.sigmoid(a_update), new_state(a_new)
    return (keep * before + update * new)[None], (update, new, before, keep)


def step_mingru_back(error: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Through (1 - ζ) ⊙ h_{t-1} the error passes unchanged where the update gate is closed."""
    update, new, before, keep = saved
    (dh,) = error
    d_new = dh * update * torch.where(new < 0.5, new * (1 - new), 1.0)
    da = torch.cat([dh * (new - before) * update * keep, d_new], dim=-1)
    return da, da[:, :0], (dh * keep)[None]


def step_minlstm(a: Tensor, r: Tensor, state: Tensor) -> tuple[Tensor, Saved]:
    """minGRU's step with ζ = ι / (ι + φ)."""
    a_input, a_forget, a_new = a.chunk(3, dim=-1)
    after, saved = step_mingru(torch.cat([log_ratio(a_input, a_forget), a_new], dim=-1), r, state)
    return after, (torch.sigmoid(a_input), torch.sigmoid(a_forget), *saved)


def step_minlstm_back(error: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """The error of log ι - log φ goes to both gates, less where they are open."""
    gate_input, gate_forget, *of_update = saved
    da, dr, direct = step_mingru_back(error, tuple(of_update))
    d_ratio, d_new = da.chunk(2, dim=-1)
    return torch.cat([d_ratio * (1 - gate_input), -d_ratio * (1 - gate_forget), d_new], dim=-1), dr, direct


Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Saved]]
Backward = Callable[[Tensor, Saved], tuple[Tensor, Tensor, Tensor]]
_STEPS: dict[Cell, tuple[Forward, Backward]] = {
    "tanh": (step_tanh, step_tanh_back),
    "elementwise": (step_tanh, step_tanh_back),
    "gru": (step_gru, step_gru_back),
    "lstm": (step_lstm, step_lstm_back),
    "mingru": (step_mingru, step_mingru_back),
    "minlstm": (step_minlstm, step_minlstm_back),
}


@dataclass(frozen=True)
class Unrolled:
    """One layer in one direction, unrolled over time.

    Attributes:
        cell: Recurrence.
        weights: Weights of every step.
        inputs: (B, T, F), in the order in which the layer reads them.
        lengths: Valid frames, (B,), int64.
        states: T + 1 states, (P, B, H) each: before the first frame, and after every frame. Past an utterance's length
            the state is constant.
        saved: For each frame, the values that its derivative needs.
        is_reversed: Whether the layer reads each utterance from its last frame.
    """

    cell: Cell
    weights: CellWeights
    inputs: Tensor
    lengths: Tensor
    states: list[Tensor]
    saved: list[Saved]
    is_reversed: bool

    @property
    def outputs(self) -> Tensor:
        """Hidden state after every frame in temporal order, zero past a length: (B, T, H)."""
        if not self.saved:
            return self.inputs.new_zeros(len(self.inputs), 0, self.states[0].shape[-1])
        hidden = torch.stack([state[0] for state in self.states[1:]], dim=1)
        hidden = mask_padding(hidden, self.lengths)
        return reverse_within_lengths(hidden, self.lengths) if self.is_reversed else hidden

    @property
    def final(self) -> Tensor:
        """State after each utterance's last valid frame, (P, B, H)."""
        return self.states[-1]


def unroll(
    cell: Cell, weights: CellWeights, inputs: Tensor, lengths: Tensor, initial: Tensor, *, is_reversed: bool = False
) -> Unrolled:
    """Run one layer in one direction, step by step.

    Args:
        cell: Recurrence.
        weights: Its weights.
        inputs: (B, T, F).
        lengths: Valid frames, (B,), int64.
        initial: Initial state, (P, B, H).
        is_reversed: Read each utterance from its last valid frame to its first.
    """
    if is_reversed:
        inputs = reverse_within_lengths(inputs, lengths)
    from_frames = inputs @ weights.weight_input.T + weights.bias_input
    states, saved = [initial], []
    for t in range(inputs.shape[1]):
        after, needed = _STEPS[cell][0](from_frames[:, t], weights.from_past(states[-1][0]), states[-1])
        states.append(torch.where((t < lengths)[None, :, None], after, states[-1]))
        saved.append(needed)
    return Unrolled(cell, weights, inputs, lengths, states, saved, is_reversed)


@dataclass(frozen=True)
class Gradients:
    """Gradients of a total error E = Σ_t E_t from back-propagation through time.

    Attributes:
        weights: ∂E/∂ each weight: the sum over all steps.
        inputs: ∂E/∂x_t, (B, T, F), in temporal order, zero past a length.
        states: ∂E/∂ each of the T + 1 states, (T + 1, P, B, H), in the layer's order; the initial state first.
        step_norms: Norm of each step's contribution to ∂E/∂U, (T,), in the layer's order.
    """

    weights: CellWeights
    inputs: Tensor
    states: Tensor
    step_norms: Tensor


@torch.no_grad()
def backpropagate(unrolled: Unrolled, errors: Tensor, final_error: Tensor | None = None) -> Gradients:
    """Back-propagate through time.

    Args:
        unrolled: The layer after its forward pass.
        errors: ∂E_t/∂h_t, (B, T, H), in temporal order; values past a length are ignored.
        final_error: ∂E/∂ the final state, (P, B, H); None: zero.
    """
    weights, lengths = unrolled.weights, unrolled.lengths
    if unrolled.is_reversed:
        errors = reverse_within_lengths(errors, lengths)
    error = torch.zeros_like(unrolled.states[0]) if final_error is None else final_error
    totals = [torch.zeros_like(w) for w in vars(weights).values()]
    inputs = torch.zeros_like(unrolled.inputs)
    states, norms = [error], errors.new_zeros(errors.shape[1])
    for t in reversed(range(errors.shape[1])):
        is_valid = (t < lengths)[:, None]
        own = torch.cat([errors[None, :, t], torch.zeros_like(error[1:])])
        error = torch.where(is_valid, error + own, error)
        states[-1] = error
        da, dr, direct = _STEPS[unrolled.cell][1](error, unrolled.saved[t])
        da, dr = da * is_valid, dr * is_valid
        hidden = unrolled.states[t][0]
        step = [da.T @ unrolled.inputs[:, t], weights.recurrent_gradient(dr, hidden), da.sum(dim=0), dr.sum(dim=0)]
        totals = [total + part for total, part in zip(totals, step, strict=True)]
        norms[t] = step[1].norm()
        inputs[:, t] = da @ weights.weight_input
        before = torch.cat([(direct[0] + weights.to_past(dr))[None], direct[1:]])
        error = torch.where(is_valid, before, error)
        states.append(error)
    if unrolled.is_reversed:
        inputs = reverse_within_lengths(inputs, lengths)
    return Gradients(CellWeights(*totals), inputs, torch.stack(states[::-1]), norms)


@dataclass(frozen=True)
class UnrolledLayer:
    """One recurrent layer of a model, step by step.

    Attributes:
        directions: Each direction, unrolled.
        outputs: After normalisation and residual connection, (B, T', D·H).
    """

    directions: list[Unrolled]
    outputs: Tensor


def unroll_stack(
    stack: RecurrentStack, inputs: Tensor, lengths: Tensor, *, state: Tensor | None = None
) -> list[UnrolledLayer]:
    """Run a stack step by step, without dropout.

    Args:
        stack: Any recurrent stack.
        inputs: (B, T, F).
        lengths: Valid frames, (B,), int64.
        state: Initial state, (L, P, D, B, H); None for the stack's own.
    """
    if state is None:
        state = stack.make_initial_state(len(inputs), like=inputs)
    hidden, layers = inputs, []
    for number, (layer, norm) in enumerate(zip(stack.layers, stack.norms, strict=True)):
        assert isinstance(layer, RecurrentLayer)
        directions = [
            unroll(layer.cell, CellWeights.of(weights), hidden, lengths, state[number, :, side], is_reversed=side == 1)
            for side, weights in enumerate(layer.directions)
        ]
        output = norm(torch.cat([direction.outputs for direction in directions], dim=-1))
        hidden = output + hidden if stack.residual and number > 0 else output
        layers.append(UnrolledLayer(directions, hidden))
    return layers


def unroll_model(model: AcousticModel, batch: Batch) -> tuple[list[UnrolledLayer], Tensor, Tensor]:
    """Run a model step by step from waveforms to log-probabilities.

    Returns:
        The recurrent layers; log-probabilities (B, T', V); and their lengths (B,).
    """
    encoder = model.encoder
    waveforms = batch.waveforms
    with torch.no_grad():
        log_mels, lengths = model.front_end.log_mel(waveforms, move(batch.waveform_lengths, waveforms.device))
        features = model.front_end.derive_features(log_mels, lengths, speaker_stats=batch.speaker_stats)
    frames, lengths = encoder.subsampling(features, lengths)
    if torch.is_grad_enabled() and not frames.requires_grad:  # gradients of states exist with frozen weights too
        frames = frames.detach().requires_grad_()
    state = encoder.make_initial_state(None, None, like=features)
    layers = unroll_stack(encoder.stack, frames, lengths, state=state)
    frames, lengths = encoder.select_output(mask_padding(layers[-1].outputs, lengths), lengths)
    return layers, model.head(frames), lengths
