"""Headers that say too little or too much, files cut off or damaged, and formats that cannot be read."""

import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from recordings import FORMATS, noise, refuse, tone, wav_bytes, write

from speechrnn.audio.files import audio_info, read_audio
from speechrnn.errors import AudioError
from speechrnn.types import AudioInfo


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def with_wav_sizes(content, *, riff, data):
    return content[:4] + struct.pack("<I", riff) + content[8:40] + struct.pack("<I", data) + content[44:]


def without_mp3_length_header(content):
    """Drop the first MPEG frame, in which the encoder wrote how long the file is."""
    return content[content.index(content[:2], 4) :]


def without_flac_length(content):
    """What a FLAC encoder leaves that writes to a pipe: the 36-bit number of samples is 0."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


# Headers


@pytest.mark.parametrize("file_name", FORMATS)
def test_info_is_what_was_written(tmp_path, rng, file_name):
    path = write(tmp_path, file_name, noise(rng, 24000).reshape(12000, 2), rate=8000)
    expected = AudioInfo(sample_rate=8000, channels=2, frames=12000)
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


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("has_riff_size", [True, False])
def test_wav_of_a_crashed_recorder_is_read_to_its_end_with_a_warning(size, has_riff_size, caplog):
    """The header is written when recording starts, and its sizes only when it ends."""
    content = wav_bytes(tone(1.5, 16000))
    crashed = with_wav_sizes(content, riff=len(content) - 8 if has_riff_size else 36, data=size)
    waveform = read_audio(crashed, name="a.wav")
    np.testing.assert_array_equal(waveform.samples, read_audio(content).samples)
    (record,) = caplog.records
    expected = f"a.wav: its header states {size / 32000:.2f} s of sound, 1.50 s follow; all of it is read"
    assert (record.levelname, record.getMessage()) == ("WARNING", expected)


@pytest.mark.parametrize(
    "tail",
    [bytes(20000), b"LIST" + struct.pack("<I", 9000) + bytes(9000), b"\0id3 " + struct.pack("<I", 5) + b"abcde\0"],
    ids=["zeros", "chunk", "padded chunk"],
)
def test_bytes_after_the_samples_of_a_wav_are_ignored(tail, caplog):
    content = wav_bytes(tone(0.5, 16000))
    np.testing.assert_array_equal(read_audio(content + tail).samples, read_audio(content).samples)
    assert caplog.records == []


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ALAW", "ULAW", "G721_32"])
def test_compressed_wav_is_read_whole_and_in_part(subtype):
    content = wav_bytes(tone(2.0, 8000), 8000, subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_array_equal(read_audio(content).samples, expected)
    assert audio_info(content).frames == len(expected)
    np.testing.assert_array_equal(read_audio(content, start=0.5, seconds=0.25).samples, expected[4000:6000])


def test_metadata_of_an_empty_wav_is_not_read_as_samples():
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


def test_mp3_with_audio_that_would_not_be_read_is_refused(tmp_path, rng):
    """Noise first: from its high bit rate libsndfile expects, and gives, only part of the samples."""
    samples = np.concatenate([noise(rng, 160000), np.zeros(160000, np.float32)])
    path = write(tmp_path, "layer3.mp3", samples, bitrate_mode="VARIABLE", compression_level=0.3)
    bare = without_mp3_length_header(path.read_bytes())
    refuse(bare, r"\d+ bytes of sound unread")
    refuse(path.read_bytes() * 2, r"\d+ bytes of sound unread")
    with pytest.raises(AudioError, match="bytes of sound unread"):
        audio_info(bare)


def test_tags_around_an_mp3_are_ignored(tmp_path, rng):
    content = write(tmp_path, "layer3.mp3", noise(rng, 32000)).read_bytes()
    id3v2 = b"ID3\x04\0\0" + bytes([0, 0, 78, 16]) + bytes(10000)
    tagged = id3v2 + content + b"TAG" + bytes(125) + b"APETAGEX" + bytes(9000)
    assert len(read_audio(tagged).samples) == audio_info(tagged).frames == 32000
    refuse((id3v2 + content)[:-2000], "cut off")


# Damage


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
def test_a_text_file_with_an_audio_name_is_refused(tmp_path, file_name):
    path = tmp_path / file_name
    path.write_text("Überall the words that were said, but not the sound.\n" * 40)
    refuse(path, f"{file_name}: contains text, not sound; give a recording")


def test_unknown_bytes_are_refused(tmp_path, rng):
    refuse(b"\x01" + rng.bytes(2000), "not in a format that can be read.*ffmpeg")
    path = tmp_path / "sound.raw"
    path.write_bytes(b"\x01" + rng.bytes(2000))
    refuse(path, "not in a format that can be read")
