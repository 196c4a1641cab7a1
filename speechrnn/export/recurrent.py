"""Recurrent layers as ONNX operators: RNN, GRU, LSTM, or onnxruntime's LSTM with 8-bit weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from speechrnn.acoustic.minimal import MINIMAL_GATES
from speechrnn.acoustic.recurrent import RecurrentLayer
from speechrnn.acoustic.unrolled import CellWeights
from speechrnn.export.graph import MICROSOFT, Graph, Value
from speechrnn.export.minimal import add_minimal_layer

_GATES = {"tanh": [0], "elementwise": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Position in torch of each gate in ONNX's order: a GRU's update, reset, new; an LSTM's input, output, forget, cell."""

_OPERATORS = {"tanh": "RNN", "elementwise": "RNN", "gru": "GRU", "lstm": "LSTM"}
CELLS = (*_OPERATORS, *MINIMAL_GATES)
LARGEST_INT8 = 63
"""Of a rounded weight: without VNNI, two products of 8 bits are added in 16 bits, too few for 2 · 255 · 127."""


def add_layer(
    layer: RecurrentLayer, inputs: Value, steps: Value, *, initial: Value | None, int8: bool
) -> tuple[Value, Value]:
    """One recurrent layer, in one or two directions.

    Args:
        layer: The model's.
        inputs: (T', B, F), float32.
        steps: Valid frames, (B,), int32.
        initial: State before the first frame that each direction reads, (P, D, B, H); None: zero.
        int8: Use 8-bit weights, if it is an LSTM.

    Returns:
        Hidden states (T', B, D · H), zero past a length; and the final state, (P, D, B, H).

    Source:
        ONNX operators RNN, GRU and LSTM; DynamicQuantizeLSTM of onnxruntime's contributed operators. torch's GRU
        applies the reset gate after the product: ``linear_before_reset=1``.
    """
    if layer.cell in MINIMAL_GATES:
        return add_minimal_layer(layer, inputs, steps, initial=initial)
    graph, directions = inputs.graph, len(layer.directions)
    parts = 2 if layer.cell == "lstm" else 1
    w, r, b = _gather_weights(layer)
    states = [None, None] if initial is None else [initial.cut(0, part, part + 1).squeeze(0) for part in range(parts)]
    settings: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if layer.cell == "gru":
        settings["linear_before_reset"] = 1
    if int8 and layer.cell == "lstm":
        (w8, w_scale), (r8, r_scale) = quantize(w), quantize(r)
        graph.int8_weights += w8.size + r8.size
        zeros = np.zeros(w_scale.shape, dtype=np.int8)
        quantized = [inputs, w8, r8, b, steps, *states, None, w_scale, zeros, r_scale, zeros]
        outputs = graph.add_many("DynamicQuantizeLSTM", *quantized, outputs=3, domain=MICROSOFT, **settings)
    else:
        plain = [inputs, w, r, b, steps, *states[:parts]]
        outputs = graph.add_many(_OPERATORS[layer.cell], *plain, outputs=1 + parts, **settings)
    hidden, *final = outputs  # (T', D, B, H)
    hidden = hidden.squeeze(1) if directions == 1 else hidden.transpose(0, 2, 1, 3).reshape(0, 0, layer.output_size)
    last = graph.add("Concat", *(each.unsqueeze(0) for each in final), axis=0)
    if initial is not None:  # onnxruntime's final state of an empty utterance is zero
        last = graph.add("Where", (steps >= 1).unsqueeze(0, 1, 3), last, initial, dtype=np.float32)
    return hidden, last


def _gather_weights(layer: RecurrentLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input weights (D, G · H, F), recurrent weights (D, G · H, H) and biases (D, 2 · G · H) in ONNX's order."""
    order, found = _GATES[layer.cell], []
    for direction in layer.directions:
        weights = CellWeights.of(direction)
        recurrent = weights.weight_recurrent
        recurrent = torch.diag(recurrent) if recurrent.ndim == 1 else recurrent
        tensors = (weights.weight_input, recurrent, weights.bias_input, weights.bias_recurrent)
        gates = [
            tensor.detach().float().cpu().numpy().reshape(len(order), layer.hidden_size, -1)[order]
            for tensor in tensors
        ]
        w, r, *biases = (gate.reshape(len(order) * layer.hidden_size, -1) for gate in gates)
        found.append((w, r, np.concatenate(biases)[:, 0]))
    w, r, b = (np.stack(each) for each in zip(*found, strict=True))
    return w, r, b


def quantize(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round weights to whole numbers from -63 to 63, with a scale for each row.

    Args:
        weights: (D, rows, columns), float32.

    Returns:
        The rounded weights transposed, (D, columns, rows), int8; and the scales, (D, rows), float32.
    """
    scale = np.maximum(np.abs(weights).max(axis=2), 1e-12) / LARGEST_INT8
    rounded = np.rint(weights / scale[:, :, None]).astype(np.int8)
    return np.ascontiguousarray(rounded.transpose(0, 2, 1)), scale.astype(np.float32)


def repeat_state(graph: Graph, state: np.ndarray, batch: Value) -> Value | None:
    """A state (L, P, D, 1, H) for each utterance of a batch, (L, P, D, B, H); None if it is zero."""
    if not state.any():
        return None
    one = np.ones(1, dtype=np.int64)
    shape = graph.add("Concat", one, one, one, batch, one, axis=0, dtype=np.int64)
    return graph.add("Expand", state, shape)
