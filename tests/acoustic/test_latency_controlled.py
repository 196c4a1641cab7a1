"""Latency-controlled streams: the log-probabilities of the whole recording in chunks, however the audio is cut."""

import numpy as np
import pytest
import torch

from speechrnn.acoustic.chunked import Chunks
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.latency_controlled import LatencyControlledAcoustics
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError

CHUNKS = Chunks(5, 3)


def make_model(normalization="sliding", **encoder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        front_end = FrontEndConfig(
            sample_rate=8000, n_mels=12, num_coefficients=7, deltas=1, normalization=normalization
        )
        config = EncoderConfig(**{"hidden_size": 10, "num_layers": 2, **encoder})
        model = AcousticModel(front_end, config, 9).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            if front_end.has_statistics:
                size = model.front_end.feature_size
                model.front_end.set_statistics(torch.randn(size), 1 + torch.rand(size))
    return model


def run_whole(model, samples, chunks, **options):
    with torch.inference_mode():
        emission = model(samples[None], torch.tensor([len(samples)]), chunks=chunks, **options)
    return emission.log_probs[0, : int(emission.lengths[0])]


def run_stream(model, samples, sizes, chunks, **options):
    stream, rng, parts, at = (
        LatencyControlledAcoustics(model, chunks=chunks, **options),
        np.random.default_rng(0),
        [],
        0,
    )
    while at < len(samples):
        size = int(rng.choice(sizes))
        parts.append(stream.feed(samples[at : at + size]))
        at += size
    result = torch.cat([*parts, stream.finish()])
    assert stream.num_frames == len(result)
    return result


@pytest.fixture(scope="module")
def samples(make_recording):
    return torch.from_numpy(make_recording(0.913, seed=5))


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
@pytest.mark.parametrize("chunks", [CHUNKS, Chunks(1, 0), Chunks(7, 20), Chunks(400, 3)])
def test_a_stream_equals_the_whole_recording_in_chunks(samples, cell, chunks):
    model = make_model(cell=cell)
    expected = run_whole(model, samples, chunks)
    for sizes in ([80, 81, 0], [len(samples)], [800, 3000]):
        torch.testing.assert_close(run_stream(model, samples, sizes, chunks), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("normalization", "encoder"),
    [
        ("corpus", {"subsampling": "convolution", "subsampling_factor": 3}),
        ("sliding", {"subsampling": "convolution_2d", "subsampling_factor": 4}),
        ("none", {"initial_state": "learned", "num_layers": 3}),
        ("none", {"initial_state": "encoded"}),
    ],
)
def test_other_models_stream_as_well(samples, normalization, encoder):
    model = make_model(normalization, **encoder)
    expected = run_whole(model, samples, CHUNKS)
    torch.testing.assert_close(run_stream(model, samples, [123], CHUNKS), expected, atol=1e-5, rtol=0)


def test_a_stream_starts_from_a_given_state(samples):
    model, state = make_model(cell="lstm"), torch.randn(2, 2, 2, 10)
    expected = run_whole(model, samples, CHUNKS, state=state[:, :, :, None])
    torch.testing.assert_close(run_stream(model, samples, [500], CHUNKS, state=state), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [0, 3])
def test_the_delay_is_the_longest_time_that_a_frame_waits(samples, context):
    model = make_model()
    stream = LatencyControlledAcoustics(model, chunks=Chunks(5, context))
    waited = round(stream.delay_seconds * 8000)
    assert len(stream.feed(samples[: waited - 1])) == 0
    assert len(stream.feed(samples[waited - 1 : waited])) == 5
    assert stream.delay_seconds < (5 + context) * model.seconds_per_step + 0.05


def test_what_a_stream_holds_does_not_grow(samples):
    stream = LatencyControlledAcoustics(make_model(), chunks=CHUNKS)
    for piece in samples.repeat(4).split(1000):
        stream.feed(piece)
        assert stream._held.shape[1] < CHUNKS.steps + CHUNKS.context_steps
        assert stream._held.untyped_storage().nbytes() == 4 * stream._held.numel()


@pytest.mark.parametrize("length", [0, 1, 199, 200, 201])
def test_a_recording_of_one_frame_or_none(samples, length):
    model = make_model()
    expected = run_whole(model, samples[:length], CHUNKS)
    torch.testing.assert_close(run_stream(model, samples[:length], [7], CHUNKS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("normalization", "encoder", "message"),
    [
        ("none", {"bidirectional": False}, "latency_controlled: a unidirectional model streams exactly without it"),
        ("utterance", {}, "front_end.normalization utterance needs the whole recording"),
        ("none", {"output": "final_state"}, "encoder.output final_state needs the whole recording"),
    ],
)
def test_models_that_cannot_stream_are_refused(normalization, encoder, message):
    with pytest.raises(ConfigError, match=message):
        LatencyControlledAcoustics(make_model(normalization, **encoder), chunks=CHUNKS)
