"""The front end as a graph: frames, power spectrum, mel bands, logarithm, cosine transform, deltas, normalisation.

The spectrum is one convolution with windowed sines and cosines. Only bins that a mel band uses are computed.
"""

from __future__ import annotations

import math

import numpy as np

from speechrnn.audio.features import FrontEnd
from speechrnn.audio.transforms import PRIOR_FRAMES, STD_FLOOR
from speechrnn.errors import ConfigError, ModelError
from speechrnn.export.graph import Value, mask, pick


def check_front_end(front_end: FrontEnd) -> None:
    """Check that a front end can be a graph.

    Raises:
        ConfigError: A setting has no graph; the message names it.
        ModelError: Its normalisation has no statistics.
    """
    config = front_end.config
    if config.compatibility != "none":
        raise ConfigError(
            f"export: front_end.compatibility {config.compatibility} cannot be exported (decibels relative to the "
            "loudest band, centred frames); train with front_end.compatibility none"
        )
    if config.has_statistics and not bool((front_end.std > 0).all()):
        raise ModelError(
            f"export: front_end.normalization {config.normalization} has no statistics; export a trained model"
        )


def add_front_end(front_end: FrontEnd, waveforms: Value, lengths: Value) -> tuple[Value, Value]:
    """Waveforms to features.

    Args:
        front_end: The model's.
        waveforms: (B, N), float32.
        lengths: Valid samples, (B,), int64.

    Returns:
        Features (B, T, F), float32, zero past a length, with at least one row; and valid frames, (B,), int64.
    """
    config = front_end.config
    window, hop = config.window_length, config.hop_length
    missing = (waveforms.size(1) * -1 + window).at_least(0)
    log_mels = add_log_mels(front_end, waveforms.pad(1, 2, after=missing))
    frames = (lengths + (hop - window)).at_least(0) / hop
    features = add_cepstra(front_end, mask(log_mels, frames, 3))
    if config.deltas:
        features = _add_all_deltas(front_end, features, frames)
    return add_normalization(front_end, mask(features, frames, 3), frames), frames


def add_log_mels(front_end: FrontEnd, waveforms: Value) -> Value:
    """Waveforms (B, N), at least a window, to log-mels (B, T, M)."""
    config, graph = front_end.config, waveforms.graph
    later, earlier = waveforms.cut(1, 1, 2**31), waveforms.cut(1, 0, -1)
    emphasised = later - earlier * config.pre_emphasis  # from the second sample on; the window is 0 at the first
    filters = front_end.power_filters.double().cpu().numpy()[::2].T  # (M, bins)
    used = np.flatnonzero(filters.any(axis=0))
    places = np.arange(config.window_length - 1)
    angles = 2 * math.pi / config.fft_length * ((used[:, None] * places) % config.fft_length)
    window = front_end.window.double().cpu().numpy()[: len(places)]
    kernels = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    spectrum = graph.add(
        "Conv", emphasised.unsqueeze(1), kernels[:, None].astype(np.float32), strides=[config.hop_length]
    )  # (B, 2 · bins, T)
    bands = graph.constant(np.tile(filters[:, used], 2).astype(np.float32)) @ (spectrum * spectrum)
    return graph.add("Log", bands.at_least(config.log_floor)).transpose(0, 2, 1)


def add_cepstra(front_end: FrontEnd, log_mels: Value) -> Value:
    """Log-mels to MFCCs, in float64 like the original, or the log-mels themselves."""
    if front_end.config.kind != "mfcc":
        return log_mels
    return (log_mels.cast(np.float64) @ front_end.dct.double().cpu().numpy()).cast(np.float32)


def _add_all_deltas(front_end: FrontEnd, features: Value, frames: Value) -> Value:
    """Features (B, T, F) with their deltas, (B, T, (1 + deltas) · F)."""
    config, graph = front_end.config, features.graph
    reach = config.deltas * config.delta_width
    count = features.size(1)
    places = graph.range(count + 2 * reach) - reach
    ends = (frames - 1).at_least(0)
    levels = add_deltas(front_end, features, places, first=None, ends=ends)
    return levels.cut(1, reach, count + reach)


