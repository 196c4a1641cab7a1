"""Anything a user has (path, bytes, open file, array, tensor) becomes a mono waveform at the wanted rate.

soundfile decodes and soxr resamples; both are imported where they are used, because start-up counts.
"""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechrnn.audio.archives import find_archive, open_member
from speechrnn.audio.containers import (
    check_container,
    check_mp3_read_to_end,
    explain_unreadable,
    mp3_states_its_length,
)
from speechrnn.audio.levels import check_samples
from speechrnn.audio.resampling import resample
from speechrnn.errors import AudioError
from speechrnn.types import Waveform

if TYPE_CHECKING:
    import soundfile
    from torch import Tensor

    AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor | Waveform

logger = logging.getLogger("speechrnn")

# Corpora round times, and MP3 lengths include a frame or two of padding.
_TOLERANCE_SECONDS = 0.1
# What libsndfile reports for a FLAC file written to a pipe, which does not know its length.
_UNKNOWN_FRAMES = 2**62
_BLOCK_FRAMES = 2**18
# Enough MPEG frames for the bit reservoir and the overlap to be those of an unbroken decode.
_MP3_LEAD_IN = 16 * 1152

_announced_rates: set[tuple[int, int]] = set()


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording's header says.

    Attributes:
        seconds: Duration in seconds.
        sample_rate: Samples a second of one channel, in Hz.
        channels: Number of channels.
        frames: Samples of one channel.
    """

    seconds: float
    sample_rate: int
    channels: int
    frames: int


@dataclass(frozen=True)
class _Wanted:
    """Which part of a recording is asked for, and what to call it in messages."""

    name: str
    channel: int | None
    start: float
    seconds: float | None


def read_audio(
    source: AudioSource,
    *,
    sample_rate: int | None = None,
    channel: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    input_rate: int | None = None,
    name: str | None = None,
    check_levels: bool = True,
) -> Waveform:
    """Read a recording, or a part of it, as one channel at the wanted rate.

    Arrays and tensors are (N,), (C, N) or (N, C): of two axes the shorter is the channels, the first where they are
    equal. Floats are expected in [-1, 1]; int8, int16 and int32 are scaled to it, and uint8 has its zero at 128.

    Args:
        source: Path (also into a tar archive: ``shard.tar/name.flac``), encoded bytes, binary file object (rewound
            first where it can be), numpy array, torch tensor or :class:`~speechrnn.types.Waveform`.
        sample_rate: Wanted rate, in Hz; None keeps the recording's own.
        channel: Channel to take, from 0; None takes the mean of all.
        start: Where to begin, in seconds.
        seconds: How much to read, in seconds; None reads to the end. A part is cut out before it is resampled.
        input_rate: Rate of an array or tensor, in Hz, where it is required. A file says its own.
        name: What to call the recording in messages; None takes the path.
        check_levels: Whether a silent or clipped recording draws a warning.

    Returns:
        The samples, (N,), float32, and their rate; they may share memory with an array that needed no conversion.

    Raises:
        AudioError: The recording cannot be read, is damaged, cut off or empty, holds NaN or infinite samples, lacks the
            channel or the part, or a rate is missing or not positive.
    """
    wanted = _Wanted(_name_of(source) if name is None else name, channel, start, seconds)
    if isinstance(source, Waveform):
        input_rate = source.sample_rate
        source = source.samples
    _check_request(wanted, sample_rate, input_rate)
    samples, rate = _read_part(source, input_rate, wanted)
    check_samples(samples, rate, name=wanted.name, warn_of_levels=check_levels)
    if sample_rate is None or sample_rate == rate:
        return Waveform(samples, rate)
    _announce_resampling(rate, int(sample_rate), name=wanted.name)
    return Waveform(resample(samples, rate, sample_rate), int(sample_rate))


def audio_info(source: AudioSource) -> AudioInfo:
    """Read a recording's length, rate and channels from its header.

    Args:
        source: Path, encoded bytes or binary file object.

    Returns:
        What the header says; where it says no length, the samples are decoded and counted.

    Raises:
        AudioError: The recording cannot be opened, is cut off or has no samples.
    """
    name = _name_of(source)
    with _open_sound(source, name) as (sound, stream):
        frames = sound.frames
        if _is_length_estimated(sound, stream):
            whole = _Wanted(name, channel=0, start=0.0, seconds=None)
            frames = len(_decode(sound, 0, frames, whole))
            _check_complete(sound, stream, frames, frames, whole)
        if frames == 0:
            raise AudioError(f"{name}: no samples, only a header; record it again")
        return AudioInfo(frames / sound.samplerate, sound.samplerate, sound.channels, frames)


def _name_of(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source) or "''"
    if isinstance(source, bytes | bytearray | memoryview | Waveform):
        return "recording in memory"
    if isinstance(file_name := getattr(source, "name", None), str):
        return file_name
    return "recording in memory" if hasattr(source, "read") else type(source).__name__


def _check_request(wanted: _Wanted, sample_rate: Any, input_rate: Any) -> None:
    for rate in (sample_rate, input_rate):
        if rate is not None and not _is_rate(rate):
            raise AudioError(f"{wanted.name}: sample rate {rate!r}; give a positive whole number of Hz")
    if not (wanted.start >= 0 and math.isfinite(wanted.start)):
        raise AudioError(f"{wanted.name}: start at {wanted.start} s; give 0 or more seconds")
    if wanted.seconds is not None and not (wanted.seconds > 0 and math.isfinite(wanted.seconds)):
        raise AudioError(f"{wanted.name}: {wanted.seconds} s asked for; give a positive number of seconds")


def _is_rate(rate: Any) -> bool:
    try:
        return rate > 0 and rate == int(rate)
    except (TypeError, ValueError, OverflowError):
        return False


def _read_part(source: AudioSource, input_rate: int | None, wanted: _Wanted) -> tuple[np.ndarray, int]:
    """What is asked for, (N,), at the recording's own rate, and that rate."""
    array = _as_array(source)
    return _read_encoded(source, input_rate, wanted) if array is None else _read_array(array, input_rate, wanted)


