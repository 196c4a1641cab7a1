"""Rates of sets of utterances and their intervals: by hand, and by simulation."""

from __future__ import annotations

import json

import jiwer
import numpy as np
import pytest
from interval_coverage import (
    FACTORS,
    SPEAKERS,
    cover_difference,
    cover_rate,
    list_settings,
)
from scipy import stats

from speechrnn.errors import CorpusError
from speechrnn.text.scores import ErrorCounts, difference_interval, error_rate_interval, score


def make_counts(errors, length=10):
    return [ErrorCounts(int(number), length=length) for number in errors]


def test_zero_errors_give_the_exact_binomial_bound() -> None:
    interval = error_rate_interval([ErrorCounts(length=8)] * 30, None)
    # 240 words: (1 - p)^240 = 0.025 at ln 40 / 240 = 0.015370 - 0.015370^2 / 2 = 0.015252, to the second order.
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.015252, abs=2e-6)
    assert interval.method == "exact binomial bound over 240 words at zero errors, taken as independent"
    assert error_rate_interval([ErrorCounts(length=1)], None, confidence=0.9).high == pytest.approx(0.95)


def test_equal_rates_give_the_clopper_pearson_interval() -> None:
    interval = error_rate_interval(make_counts([3] * 20), None)
    exact = stats.binomtest(60, 200).proportion_ci(method="exact")
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))


def test_unequal_rates_give_the_clopper_pearson_interval_of_fewer_words() -> None:
    """Two speakers' worth of arithmetic by hand: three speakers of 10 words with 1, 2 and 6 errors."""
    interval = error_rate_interval(make_counts([1, 2, 6]), ["a", "b", "c"])
    # Without one speaker: 8/20, 7/20, 3/20; their mean is 0.3, the squares 0.01, 0.0025 and 0.0225 add to 0.035.
    variance = 0.035 * 2 / 3
    words = 0.3 * 0.7 / variance * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 2)) ** 2
    low, high = stats.beta.ppf(0.025, 0.3 * words, 0.7 * words + 1), stats.beta.ppf(0.975, 0.3 * words + 1, 0.7 * words)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == "Korn-Graubard over 3 speakers"


def test_a_simple_random_sample_has_about_the_exact_interval() -> None:
    errors = np.random.default_rng(0).integers(0, 2, 2000)
    interval = error_rate_interval(make_counts(errors, 1), None)
    exact = stats.binomtest(int(errors.sum()), 2000).proportion_ci(method="exact")
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high), abs=2e-4)


def test_speakers_are_the_units_if_three_are_known() -> None:
    counts = make_counts([number % 2 for number in range(40)], 5)

    def name(speakers):
        return error_rate_interval(counts, speakers).method

    assert name([f"speaker{number % 12}" for number in range(40)]) == "Korn-Graubard over 12 speakers"
    assert name([number % 3 for number in range(40)]) == "Korn-Graubard over 3 speakers"
    assert (
        name([number % 2 for number in range(40)])
        == "Korn-Graubard over 40 utterances of 2 speakers, not over speakers"
    )
    assert name(None) == "Korn-Graubard over 40 utterances of unknown speakers, not over speakers"
    some = [*(number % 12 for number in range(38)), None, None]
    assert name(some) == "Korn-Graubard over 12 speakers and 2 utterances of unknown speaker"


def test_unknown_speakers_are_not_one_speaker() -> None:
    """Each utterance of unknown speaker is a unit of its own, as if it had a speaker of its own."""
    rng = np.random.default_rng(3)
    counts, others = make_counts(rng.integers(0, 5, 40)), make_counts(rng.integers(0, 5, 40))
    unknown = [*"abc", *[None] * 37]
    alone, together = [*"abc", *range(37)], [*"abc", *["d"] * 37]
    for find in (error_rate_interval, lambda *given: difference_interval(others, *given)):
        ends = {(found.low, found.high) for found in (find(counts, unknown), find(counts, alone))}
        assert len(ends) == 1
        joined = find(counts, together)
        assert (joined.low, joined.high) not in ends


