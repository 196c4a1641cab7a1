"""Any recording (path, bytes, open file, array, tensor) as mono blocks at the wanted rate, in constant memory."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechrnn.audio.containers import open_source
from speechrnn.audio.decoder import (
    HIGHEST_RATE,
    LOWEST_RATE,
    UNKNOWN_FRAMES,
    Recording,
    Wanted,
    open_sound,
    scale_samples,
)
from speechrnn.audio.resampling import StreamingResampler
from speechrnn.errors import AudioError, ConfigError
from speechrnn.types import AudioInfo, Waveform

if TYPE_CHECKING:
    from torch import Tensor

    AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor | Waveform

logger = logging.getLogger("speechrnn")

# Muted and unplugged inputs (dither, converter noise) stay below -70 dBFS; speech at any usable gain peaks above -40.
_SILENT_PEAK = 1e-3
# A recording normalised to full scale reaches it once or twice, a loud one in a lossy format once in some 4,000
# samples; overload flattens whole peaks.
_CLIPPED_SHARE = 1e-3
_FULL_SCALE = 0.98  # in mu-law; 0.992 in 8 bits and 1 in the rest
_FLAT = 0.999  # peaks from this share of the highest on are flattened
_UNSCALED_PEAK = 100.0  # floats this large are 16-bit or 24-bit numbers that were not scaled


@dataclass(frozen=True)
class AudioBlocks:
    """A recording that is read block by block, once.

    Iterating gives the samples, (N,), float32, about `block_seconds` each, none empty. It raises AudioError as
    :func:`~speechrnn.audio.files.read_audio` does; that a recording is cut off or damaged may be found at its end.

    Attributes:
        info: The source's rate, channels and length according to its header, also if a part is read; 0 frames if the
            length is unknown, and in some formats it is an estimate.
        sample_rate: Of the blocks, in Hz.
        seconds: Expected duration of all blocks, in seconds; None if it is unknown.
    """

    info: AudioInfo
    sample_rate: int
    seconds: float | None
    samples: Iterator[np.ndarray]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.samples


@contextmanager
def open_blocks(
    source: AudioSource,
    *,
    sample_rate: int | None = None,
    channel: int | None = None,
    input_rate: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    block_seconds: float = 10.0,
    name: str | None = None,
    check_levels: bool = True,
) -> Iterator[AudioBlocks]:
    """Open a recording, or a part of it, to read one channel in blocks; memory does not grow with its length.

    The concatenated blocks are the samples of :func:`~speechrnn.audio.files.read_audio`, bit for bit, for any
    `block_seconds`.

    Args:
        source: As in :func:`~speechrnn.audio.files.read_audio`. What can be read only once, such as a pipe, is copied
            to a temporary file first, up to 4 GiB.
        sample_rate: Wanted rate, in Hz; None keeps the recording's own.
        channel: Channel to take, from 0; None takes the mean of all.
        input_rate: Rate of an array or tensor, in Hz, for which it is required.
        start: Where to begin, in seconds.
        seconds: How much to read, in seconds; None reads to the end.
        block_seconds: Duration of a block, in seconds.
        name: The recording's name in messages; None takes the path.
        check_levels: Whether a silent or clipped recording causes a warning, after the last block.

    Yields:
        The blocks; they can be read until the context ends.

    Raises:
        AudioError: As from :func:`~speechrnn.audio.files.read_audio`.
    """
    wanted = Wanted(name_source(source) if name is None else name, channel, start, seconds)
    if isinstance(source, Waveform):
        input_rate, source = source.sample_rate, source.samples
    _check_request(wanted, sample_rate, input_rate, block_seconds)
    torch = sys.modules.get("torch")  # importing it only to ask would be slow
    if torch is not None and isinstance(source, torch.Tensor):
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    with ExitStack() as stack:
        recording: Recording
        if isinstance(source, np.ndarray):
            recording = _open_array(source, input_rate, wanted)
        else:
            recording = stack.enter_context(open_recording(source, wanted))
        info = recording.info
        if input_rate is not None and input_rate != info.sample_rate:
            raise AudioError(
                f"{wanted.name}: its header says {info.sample_rate} Hz, not {input_rate}; a rate is for arrays only"
            )
        first, count = wanted.locate(info)
        block_frames = max(1, math.floor(min(block_seconds * info.sample_rate, UNKNOWN_FRAMES)))
        decoded = recording.decode(first, count, wanted, block_frames=block_frames)
        rate = int(info.sample_rate if sample_rate is None else sample_rate)
        samples = _convert(decoded, wanted, from_rate=info.sample_rate, to_rate=rate, check_levels=check_levels)
        is_known = first + count < UNKNOWN_FRAMES
        shown = info if is_known else AudioInfo(info.sample_rate, info.channels, 0)
        yield AudioBlocks(shown, rate, count / info.sample_rate if is_known else None, samples)


@contextmanager
def open_recording(source: Any, wanted: Wanted) -> Iterator[Recording]:
    """Open a path, bytes or a file object with soundfile, or what it refuses with FFmpeg.

    Raises:
        AudioError: It cannot be opened or read, or is cut off.
    """
    with open_source(source, wanted.name) as opened, open_sound(opened, wanted) as sound:
        if sound is not None:
            yield sound
            return
        from speechrnn.audio.foreign import open_foreign

        with open_foreign(opened, wanted) as foreign:
            yield foreign


def _convert(
    decoded: Iterator[np.ndarray], wanted: Wanted, *, from_rate: int, to_rate: int, check_levels: bool
) -> Iterator[np.ndarray]:
    """Check, mix and resample blocks of (N, C) to blocks of (N',)."""
    meter = LevelMeter(wanted.name, from_rate)
    resampler = None
    if to_rate != from_rate:
        logger.debug("%s: resampled from %d Hz to %d Hz", wanted.name, from_rate, to_rate)
        try:
            resampler = StreamingResampler(from_rate, to_rate)
        except AudioError as error:
            raise AudioError(f"{wanted.name}: {error}") from error
    for frames in decoded:
        channels = frames.shape[1]
        if channels == 1 or wanted.channel is not None:
            samples = np.ascontiguousarray(frames[:, wanted.channel or 0])
        else:  # as a product: numpy's mean over so short an axis is 20 times slower
            samples = frames @ np.full(channels, 1 / channels, np.float32)
        meter.add(samples)
        if resampler is not None:
            samples = resampler.feed(samples)
        if len(samples):
            yield samples
    if resampler is not None and len(samples := resampler.flush()):
        yield samples
    for words in meter.describe().values() if check_levels else ():
        logger.warning("%s: %s", wanted.name, words)


def name_source(source: Any) -> str:
    """Name a recording in messages: by its path, or by what it is."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source) or "''"
    if isinstance(file_name := getattr(source, "name", None), str):
        return file_name
    is_in_memory = hasattr(source, "read") or isinstance(source, bytes | bytearray | memoryview | Waveform)
    return "recording in memory" if is_in_memory else type(source).__name__


def _check_request(wanted: Wanted, sample_rate: Any, input_rate: Any, block_seconds: float) -> None:
    for rate in (sample_rate, input_rate):
        try:
            is_rate = rate is None or (LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate))
        except (TypeError, ValueError, OverflowError):
            is_rate = False
        if not is_rate:
            raise AudioError(
                f"{wanted.name}: sample rate {rate!r}; give a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}"
            )
    if not (wanted.start >= 0 and math.isfinite(wanted.start)):
        raise AudioError(f"{wanted.name}: start at {wanted.start} s; give 0 or more seconds")
    if wanted.seconds is not None and not (wanted.seconds > 0 and math.isfinite(wanted.seconds)):
        raise AudioError(f"{wanted.name}: {wanted.seconds} s requested; give a positive number of seconds")
    if not block_seconds > 0:
        raise AudioError(f"{wanted.name}: blocks of {block_seconds} s; give a positive number of seconds")


@dataclass(frozen=True)
class _ArrayRecording:
    """An array of samples, (N, C), of any type, and their rate."""

    frames: np.ndarray
    sample_rate: int
    is_length_estimated = False

    @property
    def info(self) -> AudioInfo:
        return AudioInfo(self.sample_rate, self.frames.shape[1], len(self.frames))

    def decode(self, first: int, count: int, wanted: Wanted, *, block_frames: int) -> Iterator[np.ndarray]:
        for start in range(first, first + count, block_frames):
            block = scale_samples(self.frames[start : min(start + block_frames, first + count)], wanted.name)
            # torch.from_numpy warns of arrays that cannot be written to.
            yield np.require(block, requirements="W")


def _open_array(array: np.ndarray, input_rate: int | None, wanted: Wanted) -> _ArrayRecording:
    if input_rate is None:
        raise AudioError(f"{wanted.name}: an array has no sample rate; pass it, as in sample_rate=16000")
    if array.ndim not in (1, 2):
        raise AudioError(f"{wanted.name}: shape {array.shape}; give (samples,), (channels, samples) or its transpose")
    if array.size == 0:
        raise AudioError(f"{wanted.name}: no samples, shape {array.shape}")
    frames = array[:, None] if array.ndim == 1 else array.T if array.shape[0] <= array.shape[1] else array
    return _ArrayRecording(frames, int(input_rate))


@dataclass
class LevelMeter:
    """Measures the levels of a recording that arrives in pieces.

    Attributes:
        name: The recording, for messages.
        sample_rate: In Hz, for messages.
        count: Samples so far.
        low: Their lowest amplitude.
        high: Their highest.
        tops: How often each amplitude near full scale occurs, of those that may be flattened peaks.
        bottoms: The same of negative amplitudes, without their sign.
    """

    name: str = "recording"
    sample_rate: int = 1
    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    tops: Counter[float] = field(default_factory=Counter)
    bottoms: Counter[float] = field(default_factory=Counter)

    def add(self, samples: np.ndarray) -> None:
        """Measure a piece, (N,), N at least 1.

        Raises:
            AudioError: Samples are NaN, infinite or not scaled to [-1, 1].
        """
        low, high = float(samples.min()), float(samples.max())
        if not math.isfinite(high - low):
            bad = np.flatnonzero(~np.isfinite(samples))
            at = f"the first at {(self.count + bad[0]) / self.sample_rate:.3f} s"
            raise AudioError(
                f"{self.name}: {len(bad)} samples are NaN or infinite, {at}; fix the program that wrote them"
            )
        peak = max(high, -low)
        if peak > _UNSCALED_PEAK:
            raise AudioError(
                f"{self.name}: samples reach {peak:.0f}, not 1; scale them to [-1, 1], 16-bit ones by 1 / 32768"
            )
        self.count, self.low, self.high = self.count + len(samples), min(self.low, low), max(self.high, high)
        if peak >= _FLAT * _FULL_SCALE:
            self._count_tops(samples)

    def _count_tops(self, samples: np.ndarray) -> None:
        # Each side is compared with its own highest value: 8-bit sound ends at -1 and 127 / 128.
        for tops, side, end in ((self.tops, samples, self.high), (self.bottoms, -samples, -self.low)):
            lowest = _FLAT * min(max(end, _FULL_SCALE), 1.0)
            values, counts = np.unique(np.minimum(side[side >= lowest], 1.0), return_counts=True)
            tops.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            for value in [value for value in tops if value < lowest]:
                del tops[value]

    def describe(self) -> dict[str, str]:
        """Faults of the levels so far, as in `describe_levels`."""
        found = {}
        peak = (self.high - self.low) / 2  # half the range, because a converter's constant offset is not sound
        if peak < _SILENT_PEAK:
            digits = np.format_float_positional(peak, precision=1, fractional=False, trim="-")
            level = f"{20 * math.log10(peak):.0f} dBFS" if peak > 0 else "all samples are equal"
            found["silent"] = f"silent: peak {digits} ({level})"
        sides = ((self.tops, self.high), (self.bottoms, -self.low))
        clipped = sum(tops.total() for tops, end in sides if end >= _FULL_SCALE)
        if clipped > _CLIPPED_SHARE * self.count:
            found["clipped"] = f"clipped: {100 * clipped / self.count:.1f} % of samples at full scale"
        return found


def describe_levels(samples: np.ndarray) -> dict[str, str]:
    """Faults in a recording's levels, measured, by ``silent`` and ``clipped``; empty if there is none.

    Args:
        samples: Amplitudes, (N,), N at least 1, finite.
    """
    meter = LevelMeter()
    meter.add(samples)
    return meter.describe()


def check_is_list(sources: object, message: str) -> None:
    """Check that a list of recordings was given, not a single one.

    Raises:
        ConfigError: With this message.
    """
    is_one = isinstance(sources, str | bytes | os.PathLike | Waveform) or getattr(sources, "ndim", 2) < 2
    if is_one or not isinstance(sources, Iterable):
        raise ConfigError(message)
