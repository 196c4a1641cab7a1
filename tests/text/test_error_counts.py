from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import jiwer
import numpy as np

from speechrnn.text.scores import (
    ErrorCounts,
    align_words,
    character_errors,
    count_errors,
    word_errors,
)


def _random_sentences(count: int, vocabulary: Sequence[str], *, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list(vocabulary), size=rng.integers(1, 9))) for _ in range(count)]


def _brute_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    @cache
    def distance(m: int, n: int) -> int:
        if m == 0 or n == 0:
            return m + n
        changed = reference[m - 1] != hypothesis[n - 1]
        return min(distance(m - 1, n) + 1, distance(m, n - 1) + 1, distance(m - 1, n - 1) + changed)

    return distance(len(reference), len(hypothesis))


REFERENCES = _random_sentences(200, ["a", "b", "cc", "dü"], seed=1)
HYPOTHESES = _random_sentences(200, ["a", "b", "cc", "dü"], seed=2)


def test_errors_are_the_minimum_number_of_edits() -> None:
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        counts = word_errors(reference, hypothesis)
        reference_words, hypothesis_words = reference.split(), hypothesis.split()
        assert counts.errors == _brute_distance(reference_words, hypothesis_words)
        assert counts.length == len(reference_words)
        assert counts.insertions - counts.deletions == len(hypothesis_words) - len(reference_words)


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


def test_alignment_contains_both_texts_and_the_counted_errors() -> None:
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        steps = align_words(reference, hypothesis)
        assert " ".join(word for _, word, _ in steps if word is not None) == reference
        assert " ".join(word for _, _, word in steps if word is not None) == hypothesis
        assert all((expected == found) == (operation == "equal") for operation, expected, found in steps)
        operations = [operation for operation, _, _ in steps]
        counts = word_errors(reference, hypothesis)
        assert operations.count("substitute") == counts.substitutions
        assert operations.count("delete") == counts.deletions
        assert operations.count("insert") == counts.insertions
