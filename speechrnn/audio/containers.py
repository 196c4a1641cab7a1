"""Encoded recordings: opening them, and checking what their headers promise where libsndfile reports nothing.

libsndfile shortens a WAV or Ogg file that was cut off, reads the first of several joined recordings, and takes the
length of an MP3 without a length header from its first bit rate. Files are read in pieces, in constant memory.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from speechrnn.audio.ogg import OggSurvey, survey_ogg
from speechrnn.audio.pipes import find_next, open_object, open_special, open_temporary, read_at, read_parts
from speechrnn.errors import AudioError

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger("speechrnn")

CONTAINER_ENDINGS = (
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".aac", ".webm", ".mkv", ".mka"),
    *(".wma", ".wmv", ".asf", ".amr", ".avi", ".flv"),
)
"""Endings of files that FFmpeg reads, through the extra ``video``."""
AUDIO_ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".sph", *CONTAINER_ENDINGS)
"""Endings of the files that are searched for as recordings."""
ARCHIVE_ENDING = ".tar"

_WAV_TOLERANCE_SECONDS = 0.01  # some writers count their own 44-byte header as samples: 5.5 ms at 8 kHz and 8 bits
# Programs that write to a pipe cannot go back to fill in the length: they leave the largest signed or unsigned 32-bit
# number there, some less a header or rounded down to whole blocks.
_UNKNOWN_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# A WAV file may have bytes after its samples that are not a chunk: a tag, or a few samples that its header omits.
_STALE_HEADER_SECONDS = 0.1
_MP3_TOLERANCE_BYTES = 4096  # two frames at 320 kbit/s: the encoder's padding, which the decoder leaves out

FOREIGN = (
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (0, b"\xff\xf1", "a raw AAC file"),
    (0, b"\xff\xf9", "a raw AAC file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"0&\xb2u", "a Windows Media file"),
)
"""Formats that only FFmpeg reads: position and bytes of their mark, and their name."""
_READABLE = (
    (0, b"RIFF", "WAV"),
    (0, b"RF64", "WAV"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"\xff", "MP3"),
)
# AIFF, AU, CAF, SPHERE, W64; FLV, MPEG transport and program streams, AC-3.
_OTHERS = (
    *((0, magic, "") for magic in (b"FORM", b".snd", b"caff", b"NIST_1A", b"riff")),
    *((0, magic, "") for magic in (b"FLV", b"G", b"\0\0\1\xba", b"\x0bw")),
)
_HEAD_BYTES = 512
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
    """Open a path, bytes or a file object as a seekable file.

    Args:
        source: Path, also into a tar archive; bytes; or a binary file object, rewound first if it can be. Pipes are
            copied, larger ones to a temporary file.
        name: The recording, for error messages.

    Yields:
        A file that is seekable, not empty, and at its start.

    Raises:
        AudioError: It cannot be opened, is empty, or a read fails, also one while the caller uses the file.
    """
    with _open(source, name) as stream:
        try:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
        except OSError as error:  # some files of the system claim to be seekable and are not
            raise AudioError(f"{name}: cannot be read: {error.strerror or error}; check the path") from error
        if size == 0:
            raise AudioError(f"{name}: empty, 0 bytes; copy or record it again")
        try:
            yield stream
        finally:
            failure = getattr(getattr(stream, "raw", None), "failure", None)
            if failure is not None:
                reason = getattr(failure, "strerror", None) or failure
                raise AudioError(f"{name}: cannot be read: {reason}; check the disk") from failure


def _open(source: Any, name: str) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if hasattr(source, "read"):
        return open_object(source, name, lambda head: _check_head(head, name))
    if not isinstance(source, str | os.PathLike):
        raise AudioError(f"{name}: not a recording; give a path, bytes, a binary file, a numpy array or a torch tensor")
    try:
        mode = os.stat(source).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return open_special(source, name, lambda head: _check_head(head, name))
        return io.BufferedReader(_WatchedFile(os.fspath(source)), 2**16)
    except NotADirectoryError:
        inside = find_archive(source)
        if inside is None:
            raise AudioError(f"{name}: no such file; a part of the path is not a folder") from None
        from speechrnn.audio.archives import open_member

        return open_member(*inside)
    except (OSError, ValueError) as error:
        reason = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise AudioError(f"{name}: {_CANNOT_OPEN.get(type(error), reason)}") from error


def _check_head(head: bytes, name: str) -> None:
    """Refuse a pipe that does not begin as a recording, such as /dev/zero, before all of it is read."""
    if not any(head.startswith(magic, offset) for offset, magic, _ in (*_READABLE, *FOREIGN, *_OTHERS)):
        raise AudioError(explain_unreadable(io.BytesIO(head), name))


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
        The file to decode, rewound: the stream, a view of it with corrected length or without damaged pages, or a
        temporary WAV with all joined recordings. And of an Ogg file the survey of its pages.

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
            stream = _join(stream, list(_find_all(stream, b"fLaC\0\0\0\x22")), name)  # with STREAMINFO's header
    stream.seek(0)
    return stream, survey


def is_for_ffmpeg(stream: BinaryIO) -> bool:
    """Whether a file that libsndfile refuses may be in another format, rather than damaged, or text."""
    head = read_at(stream, 0, _HEAD_BYTES)
    return not head.startswith((b"fLaC", b"ID3", b"RF64", b"\xff")) and not _is_text(head)


def explain_unreadable(stream: BinaryIO, name: str) -> str:
    """Explain in one line why a file cannot be opened, and what to do."""
    head = read_at(stream, 0, _HEAD_BYTES)
    for offset, magic, kind in (*FOREIGN, *_READABLE):
        if head.startswith(magic, offset):
            return f"{name}: damaged or cut off: begins as {kind} does, but cannot be decoded; copy it again"
    formats = "wav, flac, ogg, opus, mp3, and with speechrnn[video] m4a, mp4, webm, mkv, wma, amr"
    if _is_text(head):
        return f"{name}: contains text, not sound; give a recording ({formats})"
    return f"{name}: not in a format that can be read ({formats}); convert it: ffmpeg -i in.xyz out.flac"


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    return len(text) > len(head) / 2 and all(character.isprintable() or character.isspace() for character in text)


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
    head = read_at(stream, 0, 10)
    tag_bytes = 0
    if head[:3] == b"ID3" and len(head) == 10:
        a, b, c, d = head[6:]
        tag_bytes = 10 + (a << 21 | b << 14 | c << 7 | d)
    first_frames = read_at(stream, tag_bytes, 4096)
    stream.seek(position)
    return any(tag in first_frames for tag in (b"Xing", b"Info", b"VBRI"))


def _check_wav(stream: BinaryIO, name: str) -> BinaryIO:
    size = stream.seek(0, io.SEEK_END)
    offset, byte_rate, chunk, promised = 12, 1, b"", 0
    while chunk != b"data":
        offset += promised + promised % 2
        if offset > size:  # FFmpeg would allocate memory for a chunk of any size
            raise AudioError(explain_unreadable(stream, name))
        stream.seek(offset)
        if len(header := stream.read(8)) < 8 or header == bytes(8):
            return stream
        chunk, promised = struct.unpack("<4sI", header)
        offset += 8
        if chunk == b"fmt " and len(fields := stream.read(12)) == 12:
            byte_rate = max(1, struct.unpack("<I", fields[8:])[0])
    if any(promised in unknown for unknown in _UNKNOWN_SIZES):
        return stream
    missing = offset + promised - size
    lost, whole = missing / byte_rate, promised / byte_rate
    if missing > _WAV_TOLERANCE_SECONDS * byte_rate:
        raise AudioError(
            f"{name}: cut off: {lost:.2f} s are missing of the {whole:.2f} s that its header promises; "
            "copy it again, or keep the rest: ffmpeg -i in.wav out.wav"
        )
    if -lost <= _STALE_HEADER_SECONDS or not _is_sound(stream, offset + promised, size):
        return stream
    logger.warning("%s: its header states %.2f s of sound, %.2f s follow; all of it is read", name, whole, whole - lost)
    corrected = io.BytesIO(struct.pack("<I", min(size - offset, 0xFFFFFFFF)))
    return read_parts((stream, 0, offset - 4), (corrected, 0, 4), (stream, offset, size - offset))


def _is_sound(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether the bytes after the samples of a WAV file are neither chunks (after a byte of padding) nor zeros."""
    stream.seek(start)
    while (content := stream.read(2**20)) and not content.strip(b"\0"):
        pass
    return bool(content) and not _are_chunks(stream, start, end) and not _are_chunks(stream, start + 1, end)


