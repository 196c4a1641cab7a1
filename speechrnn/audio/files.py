"""Any recording (path, bytes, open file, array, tensor) as a mono waveform at the wanted rate.

soundfile decodes and soxr resamples; both are imported where they are used, because start-up time counts.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechrnn.audio.containers import (
    check_container,
    check_mp3_read_to_end,
    explain_unreadable,
    may_be_mp3,
    mp3_states_its_length,
    open_source,
)
from speechrnn.audio.levels import check_samples
from speechrnn.audio.ogg import OggSurvey
from speechrnn.audio.quiet import quiet_mpg123
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
# A header with less or more is damaged: 1 Hz would become hours at the model's rate.
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000
_INCOMPLETE = {"is_incomplete": True}  # the command line then exits with 1


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording's header says.

    Attributes:
        sample_rate: Samples a second of one channel, in Hz.
        channels: Number of channels.
        frames: Samples of one channel.
    """

    sample_rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class _Wanted:
    """Which part of a recording is asked for, and what to call it in messages."""

    name: str
    channel: int | None = None
    start: float = 0.0
    seconds: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.seconds is None


@dataclass(frozen=True)
class _Recording:
    """An encoded recording, open: what decodes it, the bytes it is decoded from, and of Ogg what its pages say."""

    sound: soundfile.SoundFile
    stream: BinaryIO
    ogg: OggSurvey | None

    @property
    def is_length_estimated(self) -> bool:
        """Whether the number of samples is known only after decoding."""
        is_mp3 = self.sound.format == "MP3"
        is_damaged = self.ogg is not None and self.ogg.intact is not None
        return self.sound.frames >= _UNKNOWN_FRAMES or is_damaged or (is_mp3 and not mp3_states_its_length(self.stream))

    def decoding(self) -> AbstractContextManager[None]:
        """Where libsndfile is called."""
        return quiet_mpg123 if self.sound.format == "MP3" else nullcontext()


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
            channel or the part, or a rate is missing or outside 1 kHz to 1 MHz. A damaged Ogg file draws a warning with
            what is missing, unless a part is wanted.
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
    logger.info("%s: resampled from %d Hz to %d Hz", wanted.name, rate, sample_rate)
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
    wanted = _Wanted(_name_of(source))
    with _open_recording(source, wanted) as recording:
        sound = recording.sound
        frames = sound.frames
        if recording.is_length_estimated:
            samples = _decode(recording, 0, frames, wanted)
            _check_complete(recording, len(samples), frames, wanted)
            frames = len(samples)
        if frames == 0:
            raise AudioError(f"{wanted.name}: no samples, only a header; record it again")
        return AudioInfo(sound.samplerate, sound.channels, frames)


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
            raise AudioError(
                f"{wanted.name}: sample rate {rate!r}; give a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}"
            )
    if not (wanted.start >= 0 and math.isfinite(wanted.start)):
        raise AudioError(f"{wanted.name}: start at {wanted.start} s; give 0 or more seconds")
    if wanted.seconds is not None and not (wanted.seconds > 0 and math.isfinite(wanted.seconds)):
        raise AudioError(f"{wanted.name}: {wanted.seconds} s asked for; give a positive number of seconds")


def _is_rate(rate: Any) -> bool:
    try:
        return LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate)
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
    with _open_recording(source, wanted) as recording:
        sound = recording.sound
        rate = sound.samplerate
        if input_rate is not None and input_rate != rate:
            raise AudioError(f"{wanted.name}: its header says {rate} Hz, not {input_rate}; a rate is for arrays only")
        if sound.frames == 0:
            raise AudioError(f"{wanted.name}: no samples, only a header; record it again")
        _check_channel(wanted, sound.channels)
        first, count = _locate(wanted, sound.frames, rate)
        samples = _decode(recording, first, count, wanted)
        _check_complete(recording, len(samples), count, wanted)
    return samples, rate


