"""A model writes words in digital silence too; they are left out, and nothing else is."""

import numpy as np
import pytest
import torch

from speechrnn.recognition.ensemble import Ensemble
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.word_times import REACH_SECONDS, has_sound
from speechrnn.text.tokens import WordTokens
from speechrnn.types import Waveform

LEVEL = 1e-4  # −80 dBFS


@pytest.fixture(scope="module")
def recognizer(make_tiny_model):
    return Recognizer(make_tiny_model(), device="cpu")


def count_raw_words(recognizer, samples):
    emission = recognizer.emissions(samples[None], [len(samples)])
    [[best]] = recognizer.choose_decoder().decode(emission.log_probs, emission.lengths)
    return len(recognizer.tokens.words(best.tokens))


@pytest.mark.parametrize("options", [{}, {"decoder": "beam", "nbest": 3}, {"sentences": ["the fox", "quick"]}])
@pytest.mark.parametrize("value", [0.0, 0.25, -3e-5])
def test_a_recording_without_sound_has_no_text(recognizer, options, value):
    silence = np.full((6 if options else 20) * 8000, value, np.float32)
    assert count_raw_words(recognizer, silence) > 0  # the model itself writes words there
    transcript = recognizer.transcribe(Waveform(silence, 8000), **options)
    assert (transcript.text, transcript.words, transcript.segments, transcript.rejected) == ("", (), (), "")
    assert all(each.text == "" for each in transcript.alternatives)
    together = Ensemble([recognizer, recognizer]).transcribe(Waveform(silence, 8000), **options)
    assert together.text == ""


def test_words_without_sound_are_left_out(make_tiny_model, make_recording):
    model = make_tiny_model(tokens=WordTokens.build(["one two three four"]), seed=5)
    recognizer = Recognizer(model, device="cpu")
    sound = make_recording(3.0)
    padded = np.concatenate([np.zeros(10 * 8000, np.float32), sound, np.zeros(10 * 8000, np.float32)])
    words = recognizer.transcribe(Waveform(padded, 8000)).words
    assert words
    assert all(word.end > 10 - REACH_SECONDS and word.start < 13 + REACH_SECONDS for word in words)
    assert count_raw_words(recognizer, padded) > len(words)


@pytest.mark.parametrize("peak", [1.5 * LEVEL, 1e-3, 0.1])
def test_a_quiet_recording_keeps_its_text(recognizer, make_recording, peak):
    samples = make_recording(3.0)
    quiet = (samples * (peak / np.abs(samples).max())).astype(np.float32)
    transcript = recognizer.transcribe(Waveform(quiet, 8000))
    assert len(transcript.words) == count_raw_words(recognizer, quiet) > 0


def test_sound_is_searched_around_the_word():
    samples = np.zeros(10 * 8000, np.float32)
    samples[5 * 8000] = 3 * LEVEL
    assert has_sound(samples, 8000, 4.9, 5.1)
    assert has_sound(samples, 8000, 5.1 + REACH_SECONDS - 0.11, 7.0)
    assert not has_sound(samples, 8000, 5.1 + REACH_SECONDS, 7.0)
    assert not has_sound(samples, 8000, 2.0, 4.9 - REACH_SECONDS)
    assert not has_sound(samples, 8000, 20.0, 21.0)
    assert has_sound(samples, 8000, 0.0, 1e9)  # the single frame of a final state


def test_a_constant_offset_is_no_sound(recognizer):
    assert not has_sound(np.full(8000, 0.5, np.float32), 8000, 0.2, 0.4)
    assert torch.is_tensor(recognizer.emissions(np.full((1, 8000), 0.5, np.float32), [8000]).log_probs)
