"""What libmpg123 prints stays away from standard error; what others print arrives there."""

import os
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from recordings import noise, refuse, tone, wav_bytes, write

from speechrnn.audio import quiet
from speechrnn.audio.files import read_audio
from speechrnn.errors import AudioError


def damaged_mp3s(folder):
    content = write(folder, "layer3.mp3", noise(np.random.default_rng(0), 160000)).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(20):
        start = int(rng.integers(100, len(content) - 2000))
        yield content[:start] + bytes(rng.integers(0, 256, 1500, dtype=np.uint8)) + content[start + 1000 :]


def test_damaged_mp3_prints_nothing(tmp_path, capfd):
    for content in damaged_mp3s(tmp_path):
        try:
            read_audio(content)
        except AudioError:
            continue
    assert capfd.readouterr().err == ""


def test_decoder_does_print_without_the_redirection(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(quiet, "quiet_mpg123", nullcontext())
    for content in damaged_mp3s(tmp_path):
        try:
            read_audio(content)
        except AudioError:
            continue
    assert "libmpg123" in capfd.readouterr().err


def test_lines_of_other_threads_arrive(capfd):
    """Several threads are inside at once, and leave in another order than they entered."""
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        for turn in range(20):
            with quiet.quiet_mpg123:
                os.write(2, b"Note: Trying to resync...\n")
                os.write(2, f"thread {number} turn {turn}\n".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(["after", *(f"thread {n} turn {t}" for n in range(4) for t in range(20))])


def test_redirection_leaves_no_open_file(tmp_path):
    path = write(tmp_path, "layer3.mp3", tone(0.5, 16000))
    read_audio(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        read_audio(path)
        refuse(path.read_bytes()[:100], "cannot be decoded|cut off|not in a format")
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


@pytest.mark.parametrize("file_name", ["pcm16.wav", "pcm16.flac", "vorbis.ogg"])
def test_other_formats_are_not_redirected(tmp_path, monkeypatch, file_name):
    monkeypatch.setattr(quiet, "quiet_mpg123", None)
    assert len(read_audio(write(tmp_path, file_name, tone(0.5, 16000))).samples) == 8000
    assert len(read_audio(wav_bytes(tone(0.5, 16000))).samples) == 8000
