import builtins
import io
import logging
import math
import os
import struct
import subprocess
import sys
import threading
import wave

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.audio import files
from speechrnn.audio.files import AudioInfo, audio_info, read_audio
from speechrnn.audio.resampling import resample, resampled_length
from speechrnn.errors import AudioError

FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "float.wav": ("WAV", "FLOAT"),
    "pcm16.flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.opus": ("OGG", "OPUS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}
EXACT = {"pcm16.wav": 2.0**-15, "pcm24.wav": 2.0**-23, "float.wav": 0.0, "pcm16.flac": 2.0**-15}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def fresh_announcements(monkeypatch):
    monkeypatch.setattr(files, "_announced_rates", set())


def tone(seconds, rate, hz=440.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(rng, count, amplitude=0.1):
    return (amplitude * rng.standard_normal(count)).clip(-0.9, 0.9).astype(np.float32)


def write(folder, file_name, samples, rate=16000, **options):
    container, subtype = FORMATS[file_name]
    path = folder / file_name
    soundfile.write(path, samples, rate, format=container, subtype=subtype, **options)
    return path


def wav_bytes(samples, rate=16000, subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def with_wav_sizes(content, *, riff, data):
    return content[:4] + struct.pack("<I", riff) + content[8:40] + struct.pack("<I", data) + content[44:]


def without_mp3_length_header(content):
    """Drop the first MPEG frame, in which the encoder wrote how long the file is."""
    return content[content.index(content[:2], 4) :]


def without_flac_length(content):
    """What a FLAC encoder leaves that writes to a pipe: the 36-bit number of samples is 0."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


def refuse(source, pattern, **options):
    """Check that the recording is refused in one line that matches."""
    with pytest.raises(AudioError, match=pattern) as caught:
        read_audio(source, **options)
    assert "\n" not in str(caught.value)


# What a user has


@pytest.mark.parametrize("file_name", FORMATS)
def test_every_format_gives_back_what_was_written(tmp_path, file_name):
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


def test_tensor_gives_what_the_array_gives(rng):
    samples = noise(rng, 100)
    for tensor in (torch.from_numpy(samples), torch.from_numpy(samples).double().requires_grad_()):
        np.testing.assert_array_equal(read_audio(tensor, input_rate=8000).samples, samples)
    assert read_audio(torch.tensor([0.5, -1.0], dtype=torch.bfloat16), input_rate=8000).samples.tolist() == [0.5, -1.0]
    assert read_audio(torch.tensor([16384], dtype=torch.int16), input_rate=8000).samples.tolist() == [0.5]


def test_shorter_axis_of_an_array_is_the_channels(rng):
    stereo = noise(rng, 200).reshape(2, 100)
    np.testing.assert_allclose(read_audio(stereo, input_rate=8000).samples, stereo.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(read_audio(stereo.T, input_rate=8000).samples, stereo.mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(read_audio(stereo.T, input_rate=8000, channel=1).samples, stereo[1])


def test_result_can_be_written_to_even_where_the_array_cannot():
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
def test_channel_that_is_not_there_is_refused_with_their_number(tmp_path, rng, channel):
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
    monkeypatch.setattr(files, "_BLOCK_FRAMES", 997)
    np.testing.assert_array_equal(read_audio(path, channel=1).samples, expected[:, 1])


def test_part_of_an_array_is_its_slice(rng):
    samples = noise(rng, 8000)
    part = read_audio(samples, input_rate=8000, start=0.25, seconds=0.5).samples
    np.testing.assert_array_equal(part, samples[2000:6000])


def test_part_reaching_a_rounding_past_the_end_is_what_is_there():
    content = wav_bytes(tone(1.0, 16000))
    assert len(read_audio(content, start=0.5, seconds=0.55).samples) == 8000


@pytest.mark.parametrize(
    ("part", "pattern"),
    [
        ({"start": 1.0}, r"start at 1\.0 s, but it ends at 1\.00 s"),
        ({"start": 0.5, "seconds": 0.7}, r"wanted up to 1\.20 s, but it ends at 1\.00 s"),
        ({"start": -0.1}, "start at -0.1 s"),
        ({"start": math.nan}, "start at nan s"),
        ({"seconds": 0.0}, "0.0 s asked for"),
        ({"seconds": math.inf}, "inf s asked for"),
    ],
)
def test_part_that_is_not_there_is_refused(part, pattern):
    refuse(wav_bytes(tone(1.0, 16000)), pattern, name="b12", **part)


# Rates


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 8000)])
def test_resampling_keeps_frequency_and_amplitude(from_rate, to_rate):
    resampled = read_audio(tone(1.0, from_rate), input_rate=from_rate, sample_rate=to_rate)
    assert resampled.sample_rate == to_rate
    assert resampled.samples.dtype == np.float32
    expected = tone(1.0, to_rate)
    middle = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(resampled.samples[middle], expected[middle], rtol=0, atol=1e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    above_half = resample(tone(1.0, 16000, hz=6000.0), 16000, 8000)
    assert np.abs(above_half[800:-800]).max() < 1e-3


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_and_rate_change_in_one_pass(speed):
    faster = resample(tone(2.0, 44100, hz=300.0), 44100 * speed, 16000)
    assert len(faster) == pytest.approx(32000 / speed, abs=1)
    middle = faster[1600:-1600]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 16000 / len(middle) == pytest.approx(300.0 * speed, abs=16000 / len(middle))


def test_resampled_length_is_the_length_that_comes_out(rng):
    rates = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]
    pairs = [(a, b) for a in rates for b in (8000, 16000, 44100)]
    pairs += [(rate * speed, rate) for rate in (8000, 16000, 44100) for speed in (0.9, 0.95, 1.05, 1.1, 1.0371)]
    pairs += [(44100 * 1.1, 16000), (22050 * 0.9, 16000)]
    for from_rate, to_rate in pairs:
        for count in [*range(30), 999, 1000, 1001, 4096, *rng.integers(1000, 60000, 5)]:
            resampled = resample(np.zeros(count, np.float32), from_rate, to_rate)
            assert len(resampled) == resampled_length(count, from_rate, to_rate)
            assert abs(len(resampled) - count * to_rate / from_rate) <= 0.5


def test_resampled_length_by_hand():
    assert [resampled_length(n, 16000, 8000) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert resampled_length(44100, 44100, 16000) == 16000
    assert resampled_length(16000, 16000 * 1.1, 16000) == 14545


def test_resampler_that_rounds_otherwise_is_trimmed_or_padded(monkeypatch):
    for excess in (-2, 1):
        monkeypatch.setattr("soxr.resample", lambda x, a, b, quality, e=excess: np.ones(50 + e, np.float32))
        assert len(resample(np.zeros(100, np.float32), 2, 1)) == 50


@pytest.mark.parametrize("rates", [(0, 8000), (8000, 0), (-1, 8000), (8000, math.inf), (math.nan, 8000)])
def test_resampling_refuses_impossible_rates(rates):
    with pytest.raises(AudioError, match="positive"):
        resample(np.zeros(4, np.float32), *rates)


def test_resampling_is_said_once_for_each_pair_of_rates(caplog):
    for _ in range(3):
        read_audio(tone(0.1, 44100), input_rate=44100, sample_rate=16000, name="a.wav")
        read_audio(tone(0.1, 8000), input_rate=8000, sample_rate=16000, name="b.wav")
        read_audio(tone(0.1, 16000), input_rate=16000, sample_rate=16000, name="c.wav")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("a.wav: resampled from 44100 Hz to 16000 Hz")
    assert said[1].startswith("b.wav: resampled from 8000 Hz to 16000 Hz")


@pytest.mark.parametrize("rate", [0, -16000, 16000.5, "16 kHz", math.nan])
def test_rate_that_is_not_a_positive_whole_number_is_refused(rate):
    refuse(np.full(100, 0.5), "sample rate", input_rate=rate)
    refuse(wav_bytes(tone(0.1, 16000)), "sample rate", sample_rate=rate)


def test_file_read_with_another_rate_than_its_own_is_refused(tmp_path):
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))
    refuse(path, "header says 16000 Hz, not 8000", input_rate=8000)
    assert read_audio(path, input_rate=16000).sample_rate == 16000


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


# Headers


@pytest.mark.parametrize("file_name", FORMATS)
def test_info_is_what_was_written(tmp_path, rng, file_name):
    path = write(tmp_path, file_name, noise(rng, 24000).reshape(12000, 2), rate=8000)
    expected = AudioInfo(seconds=1.5, sample_rate=8000, channels=2, frames=12000)
    assert audio_info(path) == audio_info(path.read_bytes()) == expected


def test_info_of_a_bad_file_is_refused(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        audio_info(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="no samples"):
        audio_info(wav_bytes(np.zeros(0)))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36])
def test_wav_of_unknown_length_is_read_to_its_end(size):
    content = wav_bytes(tone(0.5, 16000))
    streamed = with_wav_sizes(content, riff=size, data=size)
    np.testing.assert_array_equal(read_audio(streamed).samples, read_audio(content).samples)
    assert audio_info(streamed).frames == 8000


def test_wav_that_says_it_is_empty_keeps_its_metadata_out_of_the_sound():
    content = wav_bytes(np.zeros(0)) + b"LIST" + struct.pack("<I", 400) + bytes(400)
    refuse(with_wav_sizes(content, riff=len(content) - 8, data=0), "no samples")


def test_wav_chunks_around_the_samples_are_skipped():
    content = wav_bytes(tone(0.5, 16000))
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    padded = content[:36] + extra + content[36:] + extra
    padded = padded[:4] + struct.pack("<I", len(padded) - 8) + padded[8:]
    np.testing.assert_array_equal(read_audio(padded).samples, read_audio(content).samples)
    refuse(padded[: -len(extra) - 4000], "cut off: 0.12 s are missing of the 0.50 s")


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path, rng):
    content = write(tmp_path, "pcm16.flac", noise(rng, 24000)).read_bytes()
    streamed = without_flac_length(content)
    np.testing.assert_array_equal(read_audio(streamed).samples, read_audio(content).samples)
    assert audio_info(streamed).frames == 24000
    refuse(streamed, "cut off: ends at 1.50 s", start=1.0, seconds=1.0)


def test_mp3_without_length_header_is_counted_not_estimated(tmp_path, rng):
    """Silence first: libsndfile takes its low bit rate for that of all, and expects 2.6 times the samples."""
    samples = np.concatenate([np.zeros(80000, np.float32), noise(rng, 80000)])
    path = write(tmp_path, "layer3.mp3", samples, bitrate_mode="VARIABLE", compression_level=0.3)
    bare = without_mp3_length_header(path.read_bytes())
    with soundfile.SoundFile(io.BytesIO(bare)) as sound:
        assert sound.frames > 1.5 * 160000
    waveform = read_audio(bare)
    assert len(waveform.samples) == pytest.approx(160000, abs=3 * 1152)
    assert audio_info(bare).frames == len(waveform.samples)


def test_mp3_whose_sound_would_be_left_unread_is_refused(tmp_path, rng):
    """Noise first: from its high bit rate libsndfile expects, and gives, only part of the samples."""
    samples = np.concatenate([noise(rng, 160000), np.zeros(160000, np.float32)])
    path = write(tmp_path, "layer3.mp3", samples, bitrate_mode="VARIABLE", compression_level=0.3)
    bare = without_mp3_length_header(path.read_bytes())
    refuse(bare, r"\d+ bytes of sound unread")
    refuse(path.read_bytes() * 2, r"\d+ bytes of sound unread")
    with pytest.raises(AudioError, match="bytes of sound unread"):
        audio_info(bare)


def test_tags_around_an_mp3_are_not_taken_for_sound(tmp_path, rng):
    content = write(tmp_path, "layer3.mp3", noise(rng, 32000)).read_bytes()
    id3v2 = b"ID3\x04\0\0" + bytes([0, 0, 78, 16]) + bytes(10000)
    tagged = id3v2 + content + b"TAG" + bytes(125) + b"APETAGEX" + bytes(9000)
    assert len(read_audio(tagged).samples) == audio_info(tagged).frames == 32000
    refuse((id3v2 + content)[:-2000], "cut off")


# Bad input


def test_missing_file_is_named(tmp_path):
    refuse(tmp_path / "none.wav", r"none\.wav: no such file")
    refuse("a\0b.wav", "cannot be opened")


def test_folder_is_refused(tmp_path):
    refuse(tmp_path, "a folder, not a recording")
    refuse("", "no such file")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))
    really_open = builtins.open

    def deny(file, *args, **options):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return really_open(file, *args, **options)

    monkeypatch.setattr(builtins, "open", deny)
    refuse(path, r"pcm16\.wav: permission denied")


@pytest.mark.parametrize("content", [b"", bytearray(), memoryview(b"")])
def test_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty.wav"
    path.write_bytes(content)
    refuse(path, r"empty\.wav: empty, 0 bytes")
    refuse(content, "empty, 0 bytes")
    refuse(io.BytesIO(content), "empty, 0 bytes")


def test_header_without_samples_is_refused(tmp_path):
    path = tmp_path / "header.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    refuse(path, r"header\.wav: no samples, only a header")
    refuse(path.read_bytes()[:30], "damaged or cut off: begins as WAV")


@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_truncated_file_is_refused(tmp_path, rng, file_name, share):
    path = write(tmp_path, file_name, noise(rng, 48000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuse(path, f"{file_name}: .*cut off")


def test_flac_is_refused_wherever_it_was_cut(tmp_path, rng):
    content = write(tmp_path, "pcm16.flac", noise(rng, 24000)).read_bytes()
    for end in rng.integers(4, len(content) - 1, 40):
        refuse(content[:end], "cut off")


def test_truncated_wav_says_how_much_is_missing(tmp_path):
    content = wav_bytes(tone(2.0, 16000))
    refuse(content[: 44 + 16000], "1.50 s are missing of the 2.00 s", name="b12.wav")
    with pytest.raises(AudioError, match=r"1\.50 s are missing"):
        audio_info(content[: 44 + 16000])


def test_wav_whose_header_counts_itself_is_read():
    content = wav_bytes(tone(0.5, 16000))
    assert len(read_audio(with_wav_sizes(content, riff=16036, data=16044)).samples) == 8000


def test_ogg_page_without_its_header_is_cut_off(tmp_path, rng):
    content = write(tmp_path, "vorbis.ogg", noise(rng, 48000)).read_bytes()
    refuse(content[: content.rindex(b"OggS") + 10], "cut off")


@pytest.mark.parametrize("file_name", ["talk.wav", "talk.mp3", "talk.flac"])
def test_text_named_as_sound_is_refused(tmp_path, file_name):
    path = tmp_path / file_name
    path.write_text("Überall the words that were said, but not the sound.\n" * 40)
    refuse(path, f"{file_name}: holds text, not sound")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4 or M4A"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "WebM"),
        (b"\xff\xf1\x50\x80", "raw AAC"),
        (b"#!AMR\n", "AMR"),
    ],
)
def test_format_that_only_ffmpeg_reads_is_named_with_what_to_do(head, kind):
    refuse(head + bytes(1000), rf"{kind}.*ffmpeg -i")


def test_unknown_bytes_are_refused(tmp_path, rng):
    refuse(b"\x01" + rng.bytes(2000), "not in a format that can be read.*ffmpeg")
    path = tmp_path / "sound.raw"
    path.write_bytes(b"\x01" + rng.bytes(2000))
    refuse(path, "not in a format that can be read")


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
    refuse(np.zeros(100), "ndarray: an array does not know its sample rate")
    refuse(torch.zeros(100), "Tensor: an array does not know its sample rate")


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_, np.complex64, np.str_, object])
def test_array_of_samples_without_scale_is_refused(dtype):
    refuse(np.zeros(100, dtype), "no agreed scale", input_rate=8000)


@pytest.mark.parametrize("source", [None, 3, [0.1, 0.2], {"path": "a.wav"}])
def test_what_is_no_recording_is_refused(source):
    refuse(source, "not a recording; give a path")


def test_file_object_that_cannot_give_bytes_is_refused(tmp_path):
    refuse(io.StringIO("words"), "open it with mode 'rb'")
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))
    closed = path.open("rb")
    closed.close()
    refuse(closed, "closed file")
