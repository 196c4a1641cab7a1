import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from speechrnn.audio import vad
from speechrnn.audio.files import read_audio
from speechrnn.audio.vad import SpeechDetector, VadOptions, _Segmenter, has_vad
from speechrnn.errors import ConfigError
from speechrnn.types import find_longest_run

SAMPLES = Path(__file__).parents[2] / "data" / "samples"

needs_vad = pytest.mark.skipif(not has_vad(), reason="needs the extra vad")


def join_samples(rate, *, pause=1.2):
    """The project's own recordings with pauses of faint noise between."""
    rng = np.random.default_rng(0)
    parts = []
    for path in sorted(SAMPLES.glob("*.flac")):
        parts += [read_audio(path, sample_rate=rate).samples, 1e-4 * rng.standard_normal(round(pause * rate))]
    return np.concatenate(parts).astype(np.float32)


def detect(samples, rate, sizes, options=VadOptions()):  # noqa: B008
    detector, found, first = SpeechDetector(options, rate), [], 0
    while first < len(samples):
        size = next(sizes)
        found += detector.feed(samples[first : first + size])
        assert all(begin < detector.decided for begin, _ in found)
        first += size
    return found + detector.flush()


def always(size):
    while True:
        yield size


@needs_vad
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_speech_does_not_depend_on_how_the_samples_arrive(rate):
    samples = join_samples(rate)
    whole = detect(samples, rate, always(len(samples)))
    assert len(whole) >= 5
    rng = random.Random(0)
    assert detect(samples, rate, iter(lambda: rng.choice([1, 80, 511, 5000, 33000]), None)) == whole


@needs_vad
@pytest.mark.parametrize("rate", [8000, 22050])
def test_speech_at_other_rates_is_the_same(rate):
    expected = np.array(detect(join_samples(16000), 16000, always(16000))) / 16000
    found = np.array(detect(join_samples(rate), rate, always(rate))) / rate
    np.testing.assert_allclose(found, expected, atol=0.25)


@needs_vad
def test_there_is_no_speech_in_noise_and_silence():
    noise = (0.1 * np.random.default_rng(0).standard_normal(80000)).astype(np.float32)
    assert detect(noise, 16000, always(16000)) == detect(0 * noise, 16000, always(16000)) == []


@needs_vad
def test_padding_takes_at_most_half_of_a_silence():
    bare, padded = (
        detect(
            join_samples(16000, pause=0.4),
            16000,
            always(16000),
            VadOptions(min_silence_duration_ms=100, speech_pad_ms=pad),
        )
        for pad in (0, 400)
    )
    assert len(bare) == len(padded) > 5
    for (_, end), (begin, _), left, right in zip(bare, bare[1:], padded, padded[1:], strict=False):
        share = min(6400, (begin - end) / 2)
        assert abs(left[1] - end - share) <= 1
        assert abs(begin - right[0] - share) <= 1


@needs_vad
@pytest.mark.slow  # silero_vad imports torch and torchaudio
@pytest.mark.parametrize("options", [{}, {"min_silence_duration_ms": 100, "speech_pad_ms": 30}])
def test_speech_is_that_of_silero_vad(options):
    import torch

    silero = importlib.import_module("silero_vad")
    samples = join_samples(16000, pause=0.7)
    expected = silero.get_speech_timestamps(
        torch.from_numpy(samples),
        silero.load_silero_vad(onnx=True),
        **{"min_silence_duration_ms": 500, "speech_pad_ms": 400, **options},
    )
    found = detect(samples, 16000, always(16000), VadOptions(**options))
    assert found == [(each["start"], each["end"]) for each in expected]


def segment(probabilities, *, silence=3, speech=0, longest=1000):
    segmenter = _Segmenter(VadOptions(), silence=silence, speech=speech, longest=longest)
    found = [each for probability in probabilities for each in segmenter.feed(probability)]
    return found + segmenter.finish()


def test_speech_begins_at_the_threshold_and_ends_below_the_lower_one():
    assert segment([0.1, 0.49, 0.5, 0.4, 0.36, 0.4, 0.4, 0.4]) == [(2, 8)]  # never below 0.35
    assert segment([0.6, 0.3, 0.4, 0.4, 0.4, 0.3, 0.0]) == [(0, 1)]
    assert segment([0.6, 0.3, 0.3, 0.6, 0.3, 0.3, 0.3, 0.3, 0.9]) == [(0, 4), (8, 9)]
    assert segment([0.9, 0.9, 0, 0, 0, 0, 0.9, 0, 0, 0, 0], speech=1) == [(0, 2)]


def test_the_longest_speech_is_cut_at_its_longest_silence():
    probabilities = [0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9]
    assert segment(probabilities, longest=10) == [(0, 4), (6, 12)]
    assert segment([0.9, 0.8, 0.6, 0.8, 0.9, 0.9], longest=5) == [(0, 2), (2, 6)]  # the least probable window
    assert max(end - begin for begin, end in segment([0.9] * 1000, longest=7)) <= 7


def test_longest_run_by_hand():
    assert find_longest_run(np.array([1, 0, 1, 1, 0, 1, 1], bool)) == (2, 4)
    assert find_longest_run(np.zeros(3, bool)) == find_longest_run(np.zeros(0, bool)) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"threshold": "high"},
        {"neg_threshold": 0.6},
        {"min_silence_duration_ms": -1},
        {"speech_pad_ms": float("nan")},
        {"max_speech_duration_s": 0},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=rf"vad\.{next(iter(options))}: expected"):
        VadOptions(**options)


def test_a_missing_extra_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'speechrnn\[vad\]'$") as caught:
        SpeechDetector(VadOptions(), 16000)
    assert "\n" not in str(caught.value)


@needs_vad
def test_silero_vad_itself_is_not_imported():
    import subprocess
    import sys

    code = "import sys; from speechrnn.audio.vad import *; SpeechDetector(VadOptions(), 16000)\n"
    code += "assert not {'silero_vad', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_vad
def test_both_networks_give_the_same_probabilities(monkeypatch):
    samples = join_samples(16000)[:160000]
    fast = detect(samples, 16000, always(16000))
    monkeypatch.setattr(vad, "_SEQUENCE", "absent.onnx")
    assert detect(samples, 16000, always(16000)) == fast
