"""A unidirectional model as a graph for one chunk of a stream.

The graph takes a chunk of samples and caches, and returns the log-probabilities of the frames that the chunk completes,
and new caches. Joined, they are those of the whole recording. Every cache has a fixed shape and begins with zeros.

Positions are counted from the start of the recording, at each level: samples, feature frames, encoder frames. Rows that
lie before the start or after the end are computed like all others and then masked, so that a chunk of C encoder frames
always has C rows, the first of them as far back as later frames are needed. The recurrent layers skip the rows before
the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechrnn.acoustic.encoder import Convolution2d, FrameStacking, StridedConvolution
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.streaming import check_inputs
from speechrnn.errors import ConfigError
from speechrnn.export.build import find_initial_state
from speechrnn.export.encoder import (
    add_convolution,
    add_head,
    add_lookahead,
    add_map_convolution,
    add_map_projection,
    add_stack,
    ceil_divide,
    check_encoder,
)
from speechrnn.export.front_end import (
    add_cepstra,
    add_deltas,
    add_log_mels,
    add_sliding,
    add_statistics,
    check_front_end,
)
from speechrnn.export.graph import Graph, Value, mask

_UNKNOWN = 2**40  # frames of a recording whose end is not known
_CHUNK_SECONDS = 0.32


@dataclass
class _Caches:
    """The caches of a graph: declared as inputs, and given their new values as outputs.

    Attributes:
        described: Name, type and shape of each.
    """

    graph: Graph
    described: list[dict[str, Any]] = field(default_factory=list)
    _new: dict[str, Value] = field(default_factory=dict)

    def declare(self, name: str, dtype: type, shape: list[int]) -> Value:
        """Declare a cache, and return its old value."""
        self.described.append({"name": name, "dtype": np.dtype(dtype).name, "shape": shape})
        return self.graph.input(name, dtype, shape)

    def set(self, name: str, value: Value) -> None:
        """Set a cache's new value."""
        self._new[name] = value

    def hold(self, name: str, rows: Value, count: int, *sizes: int) -> Value:
        """Rows (1, n, …) with the last ``count`` rows before them, which are kept: (1, count + n, …)."""
        if count == 0:
            return rows
        joined = self.graph.add("Concat", self.declare(name, np.float32, [1, count, *sizes]), rows, axis=1)
        self.set(name, joined.cut(1, -count, 2**31))
        return joined

    def finish(self) -> None:
        """Declare the new values as outputs, in the order of the inputs."""
        for each in self.described:
            self.graph.output(f"next_{each['name']}", self._new[each["name"]], each["shape"])