@contextmanager
def _open_recording(source: Any, wanted: _Wanted) -> Iterator[_Recording]:
    import soundfile

    name = wanted.name
    with open_source(source, name) as opened:
        stream, ogg = check_container(opened, name, reads_whole=wanted.is_whole)
        try:
            with quiet_mpg123 if may_be_mp3(stream) else nullcontext():
                sound = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError) as error:
            raise AudioError(explain_unreadable(stream, name)) from error
        with sound:
            if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
                raise AudioError(
                    f"{name}: its header says {sound.samplerate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}; convert "
                    "it with the right rate, as in: ffmpeg -i in.wav -af asetrate=16000 out.wav"
                )
            # soundfile seeks after every block in what it takes for seekable, and MP3 does not survive that.
            sound.seekable = lambda: False
            yield _Recording(sound, stream, ogg)


def _check_channel(wanted: _Wanted, channels: int) -> None:
    channel = wanted.channel
    if channel is not None and not (isinstance(channel, int | np.integer) and 0 <= channel < channels):
        raise AudioError(f"{wanted.name}: no channel {channel!r:.80}; it has {channels}, counted from 0")


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


def _decode(recording: _Recording, first: int, count: int, wanted: _Wanted) -> np.ndarray:
    import soundfile

    sound = recording.sound
    blocks: list[np.ndarray] = []
    try:
        lead_in = _lead_in(sound, first)
        if _can_seek(sound):
            with recording.decoding():
                sound.seek(first - lead_in)
        for _ in _blocks(recording, lead_in):
            pass
        blocks.extend(_mix(block, wanted.channel) for block in _blocks(recording, count))
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
    if sound.subtype == "VORBIS" or not _can_seek(sound):
        return first
    return min(first, _MP3_LEAD_IN) if sound.format == "MP3" else 0


def _can_seek(sound: soundfile.SoundFile) -> bool:
    """Whether the codec can (GSM 6.10 cannot), whatever the object itself answers since it was opened."""
    return type(sound).seekable(sound)


def _blocks(recording: _Recording, count: int) -> Iterator[np.ndarray]:
    """Up to `count` samples of each channel, in blocks of (N, C); libsndfile may give fewer."""
    while count > 0:
        with recording.decoding():
            block = recording.sound.read(min(count, _BLOCK_FRAMES), dtype="float32", always_2d=True)
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


def _check_complete(recording: _Recording, arrived: int, count: int, wanted: _Wanted) -> None:
    sound, ogg = recording.sound, recording.ogg
    if arrived and ogg is not None:
        _check_pages(ogg, sound, arrived, count, wanted)
        return
    reads_to_end = wanted.seconds is None
    if reads_to_end and sound.format == "MP3":
        check_mp3_read_to_end(recording.stream, wanted.name)
    missing = (count - arrived) / sound.samplerate
    is_promised = not (reads_to_end and recording.is_length_estimated)
    if arrived == 0 or (is_promised and missing > _TOLERANCE_SECONDS):
        there = wanted.start + arrived / sound.samplerate
        raise AudioError(f"{wanted.name}: cut off: ends at {there:.2f} s, {missing:.2f} s are missing; copy it again")


def _check_pages(ogg: OggSurvey, sound: soundfile.SoundFile, arrived: int, count: int, wanted: _Wanted) -> None:
    """Warn of an Ogg file that is damaged, with what is missing; refuse a part of one: nothing says where it lies."""
    promised = ogg.count_frames(count, sound.samplerate) if wanted.is_whole and len(ogg.starts) == 1 else count
    missing = (promised - arrived) / sound.samplerate
    if missing <= _TOLERANCE_SECONDS and ogg.intact is None:
        if not ogg.is_ended and wanted.seconds is None:
            message = "%s: its last Ogg page is not marked as the last; the end may be missing"
            logger.warning(message, wanted.name, extra=_INCOMPLETE)
        return
    whole = f"{missing:.2f} s of {promised / sound.samplerate:.2f} s are missing"
    if not wanted.is_whole:
        raise AudioError(f"{wanted.name}: damaged: a part of it cannot be found; copy it again")
    logger.warning("%s: damaged: about %s; copy it again", wanted.name, whole, extra=_INCOMPLETE)
