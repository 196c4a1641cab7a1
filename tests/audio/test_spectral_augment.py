"""Warps and masks of log-mels: where they move a sound, what they cover, and that each utterance has its own."""

import numpy as np
import pytest
import torch

from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.audio.spectral_augment import SpecAugment, SpecAugmentConfig, Warp, WarpConfig

FRONT_END = FrontEndConfig(sample_rate=8000, n_mels=60, num_coefficients=13, n_fft=1024)


def make_log_mels(batch=4, frames=100, bands=20):
    return torch.randn(batch, frames, bands, generator=torch.Generator().manual_seed(0)) + 3.0


def apply(config, log_mels, lengths, seeds):
    return SpecAugment(config, frame_shift_seconds=0.01)(log_mels, torch.tensor(lengths), seeds)


def test_time_masks_stay_within_their_longest_span_and_the_utterance():
    config = SpecAugmentConfig(time_masks=1, time_mask_seconds=0.15, time_mask_share=1.0)
    log_mels = make_log_mels(batch=1)
    widths = []
    for seed in range(300):
        changed = (apply(config, log_mels, [100], [seed]) != log_mels).all(dim=2)[0]
        widths.append(int(changed.sum()))
        assert (np.diff(np.flatnonzero(changed.numpy())) == 1).all()  # one span
    assert max(widths) == 15
    assert min(widths) == 0
    assert np.mean(widths) == pytest.approx(7.5, abs=0.8)


def test_frequency_masks_take_whole_bands():
    config = SpecAugmentConfig(frequency_masks=1, frequency_mask_share=0.25)
    log_mels = make_log_mels(batch=1)
    widths = set()
    for seed in range(200):
        changed = (apply(config, log_mels, [100], [seed]) != log_mels)[0]
        assert (changed.all(dim=0) | ~changed.any(dim=0)).all()
        widths.add(int(changed.any(dim=0).sum()))
    assert widths == set(range(6))


def test_masked_cells_hold_their_bands_mean_over_the_utterance():
    config = SpecAugmentConfig(time_masks=1, time_mask_seconds=0.5, time_mask_share=0.5)
    log_mels = make_log_mels(batch=1)
    log_mels[:, 60:] = 0.0
    masked = apply(config, log_mels, [60], [1])
    changed = (masked != log_mels).any(dim=2)[0]
    assert 0 < changed.sum() <= 30
    expected = log_mels[0, :60].mean(dim=0)
    torch.testing.assert_close(masked[0, changed], expected.expand(int(changed.sum()), -1))


def test_an_utterances_masks_do_not_depend_on_its_neighbours():
    config = SpecAugmentConfig(time_masks=2, frequency_masks=2)
    log_mels = make_log_mels()
    log_mels[1, 40:] = 0.0
    together = apply(config, log_mels, [100, 40, 100, 100], [5, 6, 7, 8])
    alone = apply(config, log_mels[1:2, :40], [40], [6])
    torch.testing.assert_close(together[1, :40], alone[0])
    assert (together[1, 40:] == 0).all()


def test_nothing_is_masked_without_masks():
    log_mels = make_log_mels()
    assert apply(SpecAugmentConfig(), log_mels, [100] * 4, [0] * 4) is log_mels


def make_tone(hz, samples=8000):
    return (0.1 * torch.sin(2 * torch.pi * hz * torch.arange(samples) / 8000))[None]


def find_peak_hz(log_mels):
    """Frequency at the middle of a tone's peak, between bands too."""
    power = log_mels[0].mean(dim=0).exp().numpy()
    top = 2595 * np.log10(1 + 4000 / 700)
    low = 2595 * np.log10(1 + 20 / 700)
    mels = low + (top - low) * np.arange(1, 61) / 61
    near = np.abs(np.arange(60) - power.argmax()) <= 2
    mel = (mels[near] * power[near]).sum() / power[near].sum()
    return 700 * (10 ** (mel / 2595) - 1)


