"""Bringing features to a common scale: over an utterance, or over the recent past.

Letters: B batch, T frames, F feature size. Sums are taken in float64, so that neither padding nor the order of a batch
shows in the result.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from speechrnn.types import mask_padding, move

# A feature that moves by less than a hundredth is constant: dividing by less would turn rounding into features.
STD_FLOOR = 1e-2

# Half a second at the usual 100 frames a second.
PRIOR_FRAMES = 50


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest float for sums on a device: float64, or float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def normalize_utterance(features: Tensor, frame_lengths: Tensor) -> Tensor:
    """Give each feature of each utterance mean 0 and standard deviation 1 over the utterance's own frames.

    Args:
        features: (B, T, F), float32.
        frame_lengths: Valid frames of each utterance, (B,), int64.

    Returns:
        (B, T, F), float32. Rows past a length are zero. A constant feature, and so all of a single frame, becomes zero:
        the deviation (over frames, not frames - 1) is held at or above `STD_FLOOR`.
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

    Microphone, room and voice, as far as they shift features by a constant, go with the mean. It is drawn toward the
    corpus's mean as if `PRIOR_FRAMES` more frames had been added, all equal to that.

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
    """Normalise each frame by the mean and standard deviation of the frames just before it and itself.

    Nothing later than a frame enters it, so a stream can do the same. The first `window_frames` frames have only what
    came before them: the first frame is its own mean and so zero, the second is -1, 0 or 1.

    Args:
        features: (B, T, F), float32.
        frame_lengths: Valid frames of each utterance, (B,), int64.
        window_frames: Frames that the mean and deviation see, the current one included; at least 2.

    Returns:
        (B, T, F), float32; rows past a length are zero. The deviation is held at or above `STD_FLOOR`.
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
