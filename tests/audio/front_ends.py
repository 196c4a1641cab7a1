"""Front ends, waveforms for them, and what they and the libraries that they match make of these."""

import math
import warnings

import librosa
import numpy as np
import torch
import torchaudio

from speechrnn.audio.features import FrontEnd, FrontEndConfig

MODES = {"none": {}, "librosa": {"mel_scale": "slaney"}, "torchaudio": {}}


def make_front_end(**settings) -> FrontEnd:
    compatibility = settings.get("compatibility", "none")
    front_end = FrontEnd(FrontEndConfig(**{**MODES[compatibility], **settings}))
    if front_end.config.has_statistics:
        spread = torch.linspace(0.5, 2.0, front_end.feature_size)
        front_end.set_statistics(-spread, spread)
    return front_end


def make_noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def make_speechlike(num_samples: int, sample_rate: int) -> torch.Tensor:
    """A buzz of 120 Hz that comes and goes, over 16-bit hiss, so that bands lie far apart and top_db cuts."""
    seconds = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    buzz = sum(torch.sin(2 * math.pi * 120 * k * seconds) / k**2 for k in range(1, 30))
    loudness = torch.sin(2 * math.pi * 1.7 * seconds).clamp(min=0.0) ** 2
    return (0.3 * loudness * buzz + 3e-5 * make_noise(num_samples).double()).float()


def compute_alone(front_end: FrontEnd, waveform: torch.Tensor) -> torch.Tensor:
    features, frame_lengths = front_end(waveform[None], torch.tensor([len(waveform)]))
    assert features.shape == (1, int(frame_lengths), front_end.feature_size)
    return features[0]


def compute_log_mel(front_end: FrontEnd, waveform: torch.Tensor) -> torch.Tensor:
    return front_end.log_mel(waveform[None], torch.tensor([len(waveform)]))[0][0]


def compute_with_library(config: FrontEndConfig, waveform: torch.Tensor) -> np.ndarray:
    """Compute MFCCs, (T, F), with the library that a configuration is to match."""
    mel = {"n_fft": config.fft_length, "win_length": config.window_length, "hop_length": config.hop_length}
    if config.compatibility == "torchaudio":
        mel |= {"n_mels": config.n_mels, "f_min": config.f_min_hz, "f_max": config.f_max_hz}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mel bands without a bin
            transform = torchaudio.transforms.MFCC(config.sample_rate, config.num_coefficients, melkwargs=mel)
        return transform(waveform).T.numpy()
    mel |= {"n_mels": config.n_mels, "fmin": config.f_min_hz, "fmax": config.f_max_hz}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of audio shorter than a window
        return librosa.feature.mfcc(y=waveform.numpy(), sr=config.sample_rate, n_mfcc=config.num_coefficients, **mel).T
