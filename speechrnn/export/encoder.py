"""The encoder and the CTC head as a graph: subsampling, recurrent layers, look-ahead or final state, log-softmax."""

from __future__ import annotations

import numpy as np
from torch import nn

from speechrnn.acoustic.encoder import Convolution2d, Encoder, FrameStacking, StridedConvolution
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import RecurrentStack
from speechrnn.errors import ConfigError
from speechrnn.export.graph import Value, mask, pick
from speechrnn.export.recurrent import CELLS, add_layer


def check_encoder(encoder: Encoder) -> None:
    """Check that an encoder can be a graph.

    Raises:
        ConfigError: Its cell has no graph.
    """
    if encoder.config.cell not in CELLS:
        raise ConfigError(
            f"export: encoder.cell {encoder.config.cell} cannot be exported; use one of {', '.join(CELLS)}"
        )


def add_encoder(
    model: AcousticModel, features: Value, lengths: Value, *, state: Value | None, int8: bool
) -> tuple[Value, Value, Value]:
    """Features to log-probabilities.

    Args:
        model: The acoustic model.
        features: (B, T, F), float32, zero past each length; at least one frame.
        lengths: Valid frames, (B,), int64.
        state: Initial state, (L, P, D, B, H); None: zero.
        int8: Use 8-bit weights in LSTMs.

    Returns:
        Log-probabilities (B, T', V), their lengths (B,), int64, and the final state, (L, P, D, B, H).
    """
    encoder = model.encoder
    frames, steps = add_subsampling(encoder, features, lengths)
    hidden, final = add_stack(encoder.stack, frames.transpose(1, 0, 2), steps, state=state, int8=int8)
    hidden = mask(hidden.transpose(1, 0, 2), steps, 3)
    if encoder.lookahead is not None:
        padded = hidden.pad(1, 3, after=encoder.config.lookahead_frames)
        hidden = mask(add_lookahead(encoder, padded), steps, 3)
    elif encoder.config.output == "final_state":
        hidden, steps = _add_final_state(encoder, hidden, steps)
    return add_head(model, hidden), steps, final


def add_subsampling(encoder: Encoder, features: Value, lengths: Value) -> tuple[Value, Value]:
    """Features (B, T, F) and lengths (B,) to frames (B, T', D), zero past their lengths (B,)."""
    subsampling, factor = encoder.subsampling, encoder.config.subsampling_factor
    steps = ceil_divide(lengths, factor)
    if isinstance(subsampling, FrameStacking):
        total = ceil_divide(features.size(1), factor) * factor
        return features.pad(1, 3, after=total - features.size(1)).reshape(0, -1, subsampling.output_size), steps
    if isinstance(subsampling, StridedConvolution):
        return mask(add_convolution(subsampling, features.pad(1, 3, before=factor, after=factor)), steps, 3), steps
    maps = features.unsqueeze(1)  # (B, 1, T, F)
    for number, stride in enumerate(subsampling.strides):
        lengths = ceil_divide(lengths, stride)
        maps = add_map_convolution(subsampling, number, maps, padded=True)
        maps = mask(maps.transpose(0, 2, 1, 3), lengths, 4).transpose(0, 2, 1, 3)
    return mask(add_map_projection(subsampling, maps), steps, 3), steps


def ceil_divide(counts: Value, divisor: int) -> Value:
    """⌈count / divisor⌉ of whole numbers from 0."""
    return (counts + (divisor - 1)) / divisor


def add_convolution(subsampling: StridedConvolution, features: Value) -> Value:
    """The convolution over time with ReLU, without padding: (B, T, F) → (B, T', C)."""
    convolution, graph = subsampling.convolution, features.graph
    weights, bias = to_array(convolution.weight), to_array(convolution.bias)
    mapped = graph.add("Conv", features.transpose(0, 2, 1), weights, bias, strides=[subsampling.stride])
    return graph.add("Relu", mapped).transpose(0, 2, 1)


