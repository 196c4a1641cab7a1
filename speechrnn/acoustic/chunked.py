"""A bidirectional stack over chunks of an utterance, each with a limited right context (latency-controlled).

Time is cut into chunks of C steps. Each is computed in a window, the chunk and the R steps after it: in every layer the
forward direction starts from its state after the chunk before, and the backward direction from the initial state at the
end of the window. A chunk's outputs therefore depend on all earlier steps and on at most R later ones, and each step is
computed (C + R) / C times.

Letters: B utterances; K chunks; W = C + R steps of a window; F features; L, P, D, H as in
:mod:`speechrnn.acoustic.recurrent`.

Source:
    Y. Zhang et al., "Highway long short-term memory RNNs for distant speech recognition", ICASSP 2016 (latency-
    controlled BLSTM); S. Xue and Z. Yan, "Improving latency-controlled BLSTM acoustic models for online speech
    recognition", ICASSP 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechrnn.acoustic.recurrent import RecurrentLayer, RecurrentStack, reverse_within_lengths
from speechrnn.types import mask_padding


@dataclass(frozen=True)
class Chunks:
    """How time is cut, in encoder steps.

    Attributes:
        steps: Length of a chunk, C, 1 or more.
        context_steps: Right context of a chunk, R, 0 or more.
    """

    steps: int
    context_steps: int

    @classmethod
    def from_seconds(cls, seconds: float, context_seconds: float, *, seconds_per_step: float) -> Chunks:
        """Round to steps, a chunk to one or more."""
        return cls(max(1, round(seconds / seconds_per_step)), round(context_seconds / seconds_per_step))


def run_in_chunks(
    stack: RecurrentStack,
    inputs: Tensor,
    lengths: Tensor,
    *,
    chunks: Chunks,
    state: Tensor | None = None,
    collect: Sequence[int] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Run all layers over a batch, chunk by chunk; with a chunk as long as the batch, the same as the stack itself.

    Args:
        stack: Bidirectional layers.
        inputs: (B, T, F); frames past a length are ignored (they must be finite).
        lengths: Valid frames, (B,), int64.
        chunks: How time is cut.
        state: Initial state, (L, P, 2, B, H); None for the stack's own. The backward directions' part is that at the
            end of each window.
        collect: Layers, counted from 1, whose outputs to return too.

    Returns:
        Outputs of the last layer, (B, T, 2·H), zero past a length, and the outputs of the layers in ``collect``.
    """
    num_steps = inputs.shape[1]
    if num_steps == 0:
        outputs, _, collected = stack(inputs, lengths, state=state, collect=collect)
        return outputs, collected
    own = min(chunks.steps, num_steps)
    width = own + min(chunks.context_steps, num_steps - own)
    if state is None:
        state = stack.make_initial_state(len(inputs), like=inputs)
    count = -(-num_steps // own)
    padding = (count - 1) * own + width - num_steps
    windows = nn.functional.pad(stack.input_dropout(inputs), (0, 0, 0, padding)).unfold(1, width, own).transpose(2, 3)
    starts = torch.arange(count, device=lengths.device) * own
    window_lengths = (lengths[:, None] - starts).clamp(0, width)  # (B, K)
    layers, _ = run_windows(stack, windows, window_lengths, own=own, state=state)
    wanted = [layers[number - 1][:, :, :own].flatten(1, 2)[:, :num_steps] for number in (len(layers), *collect)]
    return mask_padding(wanted[0], lengths), wanted[1:]


def run_windows(
    stack: RecurrentStack, windows: Tensor, lengths: Tensor, *, own: int, state: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Run all layers over successive windows.

    Args:
        stack: Bidirectional layers.
        windows: (B, K, W, F); each begins with the frames of its chunk.
        lengths: Valid frames of each window, (B, K), int64.
        own: Frames of a chunk, C.
        state: Initial state, (L, P, 2, B, H).

    Returns:
        The outputs of each layer, (B, K, W, 2·H), undefined past a length; and the state for the next window: the
        forward directions' after the last chunk, the backward directions' as given.
    """
    shape, hidden, layers, states = windows.shape[:3], windows, [], []
    for number, (layer, norm) in enumerate(zip(stack.layers, stack.norms, strict=True)):
        assert isinstance(layer, RecurrentLayer)
        output, forward_state = _run_layer(layer, hidden, lengths, own=own, initial=state[number])
        output = stack.dropout(norm(output).flatten(1, 2)).unflatten(1, shape[1:])  # locked over all windows
        hidden = output + hidden if stack.residual and number > 0 else output
        layers.append(hidden)
        states.append(torch.stack([forward_state, state[number][:, 1]], dim=1))
    return layers, torch.stack(states)


def _run_layer(
    layer: RecurrentLayer, windows: Tensor, lengths: Tensor, *, own: int, initial: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer's outputs (B, K, W, 2·H), and the forward direction's state after the last chunk, (P, B, H)."""
    forward, backward = (_Direction(layer, direction) for direction in layer.directions)
    count, state, outputs, states = windows.shape[1], initial[:, 0], [], []
    for number in range(count):
        output, state = forward.run(windows[:, number, :own], state)
        outputs.append(output)
        states.append(state)
    ahead = torch.stack(outputs, dim=1)
    if windows.shape[2] > own:  # the right contexts of all windows at once
        context, _ = forward.run(windows[:, :, own:].flatten(0, 1), torch.stack(states, dim=2).flatten(1, 2))
        ahead = torch.cat([ahead, context.unflatten(0, (-1, count))], dim=2)
    flat, flat_lengths = windows.flatten(0, 1), lengths.flatten()
    back, _ = backward.run(reverse_within_lengths(flat, flat_lengths), initial[:, 1].repeat_interleave(count, dim=1))
    back = reverse_within_lengths(back, flat_lengths).unflatten(0, (-1, count))
    return torch.cat([ahead, back], dim=-1), state


class _Direction:
    """One direction of a layer, its recurrent dropout drawn once; the state is one tensor."""

    def __init__(self, layer: RecurrentLayer, direction: nn.Module) -> None:
        self._call = layer.draw_weights(direction)
        self._is_lstm = layer.cell == "lstm"

    def run(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F) and (P, B, H) to outputs (B, T, H) and the state after the last frame, (P, B, H)."""
        state = state.contiguous()
        output, final = self._call(inputs, (state[:1], state[1:]) if self._is_lstm else state)
        return output, torch.cat(final) if self._is_lstm else final
