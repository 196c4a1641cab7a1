"""Containers that only FFmpeg reads: the samples and times of the original; what is damaged is kept and counted."""

import re
import struct
import sys

import numpy as np
import pytest
from foreign_files import write_container
from recordings import refuse, wav_bytes
from scipy import signal

from speechrnn.audio.blocks import open_blocks
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo

pytest.importorskip("av")

RATE = 16000
FORMATS = {
    # ending: container, encoder, rate, samples by which FFmpeg gives the sound late (it keeps the encoder's delay)
    "m4a": ("mp4", "aac", 16000, 0),
    "mkv": ("matroska", "aac", 44100, 0),
    "webm": ("webm", "libopus", 48000, 0),
    "wma": ("asf", "wmav2", 16000, -512),
    "amr": ("amr", "libopencore_amrnb", 8000, 40),
    "aac": ("adts", "aac", 16000, 1024),
    "avi": ("avi", "ac3", 48000, 256),
    "flv": ("flv", "aac", 44100, 1024),
    "wma.wav": ("wav", "wmav2", 16000, -512),  # a codec that libsndfile does not read in a WAV
}


def make_noise(seconds, rate, seed=7):
    """Noise without the highest frequencies, which lossy formats keep."""
    rng = np.random.default_rng(seed)
    return (0.1 * signal.lfilter(*signal.butter(3, 0.3), rng.standard_normal(round(seconds * rate)))).astype(np.float32)


@pytest.fixture(scope="module", params=FORMATS)
def recording(request, tmp_path_factory):
    container, codec, rate, lag = FORMATS[request.param]
    original = make_noise(3.0, rate)
    path = tmp_path_factory.mktemp("foreign") / f"talk.{request.param}"
    return write_container(path, container, [(codec, original)], rate=rate), original, rate, lag


def find_lag(samples, original):
    """Samples by which a recording is late, from the peak of the cross-correlation."""
    correlation = signal.correlate(samples, original, method="fft")
    return int(np.argmax(correlation)) - (len(original) - 1)


def test_sound_is_that_of_the_original(recording):
    path, original, rate, lag = recording
    waveform = read_audio(path, check_levels=False)
    assert (waveform.sample_rate, waveform.samples.dtype) == (rate, np.float32)
    assert find_lag(waveform.samples, original) == lag
    assert 0 <= len(waveform.samples) + 512 - len(original) <= 2048 + 512  # whole frames of the codec
    shift = max(0, lag)
    both = [waveform.samples[rate + shift : 2 * rate + shift], original[rate - min(0, lag) : 2 * rate - min(0, lag)]]
    assert np.corrcoef(*both)[0, 1] > (0.5 if path.suffix == ".amr" else 0.9)  # which is made for speech


def test_memory_path_blocks_and_parts_give_the_same_samples(recording):
    path, _, rate, _ = recording
    whole = read_audio(path).samples
    np.testing.assert_array_equal(read_audio(path.read_bytes()).samples, whole)
    assert audio_info(path) == AudioInfo(rate, 1, len(whole))
    for sample_rate in (rate, 11025):
        expected = read_audio(path, sample_rate=sample_rate).samples
        for block_seconds in (0.03, 1.0, 100.0):
            with open_blocks(path, sample_rate=sample_rate, block_seconds=block_seconds) as blocks:
                np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)
    first, count = round(0.7 * rate), round(1.1 * rate)
    np.testing.assert_array_equal(read_audio(path, start=0.7, seconds=1.1).samples, whole[first : first + count])
    np.testing.assert_array_equal(read_audio(path, start=0.7).samples, whole[first:])


def test_channels_are_mixed_or_chosen(tmp_path):
    left, right = make_noise(1.0, RATE), make_noise(1.0, RATE, seed=8)
    path = write_container(tmp_path / "a.m4a", "mp4", [("aac", np.stack([left, right]))])
    first, second = (read_audio(path, channel=channel).samples for channel in (0, 1))
    assert np.corrcoef(first[: len(left)], left)[0, 1] > 0.9
    assert np.corrcoef(second[: len(right)], right)[0, 1] > 0.9
    np.testing.assert_allclose(read_audio(path).samples, (first + second) / 2, atol=1e-6)
    refuse(path, "no channel 2; it has 2", channel=2)


