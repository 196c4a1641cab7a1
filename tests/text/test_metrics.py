from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

import jiwer
import numpy as np
import pytest

from speechrnn.errors import CorpusError
from speechrnn.text.metrics import (
    ErrorCounts,
    _resample_rates,
    align_words,
    character_errors,
    count_errors,
    difference_interval,
    error_rate_interval,
    score,
    word_errors,
)


def _random_sentences(count: int, vocabulary: Sequence[str], *, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list(vocabulary), size=rng.integers(1, 9))) for _ in range(count)]


def _brute_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    @cache
    def distance(said: int, heard: int) -> int:
        if said == 0 or heard == 0:
            return said + heard
        changed = reference[said - 1] != hypothesis[heard - 1]
        return min(
            distance(said - 1, heard) + 1, distance(said, heard - 1) + 1, distance(said - 1, heard - 1) + changed
        )

    return distance(len(reference), len(hypothesis))


REFERENCES = _random_sentences(200, ["a", "b", "cc", "dü"], seed=1)
HYPOTHESES = _random_sentences(200, ["a", "b", "cc", "dü"], seed=2)


def test_errors_are_the_fewest_edits() -> None:
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        counts = word_errors(reference, hypothesis)
        said, heard = reference.split(), hypothesis.split()
        assert counts.errors == _brute_distance(said, heard)
        assert counts.length == len(said)
        assert counts.insertions - counts.deletions == len(heard) - len(said)


def test_word_and_character_counts_equal_jiwer() -> None:
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        for ours, theirs in (
            (word_errors(reference, hypothesis), jiwer.process_words(reference, hypothesis)),
            (character_errors(reference, hypothesis), jiwer.process_characters(reference, hypothesis)),
        ):
            counts = (theirs.substitutions, theirs.deletions, theirs.insertions)
            assert (ours.substitutions, ours.deletions, ours.insertions) == counts
            assert ours.length == theirs.hits + theirs.substitutions + theirs.deletions


def test_any_tokens_are_counted() -> None:
    assert count_errors([5, 6, 7], [5, 8]) == ErrorCounts(substitutions=1, deletions=1, insertions=0, length=3)
    assert count_errors([], ["x", "y"]) == ErrorCounts(insertions=2)
    assert count_errors("abc", "") == ErrorCounts(deletions=3, length=3)


def test_runs_of_white_space_are_one_space() -> None:
    assert character_errors(" a  b\n", "a b") == ErrorCounts(length=3)
    assert character_errors("a b", "ab") == ErrorCounts(deletions=1, length=3)


def test_rate_of_an_empty_reference_is_zero_or_infinite() -> None:
    assert ErrorCounts().rate == 0.0
    assert ErrorCounts(insertions=1).rate == float("inf")
    assert (ErrorCounts(insertions=1) + ErrorCounts(length=4)).rate == 0.25


def test_alignment_by_hand() -> None:
    assert align_words("one two three four", "one too three four five") == [
        ("equal", "one", "one"),
        ("substitute", "two", "too"),
        ("equal", "three", "three"),
        ("equal", "four", "four"),
        ("insert", None, "five"),
    ]
    assert align_words("one two", "two") == [("delete", "one", None), ("equal", "two", "two")]
    assert align_words("", "") == []


def test_alignment_spells_both_texts_and_has_the_counted_errors() -> None:
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        steps = align_words(reference, hypothesis)
        assert " ".join(said for _, said, _ in steps if said is not None) == reference
        assert " ".join(heard for _, _, heard in steps if heard is not None) == hypothesis
        assert all((said == heard) == (operation == "equal") for operation, said, heard in steps)
        operations = [operation for operation, _, _ in steps]
        counts = word_errors(reference, hypothesis)
        assert operations.count("substitute") == counts.substitutions
        assert operations.count("delete") == counts.deletions
        assert operations.count("insert") == counts.insertions


def test_zero_errors_give_the_exact_binomial_bound() -> None:
    interval = error_rate_interval([ErrorCounts(length=8)] * 30, None)
    # 240 words: (1 - p)^240 = 0.025 at ln 40 / 240 = 0.015370 - 0.015370^2 / 2 = 0.015252, to the second order.
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.015252, abs=2e-6)
    assert interval.method == "exact binomial bound over 240 words at zero errors"
    assert error_rate_interval([ErrorCounts(length=1)], None, confidence=0.9).high == pytest.approx(0.95)


def test_speakers_are_resampled_where_ten_are_known() -> None:
    counts = [ErrorCounts(substitutions=number % 2, length=5) for number in range(40)]
    speakers = [f"speaker{number % 10}" for number in range(40)]
    assert error_rate_interval(counts, speakers).method == "bootstrap over 10 speakers, 1000 resamples"
    nine = [f"speaker{number % 9}" for number in range(40)]
    assert error_rate_interval(counts, nine, samples=50).method == "bootstrap over 40 utterances, 50 resamples"
    assert error_rate_interval(counts, None).method == "bootstrap over 40 utterances, 1000 resamples"
    some = [*speakers[:38], None, None]
    expected = "bootstrap over 10 speakers and 2 utterances of unknown speaker, 1000 resamples"
    assert error_rate_interval(counts, some).method == expected


