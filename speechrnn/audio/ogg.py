"""Ogg pages: damage, the recording's length, and joined recordings.

libsndfile skips damaged pages without an error, takes the length from the rest, and reads only the first of several
chained recordings.

Source:
    RFC 3533 (pages, checksum), RFC 7845 (Opus counts at 48 kHz).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

# Capture pattern, version, flags, position, serial, sequence; checksum, segment count and lacing values follow.
_HEADER = struct.Struct("<4sBBqII")
_FIRST, _LAST = 2, 4
_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_OPUS_RATE = 48000
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    offset: int
    size: int
    flags: int
    position: int
    serial: int
    payload: int
    is_intact: bool

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class OggSurvey:
    """Survey of the pages of an Ogg file.

    Attributes:
        starts: First byte of each recording in the file; several if they are chained.
        intact: The intact pages, which libsndfile can decode to the end; None if nothing is damaged.
        missing_bytes: Bytes by which the last page is longer than the rest of the file.
        is_ended: Whether the last intact page is marked as the last one.
        is_start_damaged: Whether there is damage before the first intact page with sound.
        reached: Position of the last intact page, in samples of the codec's rate.
        end: Position of the end of the file, estimated from the number of bytes if its pages are damaged.
        is_opus: Whether positions count at 48 kHz, as in Opus.
    """

    starts: list[int]
    intact: bytes | None
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


def survey_ogg(content: bytes) -> OggSurvey:
    """Survey the pages of an Ogg file."""
    pages = list(_find_pages(content))
    intact = [page for page in pages if page.is_intact]
    firsts = [page for page in intact if page.flags & _FIRST]
    serials = {page.serial for page in firsts if content.startswith(_AUDIO, page.payload)}
    sound = [page for page in intact if page.serial in serials and page.position > 0]
    is_ended = bool(intact) and bool(intact[-1].flags & _LAST)
    # Bytes after the last page, such as a tag, are not damage.
    size = intact[-1].end if is_ended and pages[-1] is intact[-1] else len(content)
    is_damaged = sum(page.size for page in intact) < size
    before_sound = [page.size for page in intact if sound and page.offset < sound[0].offset]
    return OggSurvey(
        # The first pages of multiplexed streams are adjacent.
        starts=[page.offset for page in firsts if not any(page.offset == other.end for other in firsts)],
        intact=b"".join(content[page.offset : page.end] for page in intact) if is_damaged else None,
        missing_bytes=max(0, pages[-1].end - len(content)) if pages else 0,
        is_ended=is_ended,
        is_start_damaged=bool(sound) and sum(before_sound) < sound[0].offset,
        reached=sound[-1].position if sound else 0,
        end=_find_end(pages, sound, size) if sound else 0,
        is_opus=any(content.startswith(b"OpusHead", page.payload) for page in firsts),
    )


def _find_end(pages: list[_Page], sound: list[_Page], size: int) -> int:
    """Position of the end, from the last page with a plausible position and the bytes after it."""
    last = sound[-1]
    per_byte = last.position / last.end
    for page in pages:
        most = last.position + 4 * per_byte * (size - last.end)
        if page.offset >= last.end and page.serial == last.serial and last.position < page.position <= most:
            last = page
    return last.position + (0 if last.flags & _LAST else round(per_byte * max(0, size - last.end)))


def _find_pages(content: bytes) -> Iterator[_Page]:
    """The pages in their order, with damaged ones that can be recognised."""
    offset = 0
    while (offset := content.find(b"OggS", offset)) >= 0:
        lacing = content[offset + 27 : offset + 27 + content[offset + 26]] if offset + 26 < len(content) else bytes(255)
        header = content[offset : offset + _HEADER.size]
        if len(header) < _HEADER.size:
            yield _Page(offset, len(header) + 1, 0, 0, 0, 0, is_intact=False)
            return
        _, _, flags, position, serial, _ = _HEADER.unpack(header)
        size = 27 + len(lacing) + sum(lacing)
        page = content[offset : offset + size]
        is_intact = len(page) == size and _checksum(page[:22] + bytes(4) + page[26:]) == page[22:26]
        yield _Page(offset, size, flags, position, serial, offset + 27 + len(lacing), is_intact)
        offset += size if is_intact else 4


def _checksum(page: bytes) -> bytes:
    """CRC-32 with polynomial 0x04c11db7, most significant bit first: zlib's with reversed bits, without its masks."""
    reversed_bits = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_bits.to_bytes(4, "big").translate(_BIT_REVERSED)
