"""Exported graphs compute what the model computes."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import cut_at_random

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError
from speechrnn.export.build import build_encoder_graph, build_graph
from speechrnn.export.metadata import Metadata, start_session
from speechrnn.export.running import ExportedStream
from speechrnn.export.streaming import make_step_graph

LENGTHS = np.array([12000, 7001, 150, 4000])
TOLERANCE = 1e-4


def make_model(front_end: dict, encoder: dict) -> AcousticModel:
    torch.manual_seed(0)
    config = FrontEndConfig(**{"sample_rate": 8000, "normalization": "corpus", **front_end})
    model = AcousticModel(config, EncoderConfig(**{"hidden_size": 12, "num_layers": 2, **encoder}), 11).eval()
    size = model.front_end.feature_size
    if config.has_statistics:
        model.front_end.set_statistics(torch.linspace(-8, 2, size), torch.linspace(1, 4, size))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and initial states too
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def waveforms() -> np.ndarray:
    """Four recordings of other lengths; what follows each is not silence."""
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((4, 12000)) * rng.uniform(0, 1, (4, 12000))).astype(np.float32)


def find_difference(log_probs: np.ndarray, expected: torch.Tensor, frames: np.ndarray) -> float:
    return max(float(np.abs(log_probs[i, :n] - expected[i, :n].numpy()).max()) for i, n in enumerate(frames) if n)


CASES = [
    ({}, {"cell": cell, "bidirectional": bidirectional})
    for cell in ("gru", "lstm", "tanh", "elementwise", "mingru", "minlstm")
    for bidirectional in (True, False)
]
CASES += [({"normalization": each, "num_coefficients": 13}, {}) for each in ("none", "utterance", "speaker", "sliding")]
CASES += [
    ({"deltas": 2, "delta_width": 3, "normalization": "utterance"}, {"subsampling_factor": 1}),
    ({"kind": "log_mel", "deltas": 1}, {}),
]
CASES += [
    ({"kind": "log_mel", "n_mels": 20}, {"subsampling": kind, "subsampling_factor": factor, "subsampling_channels": 5})
    for kind in ("stack", "convolution", "convolution_2d")
    for factor in (3, 4)
]
CASES += [
    ({}, {"initial_state": "learned", "cell": "lstm", "layer_norm": False}),
    ({}, {"initial_state": "encoded", "residual": False}),
    ({"n_fft": 300, "window_seconds": 0.031}, {"bidirectional": False, "lookahead_frames": 5}),
    ({}, {"output": "final_state"}),
    ({}, {"output": "final_state", "cell": "lstm", "bidirectional": False}),
]


@pytest.mark.parametrize(("front_end", "encoder"), CASES)
def test_a_graph_has_the_log_probabilities_of_the_model_for_each_recording_of_a_batch(front_end, encoder, waveforms):
    model = make_model(front_end, encoder)
    expected = model(torch.from_numpy(waveforms), torch.from_numpy(LENGTHS))
    session = start_session(build_graph(model), threads=1, where="graph")
    log_probs, frames = session.run(None, {"waveforms": waveforms, "lengths": LENGTHS})
    assert frames.tolist() == expected.lengths.tolist()
    assert find_difference(log_probs, expected.log_probs, frames) < TOLERANCE


@pytest.mark.parametrize("encoder", [{"cell": "gru"}, {"cell": "mingru"}, {"cell": "lstm", "bidirectional": False}])
def test_an_encoder_continues_from_a_state_and_returns_the_next(encoder, waveforms):
    model = make_model({}, encoder)
    features, lengths = model.front_end(torch.from_numpy(waveforms), torch.from_numpy(LENGTHS))
    layers, parts, directions, hidden = model.encoder.stack.state_shape
    state = torch.randn(layers, parts, directions, len(LENGTHS), hidden)
    frames, expected_lengths, final, _ = model.encoder(features, lengths, state=state, return_state=True)
    session = start_session(build_encoder_graph(model), threads=1, where="graph")
    inputs = {"features": features.numpy(), "lengths": lengths.numpy(), "state": state.numpy()}
    log_probs, got_lengths, got_final = session.run(None, inputs)
    assert got_lengths.tolist() == expected_lengths.tolist()
    assert find_difference(log_probs, model.head(frames), got_lengths) < TOLERANCE
    np.testing.assert_allclose(got_final, final.numpy(), atol=TOLERANCE)


STREAMS = [
    ({}, {"cell": "gru", "lookahead_frames": 2}),
    ({}, {"cell": "lstm", "initial_state": "learned", "subsampling_factor": 3}),
    ({}, {"cell": "minlstm", "initial_state": "learned"}),
    ({"kind": "log_mel", "deltas": 2, "normalization": "none"}, {"cell": "tanh", "subsampling_factor": 1}),
    ({"normalization": "sliding", "normalization_seconds": 0.4}, {"subsampling": "convolution", "lookahead_frames": 3}),
    (
        {"kind": "log_mel", "n_mels": 20, "deltas": 1},
        {"subsampling": "convolution_2d", "subsampling_factor": 4, "subsampling_channels": 5},
    ),
    ({"window_seconds": 0.008, "hop_seconds": 0.01, "n_mels": 20, "num_coefficients": 13, "n_fft": 256}, {}),
]


@pytest.mark.parametrize(("front_end", "encoder"), STREAMS)
def test_the_steps_of_a_stream_have_the_log_probabilities_of_the_whole(front_end, encoder, waveforms):
    model = make_model(front_end, {**encoder, "bidirectional": False})
    whole = start_session(build_graph(model), threads=1, where="graph")
    graph, about = make_step_graph(model)
    session = start_session(graph.build({}), threads=1, where="graph")
    metadata = Metadata(
        **{field.name: None for field in dataclasses.fields(Metadata)} | {"stream": about, "symbols": 11 * ["a"]}
    )
    for size, pieces in ((12000, [12000]), (9001, [1, 50, 333, 1500]), (777, [160]), (201, [100]), (5, [5])):
        samples = waveforms[0, :size]
        expected, frames = whole.run(None, {"waveforms": samples[None], "lengths": np.array([size])})
        stream = ExportedStream(session, metadata)
        rows = [stream.feed(piece) for piece in cut_at_random(samples, pieces)]
        found = np.concatenate([*rows, stream.finish()])
        assert found.shape == (frames[0], 11)
        np.testing.assert_allclose(found, expected[0, : frames[0]], atol=TOLERANCE)
        if size == 9001:
            assert sum(map(len, rows)) >= frames[0] - 2 - about["flush_samples"] // about["step_samples"]


@pytest.mark.parametrize(
    ("front_end", "encoder", "setting"),
    [
        ({}, {"bidirectional": True}, "encoder.bidirectional true"),
        ({"normalization": "speaker"}, {}, "front_end.normalization speaker"),
        ({"normalization": "utterance"}, {}, "front_end.normalization utterance"),
        ({}, {"output": "final_state"}, "encoder.output final_state"),
    ],
)
def test_a_setting_that_needs_the_whole_recording_is_named(front_end, encoder, setting):
    model = make_model(front_end, {"bidirectional": False, **encoder})
    with pytest.raises(ConfigError, match=f"{setting} .*"):
        make_step_graph(model)
