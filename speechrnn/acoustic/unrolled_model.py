"""Whole stacks and models step by step, on the written-out recurrences of :mod:`speechrnn.acoustic.unrolled`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import RecurrentLayer, RecurrentStack
from speechrnn.acoustic.unrolled import CellWeights, Unrolled, unroll
from speechrnn.padding import mask_padding, move
from speechrnn.types import Batch


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
    """Run a stack step by step, as it runs when it does not train (no dropout).

    Args:
        stack: Any recurrent stack.
        inputs: (B, T, F).
        lengths: Valid frames, (B,), int64.
        state: State to start from, (L, P, D, B, H); None for the stack's own.
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
        Its recurrent layers; log-probabilities (B, T', V); and their lengths (B,).
    """
    encoder = model.encoder
    with torch.no_grad():
        log_mels, lengths = model.front_end.log_mel(
            batch.waveforms, move(batch.waveform_lengths, batch.waveforms.device)
        )
        features = model.front_end.derive_features(log_mels, lengths, heard=batch.heard)
    frames, lengths = encoder.subsampling(features, lengths)
    if torch.is_grad_enabled() and not frames.requires_grad:  # frozen weights: the states are asked about all the same
        frames = frames.detach().requires_grad_()
    state = encoder.make_initial_state(None, None, like=features)
    layers = unroll_stack(encoder.stack, frames, lengths, state=state)
    frames, lengths = encoder.select_output(mask_padding(layers[-1].outputs, lengths), lengths)
    return layers, model.head(frames), lengths
