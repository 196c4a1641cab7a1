"""Encoded recordings: opening them, and checking what their headers promise where libsndfile reports nothing.

libsndfile shortens a WAV or Ogg file that was cut off, reads the first of several joined recordings, and takes the
length of an MP3 without a length header from its first bit rate.
"""

from __future__ import annotations

import io
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from speechrnn.audio.ogg import OggSurvey, survey_ogg
from speechrnn.errors import AudioError

logger = logging.getLogger("speechrnn")

AUDIO_ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".sph")
"""Endings of the files that are searched for as recordings."""
ARCHIVE_ENDING = ".tar"

_WAV_TOLERANCE_SECONDS = 0.01  # some writers count their own 44-byte header as samples: 5.5 ms at 8 kHz and 8 bits
# Programs that write to a pipe cannot go back to fill in the length: they leave the largest signed or unsigned 32-bit
# number there, some less a header or rounded down to whole blocks.
_UNKNOWN_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# A WAV file may have bytes after its samples that are not a chunk: a tag, or a few samples that its header omits.
_STALE_HEADER_SECONDS = 0.1
_MP3_TOLERANCE_BYTES = 4096  # two frames at 320 kbit/s: the encoder's padding, which the decoder leaves out

_FOREIGN = (
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (0, b"\xff\xf1", "a raw AAC file"),
    (0, b"\xff\xf9", "a raw AAC file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"0&\xb2u", "a Windows Media file"),
)
_READABLE = ((b"RIFF", "WAV"), (b"RF64", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"\xff", "MP3"))
_CANNOT_OPEN: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    IsADirectoryError: "a folder, not a recording; name the files in it",
    PermissionError: "permission denied; make it readable for this user",
}


class _WatchedFile(io.FileIO):
    """A file that reports a failed read as its end and keeps the error, which soundfile would drop."""

    failure: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            self.failure = self.failure or error
            return 0


@contextmanager
def open_source(source: Any, name: str) -> Iterator[BinaryIO]:
    """Open a path, wrap bytes, or read a file object to its end.

    Args:
        source: Path, also into a tar archive; bytes; or a binary file object, rewound first if it can be.
        name: The recording, for error messages.

    Yields:
        A file that is seekable, not empty, and at its start.

    Raises:
        AudioError: It cannot be opened, is empty, or a read fails, also one while the caller uses the file.
    """
    with _open(source, name) as stream:
        try:
            if stream.seek(0, io.SEEK_END) == 0:
                raise AudioError(f"{name}: empty, 0 bytes; copy or record it again")
            stream.seek(0)
            yield stream
        except OSError as error:  # some files of the system claim to be seekable and are not
            raise AudioError(f"{name}: cannot be read: {error.strerror or error}; check the path") from error
        finally:
            failure = getattr(getattr(stream, "raw", None), "failure", None)
            if failure is not None:
                reason = failure.strerror or failure
                raise AudioError(f"{name}: cannot be read: {reason}; check the disk") from failure


def _open(source: Any, name: str) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if hasattr(source, "read"):
        return io.BytesIO(_read_object(source, name))
    if not isinstance(source, str | os.PathLike):
        raise AudioError(f"{name}: not a recording; give a path, bytes, a binary file, a numpy array or a torch tensor")
    try:
        raw = _WatchedFile(os.fspath(source))
        # A pipe, as in <(command), can be read only once.
        return io.BufferedReader(raw, 2**16) if raw.seekable() else io.BytesIO(raw.readall())
    except NotADirectoryError:
        inside = find_archive(source)
        if inside is None:
            raise AudioError(f"{name}: no such file; a part of the path is not a folder") from None
        from speechrnn.audio.archives import open_member

        return open_member(*inside)
    except (OSError, ValueError) as error:
        reason = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise AudioError(f"{name}: {_CANNOT_OPEN.get(type(error), reason)}") from error


def _read_object(file: Any, name: str) -> bytes:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: the file object cannot be read: {error}") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise AudioError(f"{name}: the file object gives {type(content).__name__}, not bytes; open it with mode 'rb'")
    return bytes(content)


