"""The encoder: subsampling in time, a recurrent stack, and an optional look-ahead for a unidirectional one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from speechrnn.acoustic.chunked import Chunks, run_in_chunks
from speechrnn.acoustic.minimal import MINIMAL_GATES
from speechrnn.acoustic.recurrent import MOST_LAYERS, MOST_UNITS, Cell, RecurrentStack
from speechrnn.audio.features import Count
from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded
from speechrnn.types import mask_padding, move, pick_last

SIZES: dict[str, tuple[int, int]] = {
    # name: (units of each direction, layers)
    "tiny": (128, 2),
    "small": (256, 3),
    "medium": (512, 4),
    "large": (800, 5),
}


_WIDTH, _CODE = 128, 64
_LEAST_VARIANCE = 1e-5
_DROPOUTS = ("dropout", "input_dropout", "locked_dropout", "recurrent_dropout")
_STACK_OPTIONS = ("bidirectional", *_DROPOUTS, "layer_norm", "residual")


@dataclass(frozen=True)
class EncoderConfig(Settings, section="encoder"):
    """How feature frames become encoder frames.

    Attributes:
        size: ``tiny``, ``small``, ``medium`` or ``large``: sets hidden_size and num_layers where those are not given.
        cell: ``tanh`` (plain RNN), ``elementwise`` (no connections between units), ``gru`` or ``lstm``; ``mingru`` or
            ``minlstm``, whose gates depend on the frame alone: fast, over all frames at once.
        hidden_size: Units of each direction of each layer.
        num_layers: Recurrent layers.
        bidirectional: Also run each layer backwards; not for streaming.
        dropout: Share of each layer's outputs set to zero in training, in [0, 1).
        input_dropout: Share of the first layer's inputs set to zero in training, in [0, 1).
        locked_dropout: Apply dropout to the same units in all frames of an utterance.
        recurrent_dropout: Share of the recurrent weights set to zero in training, in [0, 1); drawn once per batch. 0
            for ``mingru`` and ``minlstm``, which have none.
        layer_norm: Normalise each layer's outputs.
        residual: Add each layer's input to its output, from the second layer on.
        subsampling: ``stack`` concatenates adjacent frames; ``convolution`` is a strided convolution over time with
            ReLU; ``convolution_2d`` two of them over time and bands, for ``front_end.kind: log_mel`` (adjacent MFCCs
            are not adjacent in frequency).
        subsampling_factor: Feature frames per encoder frame; 1 disables subsampling.
        subsampling_channels: Output channels of each convolution; None: 128 over time, 32 over time and bands.
        lookahead_frames: Future encoder frames that a unidirectional stack sees, through a depth-wise convolution.
        initial_state: Initial state of the recurrent layers: ``zero``; ``learned``: one state for all; ``encoded``: the
            output of a small network for an earlier utterance of the same speaker (without one, one state for all).
        output: ``frames``: the last layer's output at every encoder frame, for transcription; ``final_state``: the
            final state of each of its directions, as a single frame, for one word (a class) per recording.
    """

    size: Literal["tiny", "small", "medium", "large"] = "small"
    cell: Cell = "gru"
    hidden_size: int | None = bounded(None, 1, MOST_UNITS)
    num_layers: int | None = bounded(None, 1, MOST_LAYERS)
    bidirectional: bool = True
    dropout: float = bounded(0.1, 0, 1, open="high")
    input_dropout: float = bounded(0.0, 0, 1, open="high")
    locked_dropout: bool = False
    recurrent_dropout: float = bounded(0.0, 0, 1, open="high")
    layer_norm: bool = True
    residual: bool = True
    subsampling: Literal["stack", "convolution", "convolution_2d"] = "stack"
    subsampling_factor: int = bounded(2, 1, 64)
    subsampling_channels: int | None = bounded(None, 1, 4096)
    lookahead_frames: int = bounded(0, 0, 1000)
    initial_state: Literal["zero", "learned", "encoded"] = "zero"
    output: Literal["frames", "final_state"] = "frames"

    # Derived from the fields in __post_init__, and no fields themselves.
    resolved_hidden_size: ClassVar[int]
    """Units of each direction: as given, or those of the named size."""
    resolved_num_layers: ClassVar[int]
    """Recurrent layers: as given, or those of the named size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        units, layers = SIZES[self.size]
        vars(self).update(resolved_hidden_size=self.hidden_size or units, resolved_num_layers=self.num_layers or layers)
        if self.lookahead_frames and self.bidirectional:
            raise ConfigError(
                "encoder.lookahead_frames: a bidirectional encoder already sees all future frames; "
                "set encoder.bidirectional to false or lookahead_frames to 0"
            )
        if self.lookahead_frames and self.output == "final_state":
            raise ConfigError("encoder.lookahead_frames: no frames follow a final state (encoder.output); set it to 0")
        if self.recurrent_dropout and self.cell in MINIMAL_GATES:
            raise ConfigError(f"encoder.recurrent_dropout: cell {self.cell} has no recurrent weights; set it to 0")


