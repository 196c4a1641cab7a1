"""The settings of the front end, and what they may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from speechrnn.audio.cepstrum import MelScale
from speechrnn.errors import ConfigError


@dataclass(frozen=True)
class FrontEndConfig:
    """How a waveform becomes features.

    Attributes:
        sample_rate: Samples a second, in Hz.
        kind: "mfcc" (DCT-II of the log-mels, orthonormal) or "log_mel".
        num_coefficients: MFCCs kept, at most `n_mels`; not used by "log_mel".
        n_mels: Mel bands.
        window_seconds: Length of the Hann window; rounded to whole samples.
        hop_seconds: Time from one frame to the next; rounded to whole samples.
        n_fft: Points of the Fourier transform, at least the window; None: the next power of two at or above the window.
        f_min_hz: Lower edge of the lowest band.
        f_max_hz: Upper edge of the highest band; None: half the sample rate.
        mel_scale: "htk", 2595 log10(1 + f / 700), or "slaney", linear below 1 kHz and logarithmic above. Bands are
            triangles over frequency with peak 1.
        pre_emphasis: p in y[n] = x[n] - p x[n-1], from 0 (off) to 1.
        log_floor: Power below which a mel band counts as empty. The default is about what 16-bit rounding leaves in a
            band on average at 16 kHz and 40 bands: noise of power (2**-15)**2 / 12 = 7.8e-11 a sample, times the
            window's energy 150, times 6.3 Fourier bins a band, times 1 + 0.97**2 for pre-emphasis makes 1.4e-7.
        deltas: 0 none, 1 deltas, 2 deltas and delta-deltas.
        delta_width: Frames on each side that a delta looks at.
        normalization: "none"; "utterance", over the utterance's own frames, which takes a word away where nothing else
            is said (not for a handful of words in a row); "corpus", with statistics kept in the front end; "speaker",
            like it, but with the mean over what was heard of the speaker, in the utterance itself where nothing else
            was; "sliding", causal, over the last `normalization_seconds`.
        normalization_seconds: Length of the sliding window, the current frame included.
        compatibility: "none", or whose numbers to match: "librosa" (its `feature.mfcc`: Slaney mels, bands of area 1)
            or "torchaudio" (its `transforms.MFCC`). Both centre their frames, so the audio's ends are padded (with
            zeros, or by reflection), both measure in decibels and cut 80 dB below the utterance's loudest band, and
            neither pre-emphasises: `pre_emphasis` and `log_floor` are not used.

    Raises:
        ConfigError: A value is impossible, or contradicts another.
    """

    sample_rate: int = 16000
    kind: Literal["mfcc", "log_mel"] = "mfcc"
    num_coefficients: int = 40
    n_mels: int = 40
    window_seconds: float = 0.025
    hop_seconds: float = 0.010
    n_fft: int | None = None
    f_min_hz: float = 20.0
    f_max_hz: float | None = None
    mel_scale: MelScale = "htk"
    pre_emphasis: float = 0.97
    log_floor: float = 1e-7
    deltas: Literal[0, 1, 2] = 0
    delta_width: int = 2
    normalization: Literal["none", "utterance", "corpus", "speaker", "sliding"] = "utterance"
    normalization_seconds: float = 3.0
    compatibility: Literal["none", "librosa", "torchaudio"] = "none"

    def __post_init__(self) -> None:
        _check_values(self)
        _check_relations(self)

    @property
    def window_length(self) -> int:
        """Samples in a window."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop_seconds * self.sample_rate)

    @property
    def fft_length(self) -> int:
        """Points of the Fourier transform."""
        return self.n_fft if self.n_fft is not None else 1 << (self.window_length - 1).bit_length()

    @property
    def is_centred(self) -> bool:
        """Whether frames are centred on multiples of the hop, which needs padding at both ends."""
        return self.compatibility != "none"

    @property
    def has_statistics(self) -> bool:
        """Whether normalisation needs the corpus's mean and deviation."""
        return self.normalization in ("corpus", "speaker")

    @property
    def upper_edge_hz(self) -> float:
        """Upper edge of the highest band."""
        if self.f_max_hz is not None:
            return self.f_max_hz
        return self.sample_rate // 2 if self.compatibility == "torchaudio" else self.sample_rate / 2

    @property
    def sliding_frames(self) -> int:
        """Frames in the sliding normalisation's window."""
        return round(self.normalization_seconds * self.sample_rate / self.hop_length)