def find_archive(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The tar archive that a path leads into, and the name inside it; None for other paths. The disk is not read."""
    whole = Path(path)
    for parent in whole.parents:
        if parent.suffix == ARCHIVE_ENDING:
            return parent, whole.relative_to(parent).as_posix()
    return None


def check_container(
    stream: BinaryIO, name: str, *, head: bytes, end: float | None
) -> tuple[BinaryIO, OggSurvey | None]:
    """Refuse a WAV or Ogg file that ends before its headers say, and join the recordings that one file holds.

    Args:
        stream: The file, seekable.
        name: The recording, for messages.
        head: The first 26 bytes of the file.
        end: End of the wanted part, in seconds; None for all. The whole of a FLAC file is read, to find joined
            recordings, only if the part ends after the first one.

    Returns:
        The file to decode, rewound: the stream, or a WAV in memory with corrected length or with all joined recordings.
        And of an Ogg file the survey of its pages.

    Raises:
        AudioError: The file is cut off, or joined recordings differ in sample rate or channels or are damaged.
    """
    survey = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        stream = _check_wav(stream, name)
    elif head[:4] == b"OggS":
        stream, survey = _check_ogg(stream, name)
    elif head[:4] == b"fLaC":
        fields = int.from_bytes(head[18:26], "big")  # STREAMINFO: 20 bits of rate, 8 of form, 36 of length
        rate, samples = fields >> 44, fields & (2**36 - 1)
        if end is None or end * rate > samples:
            content = _read_at(stream, 0, -1)
            starts = [found.start() for found in re.finditer(b"fLaC\0\0\0\x22", content)]  # with STREAMINFO's header
            stream = _join(stream, content, starts, name)
    stream.seek(0)
    return stream, survey


def explain_unreadable(stream: BinaryIO, name: str) -> str:
    """Explain in one line why libsndfile could not open a file, and what to do."""
    head = _read_at(stream, 0, 512)
    for offset, magic, kind in _FOREIGN:
        if head.startswith(magic, offset):
            return f"{name}: {kind}, which cannot be read; convert it first: ffmpeg -i in.m4a out.flac"
    for magic, kind in _READABLE:
        if head.startswith(magic):
            return f"{name}: damaged or cut off: begins as {kind} does, but cannot be decoded; copy it again"
    text = head.decode(errors="ignore")
    if len(text) > len(head) / 2 and all(character.isprintable() or character.isspace() for character in text):
        return f"{name}: contains text, not sound; give a recording (wav, flac, ogg, opus, mp3)"
    return (
        f"{name}: not in a format that can be read (wav, flac, ogg, opus, mp3); convert it: ffmpeg -i in.xyz out.flac"
    )


def check_mp3_read_to_end(stream: BinaryIO, name: str) -> None:
    """Refuse an MP3 whose decoding stopped before further MPEG frames.

    Args:
        stream: The file, at the decoder's position after the last sample.
        name: The recording, for error messages.

    Raises:
        AudioError: Sound is unread: two files joined, or a variable bit rate without a length header.
    """
    position = stream.tell()
    unread = stream.seek(0, io.SEEK_END) - position
    stream.seek(position)
    follows = stream.read(3)
    more_sound = follows == b"ID3" or (len(follows) == 3 and follows[0] == 0xFF and follows[1] & 0xE0 == 0xE0)
    if more_sound and unread > _MP3_TOLERANCE_BYTES:
        raise AudioError(
            f"{name}: its header gives a length that leaves {unread} bytes of sound unread; "
            "convert it first: ffmpeg -i in.mp3 out.flac"
        )


def mp3_states_its_length(stream: BinaryIO) -> bool:
    """Whether an MP3 begins with a length header (Xing, Info or VBRI); without one, libsndfile only estimates.

    Args:
        stream: The file; its position is kept, because a decoder may be reading from it.
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
    offset, byte_rate, chunk, promised = 12, 1, b"", 0
    while chunk != b"data":
        offset += promised + promised % 2
        if len(header := _read_at(stream, offset, 8)) < 8:
            return stream
        chunk, promised = struct.unpack("<4sI", header)
        offset += 8
        if chunk == b"fmt " and len(fields := _read_at(stream, offset + 8, 4)) == 4:
            byte_rate = max(1, struct.unpack("<I", fields)[0])
    if any(promised in unknown for unknown in _UNKNOWN_SIZES):
        return stream
    missing = offset + promised - size
    lost, whole = missing / byte_rate, promised / byte_rate
    if missing > _WAV_TOLERANCE_SECONDS * byte_rate:
        raise AudioError(
            f"{name}: cut off: {lost:.2f} s are missing of the {whole:.2f} s that its header promises; "
            "copy it again, or keep the rest: ffmpeg -i in.wav out.wav"
        )
    if -lost <= _STALE_HEADER_SECONDS or not _is_sound(rest := _read_at(stream, offset + promised, -1)):
        return stream
    logger.warning("%s: its header states %.2f s of sound, %.2f s follow; all of it is read", name, whole, whole - lost)
    content = bytearray(_read_at(stream, 0, offset + promised) + rest)
    content[offset - 4 : offset] = struct.pack("<I", min(size - offset, 0xFFFFFFFF))
    return io.BytesIO(content)


def _is_sound(rest: bytes) -> bool:
    """Whether the bytes after the samples of a WAV file are neither chunks (after a byte of padding) nor zeros."""
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


def _join(stream: BinaryIO, content: bytes, starts: Sequence[int], name: str) -> BinaryIO:
    """The stream itself if it has one recording; the sound of several, in order, as WAV."""
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
