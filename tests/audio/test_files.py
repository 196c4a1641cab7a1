"""Whatever a user has becomes a waveform, in whole or in part; what cannot is refused in one line."""

import io
import logging
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch
from recordings import FORMATS, noise, refuse, tone, wav_bytes, write

from speechrnn.audio import containers, files
from speechrnn.audio.files import read_audio
from speechrnn.types import Waveform

EXACT = {"pcm16.wav": 2.0**-15, "pcm24.wav": 2.0**-23, "float.wav": 0.0, "pcm16.flac": 2.0**-15}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# What a user has


@pytest.mark.parametrize("file_name", FORMATS)
def test_every_format_is_read_as_it_was_written(tmp_path, file_name):
    original = tone(1.0, 16000)
    waveform = read_audio(write(tmp_path, file_name, original))
    assert (waveform.sample_rate, waveform.samples.dtype, waveform.samples.shape) == (16000, np.float32, (16000,))
    if file_name in EXACT:
        np.testing.assert_allclose(waveform.samples, original, rtol=0, atol=EXACT[file_name])
    else:
        error = waveform.samples[1600:-1600] - original[1600:-1600]
        assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(original**2))


@pytest.mark.parametrize("file_name", FORMATS)
def test_memory_and_path_give_the_same_samples(tmp_path, rng, file_name):
    path = write(tmp_path, file_name, noise(rng, 8000))
    content = path.read_bytes()
    expected = read_audio(path).samples
    pipe = io.BufferedReader(OneWay(content))
    with path.open("rb") as opened:
        sources = [str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), opened, pipe]
        for source in sources:
            np.testing.assert_array_equal(read_audio(source).samples, expected)


class OneWay(io.RawIOBase):
    """A file object that cannot seek, as a socket or a pipe."""

    def __init__(self, content):
        self._rest = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._rest.readinto(buffer)


def test_file_object_is_read_from_its_beginning_each_time():
    content = io.BytesIO(wav_bytes(tone(0.1, 16000)))
    assert len(read_audio(content).samples) == len(read_audio(content).samples) == 1600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_named_pipe_is_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(wav_bytes(tone(0.1, 16000)),))
    writer.start()
    assert len(read_audio(pipe).samples) == 1600
    writer.join()


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.float32, [0.5, -1.0], [0.5, -1.0]),
        (np.float64, [0.5, -1.0], [0.5, -1.0]),
        (np.float16, [0.5, -1.0], [0.5, -1.0]),
        (np.int16, [16384, -32768], [0.5, -1.0]),
        (">i2", [16384, -32768], [0.5, -1.0]),
        (np.int32, [2**30, -(2**31)], [0.5, -1.0]),
        (np.int8, [64, -128], [0.5, -1.0]),
        (np.uint8, [192, 0], [0.5, -1.0]),
    ],
)
def test_array_samples_are_scaled_to_one(dtype, values, expected):
    waveform = read_audio(np.array(values, dtype), input_rate=16000)
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.tolist() == expected


def test_a_tensor_is_read_like_an_array(rng):
    samples = noise(rng, 100)
    for tensor in (torch.from_numpy(samples), torch.from_numpy(samples).double().requires_grad_()):
        np.testing.assert_array_equal(read_audio(tensor, input_rate=8000).samples, samples)
    assert read_audio(torch.tensor([0.5, -1.0], dtype=torch.bfloat16), input_rate=8000).samples.tolist() == [0.5, -1.0]
    assert read_audio(torch.tensor([16384], dtype=torch.int16), input_rate=8000).samples.tolist() == [0.5]


def test_a_waveform_needs_no_sample_rate(rng):
    samples = noise(rng, 800)
    assert read_audio(Waveform(samples, 8000)).sample_rate == 8000
    np.testing.assert_array_equal(read_audio(Waveform(samples, 8000), input_rate=16000).samples, samples)
    assert len(read_audio(Waveform(samples, 8000), sample_rate=16000).samples) == 1600
    refuse(Waveform(samples[:0], 8000), "recording in memory: ")


