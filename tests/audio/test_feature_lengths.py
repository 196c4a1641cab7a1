"""How many frames there are, and that neither neighbours nor padding nor blocks show in them."""

import math

import pytest
import torch
from front_ends import (
    MODES,
    compute_alone,
    compute_log_mel,
    compute_with_library,
    make_front_end,
    make_noise,
    make_speechlike,
)

from speechrnn.audio import features as features_module
from speechrnn.errors import AudioError


@pytest.mark.parametrize("compatibility", MODES)
@torch.inference_mode()
def test_frame_counts_are_exact_for_every_length(compatibility):
    front_end = make_front_end(sample_rate=8000, n_mels=20, kind="log_mel", compatibility=compatibility)
    noise = make_noise(700)
    sizes = torch.arange(701)
    counts = front_end.count_frames(sizes)
    assert counts.dtype == torch.int64
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        log_mels, frame_lengths = front_end.log_mel(noise[None, :size], torch.tensor([size]))
        assert (log_mels.shape[1], frame_lengths.tolist()) == (count, [count]), size
        assert front_end.count_frames(size) == count


@pytest.mark.parametrize("compatibility", ["librosa", "torchaudio"])
@pytest.mark.parametrize("num_samples", [0, 1, 128, 129, 160, 255, 256, 1999, 2000])
def test_frame_counts_match_the_library_s(compatibility, num_samples):
    front_end = make_front_end(sample_rate=8000, compatibility=compatibility, normalization="none")
    waveform = make_noise(num_samples)
    try:
        expected = compute_with_library(front_end.config, waveform).shape[0]
    except RuntimeError:  # torchaudio cannot reflect so little
        expected = 0
    assert front_end.count_frames(num_samples) == expected


def test_default_frames_are_those_that_fit():
    front_end = make_front_end()
    for size in (0, 399, 400, 559, 560, 1999):
        assert front_end.count_frames(size) == len([s for s in range(0, 4000, 160) if s + 400 <= size])


@pytest.mark.parametrize("normalization", ["none", "utterance", "corpus", "speaker", "sliding"])
@pytest.mark.parametrize("deltas", [0, 2])
@pytest.mark.parametrize("kind", ["mfcc", "log_mel"])
@pytest.mark.parametrize("compatibility", MODES)
def test_neighbours_and_padding_do_not_change_features(compatibility, kind, deltas, normalization):
    front_end = make_front_end(
        compatibility=compatibility,
        kind=kind,
        deltas=deltas,
        normalization=normalization,
        normalization_seconds=0.2,
    )
    waveforms = [
        make_speechlike(16000, 16000),
        1e-4 * make_noise(7321, seed=1),
        torch.zeros(5000),
        make_noise(400, seed=2),
        make_noise(100, seed=3),
        torch.zeros(0),
    ]
    batch = torch.full((len(waveforms), 20001), math.nan)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    features, frame_lengths = front_end(batch, torch.tensor([len(waveform) for waveform in waveforms]))
    assert features.dtype == torch.float32
    for row, count, waveform in zip(features, frame_lengths.tolist(), waveforms, strict=True):
        torch.testing.assert_close(row[:count], compute_alone(front_end, waveform), atol=1e-5, rtol=1e-6)
        assert not row[count:].any()


@pytest.mark.parametrize("compatibility", MODES)
def test_padding_of_a_few_samples_does_not_reach_the_last_frame(compatibility):
    front_end = make_front_end(compatibility=compatibility, normalization="none")
    noise = make_noise(4002)
    batch = torch.stack([noise, torch.cat([noise[:4000], torch.full((2,), math.nan)])])
    features, frame_lengths = front_end(batch, torch.tensor([4002, 4000], dtype=torch.int32))
    assert frame_lengths.dtype == torch.int64
    alone = compute_alone(front_end, noise[:4000])
    torch.testing.assert_close(features[1, : len(alone)], alone, atol=1e-5, rtol=1e-6)


def test_frame_depends_only_on_its_own_samples():
    front_end, waveform = make_front_end(), make_noise(8000)
    whole = compute_log_mel(front_end, waveform)
    for start in (1, 7, 20):
        part = compute_log_mel(front_end, waveform[start * 160 : start * 160 + 1040])
        torch.testing.assert_close(part, whole[start : start + 5], atol=1e-5, rtol=0)


@pytest.mark.parametrize("compatibility", MODES)
def test_computing_in_blocks_does_not_change_features(compatibility, monkeypatch):
    front_end = make_front_end(compatibility=compatibility, normalization="none")
    batch, lengths = make_noise(12000).reshape(2, 6000), torch.tensor([6000, 3333])
    whole, _ = front_end(batch, lengths)
    monkeypatch.setattr(features_module, "_CPU_BLOCK_FRAMES", 7)
    torch.testing.assert_close(front_end(batch, lengths)[0], whole, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("waveforms", "lengths"),
    [
        (torch.zeros(800), torch.tensor([800])),
        (torch.zeros(1, 800), torch.tensor([800, 800])),
        (torch.zeros(1, 800), torch.tensor([801])),
        (torch.zeros(1, 800), torch.tensor([-1])),
    ],
)
def test_lengths_that_do_not_match_are_refused(waveforms, lengths):
    with pytest.raises(AudioError, match=r"lengths .*; give"):
        make_front_end()(waveforms, lengths)