def _are_chunks(stream: BinaryIO, position: int, end: int) -> bool:
    while position < end:
        chunk, size = struct.unpack("<4sI", read_at(stream, position, 8).ljust(8, b"\0"))
        if not chunk.isascii() or not chunk.decode().isprintable():
            return False
        position += 8 + size + size % 2
    return position <= end + 1


def _check_ogg(stream: BinaryIO, name: str) -> tuple[BinaryIO, OggSurvey]:
    survey = survey_ogg(stream)
    if survey.missing_bytes:
        raise AudioError(f"{name}: cut off: its last Ogg page is {survey.missing_bytes} bytes short; copy it again")
    if len(survey.starts) > 1 and survey.intact is not None:
        raise AudioError(f"{name}: damaged, in one of the {len(survey.starts)} recordings joined in it; copy it again")
    if survey.intact is not None:
        return read_parts(*((stream, start, end - start) for start, end in survey.intact)), survey
    return _join(stream, survey.starts, name), survey


def _find_all(stream: BinaryIO, marker: bytes) -> Iterator[int]:
    position = -1
    while (position := find_next(stream, marker, position + 1)) >= 0:
        yield position


def _join(stream: BinaryIO, starts: Sequence[int], name: str) -> BinaryIO:
    """The stream itself if it has one recording; the sound of several, in order, as a WAV in a temporary file."""
    if len(starts) < 2:
        return stream
    import soundfile

    size = stream.seek(0, io.SEEK_END)
    try:
        with ExitStack() as stack:
            spans = pairwise([*starts, size])
            files = [stack.enter_context(read_parts((stream, a, b - a))) for a, b in spans]
            joined = _join_sounds([stack.enter_context(soundfile.SoundFile(file)) for file in files], name)
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{name}: damaged, in one of the {len(starts)} recordings joined in it; copy it again"
        ) from error
    logger.info("%s: %d recordings joined in one file; all are read", name, len(starts))
    return joined


def _join_sounds(sounds: Sequence[soundfile.SoundFile], name: str) -> BinaryIO:
    import soundfile

    forms = sorted({(sound.samplerate, sound.channels) for sound in sounds})
    if len(forms) > 1:
        found = " and ".join(f"{rate} Hz with {channels} channels" for rate, channels in forms)
        raise AudioError(f"{name}: {len(sounds)} recordings joined in one file, {found}; split it")
    joined = open_temporary()
    with soundfile.SoundFile(joined, "w", *forms[0], "FLOAT", format="RF64") as target:
        for sound in sounds:
            sound.seekable = bool  # is False: soundfile would seek after every block
            while len(block := sound.read(2**18, dtype="float32", always_2d=True)):
                target.write(block)
    return joined