@dataclass(frozen=True)
class _Plan:
    """Rows that each level of a model needs before its own, all in frames of that level.

    Attributes:
        hop: Samples from one feature frame to the next.
        factor: Feature frames per encoder frame.
        window: Feature frames by which the first complete one lies behind a chunk.
        reach: Feature frames on each side of a delta.
        delay: Feature frames by which encoder frames lie behind a chunk: a multiple of the factor.
        before: Feature frames before the first one of an encoder frame's own that it needs.
        after: Those after its first one.
        lookahead: Encoder frames after an output.
    """

    hop: int
    factor: int
    window: int
    reach: int
    delay: int
    before: int
    after: int
    lookahead: int

    @classmethod
    def of(cls, model: AcousticModel) -> _Plan:
        """The plan of a model."""
        config, encoder = model.front_end.config, model.encoder
        hop, factor = config.hop_length, encoder.config.subsampling_factor
        window, reach = -(-config.window_length // hop) - 1, config.deltas * config.delta_width
        before, after = encoder.subsampling.before, encoder.subsampling.after
        delay = factor * -(-max(0, window + reach + after - factor + 1) // factor)
        return cls(hop, factor, window, reach, delay, before, after, encoder.config.lookahead_frames)

    @property
    def flush_samples(self) -> int:
        """Samples of silence after a recording that complete its last frame."""
        return (self.delay + self.lookahead * self.factor) * self.hop


def check_step(model: AcousticModel) -> None:
    """Check that a model can be a graph for one chunk of a stream.

    Raises:
        ConfigError: A setting needs the whole recording, or cannot be exported; the message names it.
    """
    if model.encoder.config.bidirectional:
        raise ConfigError(
            "export: encoder.bidirectional true has no streaming graph, and none for latency-controlled streams; "
            "train with encoder.bidirectional false, or export without --streaming"
        )
    if model.front_end.config.normalization == "speaker":
        raise ConfigError(
            "export: front_end.normalization speaker has no streaming graph; train with corpus or sliding, or export "
            "without --streaming"
        )
    check_inputs(model)


def make_step_graph(model: AcousticModel, *, int8: bool = False) -> tuple[Graph, dict[str, Any]]:
    """A model as a graph for one chunk.

    Inputs are ``samples`` (1, S), float32, where S is a multiple of ``step_samples``; ``num_samples`` (1,), int64: all
    samples of the recording, -1 before its end is known; and the caches. Outputs are ``log_probs`` (1, R, V), the rows
    that follow those of the last call, and each cache's new value, named ``next_`` and its name.

    Args:
        model: The acoustic model.
        int8: Use 8-bit weights in LSTMs.

    Returns:
        The graph; and its description for :class:`speechrnn.export.metadata.Metadata`: ``step_samples``;
        ``chunk_samples``, a usual S; ``flush_samples``, the silence to add at the end; and ``caches`` with ``name``,
        ``dtype`` and ``shape``.

    Raises:
        ConfigError: A setting needs the whole recording, or cannot be exported; the message names it.
    """
    check_step(model)
    check_front_end(model.front_end)
    check_encoder(model.encoder)
    plan, graph = _Plan.of(model), Graph("speechrnn step")
    caches, config = _Caches(graph), model.front_end.config
    samples = graph.input("samples", np.float32, [1, "samples"])
    num_samples = graph.input("num_samples", np.int64, [1])
    position = caches.declare("position", np.int64, [1])
    caches.set("position", position + samples.size(1))
    known = (num_samples + (plan.hop - config.window_length)).at_least(0) / plan.hop
    ends = graph.add("Where", num_samples >= 0, known, np.array([_UNKNOWN]), dtype=np.int64)
    features = _add_features(model, caches, samples, position / plan.hop, ends)
    first = (position / plan.hop - plan.delay) / plan.factor  # of the encoder frames of this chunk; exact
    frames = _add_subsampling(model, caches, features, first=first, ends=ends)
    steps = ceil_divide(ends, plan.factor)
    hidden = mask(_add_stack(model, caches, frames, first, position, int8=int8), steps, 3, first=first)
    if plan.lookahead:
        held = caches.hold("outputs", hidden, plan.lookahead, model.encoder.output_size)
        hidden, first = add_lookahead(model.encoder, held), first - plan.lookahead
    rows = hidden.size(1)
    start, end = ((each - first).at_least(0).at_most(rows) for each in (first * 0, steps))
    graph.output("log_probs", add_head(model, hidden).cut(1, start, end), [1, "frames", model.vocabulary_size])
    caches.finish()
    step = plan.hop * plan.factor
    chunk = step * max(1, round(_CHUNK_SECONDS * config.sample_rate / step))
    sizes = {"step_samples": step, "chunk_samples": chunk, "flush_samples": plan.flush_samples}
    return graph, {**sizes, "caches": caches.described}


def _add_features(model: AcousticModel, caches: _Caches, samples: Value, now: Value, ends: Value) -> Value:
    """Samples of a chunk to as many feature frames, ``window + reach`` behind it; zero outside of the recording.

    Args:
        model: The acoustic model.
        caches: Of the graph.
        samples: (1, S).
        now: Feature frames before this chunk, (1,).
        ends: Frames of the recording, (1,).
    """
    front_end, plan = model.front_end, _Plan.of(model)
    config, graph = front_end.config, samples.graph
    held = caches.hold("samples_before", samples, plan.window * plan.hop)
    rows, first = add_cepstra(front_end, add_log_mels(front_end, held)), now - plan.window
    if plan.reach:
        count, size = rows.size(1), front_end.feature_size // (1 + config.deltas)
        rows, first = caches.hold("cepstra", rows, 2 * plan.reach, size), first - 2 * plan.reach
        places, last = graph.range(rows.size(1)) + first, (ends - 1).at_least(0)
        rows = add_deltas(front_end, rows, places, first=first, ends=last).cut(1, plan.reach, count + plan.reach)
        first = first + plan.reach
    rows = mask(rows, ends, 3, first=first)
    if config.normalization == "corpus":
        return mask(add_statistics(front_end, rows), ends, 3, first=first)
    if config.normalization == "none":
        return rows
    counts, window = graph.range(rows.size(1)) + first + 1, config.sliding_frames
    wide = caches.hold("unnormalized", rows, window, front_end.feature_size).cast(np.float64)
    scaled = add_sliding(wide, counts, window, held=window).cast(np.float32)
    return mask(scaled, ends, 3, first=first)


def _add_subsampling(model: AcousticModel, caches: _Caches, features: Value, *, first: Value, ends: Value) -> Value:
    """Feature frames of a chunk (1, C · factor, F) to its encoder frames (1, C, D)."""
    subsampling, plan = model.encoder.subsampling, _Plan.of(model)
    count = features.size(1)
    kept = plan.delay + plan.before - plan.window - plan.reach
    held = caches.hold("features", features, kept, model.front_end.feature_size)
    held = held.cut(1, 0, count + (plan.before + plan.after + 1 - plan.factor))
    if isinstance(subsampling, FrameStacking):
        return held.reshape(0, -1, subsampling.output_size)
    if isinstance(subsampling, StridedConvolution):
        return add_convolution(subsampling, held)
    return _add_maps(subsampling, held, first=first, ends=ends)


def _add_maps(subsampling: Convolution2d, held: Value, *, first: Value, ends: Value) -> Value:
    """Both convolutions over time and bands; what the second one sees outside of the recording is zero."""
    stride, second = subsampling.strides
    maps = add_map_convolution(subsampling, 0, held.unsqueeze(1), padded=False)
    kernel = subsampling.convolutions[1].get_parameter("weight").shape[2]
    start = first * second - kernel // 2
    maps = mask(maps.transpose(0, 2, 1, 3), ceil_divide(ends, stride), 4, first=start).transpose(0, 2, 1, 3)
    return add_map_projection(subsampling, add_map_convolution(subsampling, 1, maps, padded=False))


def _add_stack(
    model: AcousticModel, caches: _Caches, frames: Value, first: Value, position: Value, *, int8: bool
) -> Value:
    """The recurrent layers over the rows (1, C, D) that are not before the start: (1, C, H)."""
    stack, graph = model.encoder.stack, frames.graph
    layers, parts, directions, hidden_size = stack.state_shape
    state = caches.declare("state", np.float32, [layers, parts, directions, 1, hidden_size])
    state = graph.add("Where", position >= 1, state, find_initial_state(model), dtype=np.float32)
    count = frames.size(1)
    skipped = (first * -1).at_least(0).at_most(count)
    rows = graph.range(count)
    forward = graph.add("Gather", frames, (rows + skipped).at_most(count - 1), axis=1)
    hidden, final = add_stack(stack, forward.transpose(1, 0, 2), count - skipped, state=state, int8=int8)
    caches.set("state", final)
    return graph.add("Gather", hidden.transpose(1, 0, 2), (rows - skipped).at_least(0), axis=1)
