"""Ogg pages: damage, the recording's length, and joined recordings.

libsndfile skips damaged pages without an error, takes the length from the rest, and reads only the first of several
chained recordings. The file is read page by page.

Source:
    RFC 3533 (pages, checksum), RFC 7845 (Opus counts at 48 kHz).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from speechrnn.audio.pipes import find_next, read_at

# Capture pattern, version, flags, position, serial, sequence; checksum, segment count and lacing values follow.
_HEADER = struct.Struct("<4sBBqII")
_FIRST, _LAST = 2, 4
_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_OPUS_RATE = 48000
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    """A page; `payload` is its first eight bytes after the header, which name the codec on a first page."""

    offset: int
    size: int
    flags: int
    position: int
    serial: int
    payload: bytes
    is_intact: bool

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class OggSurvey:
    """Survey of the pages of an Ogg file.

    Attributes:
        starts: First byte of each recording in the file; several if they are chained.
        intact: First byte and end of each run of intact pages, which together libsndfile can decode to the end; None if
            nothing is damaged.
        missing_bytes: Bytes by which the last page is longer than the rest of the file.
        is_ended: Whether the last intact page is marked as the last one.
        is_start_damaged: Whether there is damage before the first intact page with sound.
        reached: Position of the last intact page, in samples of the codec's rate.
        end: Position of the end of the file, estimated from the number of bytes if its pages are damaged.
        is_opus: Whether positions count at 48 kHz, as in Opus.
    """

    starts: list[int]
    intact: list[tuple[int, int]] | None
    missing_bytes: int
    is_ended: bool
    is_start_damaged: bool
    reached: int
    end: int
    is_opus: bool

    def count_frames(self, decodable: int, sample_rate: int) -> int:
        """Samples of the undamaged recording.

        Args:
            decodable: Samples from the first intact page to the last.
            sample_rate: Of these, in Hz.
        """
        scale = sample_rate / _OPUS_RATE if self.is_opus else 1.0
        if self.is_start_damaged:
            return round(self.end * scale)
        return decodable + round((self.end - self.reached) * scale)


@dataclass
class _Tally:
    """What is kept of the pages read so far.

    Attributes:
        spans: Runs of intact pages.
        firsts: First pages of streams.
        serials: Of the streams with sound.
        sound: The last intact page with sound.
        tail: Pages of its stream after it.
        intact: The last intact page.
        last: The last page.
        is_start_damaged: As in the survey.
    """

    spans: list[tuple[int, int]] = field(default_factory=list)
    firsts: list[_Page] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)
    sound: _Page | None = None
    tail: list[_Page] = field(default_factory=list)
    intact: _Page | None = None
    last: _Page | None = None
    is_start_damaged: bool = False

    def add(self, page: _Page) -> None:
        self.last = page
        if page.is_intact:
            self._add_intact(page)
        if page.is_intact and page.serial in self.serials and page.position > 0:
            if self.sound is None:
                self.is_start_damaged = sum(end - start for start, end in self.spans) < page.end
            self.sound, self.tail = page, []
        elif self.sound is not None and page.serial == self.sound.serial:
            self.tail.append(page)

    def _add_intact(self, page: _Page) -> None:
        self.intact = page
        if self.spans and self.spans[-1][1] == page.offset:
            self.spans[-1] = (self.spans[-1][0], page.end)
        else:
            self.spans.append((page.offset, page.end))
        if page.flags & _FIRST:
            self.firsts.append(page)
            if page.payload.startswith(_AUDIO):
                self.serials.add(page.serial)


def survey_ogg(stream: BinaryIO) -> OggSurvey:
    """Survey the pages of an Ogg file, which must be seekable."""
    tally, size = _Tally(), stream.seek(0, io.SEEK_END)
    for page in _find_pages(stream):
        tally.add(page)
    last, intact, sound = tally.last, tally.intact, tally.sound
    is_ended = intact is not None and bool(intact.flags & _LAST)
    missing_bytes = max(0, last.end - size) if last is not None else 0
    if is_ended and intact is not None and last is intact:
        size = intact.end  # bytes after the last page, such as a tag, are not damage
    is_damaged = sum(end - start for start, end in tally.spans) < size
    return OggSurvey(
        # The first pages of multiplexed streams are adjacent.
        starts=[page.offset for page in tally.firsts if not any(page.offset == other.end for other in tally.firsts)],
        intact=tally.spans if is_damaged else None,
        missing_bytes=missing_bytes,
        is_ended=is_ended,
        is_start_damaged=tally.is_start_damaged,
        reached=sound.position if sound else 0,
        end=_find_end(sound, tally.tail, size) if sound else 0,
        is_opus=any(page.payload == b"OpusHead" for page in tally.firsts),
    )


def _find_end(last: _Page, tail: list[_Page], size: int) -> int:
    """Position of the end, from the last page with a plausible position and the bytes after it."""
    per_byte = last.position / last.end
    for page in tail:
        most = last.position + 4 * per_byte * (size - last.end)
        if page.offset >= last.end and last.position < page.position <= most:
            last = page
    return last.position + (0 if last.flags & _LAST else round(per_byte * max(0, size - last.end)))


def _find_pages(stream: BinaryIO) -> Iterator[_Page]:
    """The pages in their order, with damaged ones that can be recognised."""
    offset = 0
    while (offset := find_next(stream, b"OggS", offset)) >= 0:
        start = read_at(stream, offset, 27 + 255)
        lacing = start[27 : 27 + start[26]] if len(start) > 26 else bytes(255)
        if len(start) < _HEADER.size:
            yield _Page(offset, len(start) + 1, 0, 0, 0, b"", is_intact=False)
            return
        _, _, flags, position, serial, _ = _HEADER.unpack(start[: _HEADER.size])
        size = 27 + len(lacing) + sum(lacing)
        page = read_at(stream, offset, size)
        is_intact = len(page) == size and _checksum(page[:22] + bytes(4) + page[26:]) == page[22:26]
        payload = page[27 + len(lacing) :][:8]
        yield _Page(offset, size, flags, position, serial, payload, is_intact)
        offset += size if is_intact else 4


def _checksum(page: bytes) -> bytes:
    """CRC-32 with polynomial 0x04c11db7, most significant bit first: zlib's with reversed bits, without its masks."""
    reversed_bits = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_bits.to_bytes(4, "big").translate(_BIT_REVERSED)
