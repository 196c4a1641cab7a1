"""The acoustic model: front end, encoder and CTC head. Its input is a waveform."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from speechrnn.acoustic.chunked import Chunks
from speechrnn.acoustic.ctc import CTCHead, explain_infeasible
from speechrnn.acoustic.encoder import Encoder, EncoderConfig
from speechrnn.audio.features import Count, FrontEnd, FrontEndConfig
from speechrnn.errors import ConfigError
from speechrnn.processes import count_memory
from speechrnn.types import Emission

_ANY_RECORDING_SECONDS = 1e9
_TRAINING_BYTES = 16
"""Per parameter: value, gradient and AdamW's two averages, in float32."""


class AcousticModel(nn.Module):
    """Maps waveforms to log-probabilities of tokens at every encoder frame.

    Args:
        front_end: Sample rate, features and their normalisation.
        encoder: Subsampling and recurrent stack.
        vocabulary_size: Tokens, the blank (id 0) included.
        blank_bias: Bias of the blank before training, in nats (:class:`speechrnn.acoustic.ctc.CTCConfig`).

    Attributes:
        sample_rate: Of the waveforms, in Hz.
        seconds_per_step: Time from one step of the recurrent layers to the next.
        seconds_per_frame: Time from one encoder frame to the next; the single frame of a final state spans a recording.
    """

    def __init__(
        self, front_end: FrontEndConfig, encoder: EncoderConfig, vocabulary_size: int, *, blank_bias: float = 0.0
    ) -> None:
        super().__init__()
        self.front_end = FrontEnd(front_end)
        self.encoder = Encoder(encoder, self.front_end.feature_size)
        self.head = CTCHead(self.encoder.output_size, vocabulary_size, blank_bias=blank_bias)
        self.vocabulary_size = vocabulary_size
        self.sample_rate = front_end.sample_rate
        self.seconds_per_step = self.front_end.frame_shift_seconds * encoder.subsampling_factor
        is_whole = encoder.output == "final_state"
        self.seconds_per_frame = _ANY_RECORDING_SECONDS if is_whole else self.seconds_per_step

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def count_frames(self, num_samples: Count) -> Count:
        """Encoder frames T' for a number of samples, an int or (B,) int64."""
        return self.encoder.count_frames(self.front_end.count_frames(num_samples))

    @property
    def least_samples(self) -> int:
        """Samples of the shortest recording that has an encoder frame."""
        return bisect.bisect_left(range(60 * self.sample_rate), 1, key=self.count_frames)

    def explain_infeasible(self, targets: Sequence[int], num_samples: int) -> str | None:
        """Reason why CTC cannot align these tokens with this many samples; None if it can."""
        if self.encoder.config.output == "final_state" and len(targets) > 1:
            return f"{len(targets)} tokens: with encoder.output final_state a recording has one token"
        return explain_infeasible(targets, self.count_frames(num_samples))

    def encode_reference(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Encode earlier speech of the same speakers as initial state, (L, P, D, B, H).

        Args:
            waveforms: (B, N), float32, at the model's sample rate.
            lengths: Valid samples, (B,), int64; 0 without a reference.

        Raises:
            ConfigError: The model's initial state is not encoded.
        """
        kind = self.encoder.config.initial_state
        if kind != "encoded":
            raise ConfigError(f"encoder.initial_state: expected encoded, the model has {kind}")
        features, frames = self.front_end(waveforms, lengths)
        return self.encoder.make_initial_state(features, frames, like=features)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        speaker_stats: Tensor | None = None,
        return_state: bool = False,
        chunks: Chunks | None = None,
        augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        intermediate_layers: Sequence[int] = (),
        intermediate_head: CTCHead | None = None,
    ) -> Emission:
        """Compute log-probabilities.

        Args:
            waveforms: (B, N), float32, at the model's sample rate; samples past a length are ignored.
            lengths: Valid samples, (B,), int64.
            state: Initial state, (L, P, D, B, H); None for the model's own.
            speaker_stats: Number of frames of each utterance's speaker, 0 for none, and the mean features over them,
                (B, 1 + F), where the front end normalises by speaker; None without statistics.
            return_state: Also return the state after each utterance's last frame.
            chunks: Run a bidirectional encoder chunk by chunk (:mod:`speechrnn.acoustic.chunked`); there is then no
                final state.
            augment: Training only: maps log-mels (B, T, M) and their lengths (B,) to warped and masked ones, possibly
                several versions of each utterance; applied before the cosine transform, so that MFCCs lose bands too.
            intermediate_layers: Training only: recurrent layers, counted from 1, whose outputs pass through a head too.
            intermediate_head: Training only: this head; None: the model's own.

        Returns:
            Log-probabilities (B, T', V), their lengths (B,), and if requested the state and intermediate
            log-probabilities.
        """
        log_mels, frame_lengths = self.front_end.log_mel(waveforms, lengths)
        if augment is not None:
            log_mels, frame_lengths = augment(log_mels, frame_lengths)
        if speaker_stats is not None:
            speaker_stats = speaker_stats.repeat(len(log_mels) // max(1, len(speaker_stats)), 1)
        features = self.front_end.derive_features(log_mels, frame_lengths, speaker_stats=speaker_stats)
        frames, frame_lengths, final, collected = self.encoder(
            features,
            frame_lengths,
            state=state,
            return_state=return_state,
            collect=intermediate_layers,
            chunks=chunks,
        )
        lower = intermediate_head or self.head
        return Emission(self.head(frames), frame_lengths, final, [lower(layer) for layer in collected])


class WithoutWeights(TorchFunctionMode):
    """Modules created under this mode have parameters on the meta device, without memory.

    Initialising parameters takes most of the time of creating a model. Modules allocate parameters with
    ``torch.empty``; the constants of the front end are created otherwise and have values.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def check_memory(front_end: FrontEndConfig, encoder: EncoderConfig, vocabulary_size: int) -> None:
    """Check, before a model is built, that it fits into memory in training.

    Raises:
        ConfigError: Parameters, gradients and the optimizer's state need more memory than the machine has.
    """
    with WithoutWeights():
        count = AcousticModel(front_end, encoder, vocabulary_size).num_parameters
    needed, available = count * _TRAINING_BYTES, count_memory()
    if needed > available:
        raise ConfigError(
            f"encoder: this model would have {count:,} parameters, {needed / 2**30:,.1f} GiB in training, and the "
            f"machine has {available / 2**30:,.1f} GiB; lower encoder.hidden_size or encoder.num_layers"
        )
