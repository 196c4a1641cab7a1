"""Speaker statistics drawn in training."""

import numpy as np
import pytest

from speechrnn.training.dataset import SpeakerStatsSampler

SPEAKERS = ["a", "b", None, "a", "b", "a", "c"]


@pytest.fixture
def rows():
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    rows[:, 0] = [10, 20, 30, 40, 0, 60, 0]
    rows[[4, 6], 1:] = 0.0  # two recordings that could not be read
    return rows


def mean_of(rows, chosen):
    weights = rows[chosen, :1].astype(np.float64)
    return np.concatenate([[weights.sum()], (weights * rows[chosen, 1:]).sum(axis=0) / weights.sum()])


def test_without_sampling_all_utterances_of_the_speaker_count(rows):
    sampler = SpeakerStatsSampler(rows, SPEAKERS, seed=1)
    for position in (0, 3, 5):
        np.testing.assert_allclose(sampler.draw(position, None), mean_of(rows, [0, 3, 5]), rtol=1e-5)
    np.testing.assert_allclose(sampler.draw(1, None), rows[1], rtol=1e-5)
    assert not sampler.draw(2, None).any()  # an unknown speaker
    assert not sampler.draw(6, None).any()  # the only utterance could not be read


def test_a_sample_is_zero_or_the_mean_of_some_utterances(rows):
    sampler = SpeakerStatsSampler(rows, SPEAKERS, seed=1)
    drawn = [sampler.draw(0, np.random.default_rng(seed)) for seed in range(400)]
    possible = [mean_of(rows, chosen) for chosen in ([0], [3], [5], [0, 3], [3, 5], [0, 5])]
    seen = [0] * len(possible)
    silent = 0
    for row in drawn:
        assert row.dtype == np.float32
        if not row.any():
            silent += 1
            continue
        [match] = [number for number, each in enumerate(possible) if np.allclose(row, each, rtol=1e-4)]
        seen[match] += 1
    assert 50 < silent < 110  # a fifth
    assert min(seen[:3]) > 30  # each of the three alone
    assert min(seen[3:]) > 10  # and in pairs, the last with the first among them
    np.testing.assert_array_equal(sampler.draw(0, np.random.default_rng(3)), drawn[3])


def test_small_and_large_samples_are_equally_likely():
    rows = np.ones((1000, 2), np.float32)
    sampler = SpeakerStatsSampler(rows, ["a"] * 1000, seed=0)
    counts = np.array([sampler.draw(5, np.random.default_rng(seed))[0] for seed in range(600)])
    counts = counts[counts > 0]
    for low, high in ((1, 10), (10, 100), (100, 1000)):
        assert 0.25 < np.mean((counts >= low) & (counts < high)) < 0.42
