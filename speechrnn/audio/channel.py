"""Effects between a speaker and a recording: noise, a room, a telephone's band, a lossy codec.

Their signatures are those of all effects (:mod:`speechrnn.audio.augment`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.errors import AudioError, ConfigError
from speechrnn.settings import Settings, bounded
from speechrnn.types import derive_seed

Codec = Literal["mp3", "opus", "vorbis", "gsm", "mulaw"]
NoiseKind = Literal["colored", "pauses", "babble", "files"]

DrawOther = Callable[[int], np.ndarray | None]
"""From a seed, another utterance of the corpus, (n,) float32 at the model's rate, by another speaker if speakers are
known; None if there is none, or it cannot be read."""

_ENCODINGS: dict[Codec, tuple[str, str]] = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
    "gsm": ("WAV", "GSM610"),
    "mulaw": ("WAV", "ULAW"),
}
_STRONGEST_MP3 = 0.9999  # libsndfile 1.2 refuses more
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_FIRST_REFLECTION_SECONDS = 0.003
_DECAY_60_DB = 6.907755  # ln(10^3): an amplitude's decay by 60 dB
_RAMP = 0.1
_PAUSE_SECONDS = 0.2
_PAUSE_TRIES = 4
_PAUSE_FRAME_SECONDS = 0.032
_ODD_FACTORS = tuple(3**threes * 5**fives for threes in range(4) for fives in range(4))


@dataclass(frozen=True)
class NoiseConfig(Settings, section="augment.noise"):
    """Noise over whole utterances.

    Attributes:
        probability: Share of utterances that get noise, in [0, 1]; 0 is off.
        snr_db: Lowest and highest signal-to-noise ratio over the whole utterance, in dB; drawn uniformly.
        kinds: Kinds of noise, of which one is drawn. ``colored``: stationary, from white (0 dB per octave) to brown
            (-6 dB per octave). ``pauses``: stationary, with the spectrum of the quietest fifth of a second of another
            utterance, which is the background noise of the corpus. ``babble``: several other speakers' utterances at
            the same time. ``files``: a part of a recording under ``folder``.
        voices: Fewest and most voices of babble.
        folder: Folder of noise recordings.
    """

    probability: float = bounded(0.0, 0, 1)
    snr_db: tuple[float, float] = bounded((5.0, 30.0), -100, 200, unit="dB")
    kinds: tuple[NoiseKind, ...] = ("colored",)
    voices: tuple[int, int] = bounded((3, 7), 1, 100)
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if ("files" in self.kinds) != (self.folder is not None):
            raise ConfigError(
                "augment.noise: kinds with files and a folder of recordings go together; set both or none"
            )


@dataclass(frozen=True)
class ReverberationConfig(Settings, section="augment.reverberation"):
    """Reverberation.

    Attributes:
        probability: Share of utterances with reverberation, in [0, 1]; 0 is off.
        decay_seconds: Shortest and longest decay of a simulated room by 60 dB (RT60), in seconds; drawn uniformly.
        direct_db: Lowest and highest level of the direct sound over the reverberation, in dB; drawn uniformly.
        responses: Folder of recorded impulse responses, of which one is drawn; None simulates rooms.

    Source:
        The simulated tail is Gaussian noise under an exponential decay: J. Polack, PhD thesis, Université du Maine,
        1988, as in M. Jeub et al., DSP 2009.
    """

    probability: float = bounded(0.0, 0, 1)
    decay_seconds: tuple[float, float] = bounded((0.2, 0.8), 0, 20, open="low", unit="seconds")
    direct_db: tuple[float, float] = bounded((0.0, 12.0), -60, 120, unit="dB")
    responses: str | None = None


@dataclass(frozen=True)
class BandConfig(Settings, section="augment.band"):
    """The frequency band of a telephone.

    Attributes:
        probability: Share of utterances that are limited to the band, in [0, 1]; 0 is off.
        low_hz: Lower edge.
        high_hz: Upper edge.
    """

    probability: float = bounded(0.0, 0, 1)
    low_hz: float = bounded(300.0, 0, 192000, unit="Hz")
    high_hz: float = bounded(3400.0, 0, 192000, open="low", unit="Hz")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_hz >= self.high_hz:
            raise ConfigError(f"augment.band: expected low_hz below high_hz, got {self.low_hz} and {self.high_hz}")


@dataclass(frozen=True)
class CodecConfig(Settings, section="augment.codec"):
    """Lossy coding: an utterance is encoded and decoded again.

    Attributes:
        probability: Share of utterances, in [0, 1]; 0 is off.
        kinds: Codecs, of which one is drawn: ``mp3``, ``opus`` (at 8, 12, 16, 24 or 48 kHz), ``vorbis``, ``gsm``,
            ``mulaw``.
        compression: Weakest and strongest compression of mp3, opus and vorbis, in [0, 1]; drawn uniformly.
    """

    probability: float = bounded(0.0, 0, 1)
    kinds: tuple[Codec, ...] = ("mp3", "opus")
    compression: tuple[float, float] = bounded((0.6, 1.0), 0, 1)


def add_noise(
    samples: np.ndarray, config: NoiseConfig, *, sample_rate: int, seed: int, draw_other: DrawOther | None = None
) -> np.ndarray:
    """Add noise; pauses and babble are made of utterances from ``draw_other``.

    Silence is unchanged, as it has no level to compare with, and so is an utterance if no other one can be drawn.
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
    """(length,) of one of the kinds at any level; None if it needs another utterance and there is none."""
    # A single kind is not drawn, so that runs with coloured noise alone stay the same.
    kind = config.kinds[int(rng.integers(len(config.kinds)))] if len(config.kinds) > 1 else config.kinds[0]
    if kind == "colored":
        slope, size = rng.uniform(0.0, 2.0), fast_fft_length(length)
        spectrum = np.fft.rfft(rng.standard_normal(size))
        frequency = np.arange(len(spectrum), dtype=np.float64).clip(min=1.0)
        return np.fft.irfft(spectrum * frequency ** (-slope / 2.0), n=size)[:length]
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
    """A part of a recording, from a random moment; a recording that is too short is repeated."""
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
    """The recordings under a folder of a setting, sorted.

    Raises:
        ConfigError: There are none.
    """
    paths = tuple(path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in AUDIO_ENDINGS)
    if not paths:
        raise ConfigError(f"{setting} {folder}: no recordings in it ({', '.join(AUDIO_ENDINGS)})")
    return paths


