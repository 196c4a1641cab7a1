"""What augmentation does to the sound, and that it is a function of its seed alone."""

import importlib.util
import sys

import numpy as np
import pytest

from speechrnn.audio import augment as augment_module
from speechrnn.audio.augment import (
    AugmentConfig,
    GateConfig,
    TruncateConfig,
    WordFragmentsConfig,
    add_pauses,
    add_word_fragments,
    augment,
    change_gain,
    change_pitch_and_tempo,
    cut_quiet_ends,
    draw_speed,
    equalize,
    truncate_ends,
)
from speechrnn.audio.channel import NoiseConfig
from speechrnn.audio.spectral_augment import SpecAugmentConfig, WarpConfig
from speechrnn.errors import ConfigError


def test_speeds_are_drawn_uniformly_by_seed():
    config = AugmentConfig(speed=(0.9, 1.0, 1.1))
    drawn = [draw_speed(config, seed) for seed in range(3000)]
    for speed in config.speed:
        assert drawn.count(speed) == pytest.approx(1000, abs=100)
    assert drawn == [draw_speed(config, seed) for seed in range(3000)]


def make_tone(samples=16000):
    return (0.1 * np.sin(np.arange(samples))).astype(np.float32)


def test_gain_is_uniform_between_its_limits():
    gains = [
        20
        * np.log10(
            change_gain(np.ones(1, np.float32), AugmentConfig(gain_db=(-10.0, 6.0)), sample_rate=8000, seed=seed)[0]
        )
        for seed in range(500)
    ]
    assert -10.001 <= min(gains) < -9.5
    assert 5.5 < max(gains) <= 6.001
    assert np.mean(gains) == pytest.approx(-2.0, abs=0.8)  # the mean of 500 strays by 0.2 dB


def test_pauses_are_as_long_as_drawn_and_as_quiet_as_the_quietest_tenth():
    loud_and_quiet = np.concatenate([0.5 * np.ones(6400), 0.01 * np.ones(1600)]).astype(np.float32)
    config = AugmentConfig(padding_seconds=0.25)
    lengths = []
    for seed in range(200):
        padded = add_pauses(loud_and_quiet, config, sample_rate=8000, seed=seed)
        start = int(np.flatnonzero(padded == 0.5)[0])
        np.testing.assert_array_equal(padded[start : start + 8000], loud_and_quiet)
        lengths += [start, len(padded) - 8000 - start]
        if start > 500:
            assert padded[:start].std() == pytest.approx(0.01, rel=0.15)
    assert max(lengths) <= 2000
    assert np.mean(lengths) == pytest.approx(1000, abs=100)


def test_pauses_are_added_to_the_configured_share_of_ends():
    config = AugmentConfig(padding_seconds=0.25, padding_probability=0.3)
    padded = [add_pauses(make_tone(800), config, sample_rate=8000, seed=seed) for seed in range(500)]
    bare = sum(len(samples) == 800 for samples in padded)
    assert bare == pytest.approx(0.7 * 0.7 * 500, abs=40)


def test_the_equalizer_changes_the_spectrum_smoothly_within_its_limits():
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    config = AugmentConfig(equalizer_db=4.0)
    swings = []
    for seed in range(40):
        bent = equalize(noise, config, sample_rate=8000, seed=seed)
        gain_db = 20 * np.log10(np.abs(np.fft.rfft(bent)) / np.abs(np.fft.rfft(noise)))
        assert np.abs(gain_db[10:-10]).max() <= 12.01  # three cosines of 4 dB
        assert np.abs(np.diff(gain_db[10:-10])).max() < 0.1
        swings.append(gain_db[-10] - gain_db[10])  # from end to end: -2 a_1 - 2 a_3
    assert min(swings) < -4
    assert max(swings) > 4
    assert bent.dtype == np.float32


def test_the_gate_cuts_quiet_ends_and_keeps_quiet_middles():
    levels_db = [-50, -30, -15, 0, -35, -5, -25, -45]
    word = np.concatenate([10 ** (db / 20) * np.ones(800) for db in levels_db]).astype(np.float32)
    for threshold_db, first, last in [(10.0, 3, 6), (20.0, 2, 6), (27.0, 2, 7), (33.0, 1, 7), (47.0, 1, 8)]:
        config = GateConfig(probability=1.0, threshold_db=(threshold_db, threshold_db))
        cut = cut_quiet_ends(word, config, sample_rate=8000, seed=0)
        np.testing.assert_array_equal(cut, word[800 * first : 800 * last])


def test_the_gate_cuts_the_configured_share_and_does_not_change_silence():
    word = np.concatenate([np.full(800, 1e-4), np.ones(800)]).astype(np.float32)
    config = GateConfig(probability=0.3)
    cut = [len(cut_quiet_ends(word, config, sample_rate=8000, seed=seed)) < 1600 for seed in range(1000)]
    assert sum(cut) == pytest.approx(300, abs=50)
    silence = np.zeros(800, np.float32)
    assert len(cut_quiet_ends(silence, GateConfig(probability=1.0), sample_rate=8000, seed=0)) == 800