def test_the_order_of_utterances_does_not_change_the_interval() -> None:
    rng = np.random.default_rng(4)
    counts = [ErrorCounts(int(rng.integers(3)), length=int(rng.integers(3, 9))) for _ in range(60)]
    speakers = [("corpus", number % 12) for number in range(60)]
    added = [sum(counts[number::12], ErrorCounts()) for number in range(12)]
    by_speaker, by_sum = error_rate_interval(counts, speakers), error_rate_interval(added, list("lkjihgfedcba"))
    assert (by_speaker.low, by_speaker.high) == pytest.approx((by_sum.low, by_sum.high))


def test_speakers_of_unequal_size_count_as_fewer() -> None:
    """By hand: 900, 50 and 50 words are as many as 1.23 equal speakers, so the least of one degree of freedom."""
    errors, lengths = [90, 1, 8], [900, 50, 50]
    interval = error_rate_interval(
        [ErrorCounts(*pair) for pair in zip(errors, [0] * 3, [0] * 3, lengths, strict=True)], list("abc")
    )
    left_out = np.array([9 / 100, 98 / 950, 91 / 950])
    variance = ((left_out - left_out.mean()) ** 2).sum() * 2 / 3
    words = 0.099 * 0.901 / variance * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 1)) ** 2
    assert words < 1000
    assert interval.low == pytest.approx(stats.beta.ppf(0.025, 0.099 * words, 0.901 * words + 1))
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, 0.099 * words + 1, 0.901 * words))


@pytest.mark.parametrize("length", [1, 10])
def test_rates_above_one_have_an_interval_around_them(length) -> None:
    counts = [ErrorCounts(insertions=int(number), length=length) for number in (9, 14, 20, 11, 16, 13)]
    interval = error_rate_interval(counts, list("abcdef"))
    rate = 83 / (6 * length)
    assert 0.3 * rate < interval.low < rate < interval.high < 1.5 * rate
    every = error_rate_interval(make_counts([10] * 6), list("abcdef"))
    assert (round(every.low, 3), every.high) == (0.94, 1.0)  # 0.025 ** (1 / 60)


def test_one_utterance_with_errors_has_no_informative_interval() -> None:
    interval = error_rate_interval([ErrorCounts(1, length=4)], None)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert interval.method == "none possible over 1 utterance of unknown speakers, not over speakers"
    assert error_rate_interval([ErrorCounts(insertions=9, length=4)], None).high == 2.25
    paired = difference_interval([ErrorCounts(1, length=4)], [ErrorCounts(2, length=4)], None)
    assert (paired.low, paired.high) == (-1.0, 1.0)


def test_utterances_without_words_do_not_matter() -> None:
    counts = [ErrorCounts(insertions=1), ErrorCounts(1, length=2), ErrorCounts(length=2)]
    for interval in (error_rate_interval(counts, None), error_rate_interval(counts[:2], None)):
        assert np.isfinite([interval.low, interval.high]).all()
        assert interval.low < interval.high


def test_a_paired_interval_by_hand() -> None:
    before, after = make_counts([100, 200, 300], 1000), make_counts([90, 150, 210], 1000)
    interval = difference_interval(before, after, list("abc"))
    # Differences of the speakers: -0.01, -0.05, -0.09; of equal sizes, so their mean's standard error is 0.04 / sqrt 3.
    width = stats.t.ppf(0.975, 2) * 0.04 / 3**0.5
    assert (interval.low, interval.high) == pytest.approx((-0.05 - width, -0.05 + width))
    assert interval.method == "paired t over 3 speakers"


def test_a_consistent_difference_is_significant_and_noise_is_not() -> None:
    before, better = make_counts([3] * 40), make_counts([2] * 40)
    interval = difference_interval(before, better, None)
    # No variance between utterances: 40 words differ, and one more is reckoned with, of 400.
    width = stats.norm.ppf(0.975) * 41**0.5 / 400
    assert (interval.low, interval.high) == pytest.approx((-0.1 - width, -0.1 + width))
    assert interval.method == "paired t over 40 utterances of unknown speakers, not over speakers"
    mixed = make_counts(np.random.default_rng(0).integers(1, 6, 40))
    interval = difference_interval(before, mixed, [f"s{n % 20}" for n in range(40)])
    assert interval.low < 0 < interval.high
    assert "20 speakers" in interval.method


