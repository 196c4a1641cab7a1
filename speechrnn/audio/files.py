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
    mp3_states_its_length,
    open_source,
)
from speechrnn.audio.ogg import OggSurvey
from speechrnn.audio.resampling import resample
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo, Waveform

if TYPE_CHECKING:
    import soundfile
    from torch import Tensor

    AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor | Waveform

logger = logging.getLogger("speechrnn")

_TOLERANCE_SECONDS = 0.1  # corpora round times, and MP3 lengths include a frame or two of padding
_UNKNOWN_FRAMES = 2**62  # libsndfile's value for a FLAC file written to a pipe, which does not know its length
_BLOCK_FRAMES = 2**18
_MP3_LEAD_IN = 16 * 1152  # MPEG frames for the bit reservoir and the overlap to be those of an unbroken decode
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # other headers are damaged: 1 Hz would become hours at the model's rate
_INCOMPLETE = {"is_incomplete": True}  # the command line then exits with 1

# Muted and unplugged inputs (dither, converter noise) stay below -70 dBFS; speech at any usable gain peaks above -40.
_SILENT_PEAK = 1e-3
# A recording normalised to full scale reaches it once or twice, a loud one in a lossy format once in some 4,000
# samples; overload flattens whole peaks.
_CLIPPED_SHARE = 1e-3
_FULL_SCALE = 0.98  # in mu-law; 0.992 in 8 bits and 1 in the rest
_UNSCALED_PEAK = 100.0  # floats this large are 16-bit or 24-bit numbers that were not scaled


@dataclass(frozen=True)
class _Wanted:
    """The part of a recording that is asked for, and the recording's name in messages."""

    name: str
    channel: int | None = None
    start: float = 0.0
    seconds: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.seconds is None


