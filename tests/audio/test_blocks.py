"""Blocks give the samples of the whole, in constant memory, with the same checks."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recordings import FORMATS, noise, tone, wav_bytes, write

from speechrnn.audio.blocks import describe_levels, open_blocks
from speechrnn.audio.files import read_audio
from speechrnn.audio.resampling import resample
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo, Waveform


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def read_blocks(source, **options):
    with open_blocks(source, **options) as blocks:
        return list(blocks), blocks


@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize("sample_rate", [None, 8000])
def test_blocks_of_any_length_are_the_samples_of_the_whole(tmp_path, rng, file_name, sample_rate):
    path = write(tmp_path, file_name, noise(rng, 48000).reshape(24000, 2))
    for part in ({}, {"channel": 1}, {"start": 0.3}, {"start": 0.3, "seconds": 0.5}):
        whole = read_audio(path, sample_rate=sample_rate, **part)
        resampled = resample(read_audio(path, **part).samples, 16000, sample_rate or 16000)
        np.testing.assert_array_equal(whole.samples, resampled)
        for block_seconds in (0.01, float(rng.uniform(0.05, 1)), 10, 1e300):
            pieces, blocks = read_blocks(path, sample_rate=sample_rate, block_seconds=block_seconds, **part)
            np.testing.assert_array_equal(np.concatenate(pieces), whole.samples)
            assert blocks.sample_rate == whole.sample_rate
            assert all(0 < len(piece) <= block_seconds * whole.sample_rate + 1000 for piece in pieces)


def test_arrays_tensors_and_waveforms_come_in_blocks_too(rng):
    samples = noise(rng, 20000)
    stereo = np.stack([samples, -samples], axis=1)
    for source in (samples, torch.from_numpy(samples), Waveform(samples, 16000), (samples * 2**15).astype(np.int16)):
        pieces, blocks = read_blocks(source, input_rate=16000, block_seconds=0.1)
        assert blocks.info == AudioInfo(16000, 1, 20000)
        assert [len(piece) for piece in pieces] == [1600] * 12 + [800]
        np.testing.assert_array_equal(np.concatenate(pieces), read_audio(source, input_rate=16000).samples)
    pieces, _ = read_blocks(stereo, input_rate=16000, channel=1, block_seconds=0.1)
    np.testing.assert_array_equal(np.concatenate(pieces), -samples)


def test_info_is_of_the_source_and_seconds_of_the_part(tmp_path, rng):
    path = write(tmp_path, "pcm16.flac", noise(rng, 32000).reshape(16000, 2))
    _, blocks = read_blocks(path, sample_rate=8000, start=0.25)
    assert (blocks.info, blocks.sample_rate, blocks.seconds) == (AudioInfo(16000, 2, 16000), 8000, 0.75)
    content = path.read_bytes()
    piped = content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]
    pieces, blocks = read_blocks(piped, block_seconds=0.3)
    assert (blocks.info.frames, blocks.seconds) == (0, None)
    assert sum(map(len, pieces)) == 16000


def test_levels_are_reported_once_at_the_end(caplog, rng):
    quiet, loud = np.full(16000, 1e-5), tone(1.0, 16000, amplitude=4.0).clip(-1, 1)
    with open_blocks(np.concatenate([quiet, loud]), input_rate=16000, block_seconds=0.1, name="a.wav") as blocks:
        pieces = iter(blocks)
        for _ in range(20):
            next(pieces)
        assert caplog.records == []
        assert list(pieces) == []
    whole = describe_levels(np.concatenate([quiet, loud]).astype(np.float32))
    assert [record.getMessage() for record in caplog.records] == [f"a.wav: {whole['clipped']}"]
    read_blocks(quiet, input_rate=16000, block_seconds=0.1, name="b.wav")
    assert caplog.records[-1].getMessage() == "b.wav: silent: peak 0 (all samples are equal)"


def test_levels_do_not_depend_on_the_blocks(caplog, rng):
    """The level at which peaks are flat is known only at the end: here it rises from 0.98 to 1."""
    for top in (0.98, 0.985, 0.991, 1.0, 1.3):
        samples = np.sin(np.arange(20000) / 50) * np.linspace(1.0, 1.2, 20000)
        samples = np.minimum(samples, np.linspace(0.9795, min(top, 1.0), 20000)).astype(np.float32)
        samples[-5] = top
        lowest = 0.999 * min(samples.max(), 1.0)
        flat = np.count_nonzero(samples >= lowest) + np.count_nonzero(-samples >= 0.999 * min(-samples.min(), 1.0))
        for block_seconds in (0.01, 0.1, 10):
            caplog.clear()
            read_blocks(samples, input_rate=16000, block_seconds=block_seconds, name="a")
            (record,) = caplog.records
            assert record.getMessage() == f"a: clipped: {100 * flat / 20000:.1f} % of samples at full scale"


def test_samples_that_are_not_finite_are_refused_at_their_block(rng):
    samples = noise(rng, 16000)
    samples[12000] = np.nan
    with open_blocks(samples, input_rate=16000, block_seconds=0.1, name="a") as blocks:
        pieces = iter(blocks)
        assert sum(len(next(pieces)) for _ in range(7)) == 11200
        with pytest.raises(AudioError, match=r"a: 1 samples are NaN or infinite, the first at 0\.750 s"):
            next(pieces)


def test_recording_that_is_cut_off_is_refused_after_its_last_block(tmp_path, rng):
    content = write(tmp_path, "pcm16.flac", noise(rng, 48000)).read_bytes()
    with open_blocks(content[: len(content) // 2], block_seconds=0.1) as blocks:
        pieces = iter(blocks)
        assert sum(len(next(pieces)) for _ in range(5)) == 8000
        with pytest.raises(AudioError, match=r"cut off"):
            list(pieces)


@pytest.mark.parametrize("block_seconds", [0, -1, float("nan")])
def test_blocks_without_duration_are_refused(block_seconds):
    with pytest.raises(AudioError, match="blocks of"):
        read_blocks(np.ones(9), input_rate=8000, block_seconds=block_seconds)


def test_errors_of_the_reader_are_not_taken_for_errors_of_the_file(tmp_path, rng):
    def fail():
        raise BrokenPipeError

    with open_blocks(write(tmp_path, "pcm16.wav", noise(rng, 16000))) as blocks, pytest.raises(BrokenPipeError):
        fail()
    with pytest.raises(BrokenPipeError), open_blocks(tmp_path / "pcm16.wav") as blocks:
        fail()
    assert blocks.sample_rate == 16000


def test_reading_can_stop_early_and_leaves_the_file_object_open(rng):
    file = io.BytesIO(wav_bytes(noise(rng, 160000)))
    with open_blocks(file, block_seconds=0.1) as blocks:
        next(iter(blocks))
    assert not file.closed
    assert len(read_audio(file).samples) == 160000


MEASURE = """
import re, sys
from speechrnn.audio.blocks import open_blocks
with open_blocks(sys.argv[1], sample_rate=16000) as blocks:
    seconds = sum(map(len, blocks)) / 16000
# ru_maxrss includes the memory of the parent before it started this program.
print(seconds, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux")
@pytest.mark.parametrize(
    "file_name",
    ["pcm16.flac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pcm16.wav", "opus.opus", "layer3.mp3"))],
)
def test_memory_does_not_grow_with_the_length(tmp_path, rng, file_name):
    piece = noise(rng, 8000 * 60)
    peaks = []
    for minutes in (1, 20):
        container, subtype = FORMATS[file_name]
        path = tmp_path / f"{minutes}-{file_name}"
        with soundfile.SoundFile(path, "w", 8000, 1, subtype, format=container) as target:
            for _ in range(minutes):
                target.write(piece)
        run = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
        seconds, peak = map(float, run.stdout.split())
        assert seconds == pytest.approx(60 * minutes, abs=0.1)
        peaks.append(peak)
    assert peaks[1] < 1.05 * peaks[0]