def test_the_difference_of_two_systems_without_errors_has_an_interval() -> None:
    interval = difference_interval(make_counts([0] * 30), make_counts([0] * 30), None)
    assert interval.low < 0 < interval.high


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    """Utterances differ much from each other and each is a little better: the paired interval excludes zero."""
    rng = np.random.default_rng(1)
    hard = rng.integers(0, 60, 50)
    before, after = make_counts(hard + 2, 100), make_counts(hard, 100)
    own = [error_rate_interval(counts, None) for counts in (before, after)]
    assert own[0].low < own[1].high  # they overlap
    assert difference_interval(before, after, None).high < 0


def test_a_comparison_needs_the_same_utterances() -> None:
    with pytest.raises(CorpusError, match="1 and 2 utterances; a paired comparison needs the same ones"):
        difference_interval([ErrorCounts(length=1)], [ErrorCounts(length=1)] * 2, None)


@pytest.mark.parametrize("speakers", [3, 8])
@pytest.mark.parametrize("is_unequal", [False, True])
def test_intervals_cover_the_true_rate_from_three_speakers_on(speakers, is_unequal) -> None:
    """A small part of the simulation below; 300 sets, so that 95 % is within 3 points either way."""
    setting = {"rate": 0.2, "variation": 0.6, "is_unequal": is_unequal, "sets": 300}
    assert cover_rate(speakers, **setting) >= 0.92
    assert 0.92 <= cover_difference(speakers, factor=0.8, **setting) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("speakers", SPEAKERS)
def test_coverage_of_the_rate(speakers) -> None:
    for setting in list_settings():
        covered = cover_rate(speakers, sets=1000, **setting)
        errors = 100 * speakers * setting["rate"]
        assert 0.92 <= covered <= (0.98 if errors >= 100 and speakers > 3 and setting["variation"] > 0.5 else 1.0), (
            setting
        )


@pytest.mark.slow
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("speakers", SPEAKERS)
def test_coverage_of_the_difference(speakers, factor) -> None:
    for setting in list_settings():
        covered = cover_difference(speakers, factor=factor, sets=1000, **setting)
        assert covered >= (0.92 if factor == 1.0 or setting["variation"] < 1.0 else 0.87), setting


def test_score_by_hand() -> None:
    references = ["seven three", "oh one", "two"]
    hypotheses = ["seven three", "oh on", "two two"]
    result = score(references, hypotheses)
    assert (result.utterances, result.words) == (3, 5)
    assert (result.substitutions, result.deletions, result.insertions) == (1, 0, 1)
    assert result.wer == 2 / 5
    assert result.cer == (1 + 4) / (11 + 6 + 3)
    assert result.sentence_error_rate == 2 / 3
    assert result.wer_low <= result.wer <= result.wer_high
    assert result.interval_method == "Korn-Graubard over 3 utterances of unknown speakers, not over speakers"


def test_score_equals_jiwer_over_a_corpus() -> None:
    rng = np.random.default_rng(1)
    texts = [[" ".join(rng.choice(["a", "b", "cc"], size=rng.integers(1, 9))) for _ in range(200)] for _ in "ab"]
    result = score(*texts)
    assert result.wer == pytest.approx(jiwer.wer(*texts))
    assert result.cer == pytest.approx(jiwer.cer(*texts))


def test_a_score_can_be_written_as_json() -> None:
    result = score(["a b", "c"], ["a", "c"], speakers=["x", None])
    assert json.loads(json.dumps(result.to_dict()))["deletions"] == 1


def test_empty_hypotheses_and_some_empty_references_are_scored() -> None:
    result = score(["a b", ""], ["", "c"])
    assert (result.deletions, result.insertions, result.words, result.wer) == (2, 1, 2, 1.5)


@pytest.mark.parametrize("references", [[], ["", " "]])
def test_references_without_a_word_are_refused(references: list[str]) -> None:
    with pytest.raises(CorpusError, match="no word in the references"):
        score(references, ["a"] * len(references))


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(CorpusError, match="2 references but 1 hypotheses"):
        score(["a", "b"], ["a"])
    with pytest.raises(CorpusError, match="1 utterances but 2 speakers"):
        score(["a"], ["a"], speakers=["x", "y"])
