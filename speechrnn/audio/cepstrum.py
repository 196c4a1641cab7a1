"""The arithmetic from a spectrum to MFCCs: mel scales, mel filters, the cosine transform and deltas.

Constants are made in float64; who uses them rounds them. Letters: B batch, T frames, F feature size.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from speechrnn.types import pick_last, valid_mask

MelScale = Literal["htk", "slaney"]


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
    """Space the lower edge, the centre and the upper edge of bands evenly over mels.

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
    """Make the triangles over frequency, with peak 1, that gather Fourier bins into mel bands.

    Args:
        sample_rate: Samples a second, in Hz.
        n_fft: Points of the Fourier transform.
        n_mels: Mel bands.
        f_min_hz: Lower edge of the lowest band.
        f_max_hz: Upper edge of the highest band.
        mel_scale: On which the bands' centres are evenly spaced.
        library: Whose filters to take instead: librosa's have area 1 over Hz and Slaney's scale, torchaudio's are
            computed in float32. It is imported only for that.

    Returns:
        (n_fft // 2 + 1, n_mels), float64, non-negative.
    """
    if library != "none":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bands without a bin
            return _make_library_filters(library, sample_rate, n_fft, n_mels, (f_min_hz, f_max_hz), mel_scale)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    edges = space_bands(f_min_hz, f_max_hz, n_mels, mel_scale)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


def _make_library_filters(
    library: Literal["librosa", "torchaudio"],
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    edges_hz: tuple[float, float],
    mel_scale: MelScale,
) -> Tensor:
    low, high = edges_hz
    if library == "librosa":
        from librosa.filters import mel

        filters = mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=low, fmax=high, dtype=np.float64)
        return torch.from_numpy(filters.T.copy())
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(n_fft // 2 + 1, low, high, n_mels, sample_rate, mel_scale=mel_scale).double()


def make_dct(n_mels: int, num_coefficients: int) -> Tensor:
    """Make the orthonormal DCT-II, whose columns are cosines over the mel bands.

    Returns:
        (n_mels, num_coefficients), float64.
    """
    bands = torch.arange(n_mels, dtype=torch.float64)[:, None] + 0.5
    orders = torch.arange(num_coefficients, dtype=torch.float64)
    cosines = torch.cos(math.pi / n_mels * bands * orders) * math.sqrt(2.0 / n_mels)
    cosines[:, 0] = math.sqrt(1.0 / n_mels)
    return cosines


def compute_deltas(features: Tensor, frame_lengths: Tensor, *, width: int) -> Tensor:
    """Fit the slope of each feature over time, in units a frame.

    d_t = sum_n n (c_{t+n} - c_{t-n}) / (2 sum_n n**2) for n = 1…width. Beyond its ends an utterance stands still at its
    own first and last valid frame.

    Args:
        features: (B, T, F).
        frame_lengths: Valid frames of each utterance, (B,), int64.
        width: Frames on each side.

    Returns:
        (B, T, F); rows past a length hold no meaning.

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
