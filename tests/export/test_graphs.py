"""Exported graphs compute what the model computes."""

import numpy as np
import pytest
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.export.build import build_encoder_graph, build_graph
from speechrnn.export.metadata import start_session

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
        if model.encoder.stack.initial_state is not None:
            model.encoder.stack.initial_state.normal_()
        if model.encoder.reference is not None:
            model.encoder.reference.state.bias.normal_()
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
    for cell in ("gru", "lstm", "tanh", "elementwise")
    for bidirectional in (True, False)
]
CASES += [({"normalization": each, "num_coefficients": 13}, {}) for each in ("none", "utterance", "speaker", "sliding")]
CASES += [({"deltas": 2, "delta_width": 3}, {"subsampling_factor": 1}), ({"kind": "log_mel", "deltas": 1}, {})]
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


@pytest.mark.parametrize("encoder", [{"cell": "gru"}, {"cell": "lstm", "bidirectional": False}])
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
