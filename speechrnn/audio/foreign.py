"""Recordings that only FFmpeg reads (m4a, mp4, webm, mkv, wma, amr …), through PyAV, the extra ``video``.

Decoded samples begin and end where FFmpeg lets them: without the encoder's delay in MP4, WebM and Matroska, with it in
formats that do not state it, such as raw AAC and AMR. Pauses between time stamps become silence, so that times are
those of a player.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from speechrnn.audio.containers import FOREIGN, explain_unreadable
from speechrnn.audio.decoder import INCOMPLETE, TOLERANCE_SECONDS, UNKNOWN_FRAMES, Wanted, scale_samples
from speechrnn.audio.pipes import read_at, read_parts
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

logger = logging.getLogger("speechrnn")

_STATES_DURATION = ("mov,", "matroska,", "asf", "avi", "flv")  # FFmpeg estimates it in other formats
_LONGEST_PAUSE_SECONDS = 3600.0  # a longer one is a damaged time stamp
_END_TOLERANCE_SECONDS = 0.5
_MOST_FAILED_READS = 100
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


@contextmanager
def open_foreign(stream: BinaryIO, wanted: Wanted) -> Iterator[ForeignRecording]:
    """Open a recording with FFmpeg; of several audio tracks the default one is read, with a warning.

    Args:
        stream: The file, seekable.
        wanted: The recording's name.

    Raises:
        AudioError: PyAV is not installed, or there is no audio track, or none that can be decoded.
    """
    name = wanted.name
    av = _import_av(stream, name)
    head, size = read_at(stream, 0, 2**16), stream.seek(0, io.SEEK_END)
    try:
        # Without the file's name, whose ending FFmpeg would take for the format of anything.
        container = av.open(read_parts((stream, 0, size)), metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(explain_unreadable(stream, name)) from error
    with container:
        track = _choose_track(container, name)
        yield ForeignRecording(container, track, name, stated_seconds=_find_duration(container, head, size))


def _import_av(stream: BinaryIO, name: str) -> Any:
    try:
        import av
    except ImportError as error:
        head = read_at(stream, 0, 64)
        for offset, magic, kind in FOREIGN:
            if head.startswith(magic, offset):
                raise AudioError(f"{name} is {kind}; install its reader: pip install 'speechrnn[video]'") from error
        raise AudioError(explain_unreadable(stream, name)) from error
    return av


def _choose_track(container: InputContainer, name: str) -> AudioStream:
    tracks = container.streams.audio
    if not tracks:
        others = ", ".join(sorted({track.type for track in container.streams}))
        raise AudioError(f"{name}: no audio track" + f", only {others}" * bool(others) + "; give a file with sound")
    best = container.streams.best("audio")
    track = next((track for track in tracks if best is not None and track.index == best.index), tracks[0])
    if track.codec_context is None:
        raise AudioError(f"{name}: its sound is in a format that FFmpeg cannot decode; convert it to flac")
    return track


def _find_duration(container: InputContainer, head: bytes, size: int) -> float | None:
    """The duration of its longest track that a file's header states, in seconds; None if it states none."""
    format_name = container.format.name
    if not (format_name.startswith(_STATES_DURATION) and container.duration):
        return None
    seconds = container.duration / 1e6
    # Of these two, FFmpeg shortens the duration of a truncated file.
    if format_name == "asf" and 0 <= (at := head.find(_ASF_PROPERTIES)) <= len(head) - 88:
        play_100ns, _, preroll_ms = struct.unpack_from("<QQQ", head, at + 64)
        seconds = max(seconds, play_100ns / 1e7 - preroll_ms / 1e3)
    if format_name == "avi":
        seconds *= max(1.0, (int.from_bytes(head[4:8], "little") + 8) / size)
    return seconds


