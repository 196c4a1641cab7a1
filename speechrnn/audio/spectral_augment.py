"""Augmentation of log-mels: warps over frequency and time, masks (SpecAugment).

It is applied before the cosine transform, so that it also affects MFCCs. Letters: B batch, T frames, M mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio.feature_config import FrontEndConfig
from speechrnn.audio.transforms import hz_to_mel, mel_to_hz
from speechrnn.settings import Settings, bounded
from speechrnn.types import move

_KNEE_SHARE = 0.75


@dataclass(frozen=True)
class WarpConfig(Settings, section="augment.warp"):
    """Warps of log-mels over frequency and time; 0 is off.

    Attributes:
        vocal_tract: Largest change of the frequency scale, as of a shorter or longer vocal tract: 0.2 draws a factor
            from 0.8 to 1.2. Tempo and pitch stay the same. For corpora with few speakers.
        time_seconds: Largest shift of a moment in the utterance, in seconds, by which the time before it is stretched
            and the time after it compressed, or the reverse; at most a fifth of the utterance.

    Source:
        N. Jaitly and G. Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", ICML 2013
        workshop; D. Park et al., "SpecAugment", Interspeech 2019 (time warp).
    """

    vocal_tract: float = bounded(0.0, 0, 0.5)
    time_seconds: float = bounded(0.0, 0, 60, unit="seconds")


@dataclass(frozen=True)
class SpecAugmentConfig(Settings, section="augment.spec_augment"):
    """Masks over time and frequency; a mask is filled with the utterance's mean of each band.

    Attributes:
        time_masks: Spans of frames to mask in each utterance.
        time_mask_seconds: Longest span, in seconds; each is drawn uniformly from 0.
        time_mask_share: Longest span, as a share of the utterance, in [0, 1].
        frequency_masks: Runs of neighbouring mel bands to mask in each utterance.
        frequency_mask_share: Widest run, as a share of the mel bands, in [0, 1].

    Source:
        D. Park et al., "SpecAugment", Interspeech 2019.
    """

    time_masks: int = bounded(0, 0, 1000)
    time_mask_seconds: float = bounded(0.4, 0, 3600, unit="seconds")
    time_mask_share: float = bounded(0.2, 0, 1)
    frequency_masks: int = bounded(0, 0, 1000)
    frequency_mask_share: float = bounded(0.2, 0, 1)


class Warp:
    """Warps log-mels over frequency and time, each utterance by its own seed.

    Args:
        config: The largest warps.
        front_end: The mel bands.
    """

    def __init__(self, config: WarpConfig, front_end: FrontEndConfig) -> None:
        self.config = config
        self.front_end = front_end
        self.farthest_frames = config.time_seconds * front_end.sample_rate / front_end.hop_length

    @property
    def is_active(self) -> bool:
        """Whether any warp is configured."""
        return self.config.vocal_tract > 0 or self.config.time_seconds > 0

    def __call__(self, log_mels: Tensor, lengths: Tensor, seeds: Sequence[int]) -> Tensor:
        """Warp a batch.

        Args:
            log_mels: (B, T, M).
            lengths: Valid frames, (B,), int64; they stay the same.
            seeds: One for each utterance, B.

        Returns:
            (B, T, M); padding is unchanged.
        """
        generators = [np.random.default_rng(seed) for seed in seeds]
        if self.config.vocal_tract and log_mels.shape[2] > 1:
            reach = self.config.vocal_tract
            factors = np.array([1.0 + rng.uniform(-reach, reach) for rng in generators])
            log_mels = _interpolate(log_mels, self._find_bands(factors), dim=2)
        if self.config.time_seconds and log_mels.shape[1] > 1:
            rows = [
                self._find_frames(log_mels.shape[1], length, rng)
                for length, rng in zip(lengths.tolist(), generators, strict=True)
            ]
            log_mels = _interpolate(log_mels, np.stack(rows), dim=1)
        return log_mels

    def _find_bands(self, factors: np.ndarray) -> np.ndarray:
        """The band, with fractions, from which each band is taken, (B, M).

        A frequency f is taken from f times the factor, up to a knee at three quarters of the range; above it a second
        line leads to the upper edge, which is fixed.
        """
        config = self.front_end
        low, high = config.f_min_hz, config.upper_edge_hz
        edges = hz_to_mel(torch.tensor([low, high], dtype=torch.float64), config.mel_scale).numpy()
        step = (edges[1] - edges[0]) / (config.n_mels + 1)
        centres = torch.from_numpy(edges[0] + step * np.arange(1, config.n_mels + 1))
        hz = mel_to_hz(centres, config.mel_scale).numpy()[None]
        factor = factors[:, None]
        knee = _KNEE_SHARE * high / np.maximum(factor, 1.0)
        above = high - (high - knee * factor) / (high - knee) * (high - hz)
        mels = hz_to_mel(torch.from_numpy(np.where(hz <= knee, hz * factor, above)), config.mel_scale).numpy()
        return (mels - edges[0]) / step - 1.0

    def _find_frames(self, num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """The frame, with fractions, from which each frame is taken, (T,); padding is not moved."""
        frames = np.arange(num_frames, dtype=np.float64)
        last = length - 1
        farthest = min(self.farthest_frames, last / 5)
        if farthest <= 0:
            return frames
        moment = rng.uniform(2 * farthest, last - 2 * farthest)
        moved = moment + rng.uniform(-farthest, farthest)
        frames[:length] = np.interp(frames[:length], [0.0, moved, last], [0.0, moment, last])
        return frames


def _interpolate(log_mels: Tensor, positions: np.ndarray, *, dim: int) -> Tensor:
    """Interpolate (B, T, M) linearly at positions (B, size of dim), along time (1) or bands (2)."""
    last = log_mels.shape[dim] - 1
    positions = positions.clip(0.0, last)
    lower = np.minimum(np.floor(positions), last - 1)
    shape = (len(log_mels), -1, 1) if dim == 1 else (len(log_mels), 1, -1)
    share = move(torch.from_numpy(positions - lower), log_mels.device).to(log_mels).reshape(shape)
    index = move(torch.from_numpy(lower.astype(np.int64)), log_mels.device).reshape(shape).expand_as(log_mels)
    return torch.lerp(log_mels.gather(dim, index), log_mels.gather(dim, index + 1), share)


class SpecAugment:
    """Masks log-mels, each utterance by its own seed.

    Args:
        config: Number and size of the masks.
        frame_shift_seconds: Time from one feature frame to the next, in seconds.
    """

    def __init__(self, config: SpecAugmentConfig, *, frame_shift_seconds: float) -> None:
        self.config = config
        self.longest_frames = math.floor(config.time_mask_seconds / frame_shift_seconds + 1e-6)

    @property
    def is_active(self) -> bool:
        """Whether any mask is configured."""
        return self.config.time_masks > 0 or self.config.frequency_masks > 0

    def __call__(self, log_mels: Tensor, lengths: Tensor, seeds: Sequence[int]) -> Tensor:
        """Mask a batch.

        Args:
            log_mels: (B, T, M), zero past the lengths.
            lengths: Valid frames, (B,), int64.
            seeds: One for each utterance, B.

        Returns:
            (B, T, M): masked cells contain their band's mean over the utterance, padding is unchanged.
        """
        if not self.is_active:
            return log_mels
        mask = np.zeros(tuple(log_mels.shape), dtype=bool)
        for row, (length, seed) in enumerate(zip(lengths.tolist(), seeds, strict=True)):
            self._draw(mask[row, :length], np.random.default_rng(seed))
        means = log_mels.sum(dim=1, keepdim=True) / move(lengths, log_mels.device).clamp(min=1)[:, None, None]
        return torch.where(move(torch.from_numpy(mask), log_mels.device), means, log_mels)

    def _draw(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Draw one utterance's mask, (T, M), in place."""
        frames, bands = mask.shape
        longest = min(self.longest_frames, math.floor(self.config.time_mask_share * frames))
        widest = math.floor(self.config.frequency_mask_share * bands)
        for _ in range(self.config.time_masks):
            width = int(rng.integers(longest + 1))
            start = int(rng.integers(frames - width + 1))
            mask[start : start + width] = True
        for _ in range(self.config.frequency_masks):
            width = int(rng.integers(widest + 1))
            start = int(rng.integers(bands - width + 1))
            mask[:, start : start + width] = True
