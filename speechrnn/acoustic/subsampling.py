"""Fewer frames for the recurrent layers: neighbours joined, or strided convolutions over time, or time and bands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechrnn.padding import mask_padding


def count_encoder_frames(feature_lengths: Tensor, *, kernel: int, stride: int, padding: int) -> Tensor:
    """Count the frames that one subsampling convolution leaves.

    Args:
        feature_lengths: Valid frames of each utterance, (B,), int64.
        kernel: Convolution width, in frames.
        stride: Hop between outputs, in frames.
        padding: Zeros added at each end, in frames.

    Returns:
        Valid output frames, (B,), int64; zero where there is no input, or the input is too short.

    Source:
        torch.nn.Conv1d, output length with dilation 1.
    """
    frames = torch.div(feature_lengths + 2 * padding - kernel, stride, rounding_mode="floor") + 1
    return torch.where(feature_lengths > 0, frames.clamp(min=0), torch.zeros_like(frames))


def divide_up(lengths: Tensor, factor: int) -> Tensor:
    """⌈lengths / factor⌉, int64."""
    return torch.div(lengths + factor - 1, factor, rounding_mode="floor")


class FrameStacking(nn.Module):
    """Join each ``factor`` neighbouring frames into one; the last one is filled up with zeros."""

    def __init__(self, input_size: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.output_size = input_size * factor

    def count_frames(self, feature_lengths: Tensor) -> Tensor:
        """Output frames: ⌈T / factor⌉, (B,), int64."""
        return divide_up(feature_lengths, self.factor)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), zero past the lengths (B,) → (B, T', factor·F), (B,)."""
        missing = -features.shape[1] % self.factor
        features = nn.functional.pad(features, (0, 0, 0, missing))
        return features.reshape(len(features), -1, self.output_size), self.count_frames(lengths)


class StridedConvolution(nn.Module):
    """One convolution over time with ReLU; it sees ``factor`` frames to each side of its centre."""

    def __init__(self, input_size: int, channels: int, factor: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = 2 * factor + 1, factor, factor
        self.convolution = nn.Conv1d(input_size, channels, self.kernel, stride=factor, padding=factor)
        self.output_size = channels

    def count_frames(self, feature_lengths: Tensor) -> Tensor:
        """Output frames, (B,), int64."""
        return count_encoder_frames(feature_lengths, kernel=self.kernel, stride=self.stride, padding=self.padding)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), zero past the lengths (B,) → (B, T', C), (B,)."""
        lengths = self.count_frames(lengths)
        if features.shape[1] == 0:
            return features.new_zeros(len(features), 0, self.output_size), lengths
        frames = self.convolution(features.transpose(1, 2)).relu().transpose(1, 2)  # (B, C, T') → (B, T', C)
        return mask_padding(frames, lengths), lengths


class Convolution2d(nn.Module):
    """Two convolutions over time and bands with ReLU, then a linear map.

    A shape that a few bands make in a few frames is much the same sound a little higher or lower, so its weights are
    shared over the bands. Each convolution halves the bands; where the factor is even and above 2 the second one steps
    over every other frame, and the first one takes what remains of the factor.

    Source:
        D. Amodei et al., "Deep Speech 2", ICML 2016 (two-dimensional convolutions before recurrent layers); the form
        with two 3 x 3 kernels and a linear map follows ESPnet's Conv2dSubsampling (S. Watanabe et al., 2018).
    """

    def __init__(self, input_size: int, channels: int, factor: int, output_size: int) -> None:
        super().__init__()
        second = 2 if factor % 2 == 0 and factor > 2 else 1
        self.strides = (factor // second, second)
        self.convolutions = nn.ModuleList()
        bands = input_size
        for depth, stride in zip((1, channels), self.strides, strict=True):
            kernel = (max(3, 2 * stride - 1), 3)  # wide enough for the last frames, which no kernel is centred on
            padding = (kernel[0] // 2, 1)
            self.convolutions.append(nn.Conv2d(depth, channels, kernel, stride=(stride, 2), padding=padding))
            bands = -(-bands // 2)
        self.projection = nn.Linear(channels * bands, output_size)
        self.output_size = output_size

    def count_frames(self, feature_lengths: Tensor) -> Tensor:
        """Output frames: ⌈T / factor⌉, (B,), int64."""
        for stride in self.strides:
            feature_lengths = divide_up(feature_lengths, stride)
        return feature_lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), zero past the lengths (B,) → (B, T', D), (B,)."""
        if features.shape[1] == 0:
            return features.new_zeros(len(features), 0, self.output_size), self.count_frames(lengths)
        maps = features[:, None]  # (B, 1, T, F)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            lengths = divide_up(lengths, stride)
            maps = mask_padding(convolution(maps).relu().transpose(1, 2), lengths).transpose(1, 2)  # (B, C, T', F')
        frames = self.projection(maps.transpose(1, 2).flatten(2))  # (B, C, T', F') → (B, T', C·F')
        return mask_padding(frames, lengths), lengths