def _as_array(source: Any) -> np.ndarray | None:
    """The source as a numpy array if it is one or a tensor; torch is too slow to import only to ask."""
    if isinstance(source, np.ndarray):
        return source
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.Tensor):
        return None
    tensor = source.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _read_array(array: np.ndarray, input_rate: int | None, wanted: _Wanted) -> tuple[np.ndarray, int]:
    if input_rate is None:
        raise AudioError(f"{wanted.name}: an array does not know its sample rate; say it, as in sample_rate=16000")
    if array.ndim not in (1, 2):
        raise AudioError(f"{wanted.name}: shape {array.shape}; give (samples,), (channels, samples) or its transpose")
    if array.size == 0:
        raise AudioError(f"{wanted.name}: no samples, shape {array.shape}")
    frames = array[:, None] if array.ndim == 1 else array.T if array.shape[0] <= array.shape[1] else array
    _check_channel(wanted, frames.shape[1])
    first, count = _locate(wanted, len(frames), int(input_rate))
    samples = _mix(_scale(frames[first : first + count], wanted.name), wanted.channel)
    # torch.from_numpy warns of arrays that cannot be written to.
    return np.require(samples, requirements=["C", "W"]), int(input_rate)


def _scale(array: np.ndarray, name: str) -> np.ndarray:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32, copy=False)
    if kind == "i" and size <= 4:
        return array.astype(np.float32) * np.float32(2.0 ** (1 - 8 * size))
    if kind == "u" and size == 1:
        return (array.astype(np.float32) - 128) / 128
    raise AudioError(f"{name}: {array.dtype} samples have no agreed scale; give floats in [-1, 1], or int16")


def _read_encoded(source: AudioSource, input_rate: int | None, wanted: _Wanted) -> tuple[np.ndarray, int]:
    with _open_sound(source, wanted.name) as (sound, stream):
        rate = sound.samplerate
        if input_rate is not None and input_rate != rate:
            raise AudioError(f"{wanted.name}: its header says {rate} Hz, not {input_rate}; a rate is for arrays only")
        if sound.frames == 0:
            raise AudioError(f"{wanted.name}: no samples, only a header; record it again")
        _check_channel(wanted, sound.channels)
        first, count = _locate(wanted, sound.frames, rate)
        samples = _decode(sound, first, count, wanted)
        _check_complete(sound, stream, len(samples), count, wanted)
    return samples, rate


@contextmanager
def _open_sound(source: Any, name: str) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    import soundfile

    with _open_stream(source, name) as opened:
        stream = check_container(opened, name)
        try:
            sound = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError) as error:
            raise AudioError(explain_unreadable(stream, name)) from error
        with sound:
            # soundfile seeks after every block in what it takes for seekable, and MP3 does not survive that.
            sound.seekable = lambda: False
            yield sound, stream