def test_the_shorter_axis_of_an_array_holds_the_channels(rng):
    stereo = noise(rng, 200).reshape(2, 100)
    np.testing.assert_allclose(read_audio(stereo, input_rate=8000).samples, stereo.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(read_audio(stereo.T, input_rate=8000).samples, stereo.mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(read_audio(stereo.T, input_rate=8000, channel=1).samples, stereo[1])


def test_the_result_is_writable_even_if_the_array_is_not():
    frozen = np.frombuffer(np.full(100, 0.5, np.float32).tobytes(), np.float32)
    assert read_audio(frozen, input_rate=8000).samples.flags.writeable


def test_reading_an_array_does_not_import_torch_soundfile_or_soxr():
    code = (
        "import sys, numpy; from speechrnn.audio.files import read_audio; "
        "read_audio(numpy.full(9, 0.5), input_rate=8000); "
        "print([m for m in ('torch', 'soundfile', 'soxr', 'librosa', 'lhotse') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Channels


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_averaged_or_chosen(tmp_path, rng, channels):
    frames = noise(rng, 400 * channels).reshape(400, channels)
    path = write(tmp_path, "float.wav", frames)
    np.testing.assert_allclose(read_audio(path).samples, frames.mean(axis=1), atol=1e-7)
    for channel in range(channels):
        np.testing.assert_array_equal(read_audio(path, channel=channel).samples, frames[:, channel])


@pytest.mark.parametrize("channel", [2, -1])
def test_a_missing_channel_is_refused_with_the_number_of_channels(tmp_path, rng, channel):
    path = write(tmp_path, "float.wav", noise(rng, 200).reshape(100, 2))
    refuse(path, r"float\.wav: no channel -?\d; it has 2", channel=channel)
    refuse(np.zeros((2, 100)), "it has 2", channel=channel, input_rate=8000)


# Parts


@pytest.mark.parametrize("file_name", FORMATS)
def test_part_equals_slice_of_the_whole(tmp_path, rng, file_name):
    path = write(tmp_path, file_name, noise(rng, 48000))
    whole = read_audio(path).samples
    assert len(whole) == 48000
    for first, count in [
        (0, 1000),
        (1, 16000),
        (777, 4321),
        (31999, 8000),
        (47990, 10),
        *rng.integers(1, 23000, (12, 2)),
    ]:
        part = read_audio(path, start=first / 16000, seconds=count / 16000).samples
        np.testing.assert_allclose(part, whole[first : first + count], rtol=0, atol=2e-7)
    np.testing.assert_allclose(read_audio(path, start=2.5).samples, whole[40000:], rtol=0, atol=2e-7)


def test_part_of_an_mp3_does_not_depend_on_the_frames_before_it(tmp_path, rng):
    """An MPEG frame borrows bits from earlier ones: decoding that begins at the wanted one starts with garbage."""
    path = write(tmp_path, "layer3.mp3", noise(rng, 160000))
    whole = read_audio(path).samples
    for first in rng.integers(0, 159000, 250):
        part = read_audio(path, start=first / 16000, seconds=0.05).samples
        np.testing.assert_allclose(part, whole[first : first + 800], rtol=0, atol=2e-7)


@pytest.mark.parametrize("file_name", FORMATS)
def test_reading_in_blocks_changes_nothing(tmp_path, rng, monkeypatch, file_name):
    path = write(tmp_path, file_name, noise(rng, 32000).reshape(16000, 2))
    expected, _ = soundfile.read(path, dtype="float32")
    monkeypatch.setattr(files, "_BLOCK_SECONDS", 997 / 16000)
    np.testing.assert_array_equal(read_audio(path, channel=1).samples, expected[:, 1])


def test_part_of_an_array_is_its_slice(rng):
    samples = noise(rng, 8000)
    part = read_audio(samples, input_rate=8000, start=0.25, seconds=0.5).samples
    np.testing.assert_array_equal(part, samples[2000:6000])


def test_part_that_exceeds_the_end_by_rounding_is_shortened():
    content = wav_bytes(tone(1.0, 16000))
    assert len(read_audio(content, start=0.5, seconds=0.55).samples) == 8000


@pytest.mark.parametrize(
    ("part", "pattern"),
    [
        ({"start": 1.0}, r"start at 1\.0 s, but it ends at 1\.00 s"),
        ({"start": 0.5, "seconds": 0.7}, r"wanted up to 1\.20 s, but it ends at 1\.00 s"),
        ({"start": -0.1}, "start at -0.1 s"),
        ({"start": math.nan}, "start at nan s"),
        ({"seconds": 0.0}, "0.0 s requested"),
        ({"seconds": math.inf}, "inf s requested"),
    ],
)
def test_part_outside_the_recording_is_refused(part, pattern):
    refuse(wav_bytes(tone(1.0, 16000)), pattern, name="b12", **part)


# Levels


def test_silence_draws_a_warning_with_the_peak(caplog):
    read_audio(np.full(100, 0.3), input_rate=8000, name="flat.wav")
    read_audio(np.array([2e-5, -2e-5] * 50), input_rate=8000, name="call.wav")
    assert [record.getMessage() for record in caplog.records] == [
        "flat.wav: silent: peak 0 (all samples are equal)",
        "call.wav: silent: peak 0.00002 (-94 dBFS)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_quiet_and_normalised_speech_draws_no_warning(caplog, rng):
    read_audio(noise(rng, 8000, amplitude=0.003), input_rate=8000)
    loud = noise(rng, 8000)
    read_audio(loud / np.abs(loud).max(), input_rate=8000)
    assert caplog.records == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "ULAW", "FLOAT"])
def test_clipping_draws_a_warning_with_the_share(caplog, subtype):
    overdriven = tone(1.0, 16000, hz=1000.0, amplitude=4.0).clip(-1, 1)
    read_audio(wav_bytes(overdriven, subtype=subtype), name="call.wav")
    # |sin| passes 1/4 at samples 1 to 7 of every 8.
    assert [record.getMessage() for record in caplog.records] == ["call.wav: clipped: 87.5 % of samples at full scale"]


def test_peaks_beyond_full_scale_do_not_hide_clipping(caplog):
    samples = np.tile([0.0, 1.0, 0.0, -1.0], 250)
    samples[[1, 3]] = 1.3, -1.3
    read_audio(samples, input_rate=8000, name="lossy.mp3")
    assert [record.getMessage() for record in caplog.records] == ["lossy.mp3: clipped: 50.0 % of samples at full scale"]


def test_levels_can_be_left_unchecked(caplog):
    read_audio(np.zeros(100), input_rate=8000, check_levels=False)
    assert caplog.records == []


def test_unscaled_samples_are_refused():
    refuse(np.array([0.0, 20143.0]), "samples reach 20143", input_rate=8000)


# Bad input


def test_missing_file_is_named(tmp_path):
    refuse(tmp_path / "none.wav", r"none\.wav: no such file")
    refuse("a\0b.wav", "cannot be opened")


def test_folder_is_refused(tmp_path):
    refuse(tmp_path, "a folder, not a recording")
    refuse("", "no such file")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))

    def deny(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(containers, "_WatchedFile", deny)
    refuse(path, r"pcm16\.wav: permission denied")


@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_failed_read_is_refused_with_its_reason(tmp_path, rng, monkeypatch, capfd, file_name, share):
    path = write(tmp_path, file_name, noise(rng, 160000))
    readable_bytes = int(share * path.stat().st_size)

    class FailingFile(io.FileIO):
        """A file whose bytes cannot be read from some position on."""

        def readinto(self, buffer):
            if self.tell() >= readable_bytes:
                raise OSError(5, "Input/output error")
            return super().readinto(memoryview(buffer)[: readable_bytes - self.tell()])

        def readall(self):
            raise OSError(5, "Input/output error")

    class WatchedFile(containers._WatchedFile, FailingFile):
        pass

    monkeypatch.setattr(containers, "_WatchedFile", WatchedFile)
    refuse(path, rf"{file_name}: cannot be read: Input/output error")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", bytearray(), memoryview(b"")])
def test_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty.wav"
    path.write_bytes(content)
    refuse(path, r"empty\.wav: empty, 0 bytes")
    refuse(content, "empty, 0 bytes")
    refuse(io.BytesIO(content), "empty, 0 bytes")


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0), (), (2, 3, 4)])
def test_array_without_samples_or_of_another_shape_is_refused(shape):
    refuse(np.zeros(shape), "no samples|shape", input_rate=16000)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_samples_that_are_not_finite_are_refused(bad):
    samples = tone(1.0, 8000)
    samples[[4000, 6000]] = bad
    refuse(samples, "2 samples are NaN or infinite, the first at 0.500 s", input_rate=8000)
    refuse(wav_bytes(samples, 8000, subtype="FLOAT"), "2 samples are NaN or infinite")
    refuse(np.array([0.5, 1e300]), "1 samples are NaN or infinite", input_rate=8000)


def test_array_without_rate_is_refused():
    refuse(np.zeros(100), "ndarray: an array has no sample rate")
    refuse(torch.zeros(100), "Tensor: an array has no sample rate")


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_, np.complex64, np.str_, object])
def test_array_of_samples_without_scale_is_refused(dtype):
    refuse(np.zeros(100, dtype), "no standard scale", input_rate=8000)


@pytest.mark.parametrize("source", [None, 3, [0.1, 0.2], {"path": "a.wav"}])
def test_sources_of_other_types_are_refused(source):
    refuse(source, "not a recording; give a path")


def test_file_object_that_cannot_give_bytes_is_refused(tmp_path):
    refuse(io.StringIO("words"), "open it with mode 'rb'")
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))
    closed = path.open("rb")
    closed.close()
    refuse(closed, "closed file")
