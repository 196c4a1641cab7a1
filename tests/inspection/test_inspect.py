"""What is found in a recording: states, best path, words and a reference, each at its time."""

import math

import numpy as np
import pytest
import soundfile
import torch
from conftest import say_tones

import speechrnn
from speechrnn.acoustic.unrolled import CellWeights, unroll
from speechrnn.errors import AudioError, ConfigError, CorpusError, ModelError, SpeechRNNError
from speechrnn.inspection.inspect import inspect_recording, measure_unit_memory
from speechrnn.inspection.page import to_page
from speechrnn.inspection.pictures import draw_inspection
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.types import Waveform

WORDS = ["low", "high", "middle"]


@pytest.fixture(scope="module")
def recognizer(tone_run):
    return speechrnn.load(tone_run.model, device="cpu")


@pytest.fixture(scope="module")
def waveform():
    return Waveform(say_tones(WORDS, np.random.default_rng(5)), 8000)


def test_all_panels_share_one_time_axis(recognizer, waveform):
    found = inspect_recording(recognizer, waveform)
    assert found.seconds == pytest.approx(waveform.seconds)
    assert len(found.features) * found.frame_seconds == pytest.approx(found.seconds, abs=0.05)
    frames = len(found.posteriors)
    assert frames * found.encoder_seconds == pytest.approx(found.seconds, abs=0.05)
    assert {len(layer.states) for layer in found.layers} == {frames}
    assert [layer.name for layer in found.layers] == ["layer 1 forward", "layer 1 backward"]
    np.testing.assert_allclose(found.posteriors.sum(axis=1), 1.0, rtol=1e-5)
    assert [word.text for word in found.hypothesis] == WORDS
    assert found.reference is None
    assert found.errors == 0
    assert [found.symbols[token] for token, _, _ in found.path] == WORDS


def test_words_are_those_of_the_transcript(recognizer, waveform):
    words = recognizer.transcribe(waveform).words
    found = inspect_recording(recognizer, waveform).hypothesis
    assert [(w.text, w.start, w.end, w.confidence) for w in found] == [
        (w.text, w.start, w.end, w.confidence) for w in words
    ]


def test_units_are_shown_by_memory_and_exported_in_model_order(recognizer, waveform):
    found = inspect_recording(recognizer, waveform)
    exported = found.export_states()
    for layer in found.layers:
        assert (np.diff(layer.memory_frames) >= 0).all()
        assert sorted(layer.units) == list(range(layer.states.shape[1]))
        own = exported[layer.name.replace(" ", "_")]
        np.testing.assert_array_equal(own[:, layer.units], layer.states)
    acoustic = recognizer.model.acoustic
    samples = torch.from_numpy(waveform.samples)[None]
    with torch.inference_mode():
        features, lengths = acoustic.front_end(samples, torch.tensor([samples.shape[1]]))
        frames, lengths = acoustic.encoder.subsampling(features, lengths)
        layer = acoustic.encoder.stack.layers[0]
        state = acoustic.encoder.stack.make_initial_state(1, like=frames)[0]
        expected, _ = layer(frames, lengths, initial=state)
    both = np.concatenate([exported["layer_1_forward"], exported["layer_1_backward"]], axis=1)
    np.testing.assert_allclose(both, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(exported["seconds"], found.encoder_seconds * np.arange(len(both)))


@pytest.mark.parametrize(
    ("cell", "gates"), [("elementwise", 1), ("tanh", 1), ("gru", 3), ("lstm", 4), ("mingru", 2), ("minlstm", 3)]
)
def test_memory_is_the_share_of_its_past_that_a_unit_keeps(cell, gates):
    """With zero inputs and gates at one half, a unit keeps half per frame: 1/e after 1 / ln 2 frames."""
    recurrent = torch.full((2,), 0.5) if cell == "elementwise" else torch.zeros(2 * gates, 2)
    if cell == "tanh":
        recurrent = 0.5 * torch.eye(2)
    if cell.startswith("min"):
        recurrent = torch.zeros(0, 2)
    weights = CellWeights(torch.zeros(2 * gates, 3), recurrent, torch.zeros(2 * gates), torch.zeros(len(recurrent)))
    state = torch.zeros(2 if cell == "lstm" else 1, 2, 2)
    unrolled = unroll(cell, weights, torch.zeros(2, 4, 3), torch.tensor([4, 2]), state)
    assert measure_unit_memory(unrolled).tolist() == pytest.approx([1 / math.log(2)] * 2)


def test_a_reference_is_aligned_and_errors_are_named(recognizer, waveform):
    found = inspect_recording(recognizer, waveform, text="Low low middle")
    assert [(w.text, w.operation, w.other) for w in found.reference] == [
        ("low", "equal", "low"), ("low", "substitute", "high"), ("middle", "equal", "middle"),
    ]  # fmt: skip
    assert [(w.text, w.operation) for w in found.hypothesis] == [
        ("low", "equal"), ("high", "substitute"), ("middle", "equal"),
    ]  # fmt: skip
    assert found.errors == 1
    right = inspect_recording(recognizer, waveform, text="low high middle")
    for new, old in zip(right.hypothesis, right.reference, strict=True):
        assert (new.start, new.end) == pytest.approx((old.start, old.end), abs=3 * found.encoder_seconds)
    missed = inspect_recording(recognizer, waveform, text="low high middle low")
    assert missed.reference[-1].operation == "delete"
    assert missed.errors == 1
    surplus = inspect_recording(recognizer, waveform, text="low middle")
    assert [w.operation for w in surplus.hypothesis] == ["equal", "insert", "equal"]


def test_a_window_keeps_the_recordings_own_times(recognizer, waveform, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, waveform.samples, 8000, subtype="FLOAT")
    whole = inspect_recording(recognizer, path)
    cut = (whole.hypothesis[0].end + whole.hypothesis[1].start) / 2
    part = inspect_recording(recognizer, path, start=cut)
    assert [word.text for word in part.hypothesis] == WORDS[1:]
    assert part.hypothesis[0].start == pytest.approx(whole.hypothesis[1].start, abs=0.1)
    assert part.start + part.seconds == pytest.approx(waveform.seconds, abs=1e-3)
    first = inspect_recording(recognizer, path, end=cut)
    assert [word.text for word in first.hypothesis] == WORDS[:1]
    assert first.seconds == pytest.approx(cut, abs=1e-3)
    assert part.export_states()["seconds"][0] == pytest.approx(cut)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": 2.0, "end": 1.0}, ConfigError, r"--start 2 --end 1: expected 0 <= start < end"),
        ({"start": -1.0}, ConfigError, "expected 0 <= start < end"),
        ({"start": 90.0}, AudioError, "90"),
        ({"text": "łow"}, CorpusError, "ł"),
        ({"text": " ."}, CorpusError, "empty after the model"),
        ({"text": "low " * 400}, SpeechRNNError, "the text cannot be aligned: .* need at least"),
        ({"channel": 3}, AudioError, "channel"),
    ],
)
def test_inputs_that_cannot_be_inspected_are_refused_in_one_line(recognizer, waveform, options, error, message):
    with pytest.raises(error, match=message) as refused:
        inspect_recording(recognizer, waveform, **options)
    assert "\n" not in str(refused.value)


