"""What the front end computes, against textbooks and libraries; its gradients and its settings."""

import math
import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
import torchaudio
from front_ends import (
    MODES,
    compute_alone,
    compute_log_mel,
    compute_with_library,
    make_front_end,
    make_noise,
    make_speechlike,
)

from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.audio.transforms import compute_deltas, make_dct, make_mel_filters
from speechrnn.errors import ConfigError

# What is computed


@pytest.mark.parametrize(("sample_rate", "n_fft", "pre_emphasis"), [(16000, None, 0.97), (8000, 400, 0.0)])
def test_default_mfcc_matches_the_textbook_in_float64(sample_rate, n_fft, pre_emphasis):
    config = FrontEndConfig(
        sample_rate=sample_rate, n_fft=n_fft, pre_emphasis=pre_emphasis, num_coefficients=13, normalization="none"
    )
    waveform = make_speechlike(3000, sample_rate)
    x = waveform.double().numpy()
    emphasised = np.concatenate([x[:1], x[1:] - pre_emphasis * x[:-1]])
    window, hop, points = sample_rate * 25 // 1000, sample_rate // 100, n_fft or (512 if sample_rate == 16000 else 256)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = [emphasised[s : s + window] * hann for s in range(0, len(x) - window + 1, hop)]
    power = np.abs(np.fft.rfft(np.stack(frames), points)) ** 2
    filters = torchaudio.functional.melscale_fbanks(points // 2 + 1, 20.0, sample_rate / 2, 40, sample_rate)
    log_mels = np.log(np.maximum(power @ filters.double().numpy(), 1e-7))
    expected = scipy.fft.dct(log_mels, norm="ortho")[:, :13]
    np.testing.assert_allclose(compute_alone(FrontEnd(config), waveform).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("edges", [(0.0, None), (20.0, 3800.0)])
@pytest.mark.parametrize(("sample_rate", "n_fft", "n_mels"), [(16000, 512, 40), (8000, 256, 23), (22050, 2048, 128)])
def test_mel_filters_match_librosa(sample_rate, n_fft, n_mels, edges):
    low, high = edges
    for scale, norm in (("htk", None), ("slaney", "slaney"), ("slaney", None)):
        expected = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=low, fmax=high, htk=scale == "htk", norm=norm
        )
        filters = make_mel_filters(
            sample_rate,
            n_fft,
            n_mels=n_mels,
            f_min_hz=low,
            f_max_hz=high or sample_rate / 2,
            mel_scale=scale,
            library="librosa" if norm == "slaney" else "none",
        )
        np.testing.assert_allclose(filters.numpy(), expected.T, atol=2e-6)


def test_dct_of_two_bands_by_hand():
    half = math.sqrt(0.5)
    coefficients = torch.tensor([[1.0, 3.0]], dtype=torch.float64) @ make_dct(2, 2)
    torch.testing.assert_close(coefficients, torch.tensor([[4 * half, -2 * half]], dtype=torch.float64))


def test_deltas_by_hand_repeat_the_first_and_last_frame():
    squares = torch.tensor([0.0, 1.0, 4.0, 9.0, 99.0, math.nan])
    batch = torch.stack([squares, torch.arange(6.0)])[..., None]  # (2, 6, 1)
    deltas = compute_deltas(batch, torch.tensor([4, 6]), width=1)[..., 0]
    assert deltas[0, :4].tolist() == [0.5, 2.0, 4.0, 2.5]
    assert deltas[1].tolist() == [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    wide = compute_deltas(batch, torch.tensor([4, 6]), width=2)[0, :4, 0]
    assert wide.tolist() == pytest.approx([(1 + 2 * 4) / 10, (4 + 2 * 9) / 10, (8 + 2 * 9) / 10, (5 + 2 * 8) / 10])


def test_deltas_and_delta_deltas_match_librosa_away_from_the_ends():
    front_end = make_front_end(deltas=2, delta_width=3, num_coefficients=13, normalization="none")
    features = compute_alone(front_end, make_noise(8000)).numpy().T  # (39, T)
    inside = slice(6, -6)
    delta = librosa.feature.delta(features[:13], width=7)
    np.testing.assert_allclose(features[13:26, inside], delta[:, inside], atol=1e-5)
    np.testing.assert_allclose(features[26:, inside], librosa.feature.delta(delta, width=7)[:, inside], atol=1e-5)


@pytest.mark.parametrize("band", [5, 20, 38])
def test_pure_tone_peaks_in_the_mel_band_around_it(band):
    top = 2595 * math.log10(1 + 8000 / 700)
    low = 2595 * math.log10(1 + 20 / 700)
    centre = 700 * (10 ** ((low + (top - low) * (band + 1) / 41) / 2595) - 1)
    tone = torch.sin(2 * math.pi * centre * torch.arange(4000) / 16000)
    log_mels = compute_log_mel(make_front_end(), tone)
    assert set(log_mels.argmax(dim=-1).tolist()) == {band}


def test_digital_silence_is_exactly_the_log_of_the_floor():
    log_mels = compute_log_mel(make_front_end(), torch.zeros(1600))
    assert torch.equal(log_mels, torch.tensor(1e-7).log().expand(8, 40))


def test_log_floor_is_about_the_power_of_16_bit_rounding():
    """Over bands, on average; see the derivation at `FrontEndConfig.log_floor`."""
    rounding = (torch.rand(160000, generator=torch.Generator().manual_seed(0)) - 0.5) / 2**15
    power = compute_log_mel(make_front_end(log_floor=1e-30), rounding).exp().mean()
    assert float(power) == pytest.approx(1.4e-7, rel=0.1)


def test_gain_shifts_log_mels_by_twice_its_logarithm():
    front_end, waveform = make_front_end(), make_noise(4000)
    shift = compute_log_mel(front_end, 3.0 * waveform) - compute_log_mel(front_end, waveform)
    torch.testing.assert_close(shift, torch.full_like(shift, 2 * math.log(3.0)), atol=1e-4, rtol=0)


def test_window_hop_and_feature_size_follow_the_configuration():
    front_end = make_front_end(sample_rate=11025, num_coefficients=13, deltas=2)
    assert (front_end.config.window_length, front_end.config.hop_length, front_end.config.fft_length) == (276, 110, 512)
    assert front_end.frame_shift_seconds == 110 / 11025
    assert front_end.feature_size == 39
    assert make_front_end(kind="log_mel", n_mels=24, deltas=1).feature_size == 48


# Compatibility


COMBINATIONS = [
    {"sample_rate": 16000},
    {"sample_rate": 16000, "n_fft": 400, "n_mels": 80, "num_coefficients": 20, "f_min_hz": 0.0},
    {"sample_rate": 8000, "n_fft": 512, "n_mels": 23, "num_coefficients": 13, "f_max_hz": 3700.0},
    {"sample_rate": 22050, "window_seconds": 2048 / 22050, "hop_seconds": 512 / 22050, "n_mels": 128, "f_min_hz": 0.0},
    {"sample_rate": 11025, "n_fft": 552, "window_seconds": 0.0201, "hop_seconds": 0.007, "n_mels": 64},
]


@pytest.mark.parametrize("compatibility", ["librosa", "torchaudio"])
@pytest.mark.parametrize("settings", COMBINATIONS)
@pytest.mark.parametrize("make_waveform", [lambda n, _: make_noise(n), make_speechlike])
def test_compatibility_mode_equals_the_library_within_a_thousandth(compatibility, settings, make_waveform):
    front_end = make_front_end(**settings, compatibility=compatibility, normalization="none")
    waveform = make_waveform(settings["sample_rate"] + 37, settings["sample_rate"])
    expected = compute_with_library(front_end.config, waveform)
    np.testing.assert_allclose(compute_alone(front_end, waveform).numpy(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("compatibility", ["librosa", "torchaudio"])
def test_compatibility_mode_equals_the_library_on_real_recordings(compatibility):
    folder = os.environ.get("SPEECHRNN_CORPORA")
    if not folder:
        pytest.skip("SPEECHRNN_CORPORA names no folder of real recordings")
    paths = sorted(Path(folder, "fsdd", "recordings").rglob("*.wav"))[::300]
    assert paths
    front_end = make_front_end(sample_rate=8000, compatibility=compatibility, num_coefficients=20, normalization="none")
    for path in paths:
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        expected = compute_with_library(front_end.config, waveform)
        np.testing.assert_allclose(compute_alone(front_end, waveform).numpy(), expected, atol=1e-3, rtol=0)


def test_compatible_log_mels_are_librosa_s_decibels():
    front_end = make_front_end(compatibility="librosa", kind="log_mel", normalization="none")
    waveform = make_speechlike(16000, 16000)
    mel = librosa.feature.melspectrogram(
        y=waveform.numpy(), sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, fmin=20.0
    )
    expected = librosa.power_to_db(mel).T
    np.testing.assert_allclose(compute_alone(front_end, waveform).numpy(), expected, atol=1e-3, rtol=0)


# Numbers and gradients


@pytest.mark.parametrize("normalization", ["none", "utterance", "corpus", "speaker", "sliding"])
def test_features_stay_float32_under_autocast_and_in_a_halved_model(normalization):
    front_end = make_front_end(deltas=1, normalization=normalization)
    waveform = make_noise(4000)
    expected = compute_alone(front_end, waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compute_alone(front_end, waveform), expected)
    assert torch.equal(compute_alone(torch.nn.Sequential(front_end).to(torch.bfloat16)[0], waveform), expected)


def test_log_mel_gradient_obeys_euler_s_rule():
    """Power is homogeneous of degree 2 in the waveform, so waveform · d(sum of log-mels) = 2 a log-mel."""
    waveforms = torch.stack([make_noise(2000, seed=1), make_noise(2000, seed=2)])
    waveforms[1, 1000:] = math.nan
    waveforms.requires_grad_()
    log_mels, frame_lengths = make_front_end().log_mel(waveforms, torch.tensor([2000, 1000]))
    log_mels.sum().backward()
    assert not waveforms.grad[1, 1000:].any()
    products = (waveforms.grad * waveforms.detach().nan_to_num()).sum(dim=1)
    torch.testing.assert_close(products, 2.0 * 40 * frame_lengths, rtol=1e-4, atol=0)


@pytest.mark.parametrize("normalization", ["none", "utterance", "corpus", "speaker", "sliding"])
def test_gradients_reach_the_waveform_and_are_finite(normalization):
    front_end = make_front_end(deltas=2, normalization=normalization)
    waveforms = torch.cat([make_noise(3000), torch.zeros(3000)]).reshape(2, 3000).requires_grad_()
    features, _ = front_end(waveforms, torch.tensor([3000, 2000]))
    (features * torch.linspace(-1, 1, front_end.feature_size)).square().sum().backward()
    assert waveforms.grad.isfinite().all()
    assert waveforms.grad[0, 1:2900].all()


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", ["none", "utterance", "corpus", "speaker", "sliding"])
@pytest.mark.parametrize("compatibility", MODES)
def test_gpu_and_cpu_agree(compatibility, normalization):
    front_end = make_front_end(compatibility=compatibility, normalization=normalization, deltas=2)
    batch, lengths = make_noise(32000).reshape(2, 16000), torch.tensor([16000, 9000])
    expected, _ = front_end(batch, lengths)
    features, frame_lengths = front_end.to("cuda")(batch.to("cuda"), lengths)
    assert features.device.type == "cuda"
    assert frame_lengths.device.type == "cpu"  # counts stay on the host, so that nothing waits for the device
    torch.testing.assert_close(features.cpu(), expected, atol=1e-3, rtol=1e-5)


# Configuration


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 0},
        {"sample_rate": 16000.0},
        {"sample_rate": True},
        {"kind": "plp"},
        {"num_coefficients": 0},
        {"num_coefficients": 41},
        {"n_mels": 20},
        {"n_mels": -1},
        {"window_seconds": 0.0},
        {"window_seconds": 5e-5},
        {"window_seconds": "0.025"},
        {"hop_seconds": -0.01},
        {"hop_seconds": math.nan},
        {"hop_seconds": 1e-5},
        {"n_fft": 399},
        {"n_fft": 0},
        {"f_min_hz": -1.0},
        {"f_min_hz": 8000.0},
        {"f_max_hz": 8001.0},
        {"f_min_hz": 100.0, "f_max_hz": 90.0},
        {"mel_scale": "bark"},
        {"pre_emphasis": 1.5},
        {"log_floor": 0.0},
        {"log_floor": math.inf},
        {"deltas": 3},
        {"deltas": True},
        {"delta_width": 0},
        {"normalization": "batch"},
        {"normalization_seconds": 0.0},
        {"normalization": "sliding", "normalization_seconds": 0.01},
        {"compatibility": "kaldi"},
        {"compatibility": "librosa"},
        {"compatibility": "torchaudio", "n_fft": 401},
        {"window_seconds": 1.0, "sample_rate": 384000},
    ],
    ids=str,
)
def test_impossible_setting_is_refused_in_one_line_that_names_it(wrong):
    with pytest.raises(ConfigError) as caught:
        FrontEndConfig(**wrong)
    message = str(caught.value)
    assert "\n" not in message
    assert any(f"front_end.{name}: expected " in message or f"{name} " in message for name in wrong)


def test_mel_bands_without_a_fourier_bin_are_refused():
    with pytest.raises(ConfigError, match=r"front_end\.n_mels 128: \d+ bands contain no bin"):
        FrontEnd(FrontEndConfig(n_mels=128))
    FrontEnd(FrontEndConfig(n_mels=80))
