"""Augmentation of training recordings: speed, pitch, cuts, pauses, filters, noise.

Noise, rooms and codecs are in :mod:`speechrnn.audio.channel`, effects on log-mels in
:mod:`speechrnn.audio.spectral_augment`.

Every effect takes one utterance, (N,), float32, its own configuration, the sample rate in Hz and a seed, and returns
(n,), float32. Each draw is a function of the seed, which is derived from the run's seed, the epoch and the utterance's
id (:func:`speechrnn.types.derive_seed`). An effect that is not drawn returns the samples unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechrnn.audio.channel import (
    BandConfig,
    CodecConfig,
    DrawOther,
    NoiseConfig,
    ReverberationConfig,
    add_noise,
    encode_and_decode,
    fast_fft_length,
    limit_band,
    reverberate,
)
from speechrnn.audio.resampling import resample
from speechrnn.audio.spectral_augment import SpecAugmentConfig, WarpConfig
from speechrnn.settings import Settings, bounded
from speechrnn.types import derive_seed

_VOCODER_SECONDS = 0.064
_SPEECH_DB = 25.0
"""Speech is within this many dB of the loudest 10 ms."""


@dataclass(frozen=True)
class GateConfig(Settings, section="augment.gate"):
    """Cut off the quiet ends of an utterance, as sound-activated recorders do; faint consonants are lost.

    Attributes:
        probability: Share of utterances that are cut, in [0, 1]; 0 is off.
        threshold_db: Least and greatest distance of the gate below the loudest 10 ms, in dB; drawn uniformly.
    """

    probability: float = bounded(0.0, 0, 1)
    threshold_db: tuple[float, float] = bounded((10.0, 40.0), 0, 200, unit="dB")


@dataclass(frozen=True)
class TruncateConfig(Settings, section="augment.truncate"):
    """Cut into the first or the last word, as in recordings that were started late or stopped early.

    Attributes:
        probability: Share of ends that are cut, in [0, 1]; 0 is off.
        seconds: Most speech that an end loses, in seconds; drawn uniformly from 0, but at most a quarter of the time
            between the first and the last loud moment. Everything before or after the cut is removed.
    """

    probability: float = bounded(0.0, 0, 1)
    seconds: float = bounded(0.1, 0, 60, open="low", unit="seconds")


@dataclass(frozen=True)
class WordFragmentsConfig(Settings, section="augment.word_fragments"):
    """Faint fragments of a word at an end, as in recordings cut out of longer ones; they are not transcribed.

    A fragment is a loud piece of the utterance itself, attenuated; it fades out at the beginning and in at the end.

    Attributes:
        probability: Share of ends that get a fragment, in [0, 1]; 0 is off.
        seconds: Shortest and longest piece, in seconds; drawn uniformly.
        attenuation_db: Least and greatest attenuation besides the fading, in dB; drawn uniformly.
    """

    probability: float = bounded(0.0, 0, 1)
    seconds: tuple[float, float] = bounded((0.03, 0.2), 0, 60, open="low", unit="seconds")
    attenuation_db: tuple[float, float] = bounded((6.0, 20.0), 0, 200, unit="dB")


@dataclass(frozen=True)
class AugmentConfig(Settings, section="augment"):
    """Augmentation of training utterances; validation and test utterances are not changed.

    Every value is drawn for each utterance and epoch.

    Attributes:
        speed: Factors of tempo and pitch together, of which one is drawn; (1.0,) changes nothing.
        pitch_semitones: Lowest and highest change of pitch at the same tempo, in semitones; drawn uniformly.
        tempo: Lowest and highest factor of tempo at the same pitch; drawn uniformly.
        truncate: Cuts into the first and the last word.
        gate: Cuts of the quiet ends.
        gain_db: Lowest and highest gain, in dB; drawn uniformly.
        equalizer_db: Largest amplitude of each of three random cosines over the mel scale that change the spectrum, in
            dB; 0 is off. For models that confuse properties of the microphone with those of the word.
        padding_seconds: Longest pause before and after an utterance, each drawn uniformly from 0, in seconds; it
            contains white noise as loud as the utterance's quietest tenth. For models that confuse the share of silence
            in a recording with a property of the word.
        padding_probability: Share of ends that get a pause, in [0, 1]. Below 1 the training data includes utterances
            that begin or end with speech.
        word_fragments: Faint fragments of a word, added at both ends.
        reverberation: Rooms.
        noise: Noise over the whole utterance.
        band: The frequency band of a telephone.
        codec: Lossy coding.
        warp: Stretches of the log-mels, over frequency and time.
        spec_augment: Masks over the log-mels.
    """

    speed: tuple[float, ...] = bounded((1.0,), 0.25, 4)
    pitch_semitones: tuple[float, float] = bounded((0.0, 0.0), -12, 12, unit="semitones")
    tempo: tuple[float, float] = bounded((1.0, 1.0), 0.5, 2)
    truncate: TruncateConfig = field(default_factory=TruncateConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    gain_db: tuple[float, float] = bounded((0.0, 0.0), -120, 120, unit="dB")
    equalizer_db: float = bounded(0.0, 0, 60, unit="dB")
    padding_seconds: float = bounded(0.0, 0, 60, unit="seconds")
    padding_probability: float = bounded(1.0, 0, 1)
    word_fragments: WordFragmentsConfig = field(default_factory=WordFragmentsConfig)
    reverberation: ReverberationConfig = field(default_factory=ReverberationConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    band: BandConfig = field(default_factory=BandConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    warp: WarpConfig = field(default_factory=WarpConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)


def draw_speed(config: AugmentConfig, seed: int) -> float:
    """The speed factor of one utterance in one epoch."""
    if len(config.speed) == 1:
        return config.speed[0]
    return config.speed[int(np.random.default_rng(seed).integers(len(config.speed)))]


def change_pitch_and_tempo(samples: np.ndarray, config: AugmentConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Change the pitch and the tempo independently, with a phase vocoder; less than a window, 64 ms, is unchanged.

    Source:
        ``librosa.effects.time_stretch``: to raise the pitch by p, the recording is stretched p times and resampled to p
        times the speed.
    """
    rng = np.random.default_rng(seed)
    pitch = 2.0 ** (rng.uniform(*config.pitch_semitones) / 12.0)
    tempo = rng.uniform(*config.tempo)
    n_fft = 1 << (round(_VOCODER_SECONDS * sample_rate) - 1).bit_length()
    if len(samples) < n_fft:
        return samples
    from librosa.effects import time_stretch

    stretched = time_stretch(samples, rate=tempo / pitch, n_fft=n_fft)
    return resample(stretched.astype(np.float32), sample_rate * pitch, sample_rate)


