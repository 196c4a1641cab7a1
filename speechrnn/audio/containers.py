"""What the headers of a recording promise, checked where libsndfile says nothing.

libsndfile shortens a cut-off WAV or Ogg file without a word, and where an MP3 has no length header it takes the length
from the first bit rate. Half a recording must not pass for a whole one, so the few bytes that tell are read here.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from speechrnn.errors import AudioError

# Some writers count their own 44-byte header as samples: at most 5.5 ms of 8 kHz, 8-bit sound.
_WAV_TOLERANCE_SECONDS = 0.01
# Programs that write to a pipe cannot go back to fill in the length: they leave the largest signed or unsigned 32-bit
# number there, some less a header or rounded down to whole blocks.
_UNKNOWN_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# Header, 255 lacing values, 255 segments of 255 bytes (RFC 3533).
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
AUDIO_ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".sph")
"""Endings of the files that are looked for as recordings where nothing names them whole."""

# Two frames at 320 kbit/s: the encoder's padding at the end, which the decoder leaves out.
_MP3_TOLERANCE_BYTES = 4096

_FOREIGN = (
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (0, b"\xff\xf1", "a raw AAC file"),
    (0, b"\xff\xf9", "a raw AAC file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"0&\xb2u", "a Windows Media file"),
)
_READABLE = ((b"RIFF", "WAV"), (b"RF64", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"\xff", "MP3"))


def check_container(stream: BinaryIO, name: str) -> BinaryIO:
    """Refuse a WAV or Ogg file that ends before its headers say it does.

    Args:
        stream: The file, seekable, at any position.
        name: What to call it in an error.

    Returns:
        The stream, rewound; a copy in memory, with the length filled in, where a WAV header says 0 but sound follows.

    Raises:
        AudioError: The file is cut off.
    """
    stream.seek(0)
    head = stream.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        stream = _check_wav(stream, name)
    elif head[:4] == b"OggS":
        _check_last_ogg_page(stream, name)
    stream.seek(0)
    return stream


def explain_unreadable(stream: BinaryIO, name: str) -> str:
    """Say in one line why libsndfile could not open a file, and what to do."""
    stream.seek(0)
    head = stream.read(512)
    for offset, magic, kind in _FOREIGN:
        if head.startswith(magic, offset):
            return f"{name}: {kind}, which cannot be read; convert it first, as in: ffmpeg -i in.m4a out.flac"
    for magic, kind in _READABLE:
        if head.startswith(magic):
            return f"{name}: damaged or cut off: begins as {kind} does, but cannot be decoded; copy it again"
    if _is_text(head):
        return f"{name}: holds text, not sound; give a recording (wav, flac, ogg, opus, mp3)"
    return (
        f"{name}: not in a format that can be read (wav, flac, ogg, opus, mp3); convert it: ffmpeg -i in.xyz out.flac"
    )


def check_mp3_read_to_end(stream: BinaryIO, name: str) -> None:
    """Refuse an MP3 whose decoding stopped where more MPEG frames follow.

    Args:
        stream: The file, at the position where the decoder left it after the last sample.
        name: What to call it in an error.

    Raises:
        AudioError: Sound is left over: two files joined, or a variable bit rate without a length header.
    """
    position = stream.tell()
    unread = stream.seek(0, io.SEEK_END) - position
    stream.seek(position)
    follows = stream.read(3)
    more_sound = follows == b"ID3" or (len(follows) == 3 and follows[0] == 0xFF and follows[1] & 0xE0 == 0xE0)
    if more_sound and unread > _MP3_TOLERANCE_BYTES:
        raise AudioError(
            f"{name}: its header gives a length that leaves {unread} bytes of sound unread; "
            "convert it first, as in: ffmpeg -i in.mp3 out.flac"
        )


def mp3_states_its_length(stream: BinaryIO) -> bool:
    """Whether an MP3 begins with a length header (Xing, Info or VBRI); without one, libsndfile only estimates.

    Args:
        stream: The file; its position is kept, for a decoder may be reading from it.
    """
    position = stream.tell()
    head = _read_at(stream, 0, 10)
    tag_bytes = 0
    if head[:3] == b"ID3" and len(head) == 10:
        a, b, c, d = head[6:]
        tag_bytes = 10 + (a << 21 | b << 14 | c << 7 | d)
    first_frames = _read_at(stream, tag_bytes, 4096)
    stream.seek(position)
    return any(tag in first_frames for tag in (b"Xing", b"Info", b"VBRI"))


def _check_wav(stream: BinaryIO, name: str) -> BinaryIO:
    size = stream.seek(0, io.SEEK_END)
    offset, promised, byte_rate = _find_wav_data(stream)
    present = size - offset
    missing = promised - present
    if promised == 0 and present > 0 and _riff_size(stream) + 8 < size:
        return _with_wav_size(stream, offset=offset, present=present)
    is_known = promised > 0 and not any(promised in unknown for unknown in _UNKNOWN_SIZES)
    if is_known and missing > _WAV_TOLERANCE_SECONDS * byte_rate:
        lost, whole = missing / byte_rate, promised / byte_rate
        raise AudioError(
            f"{name}: cut off: {lost:.2f} s are missing of the {whole:.2f} s that its header promises; "
            "copy it again, or keep what is there: ffmpeg -i in.wav out.wav"
        )
    return stream


def _find_wav_data(stream: BinaryIO) -> tuple[int, int, int]:
    """Offset and promised size of the samples, and bytes a second; a size of -1 where there is no data chunk."""
    position, byte_rate = 12, 1
    while len(header := _read_at(stream, position, 8)) == 8:
        chunk, size = struct.unpack("<4sI", header)
        if chunk == b"data":
            return position + 8, size, byte_rate
        if chunk == b"fmt " and len(fields := _read_at(stream, position + 16, 4)) == 4:
            byte_rate = max(1, struct.unpack("<I", fields)[0])
        position += 8 + size + size % 2
    return position, -1, byte_rate


def _riff_size(stream: BinaryIO) -> int:
    return struct.unpack("<I", _read_at(stream, 4, 4))[0]


def _with_wav_size(stream: BinaryIO, *, offset: int, present: int) -> BinaryIO:
    stream.seek(0)
    copy = bytearray(stream.read())
    copy[offset - 4 : offset] = struct.pack("<I", min(present, 0xFFFFFFFF))
    return io.BytesIO(copy)


def _check_last_ogg_page(stream: BinaryIO, name: str) -> None:
    size = stream.seek(0, io.SEEK_END)
    tail = _read_at(stream, max(0, size - _LARGEST_OGG_PAGE), _LARGEST_OGG_PAGE)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if not page.startswith(b"OggS"):
        return
    num_segments = page[26] if len(page) > 26 else 255
    page_bytes = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if page_bytes > len(page):
        raise AudioError(f"{name}: cut off: its last Ogg page is {page_bytes - len(page)} bytes short; copy it again")


def _read_at(stream: BinaryIO, position: int, size: int) -> bytes:
    stream.seek(position)
    return stream.read(size)


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    return len(text) > len(head) / 2 and all(character.isprintable() or character.isspace() for character in text)