def test_disabled_effects_change_nothing():
    assert augment(make_tone(), AugmentConfig(), sample_rate=8000, seed=1).tolist() == make_tone().tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"truncate": TruncateConfig(probability=1.0)},
        {"gate": GateConfig(probability=1.0)},
        {"padding_seconds": 0.2},
        {"word_fragments": WordFragmentsConfig(probability=1.0)},
        {"equalizer_db": 3.0},
        {"gain_db": (3.0, 6.0)},
        {"noise": NoiseConfig(probability=1.0)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_enabled_effect_changes_an_utterance(settings):
    samples = make_word_between_pauses()
    changed = augment(samples, AugmentConfig(**settings), sample_rate=8000, seed=1)
    assert changed.tolist() != samples.tolist()


def test_all_effects_together_depend_only_on_the_seed():
    config = AugmentConfig(
        gain_db=(-3.0, 3.0), equalizer_db=3.0, padding_seconds=0.2, noise=NoiseConfig(probability=0.5)
    )
    first, again, other = (augment(make_tone(), config, sample_rate=8000, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AugmentConfig, {"speed": ()}),
        (AugmentConfig, {"speed": (0.0,)}),
        (AugmentConfig, {"speed": (1.0, 9.0)}),
        (AugmentConfig, {"gain_db": (3.0, -3.0)}),
        (AugmentConfig, {"padding_seconds": -0.1}),
        (AugmentConfig, {"padding_probability": 1.1}),
        (AugmentConfig, {"equalizer_db": -1.0}),
        (GateConfig, {"probability": -0.5}),
        (GateConfig, {"threshold_db": (40.0, 10.0)}),
        (TruncateConfig, {"probability": 1.5}),
        (TruncateConfig, {"seconds": 0.0}),
        (WordFragmentsConfig, {"probability": -0.1}),
        (WordFragmentsConfig, {"seconds": (0.2, 0.1)}),
        (WordFragmentsConfig, {"attenuation_db": (20.0, 6.0)}),
        (WarpConfig, {"vocal_tract": 0.6}),
        (WarpConfig, {"time_seconds": -0.1}),
        (SpecAugmentConfig, {"time_masks": -1}),
        (SpecAugmentConfig, {"time_mask_share": 1.5}),
        (SpecAugmentConfig, {"frequency_mask_share": -0.1}),
        (SpecAugmentConfig, {"time_mask_seconds": -1.0}),
    ],
)
def test_impossible_settings_are_refused_by_name(kind, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        kind(**settings)


def make_word_between_pauses():
    """Half a second of silence, half a second of noise, half a second of silence; 8 kHz."""
    word = 0.2 * np.random.default_rng(0).standard_normal(4000)
    return np.concatenate([np.zeros(4000), word, np.zeros(4000)]).astype(np.float32)


def test_word_fragments_are_faint_short_and_fade_towards_the_word():
    samples = make_word_between_pauses()
    config = WordFragmentsConfig(probability=1.0, seconds=(0.1, 0.1), attenuation_db=(12.0, 12.0))
    levels = []
    for seed in range(40):
        remains = add_word_fragments(samples, config, sample_rate=8000, seed=seed) - samples
        assert set(np.flatnonzero(remains)) <= {*range(800), *range(11200, 12000)}
        halves = [np.sqrt(np.mean(part**2)) for part in np.split(remains[:800], 2) + np.split(remains[-800:], 2)]
        assert halves[0] > 1.5 * halves[1]
        assert halves[3] > 1.5 * halves[2]
        levels.append(20 * np.log10(np.sqrt(np.mean(remains[:800] ** 2)) / 0.2))
    # 12 dB below the word, and a straight fade leaves a third of the power; less where the word ends within the piece.
    assert np.median(levels) == pytest.approx(-12.0 - 10 * np.log10(3), abs=1.0)
    assert max(levels) < -15.0


def test_word_fragments_are_added_to_the_configured_share_of_ends():
    samples, config = make_word_between_pauses(), WordFragmentsConfig(probability=0.3)
    changed = [add_word_fragments(samples, config, sample_rate=8000, seed=seed) - samples for seed in range(500)]
    assert sum(bool(remains[:4000].any()) for remains in changed) == pytest.approx(150, abs=35)
    assert sum(bool(remains[8000:].any()) for remains in changed) == pytest.approx(150, abs=35)
    np.testing.assert_array_equal(changed[3], add_word_fragments(samples, config, sample_rate=8000, seed=3) - samples)


@pytest.mark.parametrize("size", [1, 50, 100, 1000])
def test_word_fragments_of_silence_and_of_very_short_audio(size):
    config = WordFragmentsConfig(probability=1.0)
    silence = np.zeros(size, dtype=np.float32)
    np.testing.assert_array_equal(add_word_fragments(silence, config, sample_rate=8000, seed=0), silence)
    short = np.ones(size, dtype=np.float32)
    assert add_word_fragments(short, config, sample_rate=8000, seed=0).shape == (size,)


def test_truncation_cuts_the_first_and_the_last_word():
    """The speech lies from 4,000 to 8,000 of 12,000 samples; 0.1 s are 800 of them."""
    samples = make_word_between_pauses()
    position = {value: index for index, value in enumerate(samples.tolist()) if value}
    starts, ends = [], []
    for seed in range(200):
        cut = truncate_ends(samples, TruncateConfig(probability=1.0, seconds=0.1), sample_rate=8000, seed=seed)
        starts.append(position[cut[0]])
        ends.append(position[cut[-1]] + 1)
        assert len(cut) == ends[-1] - starts[-1]
    assert 4000 <= min(starts) < 4050
    assert 4750 < max(starts) <= 4800
    assert 7200 <= min(ends) < 7250
    assert 7950 < max(ends) <= 8000
    assert abs(np.corrcoef(starts, ends)[0, 1]) < 0.2


def test_truncation_keeps_half_of_the_speech_and_draws_each_end_separately():
    samples = make_word_between_pauses()
    config = TruncateConfig(probability=0.5, seconds=10.0)
    lengths = [len(truncate_ends(samples, config, sample_rate=8000, seed=seed)) for seed in range(400)]
    assert min(lengths) == 2000
    assert lengths.count(len(samples)) == pytest.approx(100, abs=35)
    assert len(truncate_ends(samples, TruncateConfig(), sample_rate=8000, seed=0)) == len(samples)
    for quiet in (np.zeros(500, np.float32), np.zeros(0, np.float32), samples[:10]):
        assert len(truncate_ends(quiet, TruncateConfig(probability=1.0), sample_rate=8000, seed=1)) == len(quiet)


# Pitch and tempo


def find_peak_hz(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


@pytest.mark.parametrize(("semitones", "tempo"), [(-5.0, 1.0), (0.0, 1.5), (3.0, 0.8)])
def test_pitch_and_tempo_change_independently(semitones, tempo):
    config = AugmentConfig(pitch_semitones=(semitones, semitones), tempo=(tempo, tempo))
    tone = np.sin(2 * np.pi * 440.0 * np.arange(16000) / 16000).astype(np.float32)
    changed = change_pitch_and_tempo(tone, config, sample_rate=16000, seed=1)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(16000 / tempo, abs=4)
    assert find_peak_hz(changed, 16000) == pytest.approx(440.0 * 2 ** (semitones / 12), rel=0.01)


def test_pitch_shift_equals_librosa():
    """Away from the ends, and up to the phase of each partial: its pitch shift resamples with the same filter."""
    import librosa

    rng = np.random.default_rng(3)
    samples = (0.1 * np.cumsum(rng.standard_normal(16000)) / 30).astype(np.float32)
    config = AugmentConfig(pitch_semitones=(4.0, 4.0))
    ours = change_pitch_and_tempo(samples, config, sample_rate=16000, seed=1)
    theirs = librosa.effects.pitch_shift(samples, sr=16000, n_steps=4.0, n_fft=1024)
    assert len(ours) == len(theirs) == 16000
    np.testing.assert_allclose(ours[2000:-2000], theirs[2000:-2000], atol=1e-3)


def test_pitch_and_tempo_are_functions_of_the_seed():
    config = AugmentConfig(pitch_semitones=(-3.0, 3.0), tempo=(0.8, 1.2))
    samples = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    first, again, other = (augment(samples, config, sample_rate=16000, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other)


def test_recording_shorter_than_a_vocoder_window_is_unchanged():
    config = AugmentConfig(pitch_semitones=(2.0, 2.0), tempo=(1.2, 1.2))
    for count in (0, 1, 500, 1023):
        samples = np.random.default_rng(0).standard_normal(count).astype(np.float32)
        np.testing.assert_array_equal(change_pitch_and_tempo(samples, config, sample_rate=16000, seed=1), samples)


def test_pitch_and_tempo_are_off_by_default_and_librosa_is_not_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "librosa.effects", None)
    spec = importlib.util.spec_from_file_location("augment_anew", augment_module.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "augment_anew", module)
    spec.loader.exec_module(module)
    samples = np.ones(8000, np.float32)
    assert module.augment(samples, module.AugmentConfig(), sample_rate=8000, seed=1) is samples
    with pytest.raises(ImportError):
        change_pitch_and_tempo(samples, AugmentConfig(tempo=(2.0, 2.0)), sample_rate=8000, seed=1)