def test_half_an_hour_of_audio_needs_a_window(recognizer, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 1800, np.int16), 8000)
    with pytest.raises(ConfigError, match="1,800 s, expected at most 120 s; select a part"):
        inspect_recording(recognizer, path)
    with pytest.raises(ConfigError, match="--start and --end"):
        inspect_recording(recognizer, path, start=100.0)
    assert inspect_recording(recognizer, path, start=100.0, end=101.0).seconds == pytest.approx(1.0)


def test_a_single_frame_is_inspected_and_less_is_refused(recognizer, waveform):
    acoustic = recognizer.model.acoustic
    least = next(n for n in range(1, 8000) if acoustic.count_frames(n) > 0)
    found = inspect_recording(recognizer, Waveform(waveform.samples[:least], 8000))
    assert len(found.posteriors) == 1
    with pytest.raises(AudioError, match="too short"):
        inspect_recording(recognizer, Waveform(waveform.samples[: least - 1], 8000))


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_every_cell_can_be_inspected(make_tiny_model, make_recording, cell, bidirectional):
    recognizer = Recognizer(make_tiny_model(cell=cell, bidirectional=bidirectional), device="cpu")
    found = inspect_recording(recognizer, Waveform(make_recording(1.0).astype(np.float32), 8000))
    assert len(found.layers) == (4 if bidirectional else 2)
    assert all(np.isfinite(layer.memory_frames).all() for layer in found.layers)


def test_a_cell_without_the_weights_that_are_needed_is_named(make_tiny_model, make_recording):
    model = make_tiny_model(cell="gru")
    stack = model.acoustic.encoder.stack
    stack.layers[0].directions[0] = torch.nn.GRU(stack.layers[0].directions[0].input_size, 16, bias=False)
    waveform = Waveform(make_recording(1.0).astype(np.float32), 8000)
    with pytest.raises(
        ModelError, match="GRU: expected a tanh, elementwise, GRU, LSTM, minGRU or minLSTM layer with weights"
    ):
        inspect_recording(Recognizer(model, device="cpu"), waveform)


def test_a_model_that_reads_its_final_state_has_one_row_of_posteriors(make_tiny_model, make_recording):
    recognizer = Recognizer(make_tiny_model(output="final_state"), device="cpu")
    found = inspect_recording(recognizer, Waveform(make_recording(1.0).astype(np.float32), 8000))
    assert found.posteriors.shape[0] == 1
    assert found.posterior_seconds == pytest.approx(1.0)
    assert len(found.layers[0].states) == len(found.export_states()["seconds"]) > 10
    assert all((word.start, word.end) == (0.0, 1.0) for word in found.hypothesis)
    assert "<figure" in to_page(found)
    assert draw_inspection(found).axes
