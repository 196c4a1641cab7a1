"""Noise by what it does to the sound: how loud, what spectrum, whose voices; and that it is a function of its seed."""

import numpy as np
import pytest

from speechrnn.audio.channel import NoiseConfig, add_noise, fast_fft_length, find_pause
from speechrnn.errors import ConfigError

RATE = 8000
LOUD = (-40.0, -40.0)
"""An SNR so low that what was said hardly shows beside the noise."""


def make_tone(samples=16000):
    return (0.1 * np.sin(np.arange(samples))).astype(np.float32)


def add(samples, seed=0, draw_other=None, **settings):
    config = NoiseConfig(**{"probability": 1.0, **settings})
    return add_noise(samples, config, sample_rate=RATE, seed=seed, draw_other=draw_other)


def noise_of(seed, draw_other=None, samples=16000, **settings):
    tone = make_tone(samples)
    return add(tone, seed, draw_other, **settings).astype(np.float64) - tone


def make_speech(seed, *, pause_level=1e-3, pause_hz=500.0):
    """A second of loud white noise between half seconds of faint noise around one frequency."""
    rng = np.random.default_rng(seed)
    faint = np.fft.rfft(rng.standard_normal(16000))
    faint[np.abs(np.fft.rfftfreq(16000, 1 / RATE) - pause_hz) > 200] = 0
    samples = np.fft.irfft(faint)
    samples *= pause_level / samples.std()
    samples[4000:12000] += 0.2 * rng.standard_normal(8000)
    return samples.astype(np.float32)


@pytest.mark.parametrize("kind", ["colored", "pauses", "babble"])
def test_noise_has_the_requested_snr(kind):
    tone = make_tone()
    for seed in range(20):
        noise = noise_of(seed, make_speech, kinds=(kind,), snr_db=(12.0, 12.0))
        assert 10 * np.log10(np.mean(tone**2.0) / np.mean(noise**2)) == pytest.approx(12.0, abs=0.05)
        assert add(tone, seed, make_speech, kinds=(kind,)).dtype == np.float32


def test_noise_comes_in_colours_from_white_to_brown():
    slopes = []
    for seed in range(60):
        power = np.abs(np.fft.rfft(noise_of(seed, snr_db=LOUD))) ** 2
        low, high = power[100:200].mean(), power[3200:6400].mean()  # five octaves apart
        slopes.append(10 * np.log10(high / low) / 5)  # dB an octave
    assert -6.6 < min(slopes) < -5.0
    assert -1.0 < max(slopes) < 0.6


def test_noise_is_added_to_the_configured_share_of_utterances():
    tone = make_tone(400)
    noisy = [not np.array_equal(add(tone, seed, probability=0.25), tone) for seed in range(1000)]
    assert sum(noisy) == pytest.approx(250, abs=50)


@pytest.mark.parametrize("kind", ["colored", "pauses", "babble"])
def test_the_same_seed_gives_the_same_noise_and_silence_stays_silent(kind):
    first, again, other = (add(make_tone(), seed, make_speech, kinds=(kind,)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    silence = np.zeros(400, np.float32)
    np.testing.assert_array_equal(add(silence, 0, make_speech, kinds=(kind,)), silence)


def test_each_kind_is_drawn_about_equally_often():
    kinds = ("colored", "pauses", "babble")
    drawn = [0, 0]  # how often no other utterance was asked for, and how often one or more
    for seed in range(300):
        asked = []
        add(make_tone(800), seed, lambda other, asked=asked: asked.append(other) or make_speech(other), kinds=kinds)
        drawn[bool(asked)] += 1
    assert drawn[0] == pytest.approx(100, abs=25)


def test_pauses_have_the_spectrum_of_pauses_in_the_corpus():
    noise = noise_of(1, lambda seed: make_speech(seed, pause_hz=1500.0), kinds=("pauses",), snr_db=LOUD)
    power, frequency = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(16000, 1 / RATE)
    inside = (frequency > 1250) & (frequency < 1750)
    assert power[inside].sum() / power.sum() > 0.95
    # Steady: no half second is much louder than another.
    levels = noise.reshape(4, -1).std(axis=1)
    assert levels.max() / levels.min() < 1.3


def test_a_pause_is_the_quietest_fifth_of_a_second():
    speech = make_speech(0)
    speech[13000:14600] *= 0.25
    pause = find_pause(speech, sample_rate=RATE)
    assert len(pause) == 1600
    np.testing.assert_array_equal(pause, speech[12960:14560])  # looked for every 10 ms
    assert find_pause(speech[:1599], sample_rate=RATE) is None


def test_digital_silence_is_no_pause():
    speech = make_speech(0)
    speech[:4000] = 0.0
    assert 0 < find_pause(speech, sample_rate=RATE).std() < 2e-3
    assert find_pause(np.zeros(RATE, np.float32), sample_rate=RATE) is None
    tone = make_tone()
    unchanged = add(tone, 0, lambda seed: np.zeros(RATE, np.float32), kinds=("pauses",))
    np.testing.assert_array_equal(unchanged, tone)


def test_a_pause_is_searched_in_several_utterances():
    asked = []

    def draw_other(seed):
        asked.append(seed)
        return make_speech(seed) if len(asked) == 3 else None

    assert not np.array_equal(add(make_tone(), 0, draw_other, kinds=("pauses",)), make_tone())
    assert len(set(asked)) == 3


def test_babble_is_other_voices_equally_loud():
    voices_hz = {}

    def draw_other(seed):
        """Each voice is one tone; some are far louder than others, and all shorter than the utterance."""
        hz = voices_hz.setdefault(seed, 300 + 400 * len(voices_hz))
        return (0.5 / 4 ** len(voices_hz) * np.sin(2 * np.pi * hz * np.arange(4000) / RATE)).astype(np.float32)

    noise = noise_of(0, draw_other, kinds=("babble",), voices=(4, 4), snr_db=LOUD)
    power, frequency = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(16000, 1 / RATE)
    shares = [power[np.abs(frequency - hz) < 50].sum() / power.sum() for hz in voices_hz.values()]
    assert len(shares) == 4
    assert shares == pytest.approx([0.25] * 4, abs=0.02)


def test_babble_has_the_requested_number_of_voices():
    counts = set()
    for seed in range(60):
        asked = []
        add(make_tone(800), seed, lambda other, a=asked: a.append(other) or make_speech(other), kinds=("babble",))
        counts.add(len(asked))
    assert counts == {3, 4, 5, 6, 7}


@pytest.mark.parametrize("kind", ["pauses", "babble"])
@pytest.mark.parametrize("draw_other", [None, lambda seed: None])
def test_without_another_utterance_nothing_is_added(kind, draw_other):
    np.testing.assert_array_equal(add(make_tone(), 0, draw_other, kinds=(kind,)), make_tone())


@pytest.mark.parametrize(
    "settings",
    [
        {"probability": 1.5},
        {"snr_db": (20.0, 5.0)},
        {"kinds": ()},
        {"kinds": ("coloured",)},
        {"voices": (0, 3)},
        {"voices": (4, 3)},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"augment.noise.{next(iter(settings))}"):
        NoiseConfig(**settings)


def test_a_fast_fft_length_has_no_large_prime_factor():
    lengths = [fast_fft_length(length) for length in range(1, 3000)]
    assert all(length <= fast <= 1.25 * length for length, fast in enumerate(lengths, start=1))
    assert all(960_000**20 % fast == 0 for fast in lengths)  # 960,000 has the prime factors 2, 3 and 5
