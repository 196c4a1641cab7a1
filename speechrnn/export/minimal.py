"""minGRU and minLSTM layers as graphs: the gates of all frames at once, then ONNX's Scan over time.

The equations are those of :mod:`speechrnn.acoustic.minimal`. Past a length the update gate is zero, so that the state
stays; the backward direction reads each recording reversed within its length.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from speechrnn.acoustic.minimal import MINIMAL_GATES, MinimalRNN
from speechrnn.acoustic.recurrent import RecurrentLayer
from speechrnn.export.graph import Value


def add_minimal_layer(
    layer: RecurrentLayer, inputs: Value, steps: Value, *, initial: Value | None
) -> tuple[Value, Value]:
    """One layer of scan cells; arguments and result as for :func:`speechrnn.export.recurrent.add_layer`."""
    graph, hidden, finals = inputs.graph, [], []
    for number, direction in enumerate(layer.directions):
        assert isinstance(direction, MinimalRNN)
        if initial is None:
            one = np.array([layer.hidden_size], dtype=np.int64)
            state = graph.add("Expand", np.zeros((), np.float32), graph.add("Concat", inputs.size(1), one, axis=0))
        else:
            state = initial.cut(1, number, number + 1).squeeze(0, 1)
        rows = _reverse(inputs, steps) if number == 1 else inputs
        states, final = _add_direction(direction, rows, steps, state)
        hidden.append(_reverse(states, steps) if number == 1 else states)
        finals.append(final.unsqueeze(0, 1))
    return graph.add("Concat", *hidden, axis=2), graph.add("Concat", *finals, axis=1)


def _reverse(rows: Value, steps: Value) -> Value:
    """Reverse each recording of (T', B, F) within its length."""
    return rows.graph.add("ReverseSequence", rows, steps.cast(np.int64), time_axis=0, batch_axis=1)


def _add_direction(direction: MinimalRNN, rows: Value, steps: Value, state: Value) -> tuple[Value, Value]:
    """(T', B, F) and a state (B, H) to the states (T', B, H) and the last one."""
    graph, size = rows.graph, direction.hidden_size
    weights, bias = (each.detach().float().cpu().numpy() for each in (direction.weight_input, direction.bias))
    blocks = rows @ weights.T + bias
    *gates, new = (blocks.cut(2, size * k, size * (k + 1)) for k in range(MINIMAL_GATES[direction.cell]))
    ratio = gates[0]
    if direction.cell == "minlstm":  # log σ(a) = -softplus(-a)
        ratio = graph.add("Softplus", gates[1] * -1.0) - graph.add("Softplus", gates[0] * -1.0)
    is_valid = graph.range(rows.size(0)).unsqueeze(1, 2) < steps.cast(np.int64).unsqueeze(0, 2)
    update = graph.add("Sigmoid", ratio) * is_valid.cast(np.float32)
    new = (new + 0.5).at_least(graph.add("Sigmoid", new))
    final, states = graph.add_many("Scan", state, update, new, outputs=2, body=_make_body(size), num_scan_inputs=2)
    return states, final


def _make_body(size: int) -> GraphProto:
    """One step: h + ζ ⊙ (ν - h)."""

    def declare(name: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])

    nodes = [
        helper.make_node("Sub", ["new", "before"], ["change"]),
        helper.make_node("Mul", ["update", "change"], ["scaled"]),
        helper.make_node("Add", ["before", "scaled"], ["after"]),
        helper.make_node("Identity", ["after"], ["row"]),
    ]
    inputs = [declare(name) for name in ("before", "update", "new")]
    return helper.make_graph(nodes, "step", inputs, [declare("after"), declare("row")])