@pytest.mark.parametrize(("ending", "container"), [("mp4", "mp4"), ("mkv", "matroska")])
def test_times_of_a_video_are_those_of_a_player(tmp_path, ending, container):
    """Its sound begins later than its pictures."""
    original = make_noise(2.0, RATE)
    path = write_container(tmp_path / f"a.{ending}", container, [("aac", original)], video_seconds=5.0, delay=1.5)
    samples = read_audio(path).samples
    assert find_lag(samples, original) == pytest.approx(1.5 * RATE, abs=16)
    assert not samples[: round(1.4 * RATE)].any()
    with open_blocks(path, block_seconds=0.1) as blocks:
        np.testing.assert_array_equal(np.concatenate(list(blocks)), samples)


def test_damaged_time_stamps_do_not_become_hours_of_silence(tmp_path):
    original = make_noise(1.0, RATE)
    path = write_container(tmp_path / "a.aac.mkv", "matroska", [("aac", original)], video_seconds=1.5, delay=0.0)
    content = bytearray(path.read_bytes())
    clusters = [found.start() for found in re.finditer(b"\x1f\x43\xb6\x75", content)]
    at = content.index(b"\xe7", clusters[0]) + 1  # the cluster's time stamp, in milliseconds
    size = content[at] & 0x0F
    content[at + 1 : at + 1 + size] = (10**9).to_bytes(8, "big")[-size:]
    assert len(read_audio(bytes(content)).samples) < 10 * RATE


def test_default_one_of_several_tracks_is_read_with_a_warning(tmp_path, caplog):
    first, second = make_noise(2.0, RATE), make_noise(1.0, RATE, seed=8)
    path = write_container(tmp_path / "a.mkv", "matroska", [("aac", first), ("aac", second)], video_seconds=2.0)
    assert find_lag(read_audio(path).samples, first) == 0
    (record,) = caplog.records
    assert re.search(
        r"a\.mkv: 2 audio tracks; number 1 is read, the default one; to read .* 0:a:1", record.getMessage()
    )
    assert not hasattr(record, "is_incomplete")


def test_video_without_sound_is_refused(tmp_path):
    refuse(write_container(tmp_path / "a.mp4", "mp4", [], video_seconds=1.0), "a.mp4: no audio track, only video; give")


# Damage


CUTS = {
    "m4a": ("mp4", "aac", {"options": {"movflags": "faststart"}}),
    "mp4": ("mp4", "aac", {"options": {"movflags": "faststart"}, "video_seconds": 6.0}),
    "mkv": ("matroska", "aac", {"video_seconds": 6.0}),
    "webm": ("webm", "libopus", {"rate": 48000}),
    "wma": ("asf", "wmav2", {}),
    "avi": ("avi", "ac3", {"rate": 48000}),
    "flv": ("flv", "aac", {"rate": 44100}),
}


