"""The steps from a spectrum to normalised features: mel filters, the cosine transform, deltas, normalisation.

Constants are computed in float64 and rounded where they are used. Sums over frames are in float64, so that neither
padding nor the order of a batch changes the result. Letters: B batch, T frames, F feature size.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from speechrnn.audio.feature_config import MelScale
from speechrnn.types import mask_padding, move, pick_last, valid_mask

STD_FLOOR = 1e-2  # below it a feature is constant: dividing by less would turn rounding into features
PRIOR_FRAMES = 50  # half a second at the usual 100 frames a second


def hz_to_mel(frequencies: Tensor, mel_scale: MelScale) -> Tensor:
    """Convert frequencies in Hz to mels.

    Source:
        HTK: The HTK Book, section 5.4. Slaney: Auditory Toolbox (1998), 200/3 Hz a step below 1 kHz, 27 steps for each
        factor of 6.4 above.
    """
    if mel_scale == "htk":
        return 2595.0 * torch.log10(1.0 + frequencies / 700.0)
    above = 15.0 + 27.0 * torch.log(frequencies.clamp(min=1000.0) / 1000.0) / math.log(6.4)
    return torch.where(frequencies < 1000.0, frequencies * 3.0 / 200.0, above)


def mel_to_hz(mels: Tensor, mel_scale: MelScale) -> Tensor:
    """Convert mels to frequencies in Hz, undoing `hz_to_mel`."""
    if mel_scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    return torch.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * torch.exp((mels - 15.0) * math.log(6.4) / 27.0))


def space_bands(f_min_hz: float, f_max_hz: float, n_mels: int, mel_scale: MelScale) -> Tensor:
    """Space the edges and centres of bands evenly over mels.

    Returns:
        In Hz, (n_mels + 2,), float64: band m has its edges at m and m + 2, its centre at m + 1.
    """
    limits = hz_to_mel(torch.tensor([f_min_hz, f_max_hz], dtype=torch.float64), mel_scale)
    return mel_to_hz(torch.linspace(float(limits[0]), float(limits[1]), n_mels + 2, dtype=torch.float64), mel_scale)


def make_mel_filters(
    sample_rate: int,
    n_fft: int,
    *,
    n_mels: int,
    f_min_hz: float,
    f_max_hz: float,
    mel_scale: MelScale,
    library: Literal["none", "librosa", "torchaudio"] = "none",
) -> Tensor:
    """Make the triangular filters, with peak 1, that map Fourier bins to mel bands.

    Args:
        sample_rate: Samples a second, in Hz.
        n_fft: Points of the Fourier transform.
        n_mels: Mel bands.
        f_min_hz: Lower edge of the lowest band.
        f_max_hz: Upper edge of the highest band.
        mel_scale: Scale on which the bands' centres are evenly spaced.
        library: Library whose filters to use instead: librosa's have area 1 over Hz and Slaney's scale, torchaudio's
            are computed in float32.

    Returns:
        (n_fft // 2 + 1, n_mels), float64, non-negative.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands without a bin
        if library == "librosa":
            from librosa.filters import mel

            filters = mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min_hz, fmax=f_max_hz, dtype=np.float64)
            return torch.from_numpy(filters.T.copy())
        if library == "torchaudio":
            from torchaudio.functional import melscale_fbanks

            num_bins = n_fft // 2 + 1
            return melscale_fbanks(num_bins, f_min_hz, f_max_hz, n_mels, sample_rate, mel_scale=mel_scale).double()
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    edges = space_bands(f_min_hz, f_max_hz, n_mels, mel_scale)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


def make_dct(n_mels: int, num_coefficients: int) -> Tensor:
    """Make the matrix of the orthonormal DCT-II.

    Returns:
        (n_mels, num_coefficients), float64.
    """
    bands = torch.arange(n_mels, dtype=torch.float64)[:, None] + 0.5
    orders = torch.arange(num_coefficients, dtype=torch.float64)
    cosines = torch.cos(math.pi / n_mels * bands * orders) * math.sqrt(2.0 / n_mels)
    cosines[:, 0] = math.sqrt(1.0 / n_mels)
    return cosines


