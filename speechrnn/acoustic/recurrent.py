"""Recurrent layers and stacks, in one or two directions.

A bidirectional layer is two unidirectional passes, the second over each utterance reversed within its own length, so
that padding never enters a state and the slow path of packed sequences is not needed.

State: one tensor, (L, P, D, B, H): L layers; P parts, 2 for an LSTM (hidden, cell) and 1 otherwise; D directions;
B utterances; H hidden units.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn.acoustic.minimal import MinimalRNN
from speechrnn.types import mask_padding, move, pick_last, valid_mask

Cell = Literal["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"]

MOST_UNITS, MOST_LAYERS = 16_384, 64
"""Upper bounds of a configuration."""

_GATES = {"tanh": 1, "gru": 3, "lstm": 4}
_SLOWEST_UNIT_FRAMES = 100.0
_MOST_ROWS = 128
_MOST_ROWS_OF_GRADIENT = 16
"""Utterances up to which :mod:`speechrnn.acoustic.gru_gradient` is faster than torch's backward pass."""


class ElementwiseRNN(nn.Module):
    """A recurrence without connections between units: h_t = tanh(u ⊙ h_{t-1} + W x_t + b).

    It runs as torch's tanh RNN with diag(u) as recurrent matrix: one call for all frames, in cuDNN on a GPU. Initial
    time constants τ are spaced evenly in logarithm from 1 to 100 frames, u = exp(-1/τ).

    Source:
        The recurrence of S. Li et al., "Independently Recurrent Neural Network (IndRNN)", CVPR 2018, with tanh.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_input = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_recurrent = nn.Parameter(torch.empty(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the input weights (Xavier uniform) and the time constants."""
        nn.init.xavier_uniform_(self.weight_input)
        memory_frames = torch.logspace(0, math.log10(_SLOWEST_UNIT_FRAMES), self.hidden_size)
        with torch.no_grad():
            self.weight_recurrent.copy_(torch.exp(-1.0 / memory_frames))

    def forward(
        self, inputs: Tensor, initial: Tensor, *, weight_recurrent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run over whole sequences.

        Args:
            inputs: (B, T, F).
            initial: Hidden state before the first frame, (1, B, H).
            weight_recurrent: Recurrent weights of this call, (H,); None: the module's own.

        Returns:
            Hidden state after every frame, (B, T, H), and after the last, (1, B, H).
        """
        recurrent = self.weight_recurrent if weight_recurrent is None else weight_recurrent
        weights = [self.weight_input, torch.diag(recurrent), self.bias, torch.zeros_like(self.bias)]
        return run_with_weights("tanh", inputs, initial, weights, is_training=self.training)


def run_with_weights(
    cell: Literal["tanh", "gru", "lstm"],
    inputs: Tensor,
    initial: Any,
    weights: list[Tensor],
    *,
    is_training: bool,
) -> tuple[Tensor, Any]:
    """Run one layer in one direction, like torch's modules, with weights that were computed for this call.

    Args:
        cell: Recurrence.
        inputs: (B, T, F).
        initial: (1, B, H); for an LSTM a pair of them, hidden and cell.
        weights: Input weights, recurrent weights and the biases of both, shaped as in torch's module.
        is_training: Whether a backward pass follows.

    Returns:
        Hidden state after every frame, (B, T, H), and the last state, like ``initial``.
    """
    function: Any = {"tanh": torch.rnn_tanh, "gru": torch.gru, "lstm": torch.lstm}[cell]
    with warnings.catch_warnings():
        # cuDNN copies these weights into one block at each call; this is unavoidable, as they are new each time.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
        # has_biases, num_layers, dropout, train, bidirectional, batch_first
        output, *last = function(inputs, initial, weights, True, 1, 0.0, is_training, False, True)
    return output, tuple(last) if cell == "lstm" else last[0]


def build_direction(cell: Cell, input_size: int, hidden_size: int) -> nn.Module:
    """Build and initialise one recurrent layer in one direction.

    Input weights are Xavier uniform and recurrent ones orthogonal, per gate; biases are zero, except 1 for the LSTM's
    forget gate.

    Source:
        A. Saxe et al., arXiv:1312.6120 (orthogonal); R. Jozefowicz et al., ICML 2015 (forget bias 1).
    """
    if cell == "elementwise":
        return ElementwiseRNN(input_size, hidden_size)
    if cell == "mingru" or cell == "minlstm":
        return MinimalRNN(cell, input_size, hidden_size)
    kind = {"tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
    module = kind(input_size, hidden_size, batch_first=True)
    with torch.no_grad():
        for input_gate, recurrent_gate in zip(
            module.weight_ih_l0.chunk(_GATES[cell]), module.weight_hh_l0.chunk(_GATES[cell]), strict=True
        ):
            nn.init.xavier_uniform_(input_gate)
            nn.init.orthogonal_(recurrent_gate)
        module.bias_ih_l0.zero_()
        module.bias_hh_l0.zero_()
        if cell == "lstm":
            module.bias_ih_l0[hidden_size : 2 * hidden_size] = 1.0  # torch's gate order: input, forget, cell, output
    return module


def reverse_within_lengths(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence (B, T, F) in time within its length (B,), int64; padding stays in place."""
    frame = torch.arange(sequences.shape[1], device=sequences.device)
    last = move(lengths, sequences.device)[:, None]
    index = torch.where(valid_mask(sequences, lengths), last - 1 - frame, frame)
    return sequences.gather(1, index[..., None].expand_as(sequences))


class RecurrentLayer(nn.Module):
    """One recurrent layer over padded utterances, in one or two directions.

    Args:
        cell: Recurrence.
        input_size: Features per frame.
        hidden_size: Units of each direction.
        bidirectional: Also run backwards.
        recurrent_dropout: Share of the recurrent weights set to zero in training, drawn once per batch; 0 for minGRU
            and minLSTM, which have none.

    Source:
        S. Merity et al., "Regularizing and Optimizing LSTM Language Models", ICLR 2018 (dropout of recurrent weights).
    """

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, *, bidirectional: bool, recurrent_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.recurrent_dropout = recurrent_dropout
        self.hidden_size = hidden_size
        self.directions = nn.ModuleList(
            build_direction(cell, input_size, hidden_size) for _ in range(2 if bidirectional else 1)
        )
        self.output_size = hidden_size * len(self.directions)

    def forward(
        self, inputs: Tensor, lengths: Tensor, *, initial: Tensor, return_state: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Run over a batch.

        Args:
            inputs: (B, T, F); frames past a length are ignored (they must be finite).
            lengths: Valid frames, (B,), int64.
            initial: State before the first frame that each direction reads, (P, D, B, H).
            return_state: Also return the state after each utterance's last valid frame.

        Returns:
            Hidden state after every frame, (B, T, D·H), directions concatenated, undefined past a length; and the final
            state, (P, D, B, H), or None.
        """
        if inputs.shape[1] == 0:
            return inputs.new_zeros(len(inputs), 0, self.output_size), initial if return_state else None
        outputs, states = [], []
        for number, direction in enumerate(self.directions):
            sequence = reverse_within_lengths(inputs, lengths) if number == 1 else inputs
            output, state = self._run(direction, sequence, lengths, initial[:, number], return_state)
            outputs.append(reverse_within_lengths(output, lengths) if number == 1 else output)
            states.append(state)
        final = torch.stack(states, dim=1) if return_state else None
        return torch.cat(outputs, dim=-1), final

    def _run(
        self, direction: nn.Module, inputs: Tensor, lengths: Tensor, initial: Tensor, return_state: bool
    ) -> tuple[Tensor, Tensor]:
        is_lstm = self.cell == "lstm"
        first: Any = (initial[:1].contiguous(), initial[1:].contiguous()) if is_lstm else initial.contiguous()
        if not return_state:
            run = self.draw_weights(direction)
            output = _run_in_groups(run, inputs, first) if is_lstm and _is_half(inputs) else run(inputs, first)[0]
            return output, initial
        if is_lstm:  # its outputs lack the cell state: only packing gives that of each utterance's own end
            packed = pack_padded_sequence(inputs, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
            output, last = direction(packed, first)
            output, _ = pad_packed_sequence(output, batch_first=True, total_length=inputs.shape[1])
            final = torch.cat(last)
        else:
            output, _ = self.draw_weights(direction)(inputs, first)
            final = pick_last(output, lengths)[:, 0][None]
        return output, torch.where(move(lengths == 0, inputs.device)[None, :, None], initial, final)

    def draw_weights(self, direction: nn.Module) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
        """Draw recurrent dropout, in training.

        Args:
            direction: One of :attr:`directions`.

        Returns:
            The direction with these weights, called as a module of torch: sequences (B, T, F) and a state, to outputs
            and a state.
        """
        if not self.training or self.recurrent_dropout == 0.0:
            return partial(_train_gru, direction) if self.training and self.cell == "gru" else direction
        if isinstance(direction, ElementwiseRNN):
            kept = nn.functional.dropout(direction.weight_recurrent, self.recurrent_dropout)
            return partial(direction, weight_recurrent=kept)
        assert self.cell == "tanh" or self.cell == "gru" or self.cell == "lstm"  # others have no such weights
        weight_input, weight_recurrent, *biases = direction.parameters()
        kept = nn.functional.dropout(weight_recurrent, self.recurrent_dropout)
        return partial(run_with_weights, self.cell, weights=[weight_input, kept, *biases], is_training=True)


def _train_gru(direction: nn.Module, inputs: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """Run a GRU layer in training, on a CPU with the faster backward pass where that is one."""
    is_plain = inputs.dtype == torch.float32 and not inputs.is_cuda and not torch.is_autocast_enabled("cpu")
    if not is_plain or len(inputs) > _MOST_ROWS_OF_GRADIENT or not torch.is_grad_enabled():
        found: tuple[Tensor, Tensor] = direction(inputs, initial)
        return found
    from speechrnn.acoustic.gru_gradient import run_gru

    return run_gru(inputs, initial, list(direction.parameters()))


def _run_in_groups(
    run: Callable[[Tensor, Any], tuple[Tensor, Any]], inputs: Tensor, initial: tuple[Tensor, Tensor]
) -> Tensor:
    """Run an LSTM over groups of utterances that fit cuDNN's persistent kernels, padded with empty utterances.

    In float16 these kernels need a multiple of 8 utterances, at most 128, and units and inputs in multiples of 128.
    Forward and backward then took 1.9 instead of 8.7 ms for 32 utterances of 200 frames, 768 inputs and 384 units
    (one H200, torch 2.11, cuDNN 9.19).

    Source:
        NVIDIA cuDNN documentation, ``CUDNN_RNN_ALGO_PERSIST_STATIC``.
    """
    rows = len(inputs)
    groups = max(1, math.ceil(rows / _MOST_ROWS))
    size = 8 * max(1, math.ceil(rows / (8 * groups)))
    missing = groups * size - rows
    parts = nn.functional.pad(inputs, (0, 0, 0, 0, 0, missing)).split(size)
    states = [nn.functional.pad(state, (0, 0, 0, missing)).split(size, dim=1) for state in initial]
    outputs = [
        run(part, (first.contiguous(), second.contiguous()))[0]
        for part, first, second in zip(parts, *states, strict=True)
    ]
    return torch.cat(outputs)[:rows]


def _is_half(inputs: Tensor) -> bool:
    """Whether a GPU computes in float16, directly or through autocast."""
    if not inputs.is_cuda:
        return False
    return (torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else inputs.dtype) == torch.float16


class LockedDropout(nn.Dropout1d):
    """Dropout of the same units in all frames of an utterance.

    Source:
        Y. Gal and Z. Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
        NeurIPS 2016.
    """

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        if not self.training:
            return frames
        return super().forward(frames.transpose(1, 2)).transpose(1, 2)


class RecurrentStack(nn.Module):
    """Recurrent layers on top of each other, with normalisation, residual connections and dropout between them.

    Args:
        cell: Recurrence of every layer.
        input_size: Features per frame.
        hidden_size: Units of each direction of each layer.
        num_layers: Layers.
        bidirectional: Also run each layer backwards.
        dropout: As the other options, see :class:`speechrnn.acoustic.encoder.EncoderConfig`.
        initial_state: ``zero``, or ``learned``: one trained vector per layer and direction, shared by all utterances.
            An encoded state is passed with each call.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        locked_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = True,
        residual: bool = True,
        initial_state: Literal["zero", "learned"] = "zero",
    ) -> None:
        super().__init__()
        width = hidden_size * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                cell,
                input_size if i == 0 else width,
                hidden_size,
                bidirectional=bidirectional,
                recurrent_dropout=recurrent_dropout,
            )
            for i in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) if layer_norm else nn.Identity() for _ in range(num_layers))
        self.residual = residual
        self.dropout, self.input_dropout = (
            LockedDropout(share) if locked_dropout else nn.Dropout(share) for share in (dropout, input_dropout)
        )
        self.output_size = width
        self.state_shape = (num_layers, 2 if cell == "lstm" else 1, 2 if bidirectional else 1, hidden_size)
        self.initial_state = nn.Parameter(torch.zeros(self.state_shape)) if initial_state == "learned" else None

    def make_initial_state(self, batch_size: int, *, like: Tensor) -> Tensor:
        """The initial state, (L, P, D, B, H), with the device and type of ``like``."""
        layers, parts, directions, hidden = self.state_shape
        if self.initial_state is None:
            return like.new_zeros(layers, parts, directions, batch_size, hidden)
        return self.initial_state.to(like.dtype)[:, :, :, None].expand(-1, -1, -1, batch_size, -1)

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        return_state: bool = False,
        collect: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Run all layers over a batch.

        Args:
            inputs: (B, T, F).
            lengths: Valid frames, (B,), int64.
            state: Initial state, (L, P, D, B, H); None for the stack's own.
            return_state: Also return the state after each utterance's last valid frame.
            collect: Layers, counted from 1, whose outputs to return too.

        Returns:
            Outputs of the last layer, (B, T, D·H), zero past a length; the final state, (L, P, D, B, H), or None; and
            the outputs of the layers in ``collect``.
        """
        if state is None:
            state = self.make_initial_state(len(inputs), like=inputs)
        hidden, finals, collected = self.input_dropout(inputs), [], []
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            output, final = layer(hidden, lengths, initial=state[number], return_state=return_state)
            output = self.dropout(norm(output))
            hidden = output + hidden if self.residual and number > 0 else output
            finals.append(final)
            if number + 1 in collect:
                collected.append(hidden)
        return mask_padding(hidden, lengths), torch.stack(finals) if return_state else None, collected