def change_gain(samples: np.ndarray, config: AugmentConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Change the level."""
    gain_db = np.random.default_rng(seed).uniform(*config.gain_db)
    return samples * np.float32(10.0 ** (gain_db / 20.0))


def equalize(samples: np.ndarray, config: AugmentConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Change the spectrum as another microphone would.

    The gain in dB at mel m is Σ a_k cos(π k m / m_max) for k = 1, 2, 3, each a_k drawn uniformly from ±equalizer_db;
    the phase is kept.
    """
    swings_db = np.random.default_rng(seed).uniform(-config.equalizer_db, config.equalizer_db, size=3)
    size = fast_fft_length(len(samples))
    mels = np.log1p(np.fft.rfftfreq(size, 1.0 / sample_rate) / 700.0)  # HTK's scale up to a factor
    position = mels / mels[-1]
    gain_db = sum(swing * np.cos(np.pi * (k + 1) * position) for k, swing in enumerate(swings_db))
    spectrum = np.fft.rfft(samples, size) * 10.0 ** (gain_db / 20.0)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def add_pauses(samples: np.ndarray, config: AugmentConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Add pauses of faint noise before and after the utterance."""
    rng = np.random.default_rng(seed)
    before, after = rng.integers(round(config.padding_seconds * sample_rate) + 1, size=2)
    has_pause = np.random.default_rng(derive_seed(seed, "ends")).random(2) < config.padding_probability
    before, after = before * has_pause[0], after * has_pause[1]
    levels = _measure_levels(samples, sample_rate)
    level = np.quantile(levels, 0.1) if len(levels) else 0.0
    pauses = (level * rng.standard_normal(before + after)).astype(np.float32)
    return np.concatenate([pauses[:before], samples, pauses[before:]])


def add_word_fragments(samples: np.ndarray, config: WordFragmentsConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Add a word fragment to the ends."""
    rng = np.random.default_rng(seed)
    loud, changed = _find_loud(samples, sample_rate, 0.5), samples.copy()
    for is_end in (False, True):
        has_fragment, length_s = rng.random() < config.probability, rng.uniform(*config.seconds)
        length = min(round(length_s * sample_rate), len(samples))
        gain, place = 10.0 ** (-rng.uniform(*config.attenuation_db) / 20.0), rng.random()
        if not has_fragment or not len(loud):
            continue
        # The piece starts with a loud moment at the beginning, and ends with one at the end.
        moment = (int(loud[int(place * len(loud))]) + is_end) * (sample_rate // 100)
        start = min(max(0, moment - (length if is_end else 0)), len(samples) - length)
        piece = samples[start : start + length] * gain
        fade = np.linspace(0.0, 1.0, length) if is_end else np.linspace(1.0, 0.0, length)
        target = changed[len(samples) - length :] if is_end else changed[:length]
        target += (piece * fade).astype(np.float32)
    return changed


def _measure_levels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Root mean square of each whole 10 ms, (N // 10 ms,)."""
    size = sample_rate // 100
    pieces = samples[: len(samples) // size * size].reshape(-1, size)
    return np.sqrt(np.mean(np.square(pieces), axis=1))


def _find_loud(samples: np.ndarray, sample_rate: int, share: float) -> np.ndarray:
    """Numbers of the 10 ms with at least this share of the loudest one's amplitude; empty for silence."""
    levels = _measure_levels(samples, sample_rate)
    return np.flatnonzero(levels >= levels.max() * share) if levels.any() else np.zeros(0, int)


def cut_quiet_ends(samples: np.ndarray, config: GateConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Cut off everything before the first and after the last 10 ms above the gate; at least 10 ms are left."""
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability:
        return samples
    loud, size = (
        _find_loud(samples, sample_rate, 10.0 ** (-rng.uniform(*config.threshold_db) / 20.0)),
        sample_rate // 100,
    )
    return samples[loud[0] * size : (loud[-1] + 1) * size] if len(loud) else samples


def truncate_ends(samples: np.ndarray, config: TruncateConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Cut into the first and the last word; at least half of the speech is left."""
    rng = np.random.default_rng(seed)
    is_cut, lost = rng.random(2) < config.probability, rng.uniform(0.0, config.seconds, size=2)
    loud, size = _find_loud(samples, sample_rate, 10.0 ** (-_SPEECH_DB / 20.0)), sample_rate // 100
    if not len(loud):
        return samples
    first, last = loud[0] * size, (loud[-1] + 1) * size
    before, after = np.minimum(lost * sample_rate, (last - first) / 4).astype(int)
    return samples[first + before if is_cut[0] else 0 : last - after if is_cut[1] else len(samples)]


def augment(
    samples: np.ndarray, config: AugmentConfig, *, sample_rate: int, seed: int, draw_other: DrawOther | None = None
) -> np.ndarray:
    """Apply all configured effects, except speed and effects on log-mels.

    Args:
        samples: (N,), float32.
        config: The effects.
        sample_rate: In Hz.
        seed: Every draw is a function of it.
        draw_other: Draws another utterance, for noise made of the corpus.
    """
    for name, switch, effect in _EFFECTS:
        own: Any = getattr(config, switch) if isinstance(switch, str) else config
        if own.probability > 0 if isinstance(switch, str) else switch(config):
            options: dict[str, Any] = {"draw_other": draw_other} if effect is add_noise else {}
            samples = effect(samples, own, sample_rate=sample_rate, seed=derive_seed(seed, name), **options)
    return samples


_EFFECTS: tuple[tuple[str, Callable[[AugmentConfig], bool] | str, Callable[..., np.ndarray]], ...] = (
    ("pitch and tempo", lambda c: (*c.pitch_semitones, *c.tempo) != (0.0, 0.0, 1.0, 1.0), change_pitch_and_tempo),
    ("truncate", "truncate", truncate_ends),
    ("gate", "gate", cut_quiet_ends),
    ("padding", lambda c: c.padding_seconds > 0, add_pauses),
    ("remains", "word_fragments", add_word_fragments),
    ("equalizer", lambda c: c.equalizer_db > 0, equalize),
    ("gain", lambda c: c.gain_db != (0.0, 0.0), change_gain),
    ("reverberation", "reverberation", reverberate),
    ("noise", "noise", add_noise),
    ("band", "band", limit_band),
    ("codec", "codec", encode_and_decode),
)
"""In their order: the name from which the seed is derived; the name of the effect's own settings, or whether the common
settings switch it on; the effect."""