@dataclass(frozen=True)
class _Recording:
    """An encoded recording: the decoder, the bytes that it reads, of Ogg the survey, and the context of its calls."""

    sound: soundfile.SoundFile
    stream: BinaryIO
    ogg: OggSurvey | None
    context: AbstractContextManager[object]

    @property
    def is_length_estimated(self) -> bool:
        """Whether the number of samples is known only after decoding."""
        if self.sound.format == "MP3":
            return not mp3_states_its_length(self.stream)
        return self.sound.frames >= _UNKNOWN_FRAMES or (self.ogg is not None and self.ogg.intact is not None)


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

    Arrays and tensors are (N,), (C, N) or (N, C): of two axes the shorter is the channels, the first if they are equal.
    Floats are expected in [-1, 1]; int8, int16 and int32 are scaled to it, and uint8 has its zero at 128.

    Args:
        source: Path (also into a tar archive: ``shard.tar/name.flac``), encoded bytes, binary file object (rewound
            first if it can be), numpy array, torch tensor or :class:`~speechrnn.types.Waveform`.
        sample_rate: Wanted rate, in Hz; None keeps the recording's own.
        channel: Channel to take, from 0; None takes the mean of all.
        start: Where to begin, in seconds.
        seconds: How much to read, in seconds; None reads to the end. A part is cut out before it is resampled.
        input_rate: Rate of an array or tensor, in Hz, for which it is required.
        name: The recording's name in messages; None takes the path.
        check_levels: Whether a silent or clipped recording causes a warning.

    Returns:
        The samples, (N,), float32, and their rate; they may share memory with an array that needed no conversion.

    Raises:
        AudioError: The recording cannot be read, is damaged, cut off or empty, holds NaN or infinite samples, lacks the
            channel or the part, or a rate is missing or outside 1 kHz to 1 MHz. A damaged Ogg file that is read whole
            causes a warning with the missing duration.
    """
    wanted = _Wanted(_name_of(source) if name is None else name, channel, start, seconds)
    if isinstance(source, Waveform):
        input_rate = source.sample_rate
        source = source.samples
    _check_request(wanted, sample_rate, input_rate)
    torch = sys.modules.get("torch")  # importing it only to ask would be slow
    if torch is not None and isinstance(source, torch.Tensor):
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        samples, rate = _read_array(source, input_rate, wanted)
    else:
        with _open_recording(source, wanted) as recording:
            sound, rate = recording.sound, recording.sound.samplerate
            if input_rate is not None and input_rate != rate:
                raise AudioError(
                    f"{wanted.name}: its header says {rate} Hz, not {input_rate}; a rate is for arrays only"
                )
            first, count = _locate(wanted, AudioInfo(rate, sound.channels, sound.frames))
            samples = _decode(recording, first, count, wanted)
    _check_samples(samples, rate, name=wanted.name, warn_of_levels=check_levels)
    if sample_rate is None or sample_rate == rate:
        return Waveform(samples, rate)
    logger.debug("%s: resampled from %d Hz to %d Hz", wanted.name, rate, sample_rate)
    return Waveform(resample(samples, rate, sample_rate), int(sample_rate))


def audio_info(source: AudioSource) -> AudioInfo:
    """Read a recording's length, rate and channels from its header.

    Args:
        source: Path, encoded bytes or binary file object.

    Returns:
        The header; if it gives no length, the samples are decoded and counted.

    Raises:
        AudioError: The recording cannot be opened, is cut off or has no samples.
    """
    wanted = _Wanted(_name_of(source))
    with _open_recording(source, wanted) as recording:
        sound = recording.sound
        frames = sound.frames
        if recording.is_length_estimated:
            frames = len(_decode(recording, 0, frames, wanted))
        return AudioInfo(sound.samplerate, sound.channels, frames)


def _name_of(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source) or "''"
    if isinstance(file_name := getattr(source, "name", None), str):
        return file_name
    is_in_memory = hasattr(source, "read") or isinstance(source, bytes | bytearray | memoryview | Waveform)
    return "recording in memory" if is_in_memory else type(source).__name__


def _check_request(wanted: _Wanted, *rates: Any) -> None:
    for rate in rates:
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


def _read_array(array: np.ndarray, input_rate: int | None, wanted: _Wanted) -> tuple[np.ndarray, int]:
    if input_rate is None:
        raise AudioError(f"{wanted.name}: an array has no sample rate; pass it, as in sample_rate=16000")
    if array.ndim not in (1, 2):
        raise AudioError(f"{wanted.name}: shape {array.shape}; give (samples,), (channels, samples) or its transpose")
    if array.size == 0:
        raise AudioError(f"{wanted.name}: no samples, shape {array.shape}")
    frames = array[:, None] if array.ndim == 1 else array.T if array.shape[0] <= array.shape[1] else array
    first, count = _locate(wanted, AudioInfo(int(input_rate), frames.shape[1], len(frames)))
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
    raise AudioError(f"{name}: {array.dtype} samples have no standard scale; give floats in [-1, 1], or int16")


@contextmanager
def _open_recording(source: Any, wanted: _Wanted) -> Iterator[_Recording]:
    import soundfile

    name, end = wanted.name, None if wanted.seconds is None else wanted.start + wanted.seconds
    with open_source(source, name) as opened:
        head = opened.read(26)
        stream, ogg = check_container(opened, name, head=head, end=end)
        try:
            context: AbstractContextManager[object] = nullcontext()
            if head[:4] not in (b"RIFF", b"RF64", b"fLaC", b"OggS"):  # perhaps MP3
                from speechrnn.audio import quiet

                context = quiet.quiet_mpg123
            with context:
                sound = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError) as error:
            raise AudioError(explain_unreadable(stream, name)) from error
        with sound:
            if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
                raise AudioError(
                    f"{name}: its header says {sound.samplerate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}; "
                    "convert it with the right rate: ffmpeg -i in.wav -af asetrate=16000 out.wav"
                )
            if sound.frames == 0:
                raise AudioError(f"{name}: no samples, only a header; record it again")
            # soundfile seeks after every block in files that it takes for seekable, and MP3 does not survive that.
            sound.seekable = bool  # is False
            yield _Recording(sound, stream, ogg, context)


def _locate(wanted: _Wanted, info: AudioInfo) -> tuple[int, int]:
    """First sample and number of samples of the wanted part; its channel is checked, too."""
    name, channel = wanted.name, wanted.channel
    if channel is not None and not (isinstance(channel, int | np.integer) and 0 <= channel < info.channels):
        raise AudioError(f"{name}: no channel {channel!r:.80}; it has {info.channels}, counted from 0")
    first = math.floor(wanted.start * info.sample_rate + 0.5)
    if first >= info.frames:
        raise AudioError(f"{name}: start at {wanted.start} s, but it ends at {info.seconds:.2f} s")
    if wanted.seconds is None:
        return first, info.frames - first
    count = max(1, math.floor(wanted.seconds * info.sample_rate + 0.5))
    if first + count > info.frames + _TOLERANCE_SECONDS * info.sample_rate:
        end = wanted.start + wanted.seconds
        raise AudioError(f"{name}: wanted up to {end:.2f} s, but it ends at {info.seconds:.2f} s")
    return first, min(count, info.frames - first)


def _decode(recording: _Recording, first: int, count: int, wanted: _Wanted) -> np.ndarray:
    """Decode the wanted part, (N,), and check that it is complete."""
    import soundfile

    blocks: list[np.ndarray] = []
    try:
        if first or recording.sound.format == "MP3":
            _skip(recording, first)
        blocks.extend(_mix(block, wanted.channel) for block in _blocks(recording, count))
    except soundfile.SoundFileError as error:
        reached = f"{(first + sum(map(len, blocks))) / recording.sound.samplerate:.2f} s"
        reason = getattr(error, "error_string", str(error)).strip()
        raise AudioError(f"{wanted.name}: damaged or cut off: cannot be decoded after {reached} ({reason})") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    _check_complete(recording, len(samples), count, wanted)
    return samples


def _skip(recording: _Recording, first: int) -> None:
    """Go to a sample so that the samples from there on are those of an unbroken decode.

    libsndfile sometimes seeks to a wrong position in Vorbis, which is therefore decoded from its start (1.5 s for an
    hour), as are codecs that cannot seek, such as GSM 6.10.
    """
    sound = recording.sound
    lead_in = first
    if type(sound).seekable(sound):
        lead_in = first if sound.subtype == "VORBIS" else min(first, _MP3_LEAD_IN) if sound.format == "MP3" else 0
        with recording.context:
            sound.seek(first - lead_in)  # also to the start: mpg123 rounds differently without it
    for _ in _blocks(recording, lead_in):
        pass


def _blocks(recording: _Recording, count: int) -> Iterator[np.ndarray]:
    """Up to `count` samples of each channel, in blocks of (N, C); libsndfile may give fewer."""
    while count > 0:
        with recording.context:
            block = recording.sound.read(min(count, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        count -= len(block)
        yield block


def _mix(frames: np.ndarray, channel: int | None) -> np.ndarray:
    """(N, C) → (N,)."""
    channels = frames.shape[1]
    if channels == 1 or channel is not None:
        return frames[:, channel or 0]
    # As a product: numpy's mean over so short an axis is 20 times slower.
    return frames @ np.full(channels, 1 / channels, np.float32)


def _check_complete(recording: _Recording, arrived: int, count: int, wanted: _Wanted) -> None:
    sound, ogg = recording.sound, recording.ogg
    if arrived and ogg is not None:
        _check_pages(ogg, sound, arrived, count, wanted)
        return
    reads_to_end = wanted.seconds is None
    if reads_to_end and sound.format == "MP3":
        check_mp3_read_to_end(recording.stream, wanted.name)
    missing = (count - arrived) / sound.samplerate
    if arrived and (missing <= _TOLERANCE_SECONDS or (reads_to_end and recording.is_length_estimated)):
        return
    there = wanted.start + arrived / sound.samplerate
    raise AudioError(f"{wanted.name}: cut off: ends at {there:.2f} s, {missing:.2f} s are missing; copy it again")


def _check_pages(ogg: OggSurvey, sound: soundfile.SoundFile, arrived: int, count: int, wanted: _Wanted) -> None:
    """Warn of a damaged Ogg file, with the missing duration; a part of one is refused, as its position is unknown."""
    promised = ogg.count_frames(count, sound.samplerate) if wanted.is_whole and len(ogg.starts) == 1 else count
    missing = (promised - arrived) / sound.samplerate
    if missing > _TOLERANCE_SECONDS or ogg.intact is not None:
        if not wanted.is_whole:
            raise AudioError(f"{wanted.name}: damaged: the position of a part is unknown; copy it again")
        whole = f"{missing:.2f} s of {promised / sound.samplerate:.2f} s are missing"
        logger.warning("%s: damaged: about %s; copy it again", wanted.name, whole, extra=_INCOMPLETE)
    elif not ogg.is_ended and wanted.seconds is None:
        message = "%s: its last Ogg page is not marked as the last; the end may be missing"
        logger.warning(message, wanted.name, extra=_INCOMPLETE)


def _check_samples(samples: np.ndarray, sample_rate: int, *, name: str, warn_of_levels: bool) -> None:
    """Refuse samples that are not finite or not scaled, and warn of a silent or clipped recording, (N,), N ≥ 1."""
    low, high = float(samples.min()), float(samples.max())
    if not math.isfinite(high - low):
        bad = np.flatnonzero(~np.isfinite(samples))
        at = f"the first at {bad[0] / sample_rate:.3f} s"
        raise AudioError(f"{name}: {len(bad)} samples are NaN or infinite, {at}; fix the program that wrote them")
    peak = max(high, -low)
    if peak > _UNSCALED_PEAK:
        raise AudioError(f"{name}: samples reach {peak:.0f}, not 1; scale them to [-1, 1], 16-bit ones by 1 / 32768")
    for words in describe_levels(samples).values() if warn_of_levels else ():
        logger.warning("%s: %s", name, words)


def describe_levels(samples: np.ndarray) -> dict[str, str]:
    """Faults in a recording's levels, measured, by ``silent`` and ``clipped``; empty if there is none.

    Args:
        samples: Amplitudes, (N,), N at least 1, finite.
    """
    found = {}
    low, high = float(samples.min()), float(samples.max())
    peak = (high - low) / 2  # half the range, because a converter's constant offset is not sound
    if peak < _SILENT_PEAK:
        digits = np.format_float_positional(peak, precision=1, fractional=False, trim="-")
        level = f"{20 * math.log10(peak):.0f} dBFS" if peak > 0 else "all samples are equal"
        found["silent"] = f"silent: peak {digits} ({level})"
    # Each side is compared with its own highest value: 8-bit sound ends at -1 and 127 / 128.
    sides = [(samples, high), (-samples, -low)] if max(high, -low) >= _FULL_SCALE else []
    clipped = sum(np.count_nonzero(side >= 0.999 * min(end, 1.0)) for side, end in sides if end >= _FULL_SCALE)
    if clipped / len(samples) > _CLIPPED_SHARE:
        found["clipped"] = f"clipped: {100 * clipped / len(samples):.1f} % of samples at full scale"
    return found
