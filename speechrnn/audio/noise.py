"""Noise for training: coloured, as the corpus's own pauses sound, or the babble of its other speakers.

It is one of the effects of :mod:`speechrnn.audio.augment`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.errors import ConfigError
from speechrnn.seeds import derive_seed
from speechrnn.settings import bounded, check_settings

NoiseKind = Literal["colored", "pauses", "babble", "files"]

DrawOther = Callable[[int], np.ndarray | None]
"""Of a seed, another utterance of the corpus, (n,) float32 at the model's rate, by another speaker where speakers are
known; None where there is none, or it cannot be read."""

_PAUSE_SECONDS = 0.2
_PAUSE_TRIES = 4
_PAUSE_FRAME_SECONDS = 0.032


@dataclass(frozen=True)
class NoiseConfig:
    """Noise over whole utterances.

    Attributes:
        probability: Share of utterances that get noise, in [0, 1]; 0 is off.
        snr_db: Lowest and highest signal-to-noise ratio over the whole utterance, in dB; drawn uniformly between.
        kinds: What it is; one is drawn for each utterance that gets any. ``colored``: steady, from white (0 dB an
            octave) to brown (-6 dB an octave). ``pauses``: steady, with the spectrum of the quietest fifth of a second
            of another utterance, so as the rooms and microphones of the corpus sound while nobody speaks. ``babble``:
            other speakers' utterances, all at once. ``files``: a stretch of a recording under ``folder``.
        voices: Fewest and most voices of babble.
        folder: Where recordings of noise lie.
    """

    probability: float = bounded(0.0, 0, 1)
    snr_db: tuple[float, float] = bounded((5.0, 30.0), -100, 200, unit="dB")
    kinds: tuple[NoiseKind, ...] = ("colored",)
    voices: tuple[int, int] = bounded((3, 7), 1, 100)
    folder: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, "augment.noise")
        if ("files" in self.kinds) != (self.folder is not None):
            raise ConfigError(
                "augment.noise: kinds with files and a folder of recordings go together; set both or none"
            )


def add_noise(
    samples: np.ndarray, config: NoiseConfig, *, sample_rate: int, seed: int, draw_other: DrawOther | None = None
) -> np.ndarray:
    """Add noise; pauses and babble come from ``draw_other``.

    Silence stays as it is, for there is no signal to measure against; so does an utterance without another one.
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability or not samples.any():
        return samples
    snr_db = rng.uniform(*config.snr_db)
    noise = _make_noise(len(samples), config, rng, sample_rate=sample_rate, draw_other=draw_other)
    power = np.mean(np.square(noise)) if noise is not None else 0.0
    if noise is None or not power:
        return samples
    signal_power = np.mean(np.square(samples, dtype=np.float64))
    return (samples + noise * np.sqrt(signal_power / power * 10.0 ** (-snr_db / 10.0))).astype(np.float32)


def _make_noise(
    length: int, config: NoiseConfig, rng: np.random.Generator, *, sample_rate: int, draw_other: DrawOther | None
) -> np.ndarray | None:
    """(length,) of one of the kinds at any level; None where it takes another utterance and there is none."""
    # With one kind there is nothing to draw, and a run with coloured noise alone stays what it was.
    kind = config.kinds[int(rng.integers(len(config.kinds)))] if len(config.kinds) > 1 else config.kinds[0]
    if kind == "colored":
        return _make_colored(length, rng)
    if kind == "files":
        return _read_stretch(length, str(config.folder), rng, sample_rate=sample_rate)
    if draw_other is None:
        return None
    seed = int(rng.integers(2**62))
    if kind == "pauses":
        return _make_pauses(length, rng, sample_rate=sample_rate, draw_other=draw_other, seed=seed)
    voices = int(rng.integers(config.voices[0], config.voices[1] + 1))
    return _make_babble(length, rng, voices=voices, draw_other=draw_other, seed=seed)


