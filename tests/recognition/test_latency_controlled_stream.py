"""Latency-controlled streams: the text of the recording in chunks, which does not change once it is stable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from speechrnn import LatencyControlConfig
from speechrnn.acoustic.chunked import Chunks
from speechrnn.errors import ConfigError
from speechrnn.recognition.recognizer import Recognizer

RATE = 8000
CONFIG = LatencyControlConfig(chunk_seconds=0.3, right_context_seconds=0.2)
TRAINED = {"configuration": {"chunks": {"probability": 0.5}}}


def make_recognizer(make_tiny_model, provenance=TRAINED, **options):
    model = make_tiny_model(**{"normalization": "sliding", **options})
    return Recognizer(replace(model, name="tiny", provenance=provenance), device="cpu")


@pytest.fixture(scope="module")
def recognizer(make_tiny_model):
    return make_recognizer(make_tiny_model)


@pytest.fixture(scope="module")
def samples(make_recording):
    return make_recording(3.0, seed=6)


def cut(samples, size):
    return [samples[at : at + size] for at in range(0, len(samples), size)]


@pytest.mark.parametrize("decoding", [{}, {"decoder": "beam", "beam_size": 4}])
@pytest.mark.parametrize("size", [100, 3001, 24000])
def test_the_text_is_that_of_the_recording_in_chunks(recognizer, samples, decoding, size):
    with torch.inference_mode():
        chunks = Chunks(15, 10)  # 20 ms a frame
        emission = recognizer.model.acoustic(torch.from_numpy(samples)[None], torch.tensor([24000]), chunks=chunks)
    [[best, *_]] = recognizer.choose_decoder(**decoding).decode(emission.log_probs, emission.lengths)
    stream = recognizer.stream(latency_controlled=CONFIG, **decoding)
    for piece in cut(samples, size):
        stream.feed(piece)
    found = stream.final().text
    assert found == recognizer.tokens.decode(best.tokens)
    assert len(found) > 10
    assert found != recognizer.transcribe(samples, sample_rate=RATE, **decoding).text


def test_text_that_is_shown_as_stable_does_not_change(recognizer, samples):
    stream = recognizer.stream(latency_controlled=CONFIG)
    stable = [stream.feed(piece).stable for piece in cut(samples, 400)]
    for before, after in zip(stable, [*stable[1:], stream.final().text], strict=True):
        assert after.startswith(before)
    assert 0 < len(stable[30]) < len(stable[-1])


def test_it_is_never_the_default_and_the_error_says_which_training_it_needs(recognizer):
    with pytest.raises(
        ConfigError, match=r"encoder.bidirectional false; or give latency_controlled.*chunks.probability"
    ):
        recognizer.stream()


@pytest.mark.parametrize(("provenance", "warns"), [(TRAINED, False), ({}, True), ({"configuration": {}}, True)])
def test_a_model_that_was_trained_on_whole_utterances_is_named(make_tiny_model, caplog, provenance, warns):
    make_recognizer(make_tiny_model, provenance).stream(latency_controlled=True)
    assert ("latency_controlled: tiny was trained on whole utterances" in caplog.text) == warns


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, "latency_controlled: expected True or a LatencyControlConfig, got 0.5"),
        (None, "latency_controlled: expected True or a LatencyControlConfig, got None"),
    ],
)
def test_wrong_values_are_named(recognizer, value, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        recognizer.stream(latency_controlled=value)


def test_lengths_have_bounds():
    assert vars(LatencyControlConfig()) == {"chunk_seconds": 0.5, "right_context_seconds": 0.5}
    for name, value in (("chunk_seconds", 0.0), ("chunk_seconds", np.inf), ("right_context_seconds", -0.1)):
        with pytest.raises(ConfigError, match=rf"^latency_controlled.{name}: expected a number of seconds in"):
            LatencyControlConfig(**{name: value})


def test_models_without_a_latency_to_control_are_refused(make_tiny_model):
    one_way = make_recognizer(make_tiny_model, bidirectional=False)
    with pytest.raises(ConfigError, match="a unidirectional model streams exactly without it; leave it out"):
        one_way.stream(latency_controlled=True)
    whole = make_recognizer(make_tiny_model, normalization="utterance")
    with pytest.raises(ConfigError, match="front_end.normalization utterance needs the whole recording"):
        whole.stream(latency_controlled=True)