def compute_deltas(features: Tensor, frame_lengths: Tensor, *, width: int) -> Tensor:
    """Fit the slope of each feature over time, per frame.

    d_t = sum_n n (c_{t+n} - c_{t-n}) / (2 sum_n n**2) for n = 1…width. The first and the last valid frame are repeated
    beyond the ends.

    Args:
        features: (B, T, F).
        frame_lengths: Valid frames of each utterance, (B,), int64.
        width: Frames on each side.

    Returns:
        (B, T, F); rows past a length are undefined.

    Source:
        The HTK Book, section 5.9.
    """
    num_frames = features.shape[1]
    if num_frames == 0:
        return features
    final = pick_last(features, frame_lengths)  # (B, 1, F)
    held = torch.where(valid_mask(features, frame_lengths)[..., None], features, final)
    padded = torch.cat([held[:, :1].expand(-1, width, -1), held, final.expand(-1, width, -1)], dim=1)
    slopes = torch.zeros_like(features)
    for n in range(1, width + 1):
        ahead, behind = (padded[:, start : start + num_frames] for start in (width + n, width - n))
        slopes = slopes + n * (ahead - behind)
    return slopes / (2 * sum(n * n for n in range(1, width + 1)))


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest float for sums on a device: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def normalize_utterance(features: Tensor, frame_lengths: Tensor) -> Tensor:
    """Normalise each feature of each utterance to mean 0 and standard deviation 1 over the utterance's frames.

    Args:
        features: (B, T, F), float32.
        frame_lengths: Valid frames of each utterance, (B,), int64.

    Returns:
        (B, T, F), float32. Rows past a length are zero. A constant feature, as in a single frame, becomes zero: the
        deviation (over frames, not frames - 1) is at least `STD_FLOOR`.
    """
    wide = mask_padding(features.to(wide_dtype(features.device)), frame_lengths)
    counts = move(frame_lengths, features.device).clamp(min=1)[:, None, None]
    mean = wide.sum(dim=1, keepdim=True) / counts  # (B, 1, F)
    centred = mask_padding(wide - mean, frame_lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / counts
    return (centred / variance.clamp(min=STD_FLOOR**2).sqrt()).to(features.dtype)


def normalize_speaker(
    features: Tensor, frame_lengths: Tensor, *, mean: Tensor, std: Tensor, speaker_stats: Tensor | None
) -> Tensor:
    """Subtract the mean features of each utterance's speaker, and divide by the corpus's deviation.

    The mean removes constant shifts of the features by microphone, room and voice. It includes `PRIOR_FRAMES` frames
    equal to the corpus's mean.

    Args:
        features: (B, T, F), float32.
        frame_lengths: Valid frames of each utterance, (B,), int64.
        mean: The corpus's, (F,).
        std: The corpus's, (F,), above 0.
        speaker_stats: Number of frames of each speaker, and the mean features over them, (B, 1 + F); without, the
            statistics of the utterance itself are used.

    Returns:
        (B, T, F), float32; rows past a length are zero.

    Source:
        Atal, "Effectiveness of linear prediction characteristics of the speech wave for automatic speaker
        identification and verification", JASA 55 (1974), for the mean of the cepstrum; the prior is that of a maximum
        a posteriori estimate.
    """
    wide = mask_padding(features.to(wide_dtype(features.device)), frame_lengths)
    counts, sums = move(frame_lengths[:, None], wide.device).to(wide), wide.sum(dim=1)
    if speaker_stats is not None:
        stats = speaker_stats.to(wide)
        is_known = stats[:, :1] > 0
        sums = torch.where(is_known, stats[:, :1] * stats[:, 1:], sums)
        counts = torch.where(is_known, stats[:, :1], counts)
    centre = (PRIOR_FRAMES * mean + sums) / (PRIOR_FRAMES + counts)  # (B, F)
    return mask_padding((wide - centre[:, None]) / std, frame_lengths).to(features.dtype)


def normalize_sliding(features: Tensor, frame_lengths: Tensor, *, window_frames: int) -> Tensor:
    """Normalise each frame by the mean and standard deviation of the frames up to it.

    Later frames have no influence, so that streams give the same values. The first `window_frames` frames have fewer
    frames before them: the first frame becomes zero, the second -1, 0 or 1.

    Args:
        features: (B, T, F), float32.
        frame_lengths: Valid frames of each utterance, (B,), int64.
        window_frames: Frames of the mean and deviation, including the current one; at least 2.

    Returns:
        (B, T, F), float32; rows past a length are zero. The deviation is at least `STD_FLOOR`.
    """
    num_frames = features.shape[1]
    wide = mask_padding(features.to(wide_dtype(features.device)), frame_lengths)
    counts = torch.arange(1, num_frames + 1, device=features.device).clamp(max=window_frames)[:, None]  # (T, 1)
    mean = _sum_recent(wide, window_frames) / counts
    variance = _sum_recent(wide.square(), window_frames) / counts - mean.square()
    scaled = (wide - mean) / variance.clamp(min=STD_FLOOR**2).sqrt()
    return mask_padding(scaled, frame_lengths).to(features.dtype)


def _sum_recent(values: Tensor, window_frames: int) -> Tensor:
    """Sum each frame and the `window_frames` - 1 before it, (B, T, F)."""
    running = values.cumsum(dim=1)
    before = functional.pad(running, (0, 0, window_frames, 0))[:, : values.shape[1]]
    return running - before
