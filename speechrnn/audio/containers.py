"""Encoded recordings: opening them, and checking what their headers promise where libsndfile reports nothing.

libsndfile shortens a WAV or Ogg file that was cut off, reads the first of several joined recordings, and takes the
length of an MP3 without a length header from its first bit rate. Half a recording must not pass for a whole one.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, BinaryIO

from speechrnn.audio.archives import find_archive, open_member
from speechrnn.audio.ogg import OggSurvey, survey_ogg
from speechrnn.errors import AudioError

logger = logging.getLogger("speechrnn")

# Some writers count their own 44-byte header as samples: at most 5.5 ms of 8 kHz, 8-bit sound.
_WAV_TOLERANCE_SECONDS = 0.01
# Programs that write to a pipe cannot go back to fill in the length: they leave the largest signed or unsigned 32-bit
# number there, some less a header or rounded down to whole blocks.
_UNKNOWN_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# What a WAV file may have behind its samples that is no chunk: a tag, or a few samples that its header does not count.
_STALE_HEADER_SECONDS = 0.1
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
_BUFFER_BYTES = 2**16


class _WatchedFile(io.RawIOBase):
    """A file that reports a failed read as its end and keeps the error, which soundfile would drop."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._raw = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this object)
        self.failure: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        return self._try(lambda: self._raw.readinto(buffer), 0)

    def readall(self) -> bytes:
        return self._try(self._raw.readall, b"")

    def _try(self, read: Callable[[], Any], nothing: Any) -> Any:
        try:
            return read() or nothing
        except OSError as error:
            self.failure = self.failure or error
            return nothing

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def close(self) -> None:
        super().close()
        self._raw.close()


@contextmanager
def open_source(source: Any, name: str) -> Iterator[BinaryIO]:
    """Open a path, wrap bytes, or read a file object to its end.

    Args:
        source: Path, also into a tar archive; bytes; or a binary file object, rewound first where it can be.
        name: What to call it in errors.

    Yields:
        A file that is seekable and not empty.

    Raises:
        AudioError: It cannot be opened, is empty, or a read fails, also one while the caller uses the file.
    """
    if isinstance(source, str | os.PathLike):
        stream = _open_path(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        stream = io.BytesIO(source)
    elif hasattr(source, "read"):
        stream = io.BytesIO(_read_all(source, name))
    else:
        raise AudioError(f"{name}: not a recording; give a path, bytes, a binary file, a numpy array or a torch tensor")
    with stream:
        try:
            if _measure(stream, name) == 0:
                raise AudioError(f"{name}: empty, 0 bytes; copy or record it again")
            yield stream
        finally:
            _check_reads(stream, name)


def _measure(stream: BinaryIO, name: str) -> int:
    """Its bytes; some files of the system say that they can be sought and cannot."""
    try:
        return stream.seek(0, io.SEEK_END)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror or error}; check the path") from error


def _check_reads(stream: Any, name: str) -> None:
    failure = getattr(getattr(stream, "raw", None), "failure", None)
    if failure is not None:
        raise AudioError(f"{name}: cannot be read: {failure.strerror or failure}; check the disk") from failure


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if os.path.isdir(path):
        raise AudioError(f"{name}: a folder, not a recording; name the files in it")
    try:
        stream = io.BufferedReader(_WatchedFile(path), _BUFFER_BYTES)
        if stream.seekable():
            return stream
        content = _read_all(stream, name)  # a pipe, as in <(command), can be read only once
        _check_reads(stream, name)
        return io.BytesIO(content)
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


def check_container(stream: BinaryIO, name: str, *, reads_whole: bool) -> tuple[BinaryIO, OggSurvey | None]:
    """Refuse a WAV or Ogg file that ends before its headers say it does, and join the recordings that one file holds.

    Args:
        stream: The file, seekable, at any position.
        name: What to call it in messages.
        reads_whole: Whether all of it is wanted; joined FLAC files are looked for only then, for all is read for it.

    Returns:
        What to decode, rewound: the stream, or a WAV in memory with corrected length or with all joined recordings.
        And of an Ogg file what its pages say.

    Raises:
        AudioError: The file is cut off, or joined recordings differ in sample rate or channels or are damaged.
    """
    head = _read_at(stream, 0, 12)
    survey = None
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        stream = _check_wav(stream, name)
    elif head[:4] == b"OggS":
        stream, survey = _check_ogg(stream, name)
    elif head[:4] == b"fLaC" and reads_whole:
        content = _read_at(stream, 0, -1)
        stream = _join(stream, content, _find_flac_starts(content), name)
    stream.seek(0)
    return stream, survey


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


