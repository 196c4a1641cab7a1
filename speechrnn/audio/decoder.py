"""Encoded recordings, decoded block by block, and checked to be complete at the end.

soundfile decodes and is imported where it is used, because start-up time counts.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from speechrnn.audio.containers import (
    FOREIGN,
    check_container,
    check_mp3_read_to_end,
    explain_unreadable,
    is_for_ffmpeg,
    mp3_states_its_length,
)
from speechrnn.audio.ogg import OggSurvey
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger("speechrnn")

LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # other headers are damaged: 1 Hz would become hours at the model's rate
UNKNOWN_FRAMES = 2**62  # libsndfile's value for a FLAC file written to a pipe, which does not know its length
TOLERANCE_SECONDS = 0.1  # corpora round times, and MP3 lengths include a frame or two of padding
INCOMPLETE = {"is_incomplete": True}  # the command line then exits with 1
_MP3_LEAD_IN = 16 * 1152  # MPEG frames for the bit reservoir and the overlap to be those of an unbroken decode
_MOST_FRAMES = 2**24  # of a block


@dataclass(frozen=True)
class Wanted:
    """The part of a recording that is asked for, and the recording's name in messages."""

    name: str
    channel: int | None = None
    start: float = 0.0
    seconds: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of the recording is asked for."""
        return self.start == 0 and self.seconds is None

    def locate(self, info: AudioInfo) -> tuple[int, int]:
        """First sample and number of samples of the part.

        Raises:
            AudioError: The recording has no samples, or a rate that no recorder has, or lacks the channel or the part.
        """
        name, channel = self.name, self.channel
        if not LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE:
            raise AudioError(
                f"{name}: its header says {info.sample_rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}; "
                "convert it with the right rate: ffmpeg -i in.wav -af asetrate=16000 out.wav"
            )
        if info.frames == 0:
            raise AudioError(f"{name}: no samples, only a header; record it again")
        if channel is not None and not (isinstance(channel, int | np.integer) and 0 <= channel < info.channels):
            raise AudioError(f"{name}: no channel {channel!r:.80}; it has {info.channels}, counted from 0")
        first = math.floor(self.start * info.sample_rate + 0.5)
        if first >= info.frames:
            raise AudioError(f"{name}: start at {self.start} s, but it ends at {info.seconds:.2f} s")
        if self.seconds is None:
            return first, info.frames - first
        count = max(1, math.floor(self.seconds * info.sample_rate + 0.5))
        if first + count > info.frames + TOLERANCE_SECONDS * info.sample_rate:
            end = self.start + self.seconds
            raise AudioError(f"{name}: wanted up to {end:.2f} s, but it ends at {info.seconds:.2f} s")
        return first, min(count, info.frames - first)


class Recording(Protocol):
    """A recording that can be decoded once."""

    @property
    def info(self) -> AudioInfo:
        """Rate, channels and length; `UNKNOWN_FRAMES` or more if the length is unknown."""

    @property
    def is_length_estimated(self) -> bool:
        """Whether the number of samples is known only after decoding."""

    def decode(self, first: int, count: int, wanted: Wanted, *, block_frames: int) -> Iterator[np.ndarray]:
        """Decode `count` samples from `first` on in blocks, (N, C), float32, and check that they are complete."""


def scale_samples(array: np.ndarray, name: str) -> np.ndarray:
    """Convert samples of any usual type to float32 in [-1, 1].

    Raises:
        AudioError: Their type has no standard scale.
    """
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
def open_sound(opened: BinaryIO, wanted: Wanted) -> Iterator[SoundRecording | None]:
    """Open a recording that soundfile may read; None if it is in a format for FFmpeg.

    Raises:
        AudioError: It is cut off, or damaged so that it cannot be opened.
    """
    import soundfile

    name, end = wanted.name, None if wanted.seconds is None else wanted.start + wanted.seconds
    head = opened.read(26)
    if any(head.startswith(magic, offset) for offset, magic, _ in FOREIGN):
        yield None
        return
    stream, ogg = check_container(opened, name, head=head, end=end)
    context: AbstractContextManager[object] = nullcontext()
    if head[:4] not in (b"RIFF", b"RF64", b"fLaC", b"OggS"):  # perhaps MP3
        from speechrnn.audio import quiet

        context = quiet.quiet_mpg123
    with ExitStack() as stack:
        stack.enter_context(stream)
        try:
            with context:
                sound = stack.enter_context(soundfile.SoundFile(stream))
        except (soundfile.SoundFileError, TypeError) as error:
            if not is_for_ffmpeg(stream) or (ogg is not None and ogg.intact is not None):
                raise AudioError(explain_unreadable(stream, name)) from error
            yield None
            return
        # soundfile seeks after every block in files that it takes for seekable, and MP3 does not survive that.
        sound.seekable = bool  # is False
        yield SoundRecording(AudioInfo(sound.samplerate, sound.channels, sound.frames), sound, stream, ogg, context)


@dataclass(frozen=True)
class SoundRecording:
    """A recording that soundfile decodes.

    Attributes:
        info: The header.
        sound: The decoder.
        stream: The bytes that it reads.
        ogg: Of an Ogg file the survey.
        context: The context of calls of the decoder.
    """

    info: AudioInfo
    sound: soundfile.SoundFile
    stream: BinaryIO
    ogg: OggSurvey | None
    context: AbstractContextManager[object]

    @property
    def is_length_estimated(self) -> bool:
        """Whether the number of samples is known only after decoding."""
        if self.sound.format == "MP3":
            return not mp3_states_its_length(self.stream)
        return self.sound.frames >= UNKNOWN_FRAMES or (self.ogg is not None and self.ogg.intact is not None)

    def decode(self, first: int, count: int, wanted: Wanted, *, block_frames: int) -> Iterator[np.ndarray]:
        """Decode `count` samples from `first` on in blocks, (N, C), float32, and check that they are complete."""
        import soundfile

        arrived = 0
        try:
            skipped = self._seek(first) if first or self.sound.format == "MP3" else 0
            while arrived < count:
                with self.context:
                    frames = min(skipped or count - arrived, block_frames, _MOST_FRAMES)
                    block = self.sound.read(frames, dtype="float32", always_2d=True)
                if len(block) == 0:  # libsndfile gives fewer than its header promises
                    break
                if skipped:
                    skipped -= len(block)
                    continue
                arrived += len(block)
                yield block
        except soundfile.SoundFileError as error:
            reached = f"{(first + arrived) / self.info.sample_rate:.2f} s"
            reason = getattr(error, "error_string", str(error)).strip()
            raise AudioError(
                f"{wanted.name}: damaged or cut off: cannot be decoded after {reached} ({reason})"
            ) from error
        self._check_complete(arrived, count, wanted)

    def _seek(self, first: int) -> int:
        """Go to a sample, or before it.

        libsndfile sometimes seeks to a wrong position in Vorbis, which is therefore decoded from its start (1.5 s for
        an hour), as are codecs that cannot seek, such as GSM 6.10.

        Returns:
            Samples to skip, so that those after them are the samples of an unbroken decode.
        """
        sound = self.sound
        if not type(sound).seekable(sound):
            return first
        lead_in = first if sound.subtype == "VORBIS" else min(first, _MP3_LEAD_IN) if sound.format == "MP3" else 0
        with self.context:
            sound.seek(first - lead_in)  # also to the start: mpg123 rounds differently without it
        return lead_in

    def _check_complete(self, arrived: int, count: int, wanted: Wanted) -> None:
        if arrived and self.ogg is not None:
            _check_pages(self.ogg, self.info, arrived, count, wanted)
            return
        reads_to_end = wanted.seconds is None
        if reads_to_end and self.sound.format == "MP3":
            check_mp3_read_to_end(self.stream, wanted.name)
        missing = (count - arrived) / self.info.sample_rate
        if arrived and (missing <= TOLERANCE_SECONDS or (reads_to_end and self.is_length_estimated)):
            return
        there = wanted.start + arrived / self.info.sample_rate
        raise AudioError(f"{wanted.name}: cut off: ends at {there:.2f} s, {missing:.2f} s are missing; copy it again")


def _check_pages(ogg: OggSurvey, info: AudioInfo, arrived: int, count: int, wanted: Wanted) -> None:
    """Warn of a damaged Ogg file, with the missing duration; a part of one is refused, as its position is unknown."""
    promised = ogg.count_frames(count, info.sample_rate) if wanted.is_whole and len(ogg.starts) == 1 else count
    missing = (promised - arrived) / info.sample_rate
    if missing > TOLERANCE_SECONDS or ogg.intact is not None:
        if not wanted.is_whole:
            raise AudioError(f"{wanted.name}: damaged: the position of a part is unknown; copy it again")
        whole = f"{missing:.2f} s of {promised / info.sample_rate:.2f} s are missing"
        logger.warning("%s: damaged: about %s; copy it again", wanted.name, whole, extra=INCOMPLETE)
    elif not ogg.is_ended and wanted.seconds is None:
        message = "%s: its last Ogg page is not marked as the last; the end may be missing"
        logger.warning(message, wanted.name, extra=INCOMPLETE)