class ForeignRecording:
    """An audio track that FFmpeg decodes.

    Args:
        container: The open file.
        track: The track.
        name: The recording, for messages.
        stated_seconds: Duration that the header states; None if it states none.

    Raises:
        AudioError: Nothing can be decoded.
    """

    is_length_estimated = True

    def __init__(
        self, container: InputContainer, track: AudioStream, name: str, *, stated_seconds: float | None
    ) -> None:
        self.container, self.track, self.name, self.stated_seconds = container, track, name, stated_seconds
        self._origin_seconds = (container.start_time or 0) / 1e6
        self._reached_seconds = 0.0  # end of the last packet of any track
        self._num_damaged = 0
        self._follows_damage = False
        self._frames = self._decode_packets()
        first = next(self._frames, None)  # the header of HE-AAC gives half the rate
        if first is None:
            raise AudioError(f"{name}: damaged or cut off: no sound can be decoded; copy it again")
        self._first = first

    @property
    def info(self) -> AudioInfo:
        """Rate, channels, and the length that the header states, which may be that of a video."""
        rate, stated = self._first.sample_rate, self.stated_seconds
        frames = UNKNOWN_FRAMES if stated is None else max(1, round(stated * rate))
        return AudioInfo(rate, len(self._first.layout.channels), frames)

    def decode(self, first: int, count: int, wanted: Wanted, *, block_frames: int) -> Iterator[np.ndarray]:
        """Decode `count` samples from `first` on in blocks, (N, C), float32, to the end if the whole is wanted.

        A truncated or damaged file that is read to its end causes a warning with the missing duration; what was decoded
        is given. Other tracks are not decoded.
        """
        tracks = self.container.streams.audio
        if len(tracks) > 1:
            number = tracks.index(self.track)
            other = f"ffmpeg -i in.mkv -map 0:a:{0 if number else 1} out.flac"
            message = "%s: %d audio tracks; number %d is read, the default one; to read another: %s"
            logger.warning(message, self.name, len(tracks), number + 1, other)
        end = UNKNOWN_FRAMES if wanted.seconds is None else first + count
        position, waiting, pieces = 0, 0, list[np.ndarray]()
        for samples in self._place_frames(block_frames):
            kept = samples[max(0, first - position) : end - position]
            position += len(samples)
            waiting += len(kept)
            pieces.append(kept)
            if waiting >= block_frames:
                yield np.concatenate(pieces)
                waiting, pieces = 0, []
            if position >= end:
                break
        if waiting:
            yield np.concatenate(pieces)
        self._check_complete(position, first, end, wanted)

    def _place_frames(self, block_frames: int) -> Iterator[np.ndarray]:
        """Decoded frames, (N, C), float32, with silence where the time stamps leave a pause."""
        position, rate, channels = 0, self.info.sample_rate, self.info.channels
        for frame in chain([self._first], self._frames):
            if (frame.sample_rate, len(frame.layout.channels)) != (rate, channels):
                raise AudioError(
                    f"{self.name}: its sound changes from {rate} Hz with {channels} channels to {frame.sample_rate} Hz "
                    f"with {len(frame.layout.channels)} after {position / rate:.2f} s; convert it to flac"
                )
            pause = self._measure_pause(frame, position)
            for start in range(0, pause, block_frames):
                yield np.zeros((min(block_frames, pause - start), channels), np.float32)
            samples = frame.to_ndarray()  # (C, N), or (1, N * C) if the channels of a sample are adjacent
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
            position += pause + len(samples)
            yield scale_samples(samples, self.name)

    def _measure_pause(self, frame: AudioFrame, position: int) -> int:
        """Samples between the end of the last frame and the time stamp of this one; 0 if there is no real pause."""
        if frame.time is None:
            return 0
        rate = frame.sample_rate
        pause = round((frame.time - self._origin_seconds) * rate) - position
        least = 0 if self._follows_damage else TOLERANCE_SECONDS * rate
        self._follows_damage = False
        longest = _LONGEST_PAUSE_SECONDS * rate
        if self.stated_seconds is not None:
            longest = min(longest, (self.stated_seconds + TOLERANCE_SECONDS) * rate - position)
        if pause > longest:
            self._origin_seconds += pause / rate
            return 0
        return pause if pause > least else 0

    def _decode_packets(self) -> Iterator[AudioFrame]:
        """The frames of the track; packets that cannot be decoded are counted."""
        from av import FFmpegError

        for packet in self._read_packets():
            try:
                frames = packet.decode() if packet.stream.index == self.track.index else []
            except FFmpegError:
                self._num_damaged += 1
                self._follows_damage = True
            else:
                yield from cast("list[AudioFrame]", frames)

    def _read_packets(self) -> Iterator[Packet]:
        """The packets of all tracks; reading continues after a failure, a limited number of times."""
        from av import FFmpegError

        for _ in range(_MOST_FAILED_READS):
            try:
                for packet in self.container.demux():
                    if packet.pts is not None and packet.time_base is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        self._reached_seconds = max(self._reached_seconds, end - self._origin_seconds)
                    yield packet
                return
            except (FFmpegError, IndexError):  # PyAV raises IndexError at a track that the header does not name
                self._num_damaged += 1
                self._follows_damage = True

    def _check_complete(self, position: int, first: int, end: int, wanted: Wanted) -> None:
        rate, stated = self.info.sample_rate, self.stated_seconds
        if position <= first or (wanted.seconds is not None and (end - position) / rate > TOLERANCE_SECONDS):
            raise AudioError(f"{self.name}: cut off, or its sound is shorter: it ends at {position / rate:.2f} s")
        if wanted.seconds is None and stated is not None and stated - self._reached_seconds > _END_TOLERANCE_SECONDS:
            message = "%s: cut off: %.2f s of %.2f s are missing; the rest is read; copy it again"
            logger.warning(message, self.name, stated - position / rate, stated, extra=INCOMPLETE)
        elif self._num_damaged:
            message = "%s: damaged: its sound cannot be decoded in %d places; copy it again"
            logger.warning(message, self.name, self._num_damaged, extra=INCOMPLETE)