def may_be_mp3(stream: BinaryIO) -> bool:
    """Whether a rewound file begins like none of the other formats, so that MPEG frames may be looked for in it."""
    head = _read_at(stream, 0, 4)
    stream.seek(0)
    return head not in (b"RIFF", b"RF64", b"fLaC", b"OggS")


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
    if promised < 0 or any(promised in unknown for unknown in _UNKNOWN_SIZES):
        return stream
    missing = offset + promised - size
    lost, whole = missing / byte_rate, promised / byte_rate
    if missing > _WAV_TOLERANCE_SECONDS * byte_rate:
        raise AudioError(
            f"{name}: cut off: {lost:.2f} s are missing of the {whole:.2f} s that its header promises; "
            "copy it again, or keep what is there: ffmpeg -i in.wav out.wav"
        )
    if -lost <= _STALE_HEADER_SECONDS or not _is_sound(rest := _read_at(stream, offset + promised, -1)):
        return stream
    logger.warning("%s: its header states %.2f s of sound, %.2f s follow; all is read", name, whole, whole - lost)
    content = bytearray(_read_at(stream, 0, offset + promised) + rest)
    content[offset - 4 : offset] = struct.pack("<I", min(size - offset, 0xFFFFFFFF))
    return io.BytesIO(content)


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


def _is_sound(rest: bytes) -> bool:
    """Whether what stands behind the samples of a WAV file is neither chunks (after a byte of padding) nor zeros."""
    return bool(rest.strip(b"\0")) and not _are_chunks(rest) and not _are_chunks(rest[1:])


def _are_chunks(content: bytes) -> bool:
    position = 0
    while position < len(content):
        chunk, size = struct.unpack("<4sI", content[position : position + 8].ljust(8, b"\0"))
        if not chunk.isascii() or not chunk.decode().isprintable():
            return False
        position += 8 + size + size % 2
    return position <= len(content) + 1


def _check_ogg(stream: BinaryIO, name: str) -> tuple[BinaryIO, OggSurvey]:
    content = _read_at(stream, 0, -1)
    survey = survey_ogg(content)
    if survey.missing_bytes:
        raise AudioError(f"{name}: cut off: its last Ogg page is {survey.missing_bytes} bytes short; copy it again")
    if len(survey.starts) > 1 and survey.intact is not None:
        raise AudioError(f"{name}: damaged, in one of the {len(survey.starts)} recordings joined in it; copy it again")
    if survey.intact is not None:
        return io.BytesIO(survey.intact), survey
    return _join(stream, content, survey.starts, name), survey


def _find_flac_starts(content: bytes) -> list[int]:
    """Where a FLAC file begins in what begins with one: its mark, and the header of the 34 bytes of STREAMINFO."""
    starts, mark = [0], b"fLaC\0\0\0\x22"
    while (found := content.find(mark, starts[-1] + 1)) > 0:
        starts.append(found)
    return starts


def _join(stream: BinaryIO, content: bytes, starts: Sequence[int], name: str) -> BinaryIO:
    """The stream itself where one recording starts in it; the sound of several, one after the other, as WAV."""
    if len(starts) < 2:
        return stream
    import numpy as np
    import soundfile

    joined = io.BytesIO()
    try:
        spans = pairwise([*starts, len(content)])
        parts = [soundfile.read(io.BytesIO(content[a:b]), dtype="float32", always_2d=True) for a, b in spans]
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{name}: damaged, in one of the {len(starts)} recordings joined in it; copy it again"
        ) from error
    forms = sorted({(rate, samples.shape[1]) for samples, rate in parts})
    if len(forms) > 1:
        found = " and ".join(f"{rate} Hz with {channels} channels" for rate, channels in forms)
        raise AudioError(f"{name}: {len(starts)} recordings joined in one file, {found}; split it")
    soundfile.write(joined, np.concatenate([samples for samples, _ in parts]), forms[0][0], "FLOAT", format="WAV")
    logger.info("%s: %d recordings joined in one file; all are read", name, len(starts))
    return joined


def _read_at(stream: BinaryIO, position: int, size: int) -> bytes:
    stream.seek(position)
    return stream.read(size)


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    return len(text) > len(head) / 2 and all(character.isprintable() or character.isspace() for character in text)
