"""Whether an exported model has the output of the original, on audio (law 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEnd
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ModelError
from speechrnn.model_folder import ModelFolder

TOLERANCE = 1e-4
SECONDS = 60.0
"""Of a recording that are compared."""
_SHORTER = 0.6
_Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Waveforms (B, N) and lengths (B,) to log-probabilities (B, T', V) and valid rows (B,)."""


@dataclass(frozen=True)
class ExportComparison:
    """An exported model beside the original.

    Attributes:
        difference: Largest difference of a log-probability.
        rounding: Largest difference of one from the original's own if its spectrum is computed in float64: how exact
            the original is on this audio.
        text: Greedy text of the exported model.
        original_text: That of the original.
    """

    difference: float
    rounding: float
    text: str
    original_text: str

    @property
    def allowed(self) -> float:
        """Largest difference of a float32 export: :data:`TOLERANCE`, or ten times the rounding if that is more.

        Normalisation multiplies the rounding of a spectrum by up to 100, in bands without any sound: those above the
        cut-off of an MP3 file. Two float32 programs then differ more than usual, with the same text.
        """
        return max(TOLERANCE, 10 * self.rounding)


def compare(model: ModelFolder, run: _Run, samples: np.ndarray, *, batched: bool = True) -> ExportComparison:
    """Run both on a recording, and on the first part of it in the same batch.

    Args:
        model: The original, on the CPU.
        run: The exported model.
        samples: At the model's rate, (N,), float32; of a long recording the first minute is used.
        batched: Whether the exported model takes a batch; otherwise the recording alone.

    Raises:
        ModelError: The exported model returns other shapes, or values that are not finite.
    """
    acoustic = model.acoustic
    samples = samples[: round(SECONDS * acoustic.sample_rate)]
    lengths = np.array([len(samples), round(_SHORTER * len(samples))][: 2 if batched else 1])
    waveforms = np.stack([samples] * len(lengths))  # what follows the shorter one is not silence
    expected, frames = _run_original(acoustic, waveforms, lengths, exact=False)
    exact, _ = _run_original(acoustic, waveforms, lengths, exact=True)
    found, found_frames = run(waveforms, lengths)
    if found_frames.tolist() != frames.tolist() or not np.isfinite(found).all():
        raise ModelError(
            f"export: the exported model returns {found_frames.tolist()} frames and the original {frames.tolist()}, or "
            "numbers that are not finite; this is a fault of speechrnn: report it with the model's config.json"
        )
    texts = []
    for each in (torch.from_numpy(found[:1]), expected[:1]):
        [hypothesis] = decode_greedy(each[:, : frames[0]], frames[:1])
        texts.append(model.tokens.decode(hypothesis.tokens))
    difference = _find_difference(expected, torch.from_numpy(found), frames)
    return ExportComparison(difference, _find_difference(expected, exact, frames), *texts)


def _find_difference(one: Tensor, other: Tensor, frames: Tensor) -> float:
    return max(float((one[i, :n] - other[i, :n]).abs().max()) if n else 0.0 for i, n in enumerate(frames.tolist()))


@torch.inference_mode()
def _run_original(
    model: AcousticModel, waveforms: np.ndarray, lengths: np.ndarray, *, exact: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, T', V) and frames (B,) of the original; with ``exact`` of a spectrum in float64."""
    waves, counts = torch.from_numpy(waveforms), torch.from_numpy(lengths)
    if not exact:
        emission = model(waves, counts)
        return emission.log_probs, emission.lengths
    frames = model.front_end.count_frames(counts)
    features = model.front_end.derive_features(_compute_log_mels(model.front_end, waves, frames), frames)
    hidden, frames, _, _ = model.encoder(features, frames)
    return model.head(hidden), frames


def _compute_log_mels(front_end: FrontEnd, waveforms: Tensor, frames: Tensor) -> Tensor:
    """The front end's log-mels, computed in float64; (B, T, M), float32, zero past the frames (B,)."""
    config = front_end.config
    emphasised = torch.sub(waveforms[:, 1:], waveforms[:, :-1], alpha=config.pre_emphasis).double()
    window = front_end.window[: config.window_length - 1].double()
    parts = []
    for block in emphasised.unfold(1, len(window), config.hop_length).split(1024, dim=1):
        spectrum = torch.view_as_real(torch.fft.rfft(block * window, config.fft_length)).flatten(2)
        parts.append(spectrum.square() @ front_end.power_filters.double())
    log_mels = torch.cat(parts, dim=1).clamp(min=config.log_floor).log().float()
    is_valid = torch.arange(log_mels.shape[1]) < frames[:, None]
    return log_mels * is_valid[..., None]


def make_signal(sample_rate: int, seconds: float = 6.0) -> np.ndarray:
    """A signal with the contrasts of speech, always the same: gliding tones with harmonics, noise, pauses, clicks.

    Returns:
        (N,), float32, in [-1, 1].
    """
    rng, time = np.random.default_rng(0), np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 120.0 + 40.0 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voiced = sum(np.sin(number * phase) / number for number in range(1, 12) if number * 160 < sample_rate / 2)
    syllables = np.sin(2 * np.pi * 2.5 * time).clip(0) ** 0.5
    noise = rng.standard_normal(len(time))
    is_fricative = (np.floor(time * 5) % 4) == 3
    signal = 0.2 * syllables * voiced + 0.05 * noise * is_fricative + 1e-3 * noise
    signal[(time % 3.0) > 2.5] *= 0.01  # a quiet room
    signal[(time % 3.0) > 2.8] = 0.0  # digital silence
    signal[:: max(1, sample_rate // 3)] += 0.3
    return signal.clip(-1, 1).astype(np.float32)
