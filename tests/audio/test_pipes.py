"""Pipes, devices and file objects: read in constant memory, refused in one line, never waited for without end."""

import io
import os
import pty
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from recordings import FORMATS, noise, refuse, tone, wav_bytes, write

from speechrnn.audio import pipes
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.audio.pipes import FileParts, find_next

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")


class OneWay(io.RawIOBase):
    """A file object that cannot seek, as a socket or a pipe, and counts what is read from it."""

    def __init__(self, content=b"", *, repeated=b""):
        self._rest, self._repeated, self.num_read = io.BytesIO(content), repeated, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        content = self._rest.read(len(buffer)) or (self._repeated * len(buffer))[: len(buffer)]
        buffer[: len(content)] = content
        self.num_read += len(content)
        return len(content)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("file_name", FORMATS)
def test_object_that_cannot_seek_is_read_from_memory_or_disk(tmp_path, rng, monkeypatch, file_name):
    content = write(tmp_path, file_name, noise(rng, 48000)).read_bytes()
    expected = read_audio(content).samples
    for bytes_in_memory in (10, 2**23):
        monkeypatch.setattr(pipes, "_BYTES_IN_MEMORY", bytes_in_memory)
        np.testing.assert_array_equal(read_audio(OneWay(content)).samples, expected)
        assert audio_info(io.BufferedReader(OneWay(content))).frames == len(expected)


@pytest.mark.parametrize("repeated", [b"\0", b"\x01\x80"])
def test_endless_source_that_is_no_recording_is_refused_at_once(repeated):
    source = OneWay(repeated=repeated)
    refuse(source, "not in a format that can be read")
    assert source.num_read < 2**21


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
def test_endless_device_is_refused_at_once(device):
    refuse(device, f"{device}: not in a format that can be read")
    with open(device, "rb") as opened:
        refuse(opened, f"{device}: not in a format that can be read")
    with open(device, "rb", buffering=0) as opened:
        refuse(opened, f"{device}: not in a format that can be read")


def test_empty_device_is_refused():
    refuse("/dev/null", "/dev/null: empty, 0 bytes")


def test_pipe_longer_than_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(pipes, "LONGEST_PIPE_BYTES", 2**22)
    source = OneWay(wav_bytes(tone(0.1, 16000)), repeated=b"\0")
    refuse(source, r"longer than 0\.00390625 GiB, the most that is read from a pipe; save it to a file first")
    assert source.num_read < 2**23


def test_full_disk_is_named(monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipes, "open_temporary", Full)
    refuse(OneWay(wav_bytes(tone(0.1, 16000))), "its copy in .* cannot be written: No space left on device; free space")


def test_pipe_without_writer_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "_PATIENCE_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    refuse(tmp_path / "pipe", "pipe: a pipe into which nothing was written for 0.2 s; check its writer")
    assert time.monotonic() - start < 5


def test_pipe_whose_writer_stalls_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "_PATIENCE_SECONDS", 0.3)
    os.mkfifo(tmp_path / "pipe")
    is_refused = threading.Event()

    def write_half():
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(wav_bytes(tone(0.1, 16000))[:1000])
            pipe.flush()
            is_refused.wait(10)

    writer = threading.Thread(target=write_half)
    writer.start()
    refuse(tmp_path / "pipe", "nothing was written for")
    is_refused.set()
    writer.join()


def test_pipe_of_a_slow_writer_is_read(tmp_path, rng):
    os.mkfifo(tmp_path / "pipe")
    content = wav_bytes(noise(rng, 30000))

    def write_slowly():
        with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
            for start in range(0, len(content), 20000):
                pipe.write(content[start : start + 20000])
                time.sleep(0.02)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert len(read_audio(tmp_path / "pipe").samples) == 30000
    writer.join()


def test_closed_pipe_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"",))
    writer.start()
    refuse(tmp_path / "pipe", "pipe: empty, 0 bytes")
    writer.join()


def test_socket_and_terminal_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        refuse(tmp_path / "socket", "socket: cannot be opened")
    controller, terminal = pty.openpty()
    refuse(os.ttyname(terminal), "a terminal, not a recording")
    with open(terminal, "rb") as opened:
        refuse(opened, "a terminal, not a recording")
    os.close(controller)


READ = """
import sys
from speechrnn.audio.files import read_audio
from speechrnn.errors import AudioError
source = sys.stdin.buffer if sys.argv[1] == "-" else sys.argv[1]
try:
    print(len(read_audio(source).samples))
except AudioError as error:
    print(error)
"""


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_standard_input_is_read(source, rng, tmp_path):
    content = wav_bytes(noise(rng, 16000))
    path = tmp_path / "a.wav"
    path.write_bytes(content)

    def run(**stdin):
        done = subprocess.run([sys.executable, "-c", READ, source], capture_output=True, timeout=60, **stdin)
        assert done.stderr == b""
        return done.stdout.decode().strip()

    assert run(input=content) == "16000"
    with path.open("rb") as opened:
        assert run(stdin=opened) == "16000"
    with open("/dev/zero", "rb") as zeros:
        assert "not in a format that can be read" in run(stdin=zeros)


def test_file_object_that_fails_is_refused_with_its_reason(rng):
    content = wav_bytes(noise(rng, 160000))

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    refuse(Failing(content), "cannot be read: Input/output error")


def test_parts_of_files_are_one_file(rng):
    contents = [rng.bytes(1000) for _ in range(3)]
    parts = [
        (io.BytesIO(content), int(first), 700 - 200 * i)
        for i, (content, first) in enumerate(zip(contents, (0, 5, 300), strict=True))
    ]
    whole = b"".join(content.getvalue()[first : first + size] for content, first, size in parts)
    joined = io.BufferedReader(FileParts([*parts, (io.BytesIO(), 0, 0)]), 64)
    assert joined.read() == whole
    assert joined.seek(0, io.SEEK_END) == len(whole)
    assert joined.read(1) == b""
    for _ in range(100):
        first, size = rng.integers(0, len(whole), 2)
        joined.seek(first)
        assert joined.read(size) == whole[first : first + size]
    assert io.BufferedReader(FileParts([])).read() == b""


def test_marker_is_found_across_the_pieces_that_are_read(rng, monkeypatch):
    monkeypatch.setattr(pipes, "_COPY_BYTES", 10)
    content = rng.choice(np.frombuffer(b"abc", np.uint8), 3000).tobytes()
    for marker in (b"abca", b"aaaaa", b"abcabcab", b"xyz"):
        for start in range(0, 3000, 37):
            assert find_next(io.BytesIO(content), marker, start) == content.find(marker, start)