def add_deltas(front_end: FrontEnd, features: Value, places: Value, *, first: Value | None, ends: Value) -> Value:
    """Features with their deltas; the first and the last frame of a recording are repeated beyond its ends.

    Args:
        front_end: The model's.
        features: Frames that are there, (B, T, F).
        places: Frames of the result, (M,), int64: positions in the recording; the outermost deltas · delta_width of
            them on each side are undefined unless the recording ends there.
        first: Position of the first row of ``features``, (1,), int64; None: 0.
        ends: Position of the last frame of each recording, (B,), int64.

    Returns:
        (B, M, (1 + deltas) · F).
    """
    config, graph = front_end.config, features.graph
    inside = places.unsqueeze(0).at_least(0).at_most(ends.unsqueeze(1))  # (B, M)
    available = inside if first is None else inside - first
    available = available.at_least(0).at_most(features.size(1) - 1)
    levels = [pick(features, available)]
    start = places.cut(0, 0, 1)
    own = (inside - start).at_least(0).at_most(places.size(0) - 1)  # rows of the result
    width = config.delta_width
    for _ in range(config.deltas):
        held = levels[-1] if len(levels) == 1 else pick(levels[-1], own)
        padded = held.pad(1, 3, before=width, after=width)
        size, slopes = held.size(1), None
        for n in range(1, width + 1):
            ahead, behind = (padded.cut(1, at, size + at) for at in (width + n, width - n))
            slope = (ahead - behind) * float(n)
            slopes = slope if slopes is None else slopes + slope
        assert slopes is not None
        levels.append(slopes / float(2 * sum(n * n for n in range(1, width + 1))))
    return graph.add("Concat", *levels, axis=2)


def add_normalization(front_end: FrontEnd, features: Value, frames: Value) -> Value:
    """Normalise whole recordings as configured: (B, T, F), zero past the frames (B,), to the same."""
    kind = front_end.config.normalization
    if kind == "none":
        return features
    if kind == "corpus":
        return mask(add_statistics(front_end, features), frames, 3)
    wide = features.cast(np.float64)
    if kind == "sliding":
        scaled = add_sliding(wide, features.graph.range(features.size(1)) + 1, front_end.config.sliding_frames)
    elif kind == "speaker":
        scaled = _add_speaker(front_end, wide, frames)
    else:
        scaled = _add_utterance(wide, frames)
    return mask(scaled.cast(np.float32), frames, 3)


def add_statistics(front_end: FrontEnd, features: Value) -> Value:
    """Normalise by the corpus's mean and deviation."""
    return (features - front_end.mean.cpu().numpy()) / front_end.std.cpu().numpy()


def _add_utterance(wide: Value, frames: Value) -> Value:
    counts = frames.at_least(1).cast(np.float64).unsqueeze(1, 2)
    centred = mask(wide - wide.sum(1) / counts, frames, 3)
    variance = (centred * centred).sum(1) / counts
    return centred / wide.graph.add("Sqrt", variance.at_least(STD_FLOOR**2))


def _add_speaker(front_end: FrontEnd, wide: Value, frames: Value) -> Value:
    """As for a speaker without statistics: the recording's own mean, with the corpus's as prior."""
    mean, std = (each.double().cpu().numpy() for each in (front_end.mean, front_end.std))
    counts = frames.cast(np.float64).unsqueeze(1, 2)
    centre = (wide.sum(1) + PRIOR_FRAMES * mean) / (counts + float(PRIOR_FRAMES))
    return (wide - centre) / std


def add_sliding(wide: Value, counts: Value, window_frames: int, *, held: int = 0) -> Value:
    """Normalise each frame by those up to it.

    Args:
        wide: (B, held + T, F), float64; zero where there is no frame.
        counts: Frames of the recording up to each of the last T, (T,), int64.
        window_frames: Most frames of a mean.
        held: Earlier frames at the front, which are not returned; 0, or window_frames.

    Returns:
        (B, T, F), float64.
    """
    graph = wide.graph
    weights = counts.at_least(1).at_most(window_frames).cast(np.float64).unsqueeze(0, 2)

    def average(values: Value) -> Value:
        padded = values if held else values.pad(1, 3, before=window_frames)
        running = graph.add("CumSum", padded, np.array(1, dtype=np.int64))
        recent = running.cut(1, window_frames, 2**31) - running.cut(1, 0, -window_frames)
        return recent / weights

    mean = average(wide)
    variance = average(wide * wide) - mean * mean
    own = wide.cut(1, held, 2**31)
    return (own - mean) / graph.add("Sqrt", variance.at_least(STD_FLOOR**2))
