"""A builder of ONNX graphs: values with operators, constants stored once, shapes that stay dynamic.

Letters, in this package: B batch, N samples, T feature frames, F feature size, T' encoder frames, D directions,
H hidden units, V vocabulary with blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8
"""Taken by onnxruntime 1.13 and later, and by onnxruntime-web."""

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""


class Value:
    """A tensor of a graph. Numbers in arithmetic with it take its type.

    Attributes:
        graph: Where it is computed.
        name: Its name there.
        dtype: Type of its elements.
    """

    def __init__(self, graph: Graph, name: str, dtype: Any) -> None:
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)

    def __add__(self, other: Operand) -> Value:
        return self.graph.add("Add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.graph.add("Sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        return self.graph.add("Mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        """Divide; whole numbers are rounded towards zero."""
        return self.graph.add("Div", self, other)

    def __matmul__(self, other: Operand) -> Value:
        return self.graph.add("MatMul", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.graph.add("Less", self, other, dtype=bool)

    def __ge__(self, other: Operand) -> Value:
        return self.graph.add("GreaterOrEqual", self, other, dtype=bool)

    def __and__(self, other: Value) -> Value:
        return self.graph.add("And", self, other)

    def at_least(self, other: Operand) -> Value:
        """The larger of both, element by element."""
        return self.graph.add("Max", self, other)

    def at_most(self, other: Operand) -> Value:
        """The smaller of both, element by element."""
        return self.graph.add("Min", self, other)

    def cast(self, dtype: Any) -> Value:
        """The same in another type."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph.add("Cast", self, to=to, dtype=dtype)

    def size(self, axis: int) -> Value:
        """Its size along an axis, (1,), int64."""
        return self.graph.add("Shape", self, start=axis, end=axis + 1, dtype=np.int64)

    def transpose(self, *axes: int) -> Value:
        """With its axes in this order."""
        return self.graph.add("Transpose", self, perm=axes)

    def reshape(self, *shape: int) -> Value:
        """In another shape: 0 keeps a size, -1 takes what is left."""
        return self.graph.add("Reshape", self, np.array(shape, dtype=np.int64))

    def unsqueeze(self, *axes: int) -> Value:
        """With axes of size 1 at these places."""
        return self.graph.add("Unsqueeze", self, np.array(axes, dtype=np.int64))

    def squeeze(self, *axes: int) -> Value:
        """Without these axes, which have size 1."""
        return self.graph.add("Squeeze", self, np.array(axes, dtype=np.int64))

    def cut(self, axis: int, start: int | Value, end: int | Value) -> Value:
        """Elements from start to before end along an axis; the bounds are numbers or (1,), int64."""
        bounds = [each if isinstance(each, Value) else np.array([each], dtype=np.int64) for each in (start, end)]
        return self.graph.add("Slice", self, *bounds, np.array([axis], dtype=np.int64))

    def sum(self, axis: int) -> Value:
        """Its sum along an axis, which stays with size 1."""
        return self.graph.add("ReduceSum", self, np.array([axis], dtype=np.int64), keepdims=1)

    def pad(self, axis: int, rank: int, *, before: int | Value = 0, after: int | Value = 0) -> Value:
        """With zeros before and after along an axis of this rank; numbers or (1,), int64."""
        zero = np.zeros(1, dtype=np.int64)
        widths: list[Any] = [zero] * (2 * rank)
        for place, width in ((axis, before), (rank + axis, after)):
            widths[place] = width if isinstance(width, Value) else np.array([width], dtype=np.int64)
        pads = self.graph.add("Concat", *widths, axis=0, dtype=np.int64)
        return self.graph.add("Pad", self, pads)


Operand = Value | np.ndarray | float


class Graph:
    """Collects the nodes, constants, inputs and outputs of a graph.

    Args:
        name: Of the graph.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self.int8_weights = 0

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> Value:
        """Declare an input; a size that is a name is dynamic."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return Value(self, name, dtype)

    def output(self, name: str, value: Value, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, array: np.ndarray) -> Value:
        """Store an array; an equal one is stored once."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return Value(self, self._constants[key].name, array.dtype)

    def add(self, op: str, *inputs: Operand | None, dtype: Any = None, domain: str = "", **attributes: Any) -> Value:
        """Add a node with one output.

        Args:
            op: Operator.
            *inputs: Values, arrays, numbers of the first value's type; None for one that is left out.
            dtype: Type of the output; None: that of the first value.
            domain: Of the operator.
            **attributes: Of the operator.
        """
        return self.add_many(op, *inputs, outputs=1, dtype=dtype, domain=domain, **attributes)[0]

    def add_many(
        self, op: str, *inputs: Operand | None, outputs: int, dtype: Any = None, domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Add a node with several outputs of one type; arguments as for :meth:`add`."""
        own = next((each.dtype for each in inputs if isinstance(each, Value | np.ndarray)), np.dtype(np.float32))
        names = [self._name_input(each, own) for each in inputs]
        made = [f"{op.lower()}_{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(op, names, made, domain=domain, **attributes))
        return [Value(self, name, own if dtype is None else dtype) for name in made]

    def _name_input(self, value: Operand | None, dtype: np.dtype) -> str:
        if value is None:
            return ""
        if isinstance(value, Value):
            return value.name
        return self.constant(value if isinstance(value, np.ndarray) else np.array(value, dtype=dtype)).name

    def range(self, size: Value) -> Value:
        """0, 1, 2 … size - 1, int64; the size is (1,)."""
        # Not Range: onnxruntime's shape inference refuses a size that it knows.
        return self.add("CumSum", self.add("Expand", np.ones(1, dtype=np.int64), size), np.array(0)) - 1

    def build(self, metadata: Mapping[str, str]) -> bytes:
        """The model as a serialised ``ModelProto``, checked."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="speechrnn")
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model.SerializeToString()


def mask(values: Value, lengths: Value, rank: int, *, first: Value | None = None) -> Value:
    """Set what lies outside of each sequence to zero, NaN too.

    Args:
        values: (B, T, …), of this rank.
        lengths: Valid positions of each, (B,), int64.
        rank: Number of axes.
        first: Position of the first row, (1,), int64, maybe below 0; None: 0.
    """
    is_valid = mark_valid(values, lengths, first=first).unsqueeze(*range(2, rank))
    zero = np.zeros((), dtype=values.dtype)
    return values.graph.add("Where", is_valid, values, zero, dtype=values.dtype)


def mark_valid(values: Value, lengths: Value, *, first: Value | None = None) -> Value:
    """Mark the positions within each sequence, (B, T), bool; arguments as for :func:`mask`."""
    places = values.graph.range(values.size(1))
    if first is None:
        return places.unsqueeze(0) < lengths.unsqueeze(1)
    places = (places + first).unsqueeze(0)
    return (places < lengths.unsqueeze(1)) & (places >= 0)


def pick(values: Value, places: Value) -> Value:
    """Rows of each sequence: (B, T, F) and positions (B, M), int64 → (B, M, F)."""
    return values.graph.add("GatherND", values, places.unsqueeze(2), batch_dims=1)