def _open_stream(source: Any, name: str) -> BinaryIO:
    """Open a path, wrap bytes, or read a file object to its end; the result is seekable and not empty."""
    if isinstance(source, str | os.PathLike):
        stream = _open_path(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        stream = io.BytesIO(source)
    elif hasattr(source, "read"):
        stream = io.BytesIO(_read_all(source, name))
    else:
        raise AudioError(f"{name}: not a recording; give a path, bytes, a binary file, a numpy array or a torch tensor")
    if stream.seek(0, io.SEEK_END) == 0:
        stream.close()
        raise AudioError(f"{name}: empty, 0 bytes; copy or record it again")
    return stream


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if os.path.isdir(path):
        raise AudioError(f"{name}: a folder, not a recording; name the files in it")
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed by _open_sound)
        # A pipe, as in <(command), can be read only once.
        return stream if stream.seekable() else io.BytesIO(_read_all(stream, name))
    except NotADirectoryError:
        inside = find_archive(path)
        if inside is None:
            raise AudioError(f"{name}: no such file; a part of the path is not a folder") from None
        return open_member(*inside)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except PermissionError:
        raise AudioError(f"{name}: permission denied; make it readable for this user") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _read_all(file: Any, name: str) -> bytes:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: the file object cannot be read: {error}") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise AudioError(f"{name}: the file object gives {type(content).__name__}, not bytes; open it with mode 'rb'")
    return bytes(content)


def _check_channel(wanted: _Wanted, channels: int) -> None:
    if wanted.channel is not None and not 0 <= wanted.channel < channels:
        raise AudioError(f"{wanted.name}: no channel {wanted.channel}; it has {channels}, counted from 0")


def _locate(wanted: _Wanted, total: int, rate: int) -> tuple[int, int]:
    """First sample and number of samples of the wanted part, within the recording."""
    first = math.floor(wanted.start * rate + 0.5)
    if first >= total:
        raise AudioError(f"{wanted.name}: start at {wanted.start} s, but it ends at {total / rate:.2f} s")
    if wanted.seconds is None:
        return first, total - first
    count = max(1, math.floor(wanted.seconds * rate + 0.5))
    if first + count > total + _TOLERANCE_SECONDS * rate:
        end = wanted.start + wanted.seconds
        raise AudioError(f"{wanted.name}: wanted up to {end:.2f} s, but it ends at {total / rate:.2f} s")
    return first, min(count, total - first)


def _decode(sound: soundfile.SoundFile, first: int, count: int, wanted: _Wanted) -> np.ndarray:
    import soundfile

    blocks: list[np.ndarray] = []
    try:
        lead_in = _lead_in(sound, first)
        sound.seek(first - lead_in)
        for _ in _blocks(sound, lead_in):
            pass
        blocks.extend(_mix(block, wanted.channel) for block in _blocks(sound, count))
    except soundfile.SoundFileError as error:
        reached = (first + sum(map(len, blocks))) / sound.samplerate
        reason = getattr(error, "error_string", str(error)).strip()
        raise AudioError(
            f"{wanted.name}: damaged or cut off: cannot be decoded after {reached:.2f} s ({reason})"
        ) from error
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _lead_in(sound: soundfile.SoundFile, first: int) -> int:
    """How many samples before the wanted one to decode and throw away, for seeking to give what reading through gives.

    libsndfile now and then lands somewhere else in Vorbis, which is therefore read through (an hour takes 1.5 s).
    """
    if sound.subtype == "VORBIS":
        return first
    return min(first, _MP3_LEAD_IN) if sound.format == "MP3" else 0


def _blocks(sound: soundfile.SoundFile, count: int) -> Iterator[np.ndarray]:
    """Up to `count` samples of each channel, in blocks of (N, C); libsndfile may give fewer."""
    while count > 0:
        block = sound.read(min(count, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        count -= len(block)
        yield block


def _mix(frames: np.ndarray, channel: int | None) -> np.ndarray:
    """(N, C) → (N,)."""
    if channel is not None:
        return frames[:, channel]
    channels = frames.shape[1]
    # As a product: numpy's mean over so short an axis is 20 times slower.
    return frames[:, 0] if channels == 1 else frames @ np.full(channels, 1 / channels, np.float32)


def _is_length_estimated(sound: soundfile.SoundFile, stream: BinaryIO) -> bool:
    return sound.frames >= _UNKNOWN_FRAMES or (sound.format == "MP3" and not mp3_states_its_length(stream))


def _check_complete(sound: soundfile.SoundFile, stream: BinaryIO, arrived: int, count: int, wanted: _Wanted) -> None:
    reads_to_end = wanted.seconds is None
    if reads_to_end and sound.format == "MP3":
        check_mp3_read_to_end(stream, wanted.name)
    missing = (count - arrived) / sound.samplerate
    is_promised = not (reads_to_end and _is_length_estimated(sound, stream))
    if arrived == 0 or (is_promised and missing > _TOLERANCE_SECONDS):
        there = wanted.start + arrived / sound.samplerate
        raise AudioError(f"{wanted.name}: cut off: ends at {there:.2f} s, {missing:.2f} s are missing; copy it again")


def _announce_resampling(from_rate: int, to_rate: int, *, name: str) -> None:
    if (from_rate, to_rate) not in _announced_rates:
        _announced_rates.add((from_rate, to_rate))
        logger.warning("%s: resampled from %d Hz to %d Hz (said once for each pair of rates)", name, from_rate, to_rate)