_VALUES: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "sample_rate": (int, lambda value: value > 0, "a whole number of Hz above 0"),
    "num_coefficients": (int, lambda value: value > 0, "a whole number above 0"),
    "n_mels": (int, lambda value: value > 0, "a whole number above 0"),
    "window_seconds": (float, lambda value: value > 0, "a time above 0 s"),
    "hop_seconds": (float, lambda value: value > 0, "a time above 0 s"),
    "n_fft": (int, lambda value: value > 0, "a whole number of points, or leave it out"),
    "f_min_hz": (float, lambda value: value >= 0, "a frequency of 0 Hz or more"),
    "f_max_hz": (float, lambda value: value > 0, "a frequency above 0 Hz, or leave it out"),
    "pre_emphasis": (float, lambda value: 0 <= value <= 1, "a number from 0 (off) to 1"),
    "log_floor": (float, lambda value: value > 0, "a power above 0"),
    "delta_width": (int, lambda value: value > 0, "a whole number of frames above 0"),
    "normalization_seconds": (float, lambda value: value > 0, "a time above 0 s"),
}
_MAY_BE_NONE = ("n_fft", "f_max_hz")


def _check_values(config: FrontEndConfig) -> None:
    """Check each setting by itself."""
    for name, hint in get_type_hints(FrontEndConfig).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            is_right = any(value == choice and type(value) is type(choice) for choice in get_args(hint))
            wanted = "one of " + ", ".join(str(choice) for choice in get_args(hint))
        elif value is None and name in _MAY_BE_NONE:
            continue
        else:
            kind, is_possible, wanted = _VALUES[name]
            is_right = _is_number(value, kind) and is_possible(value)
        if not is_right:
            raise ConfigError(f"front_end.{name} is {value!r}; choose {wanted}")


def _is_number(value: object, kind: type) -> bool:
    """Say whether a value is a finite number, whole where `kind` is int; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if kind is int else math.isfinite(value)


def _check_relations(config: FrontEndConfig) -> None:
    """Check the settings against one another."""
    nyquist = config.sample_rate / 2
    window, hop = config.window_length, config.hop_length
    faults = [
        (window < 2, f"window_seconds {config.window_seconds} is {window} samples; choose one of at least 2"),
        (hop < 1, f"hop_seconds {config.hop_seconds} is less than a sample; choose a longer one"),
        (
            config.kind == "mfcc" and config.num_coefficients > config.n_mels,
            f"num_coefficients {config.num_coefficients} is more than n_mels {config.n_mels}; lower it or raise n_mels",
        ),
        (config.fft_length < window, f"n_fft {config.n_fft} is less than the window's {window} samples; raise it"),
        (
            config.is_centred and config.fft_length % 2 == 1,
            f"n_fft {config.n_fft} is odd; choose an even one for compatibility {config.compatibility}",
        ),
        (
            config.upper_edge_hz > nyquist,
            f"f_max_hz {config.f_max_hz} is above half the sample rate, {nyquist:g} Hz; lower it",
        ),
        (
            config.f_min_hz >= config.upper_edge_hz,
            f"f_min_hz {config.f_min_hz} is not below the upper edge, {config.upper_edge_hz:g} Hz; lower it",
        ),
        (
            config.compatibility == "librosa" and config.mel_scale != "slaney",
            f"compatibility librosa needs mel_scale slaney, got {config.mel_scale}; set it",
        ),
        (
            config.normalization == "sliding" and hop > 0 and config.sliding_frames < 2,
            f"normalization_seconds {config.normalization_seconds} is less than two frames; choose a longer time",
        ),
    ]
    for is_faulty, message in faults:
        if is_faulty:
            raise ConfigError(f"front_end.{message}")