@pytest.mark.parametrize("hz", [500, 1000, 2000])
def test_a_vocal_tract_moves_a_tone_by_its_factor(hz):
    log_mels, lengths = FrontEnd(FRONT_END).log_mel(make_tone(hz), torch.tensor([8000]))
    warp = Warp(WarpConfig(vocal_tract=0.2), FRONT_END)
    factors = []
    for seed in range(40):
        factors.append(1 + np.random.default_rng(seed).uniform(-0.2, 0.2))
        moved = find_peak_hz(warp(log_mels, lengths, [seed]))
        assert moved == pytest.approx(hz / factors[-1], rel=0.02)
    assert min(factors) < 0.85
    assert max(factors) > 1.15


def test_a_vocal_tract_warp_keeps_the_edges_and_flat_spectra():
    warp = Warp(WarpConfig(vocal_tract=0.5), FRONT_END)
    flat = torch.full((1, 10, 60), 3.0)
    torch.testing.assert_close(warp(flat, torch.tensor([10]), [1]), flat)
    slope = torch.linspace(0, 1, 60).expand(1, 10, -1)
    for seed in range(20):
        warped = warp(slope, torch.tensor([10]), [seed])[0, 0]
        assert (warped.diff() >= 0).all()  # frequencies keep their order
        assert warped[-1] == pytest.approx(1.0, abs=0.05)


def test_a_vocal_tract_above_one_takes_no_band_from_beyond_the_edge():
    """By hand: a line leads to 3 kHz (three quarters of 4 kHz) over the factor, a second one to 4 kHz."""
    warp = Warp(WarpConfig(vocal_tract=0.5), FRONT_END)
    top, low = (2595 * np.log10(1 + hz / 700) for hz in (4000, 20))

    def to_hz(bands):
        return 700 * (10 ** ((low + (top - low) * (bands + 1) / 61) / 2595) - 1)

    for factor in (0.6, 1.2, 1.35, 1.5):
        hz, source = to_hz(np.arange(60)), to_hz(warp._find_bands(np.array([factor]))[0])
        knee = 3000 / max(factor, 1.0)
        expected = np.where(hz <= knee, hz * factor, np.interp(hz, [knee, 4000], [knee * factor, 4000]))
        assert source == pytest.approx(expected, rel=1e-6)
        assert (np.diff(source) > 0).all()
        assert source[-1] < 4000


def test_a_time_warp_moves_the_inside_and_keeps_the_ends():
    warp = Warp(WarpConfig(time_seconds=0.1), FRONT_END)
    ramp = torch.arange(100.0)[None, :, None].expand(1, -1, 60)
    farthest = 0.0
    for seed in range(100):
        warped = warp(ramp, torch.tensor([100]), [seed])[0, :, 0]
        assert (warped.diff() > 0).all()
        assert (warped[0], warped[-1]) == (0.0, 99.0)
        farthest = max(farthest, float((warped - ramp[0, :, 0]).abs().max()))
    assert 8.0 < farthest <= 10.0


def test_a_time_warp_does_not_change_padding_or_short_utterances():
    warp = Warp(WarpConfig(time_seconds=0.1), FRONT_END)
    log_mels = make_log_mels(batch=3, bands=60)
    warped = warp(log_mels, torch.tensor([0, 1, 50]), [1, 2, 3])
    assert torch.equal(warped[:2], log_mels[:2])
    assert torch.equal(warped[2, 50:], log_mels[2, 50:])
    assert not torch.equal(warped[2, :50], log_mels[2, :50])


def test_an_utterances_warp_does_not_depend_on_its_neighbours():
    warp = Warp(WarpConfig(vocal_tract=0.2, time_seconds=0.1), FRONT_END)
    log_mels = make_log_mels(bands=60)
    together = warp(log_mels, torch.tensor([100, 40, 100, 100]), [5, 6, 7, 8])
    alone = warp(log_mels[1:2, :40], torch.tensor([40]), [6])
    torch.testing.assert_close(together[1, :40], alone[0])
