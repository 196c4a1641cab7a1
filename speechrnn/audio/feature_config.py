"""The settings of the front end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded

MelScale = Literal["htk", "slaney"]

_LARGEST_FFT = 65536


@dataclass(frozen=True)
class FrontEndConfig(Settings, section="front_end"):
    """Settings of the features.

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
        log_floor: Power below which a mel band counts as empty. The default is about the mean power of 16-bit rounding
            in a band at 16 kHz and 40 bands: noise of power (2**-15)**2 / 12 = 7.8e-11 a sample, times the window's
            energy 150, times 6.3 Fourier bins a band, times 1 + 0.97**2 for pre-emphasis is 1.4e-7.
        deltas: 0 none, 1 deltas, 2 deltas and delta-deltas.
        delta_width: Frames on each side of a delta.
        normalization: "none"; "utterance", over the utterance's own frames, which is unsuitable for utterances of a
            single word; "corpus", with statistics stored in the front end; "speaker", like "corpus", but with the mean
            over known recordings of the speaker, or over the utterance if there are none; "sliding", causal, over the
            last `normalization_seconds`.
        normalization_seconds: Length of the sliding window, including the current frame.
        compatibility: "none", or the library whose numbers to match: "librosa" (its `feature.mfcc`: Slaney mels, bands
            of area 1) or "torchaudio" (its `transforms.MFCC`). Both centre their frames and pad the ends (with zeros,
            or by reflection), use decibels with a floor 80 dB below the utterance's loudest band, and do not
            pre-emphasise: `pre_emphasis` and `log_floor` are not used.

    Raises:
        ConfigError: A value is out of range, or contradicts another.
    """

    sample_rate: int = bounded(16000, 1000, 384000, unit="Hz")
    kind: Literal["mfcc", "log_mel"] = "mfcc"
    num_coefficients: int = bounded(40, 1, 1024)
    n_mels: int = bounded(40, 1, 1024)
    window_seconds: float = bounded(0.025, 0, 1, open="low", unit="seconds")
    hop_seconds: float = bounded(0.010, 0, 1, open="low", unit="seconds")
    n_fft: int | None = bounded(None, 2, _LARGEST_FFT)
    f_min_hz: float = bounded(20.0, 0, 192000, unit="Hz")
    f_max_hz: float | None = bounded(None, 0, 192000, open="low", unit="Hz")
    mel_scale: MelScale = "htk"
    pre_emphasis: float = bounded(0.97, 0, 1)
    log_floor: float = bounded(1e-7, 1e-30, 1)
    deltas: Literal[0, 1, 2] = 0
    delta_width: int = bounded(2, 1, 100, unit="frames")
    normalization: Literal["none", "utterance", "corpus", "speaker", "sliding"] = "utterance"
    normalization_seconds: float = bounded(3.0, 0, 3600, open="low", unit="seconds")
    compatibility: Literal["none", "librosa", "torchaudio"] = "none"

    # Derived from the fields in __post_init__, and no fields themselves.
    window_length: ClassVar[int]
    """Samples in a window."""
    hop_length: ClassVar[int]
    """Samples from one frame to the next."""
    fft_length: ClassVar[int]
    """Points of the Fourier transform."""
    upper_edge_hz: ClassVar[float]
    """Upper edge of the highest band."""
    is_centred: ClassVar[bool]
    """Whether frames are centred on multiples of the hop, which needs padding at both ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        window, hop = round(self.window_seconds * self.sample_rate), round(self.hop_seconds * self.sample_rate)
        fft_length = self.n_fft if self.n_fft is not None else 1 << (window - 1).bit_length()
        highest = self.sample_rate // 2 if self.compatibility == "torchaudio" else self.sample_rate / 2
        upper_edge = highest if self.f_max_hz is None else self.f_max_hz
        is_centred = self.compatibility != "none"
        vars(self).update(
            window_length=window, hop_length=hop, fft_length=fft_length, upper_edge_hz=upper_edge, is_centred=is_centred
        )
        nyquist = self.sample_rate / 2
        faults = [
            (window < 2, f"window_seconds {self.window_seconds} is {window} samples; at least 2 are needed"),
            (hop < 1, f"hop_seconds {self.hop_seconds} is less than a sample; raise it"),
            (
                self.kind == "mfcc" and self.num_coefficients > self.n_mels,
                f"num_coefficients {self.num_coefficients} is more than n_mels {self.n_mels}; lower it or raise n_mels",
            ),
            (
                fft_length > _LARGEST_FFT,
                f"window_seconds {self.window_seconds} at {self.sample_rate} Hz needs a transform of "
                f"{fft_length} points, more than {_LARGEST_FFT}; choose a shorter window",
            ),
            (fft_length < window, f"n_fft {self.n_fft} is less than the window's {window} samples; raise it"),
            (
                is_centred and fft_length % 2 == 1,
                f"n_fft {self.n_fft} is odd; choose an even one for compatibility {self.compatibility}",
            ),
            (upper_edge > nyquist, f"f_max_hz {self.f_max_hz} is above half the sample rate, {nyquist:g} Hz; lower it"),
            (
                self.f_min_hz >= upper_edge,
                f"f_min_hz {self.f_min_hz} is not below the upper edge, {upper_edge:g} Hz; lower it",
            ),
            (
                self.compatibility == "librosa" and self.mel_scale != "slaney",
                f"compatibility librosa needs mel_scale slaney, found {self.mel_scale}",
            ),
            (
                self.normalization == "sliding" and hop > 0 and self.sliding_frames < 2,
                f"normalization_seconds {self.normalization_seconds} is less than two frames; raise it",
            ),
        ]
        for is_faulty, message in faults:
            if is_faulty:
                raise ConfigError(f"front_end.{message}")

    @property
    def has_statistics(self) -> bool:
        """Whether normalisation needs the corpus's mean and deviation."""
        return self.normalization in ("corpus", "speaker")

    @property
    def sliding_frames(self) -> int:
        """Frames in the sliding normalisation's window."""
        return round(self.normalization_seconds * self.sample_rate / self.hop_length)
