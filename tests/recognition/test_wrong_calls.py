"""Arguments of wrong types are accepted where their meaning is clear, and named in one line elsewhere."""

import re

import numpy as np
import pytest
import torch

import speechrnn
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.adaptation import adapt
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.stream import PartialTranscript
from speechrnn.recognition.transcript import Segment, Transcript, Word


@pytest.fixture(scope="module")
def recognizer(tiny_model_folder):
    return speechrnn.load(tiny_model_folder, device="cpu")


@pytest.fixture(scope="module")
def samples(make_recording):
    return make_recording(1.0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("load", lambda model, x: speechrnn.load(3)),
        ("load", lambda model, x: speechrnn.load(None)),
        ("load", lambda model, x: speechrnn.load([3])),
        ("cannot be opened", lambda model, x: speechrnn.load("a\0b")),
        ("device", lambda model, x: speechrnn.load(model.name, device=3)),
        ("model", lambda model, x: Recognizer(model.name)),
        ("channel", lambda model, x: model.transcribe(x, sample_rate=8000, channel="left")),
        ("channel", lambda model, x: model.transcribe(x, sample_rate=8000, channel=0.0)),
        ("sample rate", lambda model, x: model.transcribe(x, sample_rate="8000")),
        ("beam_size", lambda model, x: model.transcribe(x, sample_rate=8000, decoder="beam", beam_size="16")),
        ("batch_seconds", lambda model, x: model.transcribe(x, sample_rate=8000, batch_seconds=9)),
        ("on_error: an option of transcribe_many", lambda model, x: model.transcribe(x, on_error=print)),
        ("max_second: unknown option; did you mean max_seconds", lambda model, x: model.transcribe(x, max_second=9)),
        ("max_seconds", lambda model, x: model.transcribe(x, sample_rate=8000, max_seconds=1)),
        ("speaker", lambda model, x: model.transcribe(x, sample_rate=8000, speaker=3)),
        ("speaker", lambda model, x: model.find_speaker(3)),
        ("transcribe_many", lambda model, x: model.transcribe_many(3)),
        ("transcribe_many", lambda model, x: model.transcribe_many(None)),
        ("batch_seconds", lambda model, x: model.transcribe_many([x], batch_seconds="12")),
        ("waveforms", lambda model, x: model.emissions("a", [8000])),
        ("lengths", lambda model, x: model.emissions(x[None], "a")),
        ("state", lambda model, x: model.emissions(x[None], [8000], state="a")),
        ("state", lambda model, x: model.emissions(x[None], [8000], state=torch.zeros(2))),
        ("speaker_stats", lambda model, x: model.emissions(x[None], [8000], speaker_stats="a")),
        ("estimate_speaker", lambda model, x: model.estimate_speaker(3)),
        ("align", lambda model, x: speechrnn.align(3, x, "fox", sample_rate=8000)),
        ("no such model folder", lambda model, x: speechrnn.align("/no/folder", x, "fox", sample_rate=8000)),
        ("text", lambda model, x: speechrnn.align(model, x, None, sample_rate=8000)),
        ("adapt", lambda model, x: adapt(model, 3)),
        ("adapt", lambda model, x: adapt(3, ["a.wav"])),
        ("steps", lambda model, x: adapt(model, ["a.wav"], steps="3")),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(recognizer, samples, name, call):
    with pytest.raises(SpeechRNNError, match=rf"\b{re.escape(name)}\b") as caught:
        call(recognizer, samples)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_numpy_arrays_and_lists_are_emissions_input(recognizer, samples):
    expected = recognizer.emissions(torch.from_numpy(samples)[None], torch.tensor([8000])).log_probs
    for waveforms, lengths in (
        (samples[None], np.array([8000])),
        (samples[None], [8000]),
        (samples[None].astype(np.float64), np.array([8000], np.int32)),
    ):
        assert torch.equal(recognizer.emissions(waveforms, lengths).log_probs, expected)


def test_align_takes_the_path_of_a_model(recognizer, samples, tiny_model_folder):
    for path in (tiny_model_folder, str(tiny_model_folder)):
        found = speechrnn.align(path, samples, "the quick fox", sample_rate=8000)
        assert found == speechrnn.align(recognizer, samples, "the quick fox", sample_rate=8000)


def test_hotwords_may_be_a_list(recognizer, samples):
    listed = recognizer.transcribe(samples, sample_rate=8000, hotwords=["fox"])
    assert listed == recognizer.transcribe(samples, sample_rate=8000, hotwords={"fox": 6.0})


def test_repr_of_a_recognizer_is_short(recognizer, tiny_model):
    parameters = f"{recognizer.num_parameters:,}"
    assert repr(recognizer) == f"<Recognizer {recognizer.name[-80:]}, gru, {parameters} parameters, 8000 Hz>"
    assert repr(Recognizer(tiny_model, device="cpu")) == f"<Recognizer unnamed, gru, {parameters} parameters, 8000 Hz>"


@pytest.mark.parametrize("kind", [Transcript, PartialTranscript])
def test_repr_of_a_transcript_is_short(kind):
    words = tuple(Word("word", float(number), number + 0.5, 0.9) for number in range(1000))
    text = " ".join(word.text for word in words)
    shown = repr(kind(text, (Segment(0.0, 999.5, text, words),), 1000.0))
    assert shown.startswith(f"<{kind.__name__} 'word word")
    assert shown.endswith("', 1000 words, 1000.00 s>")
    assert len(shown) < 120


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_emissions_of_a_recording_shorter_than_a_frame_are_empty(make_tiny_model, cell):
    for lookahead in (0, 3):
        model = make_tiny_model(cell=cell, bidirectional=False, lookahead_frames=lookahead)
        emission = Recognizer(model, device="cpu").emissions(torch.zeros(1, 10), torch.tensor([10]))
        assert emission.log_probs.shape == (1, 0, 13)
        assert emission.lengths.tolist() == [0]


def test_several_models_are_refused_where_one_is_needed(recognizer, samples, tiny_model_folder):
    several = speechrnn.load([tiny_model_folder, tiny_model_folder], device="cpu")
    assert repr(several).startswith("<Ensemble ")
    for name, call in (
        ("align", lambda: speechrnn.align(several, samples, "fox", sample_rate=8000)),
        ("adapt", lambda: adapt(several, ["a.wav"])),
    ):
        with pytest.raises(ConfigError, match=f"{name}: several models together"):
            call()
