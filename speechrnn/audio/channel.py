"""Effects of what lies between a speaker and a recording: a room, a telephone's band, a lossy codec.

They take and return what all effects do (:mod:`speechrnn.audio.augment`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from speechrnn.audio.noise import fast_fft_length, find_recordings
from speechrnn.errors import AudioError, ConfigError
from speechrnn.settings import bounded, check_settings

Codec = Literal["mp3", "opus", "vorbis", "gsm", "mulaw"]

_ENCODINGS: dict[Codec, tuple[str, str]] = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
    "gsm": ("WAV", "GSM610"),
    "mulaw": ("WAV", "ULAW"),
}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_FIRST_REFLECTION_SECONDS = 0.003
_DECAY_60_DB = 6.907755  # ln(10^3): an amplitude's decay by 60 dB
_RAMP = 0.1


@dataclass(frozen=True)
class ReverberationConfig:
    """The sound of rooms.

    Attributes:
        probability: Share of utterances that stand in a room, in [0, 1]; 0 is off.
        decay_seconds: Shortest and longest time in which a simulated room's sound falls by 60 dB (RT60); drawn
            uniformly between.
        direct_db: Least and greatest level of the direct sound over that of the room, in dB; drawn uniformly between.
        responses: Folder of recorded impulse responses, to take one of instead of simulating; None simulates.

    Source:
        The simulated tail is Gaussian noise under an exponential decay: J. Polack, PhD thesis, Université du Maine,
        1988, as in M. Jeub et al., DSP 2009.
    """

    probability: float = bounded(0.0, 0, 1)
    decay_seconds: tuple[float, float] = bounded((0.2, 0.8), 0, 20, open="low", unit="seconds")
    direct_db: tuple[float, float] = bounded((0.0, 12.0), -60, 120, unit="dB")
    responses: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, "augment.reverberation")


@dataclass(frozen=True)
class BandConfig:
    """What a telephone lets through.

    Attributes:
        probability: Share of utterances that are cut to the band, in [0, 1]; 0 is off.
        low_hz: Lower edge.
        high_hz: Upper edge.
    """

    probability: float = bounded(0.0, 0, 1)
    low_hz: float = bounded(300.0, 0, 192000, unit="Hz")
    high_hz: float = bounded(3400.0, 0, 192000, open="low", unit="Hz")

    def __post_init__(self) -> None:
        check_settings(self, "augment.band")
        if self.low_hz >= self.high_hz:
            raise ConfigError(f"augment.band: expected low_hz below high_hz, got {self.low_hz} and {self.high_hz}")


@dataclass(frozen=True)
class CodecConfig:
    """Lossy coding: an utterance is encoded and decoded again.

    Attributes:
        probability: Share of utterances, in [0, 1]; 0 is off.
        kinds: One is drawn for each: ``mp3``, ``opus`` (at 8, 12, 16, 24 or 48 kHz), ``vorbis``, ``gsm``, ``mulaw``.
        compression: Least and strongest compression of mp3, opus and vorbis, in [0, 1]; drawn uniformly between.
    """

    probability: float = bounded(0.0, 0, 1)
    kinds: tuple[Codec, ...] = ("mp3", "opus")
    compression: tuple[float, float] = bounded((0.6, 1.0), 0, 1)

    def __post_init__(self) -> None:
        check_settings(self, "augment.codec")


def reverberate(samples: np.ndarray, config: ReverberationConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Put an utterance into a room, as loud as before.

    The direct sound stays where it was; what rings on after the end is cut.

    Raises:
        AudioError: A recorded response cannot be read.
        ConfigError: There are none in the folder.
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
    return _as_loud(wet, samples)


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
        raise AudioError(f"{path}: an impulse response of silence; leave it out of the folder")
    return response[int(np.argmax(np.abs(response))) :].astype(np.float64)


def limit_band(samples: np.ndarray, config: BandConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Cut to a band: beyond a ramp of a tenth there is nothing."""
    if np.random.default_rng(seed).random() >= config.probability or not len(samples):
        return samples
    frequency = np.fft.rfftfreq(len(samples), 1.0 / sample_rate)
    below = np.interp(frequency, [(1 - _RAMP) * config.low_hz, max(config.low_hz, 1e-9)], [0.0, 1.0])
    above = np.interp(frequency, [config.high_hz, (1 + _RAMP) * config.high_hz], [1.0, 0.0])
    gain = (below if config.low_hz > 0 else 1.0) * above
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples)).astype(np.float32)


def encode_and_decode(samples: np.ndarray, config: CodecConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Send it through a lossy codec; its length and moments stay.

    Raises:
        ConfigError: The codec does not know the sample rate.
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability or not len(samples):
        return samples
    kind = config.kinds[int(rng.integers(len(config.kinds)))]
    if kind == "opus" and sample_rate not in _OPUS_RATES:
        raise ConfigError(
            f"augment.codec.kinds: opus knows no {sample_rate} Hz, only {', '.join(map(str, _OPUS_RATES))}"
        )
    import soundfile

    container, subtype = _ENCODINGS[kind]
    level = {} if container == "WAV" else {"compression_level": float(rng.uniform(*config.compression))}
    loudest = max(1.0, float(np.abs(samples).max()))  # what is louder than full scale would be cut off
    file = io.BytesIO()
    soundfile.write(file, samples / loudest, sample_rate, format=container, subtype=subtype, **level)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    result = np.zeros_like(samples)
    length = min(len(samples), len(decoded))
    result[:length] = decoded[:length] * loudest
    return result


def _as_loud(samples: np.ndarray, as_what: np.ndarray) -> np.ndarray:
    power = float(np.mean(np.square(samples)))
    if not power:
        return as_what
    wanted = float(np.mean(np.square(as_what, dtype=np.float64)))
    return (samples * np.sqrt(wanted / power)).astype(np.float32)
