"""From waveforms to features: MFCC or log-mel, deltas, normalisation; batched, on the waveforms' own device.

Letters: B batch, N samples, T frames, F feature size. An utterance's features depend on its own samples only, and with
"speaker" normalisation on the statistics of its speaker, never on other utterances or on padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechrnn.audio.feature_config import FrontEndConfig
from speechrnn.audio.transforms import (
    STD_FLOOR,
    compute_deltas,
    make_dct,
    make_mel_filters,
    normalize_sliding,
    normalize_speaker,
    normalize_utterance,
    wide_dtype,
)
from speechrnn.errors import AudioError, ConfigError, ModelError
from speechrnn.processes import torch_threads
from speechrnn.types import mask_padding, move, valid_mask

__all__ = ["FrontEnd", "FrontEndConfig", "StatisticsAccumulator"]

Count = TypeVar("Count", int, Tensor)
"""Samples or frames: a number, or those of each utterance, (B,), int64."""

# As in librosa and torchaudio.
_COMPATIBLE_POWER_FLOOR = 1e-10
_COMPATIBLE_TOP_DB = 80.0

# Frames in one Fourier transform: on a CPU few enough to stay in its cache, elsewhere few enough that an hour of audio
# does not fill the memory.
_CPU_BLOCK_FRAMES = 1024
_DEVICE_BLOCK_FRAMES = 65536


class FrontEnd(nn.Module):
    """Computes features of waveforms.

    A frame contains `window_length` samples and starts `hop_length` after the previous one. The first starts at sample
    0; a rest shorter than a window is dropped. (The compatibility modes centre their frames.) A periodic Hann window is
    0 at its first sample, so that pre-emphasis needs no sample before a frame: a frame's log-mels depend on its own
    samples only, wherever the audio is cut.

    Features are float32, also under autocast and after `half()`.

    Args:
        config: Settings of the features.

    Attributes:
        config: Settings of the features.
        feature_size: F, the number of features of a frame.
        frame_shift_seconds: Time from one frame to the next: `hop_seconds`, rounded to samples.
        mean: For "corpus" and "speaker" normalisation, (F,), float32; saved with the model.
        std: Likewise; zeros until `set_statistics`.

    Raises:
        ConfigError: A mel band is so narrow that it contains no Fourier bin.
    """

    window: Tensor
    power_filters: Tensor
    dct: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: FrontEndConfig | None = None) -> None:
        super().__init__()
        self.config = config = config if config is not None else FrontEndConfig()
        self._has_statistics = False
        filters = make_mel_filters(
            config.sample_rate,
            config.fft_length,
            n_mels=config.n_mels,
            f_min_hz=config.f_min_hz,
            f_max_hz=config.upper_edge_hz,
            mel_scale=config.mel_scale,
            library=config.compatibility,
        )
        num_empty = int((filters.sum(dim=0) == 0).sum())
        if num_empty and not config.is_centred:
            raise ConfigError(
                f"front_end.n_mels {config.n_mels}: {num_empty} bands contain no bin of an n_fft of "
                f"{config.fft_length}; lower n_mels or raise n_fft"
            )
        window = torch.hann_window(config.window_length, dtype=torch.float64)
        spare = config.fft_length - config.window_length
        if config.is_centred:
            window = functional.pad(window, (spare // 2, spare - spare // 2))
        else:  # without its first sample, which has no weight, because pre-emphasis starts at the second
            window = functional.pad(window[1:], (0, spare + 1))
        self.register_buffer("window", window.float(), persistent=False)
        # Each row twice: one product then adds the squares of real and imaginary parts and sums them into bands.
        self.register_buffer("power_filters", filters.repeat_interleave(2, dim=0).float(), persistent=False)
        self.register_buffer("dct", make_dct(config.n_mels, config.num_coefficients).float(), persistent=False)
        base = config.num_coefficients if config.kind == "mfcc" else config.n_mels
        self.feature_size = base * (1 + config.deltas)
        self.frame_shift_seconds = config.hop_length / config.sample_rate
        self.register_buffer("mean", torch.zeros(self.feature_size))
        self.register_buffer("std", torch.zeros(self.feature_size))

    def count_frames(self, num_samples: Count) -> Count:
        """Count the frames of a number of samples.

        Args:
            num_samples: Samples, from 0; one number, or (B,), int64.

        Returns:
            Frames, in the same form: 1 + (N - window) // hop, and 0 below one window. The compatibility modes make
            1 + N // hop, but "torchaudio" none where N is too short to reflect (up to n_fft // 2).
        """
        spent = 0 if self.config.is_centred else self.config.window_length
        frames = (num_samples - spent) // self.config.hop_length + 1
        if self.config.compatibility == "torchaudio":
            frames = frames * (num_samples > self.config.fft_length // 2)
        return frames.clamp(min=0) if isinstance(frames, Tensor) else max(0, frames)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features; `log_mel` and `derive_features` in one.

        Args:
            waveforms: Amplitudes, nominally in [-1, 1], (B, N); values past a length are ignored.
            lengths: Valid samples of each utterance, (B,), int64.

        Returns:
            Features (B, T, F), float32, with rows past a length zero, and the frames of each utterance, (B,), int64.

        Raises:
            AudioError: The shapes disagree, or a length is not from 0 to N.
            ModelError: "corpus" or "speaker" normalisation before `set_statistics`.
        """
        log_mels, frame_lengths = self.log_mel(waveforms, lengths)
        return self.derive_features(log_mels, frame_lengths), frame_lengths

    def log_mel(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logarithm of the power in each mel band.

        Args:
            waveforms: Amplitudes, nominally in [-1, 1], (B, N); values past a length are ignored.
            lengths: Valid samples of each utterance, (B,), int64.

        Returns:
            Log-mels (B, T, n_mels), float32, and the frames of each utterance, (B,), int64. Natural logarithm, at least
            log(log_floor); in the compatibility modes decibels. Rows past a length are zero.

        Raises:
            AudioError: The shapes disagree, or a length is not from 0 to N.
        """
        if waveforms.dim() != 2 or lengths.shape != waveforms.shape[:1]:
            shapes = f"{tuple(waveforms.shape)} and {tuple(lengths.shape)}"
            raise AudioError(f"waveforms and lengths have the shapes {shapes}; give (B, N) and (B,)")
        lengths = lengths.long()  # on the host: no synchronisation
        if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= waveforms.shape[1]:
            extremes = f"{int(lengths.min())} to {int(lengths.max())}"
            raise AudioError(f"lengths run from {extremes}; give 0 to {waveforms.shape[1]}, the samples of the batch")
        frame_lengths = self.count_frames(lengths)
        num_frames = self.count_frames(waveforms.shape[1])
        if 0 in (num_frames, len(waveforms)):
            shape = (len(waveforms), num_frames, self.config.n_mels)
            return waveforms.new_zeros(shape, dtype=torch.float32), frame_lengths
        with torch.autocast(waveforms.device.type, enabled=False), torch_threads.one(waveforms.device):
            power = self._gather_power(waveforms.float(), lengths, num_frames)  # (B, T, n_mels)
            if self.config.is_centred:
                log_mels = _take_decibels(power, frame_lengths)
            else:
                log_mels = power.clamp(min=self.config.log_floor).log()
            return mask_padding(log_mels, frame_lengths).float(), frame_lengths

    def derive_features(
        self, log_mels: Tensor, frame_lengths: Tensor, *, speaker_stats: Tensor | None = None
    ) -> Tensor:
        """Compute features from log-mels, which augmentation may have masked.

        Args:
            log_mels: From `log_mel`, (B, T, n_mels).
            frame_lengths: Frames of each utterance, (B,), int64.
            speaker_stats: For "speaker" normalisation: number of frames of each speaker, 0 for none, and the mean
                features over them, (B, 1 + F); others ignore it.

        Returns:
            Features (B, T, F), float32; rows past a length are zero.

        Raises:
            ModelError: "corpus" or "speaker" normalisation before `set_statistics`.
        """
        with torch_threads.one(log_mels.device):
            features = self._derive(log_mels, frame_lengths)
            if self.config.normalization == "utterance":
                return normalize_utterance(features, frame_lengths)
            if self.config.normalization == "sliding":
                return normalize_sliding(features, frame_lengths, window_frames=self.config.sliding_frames)
            if self.config.has_statistics:
                return self._apply_statistics(features, frame_lengths, speaker_stats)
            return features

    def compute_unnormalized(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features as `forward` does, without normalisation: (B, T, F) and (B,)."""
        log_mels, frame_lengths = self.log_mel(waveforms, lengths)
        with torch_threads.one(log_mels.device):
            return self._derive(log_mels, frame_lengths), frame_lengths

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics of "corpus" and "speaker" normalisation.

        Args:
            mean: (F,).
            std: (F,), above 0.

        Raises:
            ConfigError: A shape is wrong, or a value is not finite or out of range.
        """
        expected = (self.feature_size,)
        if tuple(mean.shape) != expected or tuple(std.shape) != expected:
            got = f"{tuple(mean.shape)} and {tuple(std.shape)}"
            raise ConfigError(f"corpus statistics: mean and std have shapes {got}; give {expected} for these features")
        if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
            raise ConfigError("corpus statistics: mean must be finite and std finite and above 0; compute them again")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _gather_power(self, waveforms: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        """Compute the power in each mel band of each frame, in blocks of time, (B, T, n_mels)."""
        config = self.config
        # In the compatibility modes sums are in float64: then they are the same in every batch.
        dtype = wide_dtype(waveforms.device) if config.is_centred else torch.float32
        window, power_filters = self.window.to(dtype), self.power_filters.to(dtype)
        signal = _pad_ends(waveforms, lengths, config=config).to(dtype) if config.is_centred else waveforms
        block = _CPU_BLOCK_FRAMES if waveforms.device.type == "cpu" else _DEVICE_BLOCK_FRAMES
        step = max(1, block // len(waveforms))
        parts = []
        for start in range(0, num_frames, step):
            first = start * self.config.hop_length
            width = (min(step, num_frames - start) - 1) * self.config.hop_length + config.fft_length
            stretch = signal[:, first : first + width + 1]
            if not config.is_centred:
                stretch = _emphasise(stretch, lengths - first, pre_emphasis=config.pre_emphasis, width=width)
            frames = stretch[:, :width].unfold(1, config.fft_length, self.config.hop_length)  # (B, t, n_fft), a view
            spectrum = torch.fft.rfft(frames * window)
            parts.append(torch.view_as_real(spectrum).flatten(2).square_() @ power_filters)
        return torch.cat(parts, dim=1)

    def _derive(self, log_mels: Tensor, frame_lengths: Tensor) -> Tensor:
        """Apply the DCT and add deltas, (B, T, n_mels) to (B, T, F)."""
        features = log_mels.float()
        if self.config.kind == "mfcc":
            # In float64, which autocast does not change: float32 sums differ between batches, and normalisation
            # enlarges the difference.
            wide = wide_dtype(log_mels.device)
            features = (log_mels.to(wide) @ self.dct.to(wide)).float()
        levels = [features]
        for _ in range(self.config.deltas):
            levels.append(compute_deltas(levels[-1], frame_lengths, width=self.config.delta_width))
        return mask_padding(torch.cat(levels, dim=-1), frame_lengths)

    def _apply_statistics(self, features: Tensor, frame_lengths: Tensor, speaker_stats: Tensor | None) -> Tensor:
        """Normalise by the corpus's standard deviation, and its mean or the speaker's."""
        self._has_statistics = self._has_statistics or bool((self.std > 0).all())  # read once, for speed
        if not self._has_statistics:
            kind = self.config.normalization
            raise ModelError(f"{kind} normalisation has no statistics; call set_statistics or load a trained model")
        if self.config.normalization == "speaker":
            return normalize_speaker(features, frame_lengths, mean=self.mean, std=self.std, speaker_stats=speaker_stats)
        return mask_padding((features - self.mean) / self.std, frame_lengths)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrontEnd:
        """Move the constants where `fn` moves them, but keep them float32 when a model is halved."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        return self


class StatisticsAccumulator:
    """The mean and standard deviation of features over a corpus, for `FrontEnd.set_statistics`; summed in float64.

    Args:
        front_end: Computes the features, which are taken before normalisation.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self.num_frames = 0
        self._front_end = front_end
        self._sum = torch.zeros(front_end.feature_size, dtype=torch.float64)
        self._sum_of_squares = torch.zeros_like(self._sum)

    @torch.no_grad()
    def add(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Add a batch, as for `FrontEnd.forward`: (B, N) and (B,), on the front end's device.

        Returns:
            Frames of each utterance and the mean features over them, zeros for no frame, (B, 1 + F), float32.
        """
        features, frame_lengths = self._front_end.compute_unnormalized(waveforms, lengths)
        frames = features[valid_mask(features, frame_lengths)].cpu().double()  # (valid frames of all, F)
        self.num_frames += len(frames)
        self._sum += frames.sum(dim=0)
        self._sum_of_squares += frames.square().sum(dim=0)
        means = features.cpu().double().sum(dim=1) / frame_lengths.cpu().clamp(min=1)[:, None]
        return torch.cat([frame_lengths.cpu()[:, None], means], dim=1).float()

    def compute(self) -> tuple[Tensor, Tensor]:
        """Compute the statistics of all frames so far.

        Returns:
            Mean and standard deviation (over frames, not frames - 1; at least `STD_FLOOR`), each (F,), float32.

        Raises:
            AudioError: No frame was added.
        """
        if self.num_frames == 0:
            raise AudioError("corpus statistics: no frame; give utterances of at least one window")
        mean = self._sum / self.num_frames
        variance = self._sum_of_squares / self.num_frames - mean.square()
        return mean.float(), variance.clamp(min=STD_FLOOR**2).sqrt().float()


def _take_decibels(power: Tensor, frame_lengths: Tensor) -> Tensor:
    """Convert power (B, T, n_mels) to decibels, at most 80 below the loudest, for the compatibility modes."""
    decibels = 10.0 * power.clamp(min=_COMPATIBLE_POWER_FLOOR).log10()
    valid = valid_mask(power, frame_lengths)[..., None]
    loudest = decibels.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return torch.maximum(decibels, loudest - _COMPATIBLE_TOP_DB)


def _emphasise(waveforms: Tensor, lengths: Tensor, *, pre_emphasis: float, width: int) -> Tensor:
    """Zero the padding and pre-emphasise, from the second sample on; (B, n) to (B, width)."""
    if bool((lengths < waveforms.shape[1]).any()):
        waveforms = mask_padding(waveforms, lengths)
    emphasised = torch.sub(waveforms[:, 1:], waveforms[:, :-1], alpha=pre_emphasis)
    missing = width - emphasised.shape[1]
    return functional.pad(emphasised, (0, missing)) if missing else emphasised


def _pad_ends(waveforms: Tensor, lengths: Tensor, *, config: FrontEndConfig) -> Tensor:
    """Pad each utterance by half a transform before its first and after its last sample.

    "librosa" pads with zeros, "torchaudio" with the utterance's mirror image.

    Returns:
        (B, N + 2 (n_fft // 2)), float32; undefined beyond an utterance's padding.
    """
    size, padding = waveforms.shape[1], config.fft_length // 2
    waveforms = mask_padding(waveforms, lengths)
    if config.compatibility == "librosa":
        return functional.pad(waveforms, (padding, padding))
    places = torch.arange(-padding, size + padding, device=waveforms.device).abs()
    last = move(lengths, waveforms.device)[:, None] - 1
    mirrored = torch.where(places <= last, places, 2 * last - places)
    return waveforms.gather(1, mirrored.clamp(0, size - 1))
