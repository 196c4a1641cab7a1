"""Whole models as ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from speechrnn.acoustic.model import AcousticModel
from speechrnn.export.encoder import add_encoder, check_encoder
from speechrnn.export.front_end import add_front_end, check_front_end
from speechrnn.export.graph import Graph
from speechrnn.export.recurrent import repeat_state


def build_graph(model: AcousticModel, *, int8: bool = False, metadata: Mapping[str, str] | None = None) -> bytes:
    """A model as one graph, from waveforms to log-probabilities.

    Inputs are ``waveforms`` (B, N), float32, at the model's rate, and ``lengths`` (B,), int64, their valid samples;
    outputs are ``log_probs`` (B, T', V), float32, and ``frames`` (B,), int64, their valid rows. A batch has at least
    one recording and one row of log-probabilities, even if no frame is valid.

    Args:
        model: The acoustic model.
        int8: Use 8-bit weights in LSTMs.
        metadata: Stored with the graph.

    Returns:
        A serialised ``ModelProto``.

    Raises:
        ConfigError: A setting of the model cannot be exported; the message names it.
        ModelError: The front end has no statistics.
    """
    return make_graph(model, int8=int8).build(metadata or {})


def make_graph(model: AcousticModel, *, int8: bool = False) -> Graph:
    """The graph of :func:`build_graph`, to be built with a description of it."""
    check_front_end(model.front_end)
    check_encoder(model.encoder)
    graph = Graph("speechrnn")
    waveforms = graph.input("waveforms", np.float32, ["batch", "samples"])
    lengths = graph.input("lengths", np.int64, ["batch"])
    features, frames = add_front_end(model.front_end, waveforms, lengths)
    state = repeat_state(graph, find_initial_state(model), waveforms.size(0))
    log_probs, frames, _ = add_encoder(model, features, frames, state=state, int8=int8)
    graph.output("log_probs", log_probs, ["batch", "frames", model.vocabulary_size])
    graph.output("frames", frames, ["batch"])
    return graph


def build_encoder_graph(model: AcousticModel, *, int8: bool = False) -> bytes:
    """The encoder and the head alone, for features that torch computes.

    Inputs are ``features`` (B, T, F), float32, zero past each length, with B and T at least 1; ``lengths`` (B,), int64;
    and ``state``, the initial one, (L, P, D, B, H), float32. Outputs are ``log_probs`` (B, T', V), ``frames`` (B,),
    int64, and ``final_state`` (L, P, D, B, H): after each utterance's last valid frame.

    Args:
        model: The acoustic model.
        int8: Use 8-bit weights in LSTMs.

    Returns:
        A serialised ``ModelProto``.

    Raises:
        ConfigError: A setting of the encoder cannot be exported; the message names it.
    """
    check_encoder(model.encoder)
    graph = Graph("speechrnn encoder")
    features = graph.input("features", np.float32, ["batch", "feature_frames", model.front_end.feature_size])
    lengths = graph.input("lengths", np.int64, ["batch"])
    layers, parts, directions, hidden = model.encoder.stack.state_shape
    shape: list[int | str] = [layers, parts, directions, "batch", hidden]
    state = graph.input("state", np.float32, shape)
    log_probs, frames, final = add_encoder(model, features, lengths, state=state, int8=int8)
    graph.output("log_probs", log_probs, ["batch", "frames", model.vocabulary_size])
    graph.output("frames", frames, ["batch"])
    graph.output("final_state", final, shape)
    return graph.build({})


def find_initial_state(model: AcousticModel) -> np.ndarray:
    """The state without a reference, (L, P, D, 1, H), float32."""
    like = torch.zeros(1, 0, model.front_end.feature_size, device=next(model.parameters()).device)
    with torch.inference_mode():
        state = model.encoder.make_initial_state(None, None, like=like)
    found: np.ndarray = state.detach().float().cpu().numpy()
    return found
