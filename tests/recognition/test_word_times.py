"""Words begin and end where there is sound around the peaks of their tokens."""

import numpy as np
import pytest

from speechrnn.recognition.word_times import find_loud, measure_levels, place_words

RATE = 8000


def sound(*stretches, background=0.0):
    """Noise bursts: (start, end) in seconds, two seconds long."""
    rng = np.random.default_rng(0)
    samples = background * rng.standard_normal(2 * RATE)
    for start, end in stretches:
        samples[round(start * RATE) : round(end * RATE)] += 0.3 * rng.standard_normal(
            round(end * RATE) - round(start * RATE)
        )
    return samples.astype(np.float32)


def assert_close(found, expected):
    assert [time for pair in found for time in pair] == pytest.approx([t for pair in expected for t in pair], abs=0.011)


@pytest.mark.parametrize("background", [0.0, 0.01])
@pytest.mark.parametrize(
    "peaks", [[(0.5, 0.53), (1.2, 1.5)], [(0.28, 0.31), (1.01, 1.04)], [(0.78, 0.81), (1.58, 1.6)]]
)
def test_words_extend_over_the_sound_around_their_peaks(background, peaks):
    """Peaks within, a little before and a little after."""
    samples = sound((0.3, 0.7), (1.1, 1.55), background=background)
    assert_close(place_words(peaks, samples, RATE), [(0.3, 0.7), (1.1, 1.55)])


def test_a_pause_ends_a_word_and_a_plosive_closure_does_not():
    samples = sound((0.3, 0.5), (0.58, 0.8), (1.2, 1.4))
    assert_close(place_words([(0.4, 0.43), (1.3, 1.33)], samples, RATE), [(0.3, 0.8), (1.2, 1.4)])
    assert_close(place_words([(0.7, 0.73)], samples, RATE), [(0.3, 0.8)])
    assert_close(place_words([(0.4, 1.33)], samples, RATE), [(0.3, 1.4)])  # one word, with peaks on both sides


def test_a_longer_pause_ends_a_word_within_its_reach():
    """A noise a quarter of a second before or after a word is not part of it; that a stop is, the test above shows."""
    samples = sound((0.35, 0.4), (0.65, 0.85), (1.1, 1.15))
    assert_close(place_words([(0.7, 0.73)], samples, RATE), [(0.65, 0.85)])
    assert_close(place_words([(0.8, 0.83)], samples, RATE), [(0.65, 0.85)])


def test_words_without_a_pause_are_split_at_the_quietest_frame():
    samples = sound((0.3, 1.2))
    samples[round(0.74 * RATE) : round(0.78 * RATE)] *= 0.2
    [(_, first), (second, _)] = place_words([(0.5, 0.53), (0.9, 0.93)], samples, RATE)
    assert first == pytest.approx(0.76, abs=0.03)
    assert first <= second


def test_times_are_in_order_and_within_the_recording_for_any_peaks():
    rng = np.random.default_rng(1)
    samples = sound((0.2, 0.5), (0.8, 0.9), (1.3, 1.99), background=0.001)
    for _ in range(200):
        cuts = np.sort(rng.uniform(0, 2.1, 8)).tolist()
        times = [
            time for pair in place_words(list(zip(cuts[::2], cuts[1::2], strict=True)), samples, RATE) for time in pair
        ]
        assert times == sorted(times)
        assert 0.0 <= times[0] <= times[-1] <= 2.0


def test_distant_sound_does_not_extend_a_word():
    samples = sound((0.1, 0.3), (1.5, 1.7))
    [(start, end)] = place_words([(1.6, 1.63)], samples, RATE)
    assert (start, end) == pytest.approx((1.5, 1.7), abs=0.011)


@pytest.mark.parametrize("samples", [np.zeros(2 * RATE, np.float32), sound((0.0, 2.0))])
def test_without_contrast_times_stay_at_the_peaks(samples):
    peaks = [(0.2, 0.3), (0.5, 3.0)]
    assert place_words(peaks, samples, RATE) == [(0.2, 0.3), (0.5, 2.0)]


def test_zero_words_and_zero_samples_are_accepted():
    assert place_words([], sound((0.3, 0.5)), RATE) == []
    assert place_words([(0.0, 0.03)], np.zeros(0, np.float32), RATE) == [(0.0, 0.0)]
    assert not find_loud(measure_levels(np.zeros(0, np.float32), RATE)).size


def test_the_level_of_a_sine_is_exact():
    sine = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
    assert measure_levels(sine, RATE) == pytest.approx(np.full(100, 20 * np.log10(0.5 / np.sqrt(2))), abs=0.01)
