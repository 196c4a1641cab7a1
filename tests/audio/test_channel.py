"""Rooms, telephone bands and codecs, by what they do to the sound."""

import numpy as np
import pytest
import soundfile

from speechrnn.audio.augment import AugmentConfig, augment
from speechrnn.audio.channel import (
    BandConfig,
    CodecConfig,
    NoiseConfig,
    ReverberationConfig,
    add_noise,
    encode_and_decode,
    limit_band,
    reverberate,
)
from speechrnn.errors import AudioError, ConfigError

RATE = 16000


def make_click(seconds=2.0):
    samples = np.zeros(int(seconds * RATE), np.float32)
    samples[RATE // 10] = 0.5
    return samples


def make_speech(seconds=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return (
        0.1 * rng.standard_normal(int(seconds * RATE)) * np.abs(np.sin(np.arange(int(seconds * RATE)) / 3000))
    ).astype(np.float32)


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def measure_decay(tail):
    """RT60 from the slope of the backward-integrated energy between -5 and -25 dB (Schroeder)."""
    energy = np.cumsum(np.square(tail[::-1]))[::-1]
    curve = 10 * np.log10(energy / energy[0])
    inside = np.flatnonzero((curve < -5) & (curve > -25))
    slope = np.polyfit(inside / RATE, curve[inside], 1)[0]
    return -60.0 / slope


@pytest.mark.parametrize("decay", [0.3, 0.8])
def test_a_simulated_room_decays_by_60_db_in_its_reverberation_time(decay):
    config = ReverberationConfig(probability=1.0, decay_seconds=(decay, decay), direct_db=(0.0, 0.0))
    decays = [
        measure_decay(reverberate(make_click(), config, sample_rate=RATE, seed=seed)[RATE // 10 + 200 :])
        for seed in range(8)
    ]
    assert np.mean(decays) == pytest.approx(decay, rel=0.12)


@pytest.mark.parametrize("direct_db", [0.0, 12.0])
def test_the_direct_sound_has_the_given_ratio_and_does_not_move(direct_db):
    config = ReverberationConfig(probability=1.0, direct_db=(direct_db, direct_db))
    wet = reverberate(make_click(), config, sample_rate=RATE, seed=3)
    assert int(np.argmax(np.abs(wet))) == RATE // 10
    assert not wet[: RATE // 10].round(6).any()
    room = np.delete(wet, RATE // 10)
    assert 10 * np.log10(wet[RATE // 10] ** 2 / np.sum(room**2)) == pytest.approx(direct_db, abs=0.1)


def test_recorded_responses_are_taken_from_their_direct_sound_on(tmp_path):
    response = np.zeros(800)
    response[100], response[260] = 0.8, 0.4  # an echo 10 ms after the direct sound, at half its height
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    config = ReverberationConfig(probability=1.0, responses=str(tmp_path))
    wet = reverberate(make_click(), config, sample_rate=RATE, seed=0)
    at = RATE // 10
    assert np.flatnonzero(np.abs(wet) > 1e-4).tolist() == [at, at + 160]
    assert wet[at + 160] / wet[at] == pytest.approx(0.5, rel=1e-4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="responses .*empty: no recordings in it"):
        reverberate(make_click(), ReverberationConfig(1.0, responses=str(tmp_path / "empty")), sample_rate=RATE, seed=0)
    (tmp_path / "silent").mkdir()
    soundfile.write(tmp_path / "silent" / "s.wav", np.zeros(100), RATE)
    with pytest.raises(AudioError, match="a silent impulse response"):
        reverberate(
            make_click(), ReverberationConfig(1.0, responses=str(tmp_path / "silent")), sample_rate=RATE, seed=0
        )


def test_a_telephone_band_ends_at_its_limits():
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    cut = limit_band(noise, BandConfig(probability=1.0), sample_rate=RATE, seed=0)
    gain = 20 * np.log10(np.abs(np.fft.rfft(cut)) / np.abs(np.fft.rfft(noise)) + 1e-9)
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    assert np.abs(gain[(frequency >= 300) & (frequency <= 3400)]).max() < 0.1
    assert gain[(frequency < 265) | (frequency > 3750)].max() < -60


@pytest.mark.parametrize("kind", ["mp3", "opus", "vorbis", "gsm", "mulaw"])
@pytest.mark.parametrize("length", [16000, 12345, 700])
def test_a_codec_changes_neither_length_nor_timing(kind, length):
    samples = make_speech()[:length]
    if length > 5000:
        samples[3000:3200] += 0.5
    config = CodecConfig(probability=1.0, kinds=(kind,), compression=(0.8, 0.8))
    coded = encode_and_decode(samples, config, sample_rate=RATE, seed=0)
    assert (coded.shape, coded.dtype) == (samples.shape, np.float32)
    assert not np.array_equal(coded, samples)
    if length > 5000:
        both = np.fft.irfft(np.fft.rfft(coded, 1 << 16) * np.conj(np.fft.rfft(samples, 1 << 16)))
        shift = int(np.argmax(both))
        assert min(shift, (1 << 16) - shift) <= 2
        assert level_db(coded) == pytest.approx(level_db(samples), abs=3.0)


def test_levels_above_full_scale_survive_the_codec():
    samples = 4.0 * make_speech()
    coded = encode_and_decode(samples, CodecConfig(1.0, kinds=("mulaw",)), sample_rate=RATE, seed=0)
    np.testing.assert_allclose(coded, samples, atol=0.1)


@pytest.mark.parametrize("kind", ["mp3", "opus", "vorbis"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_both_ends_of_the_compression_range_work(kind, level):
    """libsndfile refuses MP3 levels above 0.9999: one draw in 4,000 of the default range ended a training run."""
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    config = CodecConfig(probability=1.0, kinds=(kind,), compression=(level, level))
    assert encode_and_decode(samples, config, sample_rate=RATE, seed=0).std() > 0.01


def test_stronger_compression_has_a_larger_error():
    samples = make_speech()
    errors = [
        level_db(encode_and_decode(samples, CodecConfig(1.0, ("vorbis",), (c, c)), sample_rate=RATE, seed=0) - samples)
        for c in (0.0, 1.0)
    ]
    assert errors[1] > errors[0] + 3


def test_opus_at_an_unsupported_rate_is_refused():
    with pytest.raises(ConfigError, match="opus does not support 11025 Hz"):
        encode_and_decode(make_speech(), CodecConfig(1.0, ("opus",)), sample_rate=11025, seed=0)


@pytest.mark.parametrize("noise_seconds", [10.0, 0.3])
def test_noise_from_files_has_the_requested_snr(tmp_path, noise_seconds):
    hum = np.sin(2 * np.pi * 1000 * np.arange(int(noise_seconds * 8000)) / 8000)
    soundfile.write(tmp_path / "hum.wav", 0.01 * hum, 8000, subtype="FLOAT")
    config = NoiseConfig(probability=1.0, snr_db=(7.0, 7.0), kinds=("files",), folder=str(tmp_path))
    samples = make_speech()
    noise = add_noise(samples, config, sample_rate=RATE, seed=1) - samples
    assert level_db(samples) - level_db(noise) == pytest.approx(7.0, abs=0.5)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    around = np.abs(np.fft.rfftfreq(len(noise), 1 / RATE) - 1000) < 60
    assert spectrum[around].sum() > 0.9 * spectrum.sum()


def test_each_effect_changes_its_configured_share_of_utterances():
    samples = make_speech(0.3)
    for change, config in (
        (reverberate, ReverberationConfig(probability=0.3)),
        (limit_band, BandConfig(probability=0.3)),
        (encode_and_decode, CodecConfig(probability=0.3, kinds=("mulaw",))),
    ):
        changed = [
            not np.array_equal(change(samples, config, sample_rate=RATE, seed=seed), samples) for seed in range(200)
        ]
        assert sum(changed) == pytest.approx(60, abs=20)
        again = [change(samples, config, sample_rate=RATE, seed=5) for _ in range(2)]
        np.testing.assert_array_equal(*again)


@pytest.mark.parametrize(
    "settings",
    [
        {"reverberation": ReverberationConfig(probability=1.0)},
        {"band": BandConfig(probability=1.0)},
        {"codec": CodecConfig(probability=1.0)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_enabled_effect_changes_an_utterance(settings):
    samples = make_speech()
    changed = augment(samples, AugmentConfig(**settings), sample_rate=RATE, seed=1)
    assert changed.shape == samples.shape
    assert not np.array_equal(changed, samples)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (ReverberationConfig, {"probability": 2.0}, "augment.reverberation.probability"),
        (ReverberationConfig, {"decay_seconds": (0.5, 0.2)}, "augment.reverberation.decay_seconds"),
        (ReverberationConfig, {"direct_db": (5.0, 1.0)}, "augment.reverberation.direct_db"),
        (BandConfig, {"low_hz": 4000.0}, "augment.band"),
        (BandConfig, {"probability": -1.0}, "augment.band.probability"),
        (CodecConfig, {"kinds": ()}, "augment.codec.kinds"),
        (CodecConfig, {"kinds": ("zip",)}, "augment.codec.kinds"),
        (CodecConfig, {"compression": (0.5, 1.5)}, "augment.codec.compression"),
        (NoiseConfig, {"kinds": ("files",)}, "augment.noise"),
        (NoiseConfig, {"folder": "x"}, "augment.noise"),
    ],
)
def test_impossible_settings_are_refused_by_name(kind, settings, named):
    with pytest.raises(ConfigError, match=named):
        kind(**settings)


@pytest.mark.parametrize("length", [0, 1, 10])
def test_very_short_audio_is_augmented_without_error(length):
    config = AugmentConfig(
        reverberation=ReverberationConfig(1.0), band=BandConfig(1.0), codec=CodecConfig(1.0, ("mulaw",))
    )
    assert len(augment(np.full(length, 0.1, np.float32), config, sample_rate=RATE, seed=0)) == length