def fast_fft_length(length: int) -> int:
    """Round a length up for a fast Fourier transform, to one without prime factors above 5.

    Args:
        length: In samples, 1 or more.
    """
    return min(odd << (-(-length // odd) - 1).bit_length() for odd in _ODD_FACTORS)


def _make_pauses(
    length: int, rng: np.random.Generator, *, sample_rate: int, draw_other: DrawOther, seed: int
) -> np.ndarray | None:
    """Gaussian noise with the spectrum of another utterance's pause; digital silence does not count."""
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
    """The quietest fifth of a second that is not digital silence, (n,); None if there is none.

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
    """Other utterances, equally loud, each from a random moment; short ones are repeated."""
    babble = np.zeros(length)
    for voice in range(voices):
        other = draw_other(derive_seed(seed, voice))
        if other is None or not other.any():
            continue
        start = int(rng.integers(len(other)))
        level = np.sqrt(np.mean(np.square(other, dtype=np.float64)))
        babble += np.resize(np.roll(other, -start), length) / level
    return babble if babble.any() else None


def reverberate(samples: np.ndarray, config: ReverberationConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Add the reverberation of a room; level, length and the time of the direct sound stay the same.

    Raises:
        AudioError: A recorded response cannot be read.
        ConfigError: The folder has no responses.
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability or not samples.any():
        return samples
    if config.responses is None:
        response = _simulate_room(config, rng, sample_rate)
    else:
        paths = find_recordings(config.responses, setting="augment.reverberation.responses")
        response = _read_response(paths[int(rng.integers(len(paths)))], sample_rate)
    size = fast_fft_length(len(samples) + len(response) - 1)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    power, wanted = np.mean(np.square(wet)), np.mean(np.square(samples, dtype=np.float64))
    return (wet * np.sqrt(wanted / power)).astype(np.float32) if power else samples


def _simulate_room(config: ReverberationConfig, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    decay, direct_db = rng.uniform(*config.decay_seconds), rng.uniform(*config.direct_db)
    at = np.arange(max(2, round(decay * sample_rate))) / sample_rate
    tail = rng.standard_normal(len(at)) * np.exp(-_DECAY_60_DB * at / decay)
    tail[at < _FIRST_REFLECTION_SECONDS] = 0.0
    energy = float(np.sum(np.square(tail)))
    if energy:
        tail *= np.sqrt(10.0 ** (-direct_db / 10.0) / energy)
    tail[0] = 1.0
    return tail


@lru_cache(maxsize=256)
def _read_response(path: Path, sample_rate: int) -> np.ndarray:
    """A response from its direct sound on."""
    from speechrnn.audio.files import read_audio

    response = read_audio(path, sample_rate=sample_rate, check_levels=False).samples
    if not response.any():
        raise AudioError(f"{path}: a silent impulse response; remove it from the folder")
    return response[int(np.argmax(np.abs(response))) :].astype(np.float64)


def limit_band(samples: np.ndarray, config: BandConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Limit to a band, with ramps of a tenth of its edges."""
    if np.random.default_rng(seed).random() >= config.probability or not len(samples):
        return samples
    size = fast_fft_length(len(samples))
    frequency = np.fft.rfftfreq(size, 1.0 / sample_rate)
    below = np.interp(frequency, [(1 - _RAMP) * config.low_hz, max(config.low_hz, 1e-9)], [0.0, 1.0])
    above = np.interp(frequency, [config.high_hz, (1 + _RAMP) * config.high_hz], [1.0, 0.0])
    gain = (below if config.low_hz > 0 else 1.0) * above
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)].astype(np.float32)


def encode_and_decode(samples: np.ndarray, config: CodecConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Encode with a lossy codec and decode; length and times stay the same.

    Raises:
        ConfigError: The codec does not support the sample rate.
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability or not len(samples):
        return samples
    kind = config.kinds[int(rng.integers(len(config.kinds)))]
    if kind == "opus" and sample_rate not in OPUS_RATES:
        rates = ", ".join(map(str, OPUS_RATES))
        raise ConfigError(f"augment.codec.kinds: opus does not support {sample_rate} Hz, only {rates}")
    import soundfile

    container, subtype = _ENCODINGS[kind]
    level = {}
    if container != "WAV":
        strength = float(rng.uniform(*config.compression))
        level = {"compression_level": min(strength, _STRONGEST_MP3) if kind == "mp3" else strength}
    loudest = max(1.0, float(np.abs(samples).max()))  # the encoder clips at full scale
    file = io.BytesIO()
    soundfile.write(file, samples / loudest, sample_rate, format=container, subtype=subtype, **level)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    result = np.zeros_like(samples)
    length = min(len(samples), len(decoded))
    result[:length] = decoded[:length] * loudest
    return result