def count_encoder_frames(feature_lengths: Tensor, *, kernel: int, stride: int, padding: int) -> Tensor:
    """Count the output frames of one subsampling convolution.

    Args:
        feature_lengths: Valid frames of each utterance, (B,), int64.
        kernel: Convolution width, in frames.
        stride: Hop between outputs, in frames.
        padding: Zeros added at each end, in frames.

    Returns:
        Valid output frames, (B,), int64; zero if there is no input, or it is too short.

    Source:
        torch.nn.Conv1d, output length with dilation 1.
    """
    frames = torch.div(feature_lengths + 2 * padding - kernel, stride, rounding_mode="floor") + 1
    return torch.where(feature_lengths > 0, frames.clamp(min=0), torch.zeros_like(frames))


class FrameStacking(nn.Module):
    """Concatenate each ``factor`` adjacent frames; the last ones are padded with zeros."""

    def __init__(self, input_size: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.before, self.after = 0, factor - 1  # frames that an output needs, from the first of its own
        self.output_size = input_size * factor

    def count_frames(self, feature_lengths: Tensor) -> Tensor:
        """Output frames: ⌈T / factor⌉, (B,), int64."""
        return -(-feature_lengths // self.factor)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), zero past the lengths (B,) → (B, T', factor·F), (B,)."""
        missing = -features.shape[1] % self.factor
        features = nn.functional.pad(features, (0, 0, 0, missing))
        return features.reshape(len(features), -1, self.output_size), self.count_frames(lengths)


class StridedConvolution(nn.Module):
    """One convolution over time with ReLU, ``factor`` frames to each side of its centre."""

    def __init__(self, input_size: int, channels: int, factor: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = 2 * factor + 1, factor, factor
        self.before = self.after = factor
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

    Each convolution halves the bands. If the factor is even and above 2, the second convolution has a stride of 2 in
    time and the first one the rest of the factor; otherwise the first one has all of it.

    Source:
        D. Amodei et al., "Deep Speech 2", ICML 2016 (two-dimensional convolutions before recurrent layers); the form
        with two 3 x 3 kernels and a linear map follows ESPnet's Conv2dSubsampling (S. Watanabe et al., 2018).
    """

    def __init__(self, input_size: int, channels: int, factor: int, output_size: int) -> None:
        super().__init__()
        second = 2 if factor % 2 == 0 and factor > 2 else 1
        self.strides = (factor // second, second)
        self.convolutions = nn.ModuleList()
        self.before = self.after = 0
        bands, span = input_size, 1
        for depth, stride in zip((1, channels), self.strides, strict=True):
            kernel = (max(3, 2 * stride - 1), 3)  # wide enough to cover the last frames
            padding = (kernel[0] // 2, 1)
            self.convolutions.append(nn.Conv2d(depth, channels, kernel, stride=(stride, 2), padding=padding))
            self.before = self.after = self.after + padding[0] * span
            bands, span = -(-bands // 2), span * stride
        self.projection = nn.Linear(channels * bands, output_size)
        self.output_size = output_size

    def count_frames(self, feature_lengths: Tensor) -> Tensor:
        """Output frames: ⌈T / factor⌉, (B,), int64."""
        for stride in self.strides:
            feature_lengths = -(-feature_lengths // stride)
        return feature_lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), zero past the lengths (B,) → (B, T', D), (B,)."""
        if features.shape[1] == 0:
            return features.new_zeros(len(features), 0, self.output_size), self.count_frames(lengths)
        maps = features[:, None]  # (B, 1, T, F)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            lengths = -(-lengths // stride)
            maps = mask_padding(convolution(maps).relu().transpose(1, 2), lengths).transpose(1, 2)  # (B, C, T', F')
        frames = self.projection(maps.transpose(1, 2).flatten(2))  # (B, C, T', F') → (B, T', C·F')
        return mask_padding(frames, lengths), lengths


class Lookahead(nn.Module):
    """A weighted sum of this frame and the next ones, unit by unit.

    Source:
        C. Wang et al., "Lookahead Convolution Layer for Unidirectional Recurrent Neural Networks", ICLR 2016 workshop.
    """

    def __init__(self, size: int, future_frames: int) -> None:
        super().__init__()
        self.future_frames = future_frames
        self.weight = nn.Parameter(torch.zeros(size, 1, future_frames + 1))
        with torch.no_grad():
            self.weight[:, :, 0] = 1.0  # initially almost the identity
            self.weight[:, :, 1:].uniform_(-0.1, 0.1)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T', D), zero past the lengths → (B, T', D)."""
        if frames.shape[1] == 0:
            return frames
        padded = nn.functional.pad(frames.transpose(1, 2), (0, self.future_frames))  # (B, D, T' + C)
        return nn.functional.conv1d(padded, self.weight, groups=frames.shape[2]).transpose(1, 2)


class ReferenceEncoder(nn.Module):
    """Feature frames of a reference to an initial state.

    Two layers per frame, mean and standard deviation over time, a code of 64 numbers, and a linear map to the state of
    every layer, part and direction. The initial output is zero; without a reference the code is zero.

    Args:
        feature_size: Features per frame.
        state_shape: (L, P, D, H).

    Source:
        D. Snyder et al., "X-vectors: Robust DNN embeddings for speaker recognition", ICASSP 2018 (pooling of
        statistics).
    """

    def __init__(self, feature_size: int, state_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.state_shape = state_shape
        self.frames = nn.Sequential(nn.Linear(feature_size, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        self.code = nn.Linear(2 * _WIDTH, _CODE)
        layers, parts, directions, hidden = state_shape
        self.state = nn.Linear(_CODE, layers * parts * directions * hidden)
        nn.init.zeros_(self.state.weight)
        nn.init.zeros_(self.state.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Encode references.

        Args:
            features: (B, T, F), ignored past a length.
            lengths: Valid frames, (B,), int64; 0 without a reference.

        Returns:
            Initial states, (L, P, D, B, H).
        """
        code = features.new_zeros(len(lengths), _CODE)
        if features.shape[1]:
            count = move(lengths, features.device)[:, None]
            hidden = self.frames(mask_padding(features, lengths))
            hidden = mask_padding(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), lengths)
            total = count.clamp(min=1)
            mean = hidden.sum(dim=1) / total
            variance = (mask_padding(hidden - mean[:, None], lengths) ** 2).sum(dim=1) / total
            deviation = (variance + _LEAST_VARIANCE).sqrt()
            code = torch.tanh(self.code(torch.cat([mean, deviation], dim=-1))).masked_fill(count == 0, 0.0)
        layers, parts, directions, hidden_size = self.state_shape
        states = self.state(code).view(-1, layers, parts, directions, hidden_size)
        return states.permute(1, 2, 3, 0, 4)


class Encoder(nn.Module):
    """Features to encoder frames: subsampling, recurrent stack, look-ahead."""

    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        self.config = config
        factor, channels = config.subsampling_factor, config.subsampling_channels
        self.subsampling: FrameStacking | StridedConvolution | Convolution2d
        if config.subsampling == "stack":
            self.subsampling = FrameStacking(input_size, factor)
        elif config.subsampling == "convolution":
            self.subsampling = StridedConvolution(input_size, channels or 128, factor)
        else:
            self.subsampling = Convolution2d(input_size, channels or 32, factor, config.resolved_hidden_size)
        self.stack = RecurrentStack(
            config.cell,
            self.subsampling.output_size,
            hidden_size=config.resolved_hidden_size,
            num_layers=config.resolved_num_layers,
            initial_state="learned" if config.initial_state == "learned" else "zero",
            **{name: getattr(config, name) for name in _STACK_OPTIONS},
        )
        is_encoded = config.initial_state == "encoded"
        self.reference = ReferenceEncoder(input_size, self.stack.state_shape) if is_encoded else None
        self.output_size = self.stack.output_size
        self.lookahead = Lookahead(self.output_size, config.lookahead_frames) if config.lookahead_frames else None

    def count_frames(self, feature_frames: Count) -> Count:
        """Encoder frames T' for feature frames T, an int or (B,) int64."""
        if isinstance(feature_frames, int):
            return int(self.count_frames(torch.tensor([feature_frames])).item())
        steps = self.subsampling.count_frames(feature_frames)
        return steps.clamp(max=1) if self.config.output == "final_state" else steps

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        return_state: bool = False,
        collect: Sequence[int] = (),
        chunks: Chunks | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """Encode a batch.

        Args:
            features: (B, T, F), zero past each length.
            lengths: Valid feature frames, (B,), int64.
            state: Initial state, (L, P, D, B, H); None for the encoder's own.
            return_state: Also return the state after the last valid frame.
            collect: Recurrent layers, counted from 1, whose outputs to return too.
            chunks: Run a bidirectional stack chunk by chunk (:mod:`speechrnn.acoustic.chunked`), without a final state.

        Returns:
            Encoder frames (B, T', D·H), zero past their lengths; the lengths (B,), int64; the state or None; and the
            outputs of the layers in ``collect``, each (B, T', D·H).
        """
        if state is None and self.reference is not None:
            state = self.make_initial_state(None, None, like=features)
        frames, lengths = self.subsampling(features, lengths)
        state = None if state is None else state.to(frames.dtype)  # half precision under autocast
        if chunks is None:
            frames, final, collected = self.stack(
                frames, lengths, state=state, return_state=return_state, collect=collect
            )
        else:
            assert not return_state
            frames, collected = run_in_chunks(self.stack, frames, lengths, chunks=chunks, state=state, collect=collect)
            final = None
        steps = lengths
        frames, lengths = self.select_output(frames, steps)
        return frames, lengths, final, [self.select_output(layer, steps)[0] for layer in collected]

    def make_initial_state(self, references: Tensor | None, lengths: Tensor | None, *, like: Tensor) -> Tensor:
        """The initial state of utterances, (L, P, D, B, H).

        Args:
            references: Features of earlier utterances, (B, T, F), or None.
            lengths: Their valid frames, (B,), int64; 0 without a reference.
            like: Features of the utterances, (B, T, F): for their number, device and type.
        """
        if self.reference is None:
            return self.stack.make_initial_state(len(like), like=like)
        if references is None or lengths is None:
            references, lengths = like.new_zeros(len(like), 0, like.shape[2]), torch.zeros(len(like), dtype=torch.int64)
        return self.reference(references, lengths)

    def select_output(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the look-ahead, or select the final state, as configured.

        Args:
            frames: A layer's outputs, (B, T', D·H).
            lengths: Valid steps, (B,), int64.

        Returns:
            Encoder frames, zero past their lengths, and the lengths.
        """
        if self.lookahead is not None:
            return mask_padding(self.lookahead(frames), lengths), lengths
        if self.config.output == "frames" or frames.shape[1] == 0:
            return frames, lengths
        forward, *backward = frames.chunk(2 if self.config.bidirectional else 1, dim=-1)
        ends = [pick_last(forward, lengths), *(part[:, :1] for part in backward)]
        lengths = lengths.clamp(max=1)
        return mask_padding(torch.cat(ends, dim=-1), lengths), lengths