def add_map_convolution(subsampling: Convolution2d, number: int, maps: Value, *, padded: bool) -> Value:
    """One convolution over time and bands with ReLU, padded over bands, and maybe over time: (B, C, T, F)."""
    convolution = subsampling.convolutions[number]
    assert isinstance(convolution, nn.Conv2d)
    pads = [int(convolution.padding[0]) if padded else 0, int(convolution.padding[1])] * 2
    arrays = (to_array(convolution.weight), to_array(convolution.bias))
    return maps.graph.add("Relu", maps.graph.add("Conv", maps, *arrays, strides=list(convolution.stride), pads=pads))


def add_map_projection(subsampling: Convolution2d, maps: Value) -> Value:
    """Maps (B, C, T', F') to frames (B, T', D)."""
    projection = subsampling.projection
    flat = maps.transpose(0, 2, 1, 3).reshape(0, 0, projection.in_features)
    return flat @ to_array(projection.weight).T + to_array(projection.bias)


def add_stack(
    stack: RecurrentStack, inputs: Value, steps: Value, *, state: Value | None, int8: bool
) -> tuple[Value, Value]:
    """All recurrent layers, their normalisation and residual connections.

    Args:
        stack: The model's.
        inputs: (T', B, F).
        steps: Valid frames, (B,), int64.
        state: (L, P, D, B, H); None: zero.
        int8: Use 8-bit weights in LSTMs.

    Returns:
        (T', B, D · H), undefined past a length, and the final state, (L, P, D, B, H).
    """
    graph, hidden, finals = inputs.graph, inputs, []
    counts = steps.cast(np.int32)
    for number, (layer, norm) in enumerate(zip(stack.layers, stack.norms, strict=True)):
        initial = None if state is None else state.cut(0, number, number + 1).squeeze(0)
        output, final = add_layer(layer, hidden, counts, initial=initial, int8=int8)  # type: ignore[arg-type]
        if isinstance(norm, nn.LayerNorm):
            arrays = (to_array(norm.weight), to_array(norm.bias))
            output = graph.add("LayerNormalization", output, *arrays, axis=-1, epsilon=norm.eps)
        hidden = output + hidden if stack.residual and number > 0 else output
        finals.append(final.unsqueeze(0))
    return hidden, graph.add("Concat", *finals, axis=0)


def add_lookahead(encoder: Encoder, padded: Value) -> Value:
    """The look-ahead of frames that have all frames after them: (B, T' + C, D) → (B, T', D)."""
    assert encoder.lookahead is not None
    weights = to_array(encoder.lookahead.weight)
    mapped = padded.graph.add("Conv", padded.transpose(0, 2, 1), weights, group=encoder.output_size)
    return mapped.transpose(0, 2, 1)


def _add_final_state(encoder: Encoder, hidden: Value, steps: Value) -> tuple[Value, Value]:
    """Final state of each direction as a single frame, (B, 1, D · H), and whether there is one, (B,)."""
    size = encoder.config.resolved_hidden_size
    last = pick(hidden.cut(2, 0, size), (steps - 1).at_least(0).unsqueeze(1))
    is_there = steps.at_most(1)
    if encoder.config.bidirectional:
        first = hidden.cut(1, 0, 1).cut(2, size, 2 * size)
        last = hidden.graph.add("Concat", last, first, axis=2)
    return mask(last, is_there, 3), is_there


def add_head(model: AcousticModel, hidden: Value) -> Value:
    """Encoder frames (B, T', D) to log-probabilities (B, T', V)."""
    projection = model.head.projection
    scores = hidden @ to_array(projection.weight).T + to_array(projection.bias)
    return hidden.graph.add("LogSoftmax", scores, axis=-1)


def to_array(tensor: object) -> np.ndarray:
    """A parameter as a float32 array."""
    assert isinstance(tensor, nn.Parameter)
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array