@pytest.mark.parametrize("ending", CUTS)
def test_what_is_there_of_a_truncated_file_is_read_with_a_warning(tmp_path, caplog, capfd, ending):
    container, codec, options = CUTS[ending]
    rate, promised = options.get("rate", RATE), options.get("video_seconds", 4.0)
    path = write_container(tmp_path / f"a.{ending}", container, [(codec, make_noise(4.0, rate))], **options)
    content = path.read_bytes()
    whole = read_audio(content).samples
    assert caplog.records == []
    for share in (0.4, 0.7):
        caplog.clear()
        samples = read_audio(content[: round(share * len(content))], name="a", check_levels=False).samples
        np.testing.assert_array_equal(samples[:-4096], whole[: len(samples) - 4096])
        (record,) = caplog.records
        found = re.fullmatch(
            r"a: cut off: ([\d.]+) s of ([\d.]+) s are missing; the rest is read; copy it again", record.getMessage()
        )
        assert float(found[1]) == pytest.approx(promised - len(samples) / rate, abs=0.15)
        assert float(found[2]) == pytest.approx(promised, abs=0.15)
        assert record.is_incomplete
    refuse(content[: len(content) // 3], "cut off, or its sound is shorter: it ends at", start=3.0, seconds=0.5)
    assert capfd.readouterr().err == ""


def test_sound_that_is_shorter_than_the_video_is_not_cut_off(tmp_path, caplog):
    path = write_container(tmp_path / "a.mkv", "matroska", [("aac", make_noise(1.0, RATE))], video_seconds=5.0)
    assert len(read_audio(path).samples) < 1.1 * RATE
    assert caplog.records == []
    refuse(path, "its sound is shorter: it ends at 1.0", start=2.0, seconds=1.0)
    refuse(path, "its sound is shorter: it ends at 1.0", start=2.0)


def test_mp4_without_its_index_is_refused(tmp_path):
    content = write_container(tmp_path / "a.mp4", "mp4", [("aac", make_noise(1.0, RATE))]).read_bytes()
    for end in (20, 200, len(content) // 2):
        refuse(content[:end], "talk: damaged or cut off: begins as an MP4 or M4A file does", name="talk")


def test_video_of_ten_gigabytes_that_was_cut_off_is_read(tmp_path, caplog):
    options = {"movflags": "faststart"}
    path = write_container(
        tmp_path / "a.mp4", "mp4", [("aac", make_noise(4.0, RATE))], video_seconds=6.0, options=options
    )
    content = bytearray(path.read_bytes())
    at = content.index(b"mdat") - 4
    assert content[at - 4 : at] == b"free"  # FFmpeg leaves the space for a 64-bit size
    content[at - 8 : at + 8] = struct.pack(">I4sQ", 1, b"mdat", 10 * 2**30)
    samples = read_audio(bytes(content[: len(content) // 2]), name="a").samples
    assert 1.0 * RATE < len(samples) < 3.0 * RATE
    assert "are missing; the rest is read" in caplog.text


def test_packets_that_cannot_be_decoded_are_counted_and_times_are_kept(tmp_path, caplog):
    original = make_noise(4.0, RATE)
    path = write_container(tmp_path / "a.m4a", "mp4", [("aac", original)])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    samples = read_audio(bytes(content), name="a", check_levels=False).samples
    (record,) = caplog.records
    assert re.fullmatch(r"a: damaged: its sound cannot be decoded in \d+ places; copy it again", record.getMessage())
    assert record.is_incomplete
    assert find_lag(original, samples[-RATE:]) == len(samples) - RATE


# Without the extra


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "an MP4 or M4A file"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "a WebM or Matroska file"),
        (b"\xff\xf1\x50\x80", "a raw AAC file"),
        (b"#!AMR\n", "an AMR file"),
        (b"0&\xb2u\x8ef\xcf\x11", "a Windows Media file"),
    ],
)
def test_missing_extra_is_named(monkeypatch, head, kind):
    content = head + bytes(1000)
    if "AMR" not in kind:  # which has frames of zeros
        refuse(content, f"talk: damaged or cut off: begins as {kind} does", name="talk")
    monkeypatch.setitem(sys.modules, "av", None)
    refuse(content, rf"^talk is {kind}; install its reader: pip install 'speechrnn\[video\]'$", name="talk")


def test_other_formats_are_refused_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    refuse(b"\x01\x02" * 1000, r"not in a format that can be read .*with speechrnn\[video\] m4a")


def test_files_of_soundfile_do_not_need_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(read_audio(wav_bytes(make_noise(0.1, RATE))).samples) == 1600


def test_damaged_files_of_soundfile_are_not_given_to_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "speechrnn.audio.foreign", None)
    for head in (b"fLaC", b"ID3\x04", b"\xff\xfb\x90\x64"):
        refuse(head + np.random.default_rng(0).bytes(5000), "damaged or cut off: begins as")


def test_wav_with_a_chunk_beyond_its_end_is_not_given_to_ffmpeg(monkeypatch):
    """FFmpeg allocated 1.4 GB for a damaged chunk that stated this size."""
    monkeypatch.setitem(sys.modules, "speechrnn.audio.foreign", None)
    content = wav_bytes(make_noise(0.1, RATE))
    chunk = b"LIST" + struct.pack("<I", 1_400_000_000) + b"INFO"
    refuse(content[:36] + chunk + content[36:], "damaged or cut off: begins as WAV does")


def mutate(content, rng):
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 5, 50]))):
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    kind, at = rng.integers(4), int(rng.integers(len(changed)))
    if kind == 1:
        del changed[at:]
    elif kind == 2:
        del changed[at : at + int(rng.integers(1, 2000))]
    elif kind == 3:
        changed[at:at] = rng.bytes(int(rng.integers(1, 2000)))
    return bytes(changed)


@pytest.mark.parametrize("number", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused_in_one_line(recording, capfd, number):
    path, original, _, _ = recording
    content, rng = path.read_bytes(), np.random.default_rng(5)
    errors = []
    for _ in range(number):
        try:
            assert len(read_audio(mutate(content, rng), check_levels=False).samples) < 100 * len(original)
        except AudioError as error:
            errors.append(str(error))
    assert not any("\n" in error for error in errors)
    assert capfd.readouterr().err == ""
