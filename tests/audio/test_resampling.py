"""From one rate to another: what is kept, what is said, what is refused."""

import math

import numpy as np
import pytest
from recordings import noise, refuse, tone, wav_bytes, write

from speechrnn.audio.files import audio_info, read_audio
from speechrnn.audio.resampling import StreamingResampler, resample, resampled_length
from speechrnn.errors import AudioError


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 8000)])
def test_resampling_keeps_frequency_and_amplitude(from_rate, to_rate):
    resampled = read_audio(tone(1.0, from_rate), input_rate=from_rate, sample_rate=to_rate)
    assert resampled.sample_rate == to_rate
    assert resampled.samples.dtype == np.float32
    expected = tone(1.0, to_rate)
    middle = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(resampled.samples[middle], expected[middle], rtol=0, atol=1e-3)


def test_resampling_removes_frequencies_above_the_new_nyquist_frequency():
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


def test_streaming_resampler_that_rounds_otherwise_is_trimmed_or_padded(monkeypatch):
    for excess in (-2, 1):
        resampler = StreamingResampler(2, 1)
        resampler.feed(np.zeros(0, np.float32))

        class Stream:
            def resample_chunk(self, samples, last=False, excess=excess):
                return np.ones((50 + excess) * last, np.float32)

        resampler._stream = Stream()
        assert len(resampler.feed(np.zeros(100, np.float32))) == 0
        assert len(resampler.flush()) == 50


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 8000), (11025, 16000), (16000 * 1.1, 16000), (8000, 8000)],
)
def test_pieces_of_any_length_give_the_samples_of_the_whole(rng, from_rate, to_rate):
    for count in (0, 1, 777, int(6 * from_rate)):
        samples = noise(rng, count)
        whole = resample(samples, from_rate, to_rate)
        for longest in (7, 1000, 3 * int(from_rate)):
            if count > 1000 * longest:
                continue
            resampler, pieces, first = StreamingResampler(from_rate, to_rate), [], 0
            while first < count:
                last = first + int(rng.integers(0 if first else 1, longest + 1))
                pieces.append(resampler.feed(samples[first:last]))
                first = last
            np.testing.assert_array_equal(np.concatenate([*pieces, resampler.flush()]), whole)
            assert {piece.dtype for piece in pieces} <= {np.dtype(np.float32)}


@pytest.mark.parametrize(("from_rate", "lag_seconds"), [(44100, 0.05), (48000, 0.05), (8000, 0.12)])
def test_resampler_lags_by_no_more_than_it_says(from_rate, lag_seconds):
    resampler, num_given = StreamingResampler(from_rate, 16000), 0
    for number in range(1, 200):
        num_given += len(resampler.feed(np.zeros(from_rate // 100, np.float32)))
        assert number / 100 - lag_seconds <= num_given / 16000 <= number / 100


def test_resampler_refuses_samples_after_the_end():
    for from_rate in (8000, 16000):
        resampler = StreamingResampler(from_rate, 16000)
        resampler.flush()
        with pytest.raises(AudioError, match="was flushed: its recording has ended"):
            resampler.feed(np.zeros(10, np.float32))
        with pytest.raises(AudioError, match="was flushed"):
            resampler.flush()


@pytest.mark.parametrize("rates", [(0, 8000), (8000, 0), (-1, 8000), (8000, math.inf), (math.nan, 8000)])
def test_resampling_refuses_impossible_rates(rates):
    with pytest.raises(AudioError, match="positive"):
        resample(np.zeros(4, np.float32), *rates)
    with pytest.raises(AudioError, match="positive"):
        StreamingResampler(*rates)


def test_resampling_is_logged_for_verbose_output_only(caplog):
    caplog.set_level("DEBUG", "speechrnn")
    read_audio(tone(0.1, 44100), input_rate=44100, sample_rate=16000, name="a.wav")
    read_audio(tone(0.1, 16000), input_rate=16000, sample_rate=16000, name="b.wav")
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert logged == [("DEBUG", "a.wav: resampled from 44100 Hz to 16000 Hz")]


@pytest.mark.parametrize(
    "rate", [0, -16000, 16000.5, "16 kHz", math.nan, 1, 999, 2_000_000, pytest.param(10**400, id="10**400")]
)
def test_rate_that_is_not_an_integer_in_range_is_refused(rate):
    pattern = "sample rate .*; give a whole number of Hz from 1000 to 1000000"
    refuse(np.full(100, 0.5), pattern, input_rate=rate)
    refuse(wav_bytes(tone(0.1, 16000)), pattern, sample_rate=rate)


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_header_with_an_impossible_rate_is_refused(rate):
    """A header that says 1 Hz once became 6.9 hours and 7.9 GB at the model's rate."""
    content = wav_bytes(tone(0.1, 16000), rate)
    refuse(content, rf"a\.wav: its header says {rate} Hz, expected 1000 to 1000000", name="a.wav", sample_rate=16000)
    with pytest.raises(AudioError, match="its header says"):
        audio_info(content)


def test_file_read_with_another_rate_than_its_own_is_refused(tmp_path):
    path = write(tmp_path, "pcm16.wav", tone(0.1, 16000))
    refuse(path, "header says 16000 Hz, not 8000", input_rate=8000)
    assert read_audio(path, input_rate=16000).sample_rate == 16000
