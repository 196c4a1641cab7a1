"""Streams of unidirectional models: the log-probabilities of the whole recording, however it is cut."""

import pytest
import torch
from conftest import cut_at_random

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.streaming import BufferedStep, StreamingAcoustics, feed_together
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError

VOCABULARY = 9
FRONT_END = {"sample_rate": 8000, "n_mels": 12, "num_coefficients": 7, "normalization": "sliding"}
ENCODER = {"cell": "gru", "hidden_size": 10, "num_layers": 2, "bidirectional": False, "lookahead_frames": 3}


def make_model(front_end=None, encoder=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AcousticModel(
            FrontEndConfig(**{**FRONT_END, **(front_end or {})}),
            EncoderConfig(**{**ENCODER, **(encoder or {})}),
            VOCABULARY,
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            if model.front_end.config.has_statistics:
                model.front_end.set_statistics(
                    torch.randn(model.front_end.feature_size), 1 + torch.rand(model.front_end.feature_size)
                )
    return model


def run_whole(model, samples, **options):
    if options.get("speaker_stats") is not None:
        options["speaker_stats"] = options["speaker_stats"][None]
    if options.get("state") is not None:
        options["state"] = options["state"][:, :, :, None]
    with torch.inference_mode():
        emission = model(samples[None], torch.tensor([len(samples)]), **options)
    return emission.log_probs[0, : int(emission.lengths[0])]


def run_stream(model, samples, sizes, **options):
    stream = StreamingAcoustics(model, **options)
    parts = [stream.feed(piece) for piece in cut_at_random(samples, sizes)]
    return torch.cat([*parts, stream.finish()])


@pytest.fixture(scope="module")
def samples(make_recording):
    return torch.from_numpy(make_recording(0.913, seed=5))


@pytest.mark.parametrize(
    ("front_end", "encoder"),
    [
        *(({}, {"cell": cell}) for cell in ("tanh", "elementwise", "gru", "lstm", "mingru", "minlstm")),
        ({}, {"cell": "lstm", "layer_norm": False, "residual": False, "lookahead_frames": 0}),
        *(
            ({"kind": "log_mel"}, {"subsampling": kind, "subsampling_factor": factor})
            for kind in ("stack", "convolution", "convolution_2d")
            for factor in (1, 2, 3, 4, 8)
        ),
        *(
            ({"deltas": deltas, "delta_width": width}, {})
            for deltas, width in ((1, 1), (1, 3), (2, 2), (2, 5))
        ),
        ({"normalization": "none"}, {}),
        ({"normalization": "corpus", "deltas": 2}, {"subsampling": "convolution", "lookahead_frames": 20}),
        ({"normalization_seconds": 0.05, "deltas": 1}, {}),
        ({"normalization_seconds": 60.0}, {"lookahead_frames": 1}),
        ({"window_seconds": 0.01, "hop_seconds": 0.013}, {}),
        ({"window_seconds": 0.02, "hop_seconds": 0.003, "n_fft": 512}, {"subsampling_factor": 5}),
        ({}, {"initial_state": "learned"}),
        ({}, {"initial_state": "encoded"}),
    ],
)  # fmt: skip
def test_a_stream_gives_the_log_probs_of_the_whole_recording(samples, front_end, encoder):
    model = make_model(front_end, encoder)
    expected = run_whole(model, samples)
    assert len(expected) == model.count_frames(len(samples)) > 10
    found = run_stream(model, samples, [0, 1, 80, 333, 3001])
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["stack", "convolution", "convolution_2d"])
def test_single_samples_give_the_same(samples, kind):
    model = make_model({"kind": "log_mel", "deltas": 2}, {"subsampling": kind, "subsampling_factor": 4})
    samples = samples[:1000]
    torch.testing.assert_close(run_stream(model, samples, [1]), run_whole(model, samples), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["stack", "convolution", "convolution_2d"])
@pytest.mark.parametrize("deltas", [0, 1])
def test_recordings_of_every_length_end_alike(samples, kind, deltas):
    model = make_model({"kind": "log_mel", "deltas": deltas}, {"subsampling": kind, "subsampling_factor": 4})
    for size in [0, 1, 199, 200, 201, *range(270, 1100, 80)]:
        expected = run_whole(model, samples[:size])
        found = run_stream(model, samples[:size], [170])
        assert len(found) == model.count_frames(size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_speakers_state_and_statistics_are_used(samples):
    model = make_model({"normalization": "speaker", "deltas": 1}, {"cell": "lstm"})
    options = {
        "state": torch.randn(model.encoder.stack.state_shape),
        "speaker_stats": torch.cat([torch.tensor([70.0]), torch.randn(model.front_end.feature_size)]),
    }
    expected = run_whole(model, samples, **options)
    torch.testing.assert_close(run_stream(model, samples, [1000], **options), expected, atol=1e-5, rtol=0)


def test_loud_and_silent_parts_do_not_disturb_sliding_normalisation():
    quiet = torch.zeros(16000)
    samples = torch.cat([quiet, 0.9 * torch.sin(torch.arange(16000) / 3), quiet, 1e-4 * torch.randn(8000)])
    model = make_model({"normalization_seconds": 0.3})
    torch.testing.assert_close(run_stream(model, samples, [800]), run_whole(model, samples), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
def test_streams_that_advance_together_do_not_disturb_each_other(make_recording, cell):
    model = make_model({"deltas": 1}, {"cell": cell, "subsampling": "convolution"})
    recordings = [torch.from_numpy(make_recording(seconds, seed=seed)) for seed, seconds in enumerate((0.3, 1.0, 1.7))]
    streams = [StreamingAcoustics(model) for _ in recordings]
    pieces = [list(cut_at_random(samples, [0, 90, 500, 1100], seed)) for seed, samples in enumerate(recordings)]
    found = [[] for _ in recordings]
    for turn in range(max(map(len, pieces))):
        now = [piece[turn] if turn < len(piece) else torch.zeros(0) for piece in pieces]
        for parts, part in zip(found, feed_together(streams, now), strict=True):
            parts.append(part)
    for stream, parts, samples in zip(streams, found, recordings, strict=True):
        whole = run_whole(model, samples)
        torch.testing.assert_close(torch.cat([*parts, stream.finish()]), whole, atol=1e-5, rtol=0)
        assert stream.num_frames == len(whole)


def test_no_frame_is_returned_later_than_the_delay_says(samples):
    model = make_model({"deltas": 2}, {"subsampling": "convolution", "subsampling_factor": 2})
    stream = StreamingAcoustics(model)
    for at in range(0, 3000, 10):
        stream.feed(samples[at : at + 10])
        fed, known = (at + 10) / 8000, stream.num_frames * model.seconds_per_frame
        assert known + stream.delay_seconds > fed  # the next frame lacks a sample
        assert known == 0 or known - model.seconds_per_frame + stream.delay_seconds <= fed + 1e-9


def test_neither_work_nor_memory_of_a_chunk_grows_with_the_stream():
    model = make_model({"deltas": 1, "normalization_seconds": 0.5}, {"subsampling": "convolution"})
    stream, chunk = StreamingAcoustics(model), torch.randn(800) / 10
    steps = [*stream._inputs._steps, stream._lookahead]
    worked = []
    for step in steps:
        step._run = lambda inputs, lengths, run=step._run: worked.append(inputs.shape[1]) or run(inputs, lengths)

    def measure():
        worked.clear()
        for _ in range(4):
            stream.feed(chunk)
        held = [stream._state, *(step._held for step in steps)]
        return list(worked), [tensor.untyped_storage().nbytes() for tensor in held]

    stream.feed(torch.randn(80_000) / 10)
    for _ in range(20):
        stream.feed(chunk)
    early = measure()
    for _ in range(80):
        stream.feed(chunk)
    assert measure() == early
    assert len(early[0]) == 16
    assert sum(early[1]) < 20_000


@pytest.mark.parametrize(
    ("front_end", "encoder", "setting"),
    [
        ({}, {"bidirectional": True, "lookahead_frames": 0}, "encoder.bidirectional true"),
        ({"normalization": "utterance"}, {}, "front_end.normalization utterance"),
        ({"normalization": "speaker"}, {}, "front_end.normalization speaker"),
        ({"compatibility": "torchaudio"}, {}, "front_end.compatibility torchaudio"),
        ({}, {"output": "final_state", "lookahead_frames": 0}, "encoder.output final_state"),
    ],
)
def test_settings_that_need_the_whole_recording_are_named(front_end, encoder, setting):
    with pytest.raises(ConfigError) as caught:
        StreamingAcoustics(make_model(front_end, encoder))
    message = str(caught.value)
    assert message.startswith(f"stream: {setting} needs the whole recording")
    assert "front_end.normalization sliding (or corpus) and encoder.bidirectional false" in message
    assert "\n" not in message


def test_a_step_waits_for_its_inputs_and_drops_what_it_no_longer_needs():
    seen = []

    def average(frames, lengths):
        seen.append(frames.shape[1])
        padded = torch.nn.functional.pad(frames, (0, 0, 2, 1))
        return padded.unfold(1, 4, 2).mean(dim=-1)

    step = BufferedStep(average, 1, stride=2, before=2, after=1)
    frames = torch.arange(20.0).view(1, 20, 1)
    counts = [step.feed(frames[:, at : at + 1]).shape[1] for at in range(20)]
    assert counts == [0, 1] * 10
    assert max(seen) <= 4