def _read_stretch(length: int, folder: str, rng: np.random.Generator, *, sample_rate: int) -> np.ndarray:
    """A stretch of a recording, from a moment of its own, and again from its beginning where it ends."""
    from speechrnn.audio.files import audio_info, read_audio

    paths = find_recordings(folder, setting="augment.noise.folder")
    path = paths[int(rng.integers(len(paths)))]
    seconds, wanted = audio_info(path).seconds, length / sample_rate
    start = float(rng.uniform(0.0, max(0.0, seconds - wanted)))
    stretch = read_audio(
        path, sample_rate=sample_rate, start=start, seconds=min(wanted, seconds - start), check_levels=False
    ).samples
    return np.resize(np.roll(stretch, -int(rng.integers(len(stretch)))) if seconds < wanted else stretch, length)


@lru_cache(maxsize=8)
def find_recordings(folder: str, *, setting: str) -> tuple[Path, ...]:
    """The recordings under a folder that a setting names, sorted.

    Raises:
        ConfigError: There are none.
    """
    paths = tuple(path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in AUDIO_ENDINGS)
    if not paths:
        raise ConfigError(f"{setting} {folder}: no recordings there ({', '.join(AUDIO_ENDINGS)})")
    return paths


def fast_fft_length(length: int) -> int:
    """Find a length of at least this for a Fourier transform, without prime factors above 5, which make it slower.

    Args:
        length: In samples, 1 or more.
    """
    odd_factors = (1, 3, 5, 9, 15, 25, 45, 75, 225)
    return min(odd << (-(-length // odd) - 1).bit_length() for odd in odd_factors)


def _make_colored(length: int, rng: np.random.Generator) -> np.ndarray:
    slope, size = rng.uniform(0.0, 2.0), fast_fft_length(length)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.arange(len(spectrum), dtype=np.float64).clip(min=1.0)
    return np.fft.irfft(spectrum * frequency ** (-slope / 2.0), n=size)[:length]


def _make_pauses(
    length: int, rng: np.random.Generator, *, sample_rate: int, draw_other: DrawOther, seed: int
) -> np.ndarray | None:
    """Gaussian noise with the spectrum of another utterance's pause; digital silence is no pause."""
    for attempt in range(_PAUSE_TRIES):
        other = draw_other(derive_seed(seed, attempt))
        pause = find_pause(other, sample_rate=sample_rate) if other is not None else None
        if pause is not None:
            size = round(_PAUSE_FRAME_SECONDS * sample_rate)
            starts = range(0, len(pause) - size + 1, size // 2)
            frames = np.stack([pause[start : start + size] for start in starts]) * np.hanning(size)
            density = np.mean(np.abs(np.fft.rfft(frames, axis=1)) ** 2, axis=0)  # Welch's estimate
            fast = fast_fft_length(length)
            spectrum = np.fft.rfft(rng.standard_normal(fast))
            at = np.linspace(0.0, len(density) - 1.0, len(spectrum))
            return np.fft.irfft(spectrum * np.sqrt(np.interp(at, np.arange(len(density)), density)), n=fast)[:length]
    return None


def find_pause(samples: np.ndarray, *, sample_rate: int) -> np.ndarray | None:
    """The quietest fifth of a second, (n,), of what is not digital silence; None where there is none.

    Args:
        samples: (N,), float32.
        sample_rate: In Hz.
    """
    size, hop = round(_PAUSE_SECONDS * sample_rate), max(1, sample_rate // 100)
    if len(samples) < size:
        return None
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, len(samples) - size + 1, hop)
    sounding = np.concatenate([[0], np.cumsum(samples != 0.0)])
    is_sound = sounding[starts + size] - sounding[starts] > size // 2
    if not is_sound.any():
        return None
    energies = np.where(is_sound, energy[starts + size] - energy[starts], np.inf)
    start = int(starts[int(np.argmin(energies))])
    return samples[start : start + size]


def _make_babble(
    length: int, rng: np.random.Generator, *, voices: int, draw_other: DrawOther, seed: int
) -> np.ndarray | None:
    """Other utterances, equally loud, each from a moment of its own and again from its beginning where it ends."""
    babble = np.zeros(length)
    for voice in range(voices):
        other = draw_other(derive_seed(seed, voice))
        if other is None or not other.any():
            continue
        start = int(rng.integers(len(other)))
        level = np.sqrt(np.mean(np.square(other, dtype=np.float64)))
        babble += np.resize(np.roll(other, -start), length) / level
    return babble if babble.any() else None