def test_resampling_speakers_is_resampling_their_added_counts() -> None:
    rng = np.random.default_rng(4)
    counts = [ErrorCounts(int(rng.integers(3)), length=int(rng.integers(3, 9))) for _ in range(60)]
    speakers = [f"{number % 12:02}" for number in range(60)]
    added = [sum(counts[number::12], ErrorCounts()) for number in range(12)]
    by_speaker, by_sum = error_rate_interval(counts, speakers), error_rate_interval(added, None)
    assert (by_speaker.low, by_speaker.high) == (by_sum.low, by_sum.high)


def test_two_utterances_by_hand() -> None:
    # Resamples have rates 0, 1/2, 1 in proportions 1 : 2 : 1: 40 % around the middle are 1/2, 80 % reach both ends.
    counts = [ErrorCounts(length=10), ErrorCounts(deletions=10, length=10)]
    narrow = error_rate_interval(counts, None, confidence=0.4, samples=4000)
    wide = error_rate_interval(counts, None, confidence=0.8, samples=4000)
    assert (narrow.low, narrow.high) == (0.5, 0.5)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(6)
    counts = [ErrorCounts(int(rng.integers(3)), length=int(rng.integers(3, 30))) for _ in range(50)]
    assert error_rate_interval(counts, None, seed=3) == error_rate_interval(counts, None, seed=3)
    assert error_rate_interval(counts, None, seed=3) != error_rate_interval(counts, None, seed=4)


def test_interval_over_speakers_covers_the_true_rate_and_that_over_utterances_does_not() -> None:
    # 30 speakers, error probabilities from a beta distribution of mean 0.2, 20 utterances of 6 words each.
    rng = np.random.default_rng(8)
    covered = {"speakers": 0, "utterances": 0}
    speakers = [str(number // 20) for number in range(600)]
    for seed in range(100):
        errors = rng.binomial(6, np.repeat(rng.beta(1.0, 4.0, size=30), 20))
        counts = [ErrorCounts(substitutions=int(error), length=6) for error in errors]
        for name, known in (("speakers", speakers), ("utterances", None)):
            interval = error_rate_interval(counts, known, samples=200, seed=seed)
            covered[name] += interval.low <= 0.2 <= interval.high
    assert covered["speakers"] >= 85
    assert covered["utterances"] <= 70


def test_many_utterances_are_resampled_in_parts() -> None:
    rng = np.random.default_rng(9)
    errors = rng.binomial(10, 0.1, size=30_000)
    interval = error_rate_interval([ErrorCounts(int(error), length=10) for error in errors], None, samples=200)
    # Binomial words: the standard error is sqrt(0.1 * 0.9 / 300 000) = 0.000548.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.000548, rel=0.2)
    table = np.ones((30_000, 2), dtype=np.int64)
    assert _resample_rates(table, samples=50, generator=rng).tolist() == [1.0] * 50


def test_one_utterance_with_errors_claims_nothing() -> None:
    interval = error_rate_interval([ErrorCounts(1, length=4)], None)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert "one utterance" in interval.method
    assert error_rate_interval([ErrorCounts(insertions=9, length=4)], None).high == 2.25


def test_resamples_without_a_word_are_passed_over() -> None:
    counts = [ErrorCounts(insertions=1), ErrorCounts(1, length=2)]
    interval = error_rate_interval(counts, None)
    assert np.isfinite([interval.low, interval.high]).all()


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
    assert result.interval_method == "bootstrap over 3 utterances, 1000 resamples"


def test_score_equals_jiwer_over_a_corpus() -> None:
    result = score(REFERENCES, HYPOTHESES)
    assert result.wer == pytest.approx(jiwer.wer(REFERENCES, HYPOTHESES))
    assert result.cer == pytest.approx(jiwer.cer(REFERENCES, HYPOTHESES))


def test_score_is_ready_for_json() -> None:
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


def test_a_difference_that_every_utterance_shows_is_sure_and_one_of_noise_is_not() -> None:
    before = [ErrorCounts(substitutions=3, length=10)] * 40
    better = [ErrorCounts(substitutions=2, length=10)] * 40
    interval = difference_interval(before, better, None)
    assert (interval.low, interval.high) == pytest.approx((-0.1, -0.1))
    assert interval.method == "paired bootstrap over 40 utterances, 1000 resamples"
    rng = np.random.default_rng(0)
    mixed = [ErrorCounts(substitutions=int(n), length=10) for n in rng.integers(1, 6, 40)]
    interval = difference_interval(before, mixed, [f"s{n % 20}" for n in range(40)])
    assert interval.low < 0 < interval.high
    assert "20 speakers" in interval.method


def test_pairing_sees_what_two_intervals_of_their_own_would_not() -> None:
    """Utterances differ much from each other and each is a little better: the paired interval excludes zero."""
    rng = np.random.default_rng(1)
    hard = rng.integers(0, 60, 50)
    before = [ErrorCounts(substitutions=int(n) + 2, length=100) for n in hard]
    after = [ErrorCounts(substitutions=int(n), length=100) for n in hard]
    own = [error_rate_interval(counts, None) for counts in (before, after)]
    assert own[0].low < own[1].high  # they overlap
    assert difference_interval(before, after, None).high < 0


def test_a_comparison_needs_the_same_utterances() -> None:
    with pytest.raises(CorpusError, match="1 and 2 utterances; a paired comparison needs the same ones"):
        difference_interval([ErrorCounts(length=1)], [ErrorCounts(length=1)] * 2, None)
