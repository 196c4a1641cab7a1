"""N-gram language models with back-off. Probabilities are natural logarithms.

A model of order n stores the probabilities of some n-grams. For any other it takes the n-gram without its first word,
times the back-off weight of its context.

A model is a few flat arrays, so that tens of millions of n-grams fit into memory. Its rows are its n-grams, those of
one word first, then those of two, and so on. A *state* is a context: 0 is the empty one, state r + 1 the n-gram of row
r. A row's key is the state of its first words times the size of the vocabulary, plus its last word; keys are sorted, so
that a row is found by binary search.

Source:
    S. Katz, "Estimation of probabilities from sparse data for the language model component of a speech recognizer",
    IEEE Transactions on Acoustics, Speech, and Signal Processing, 1987.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from speechrnn.errors import ModelError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
NO_STATE = 0


@dataclass(frozen=True, eq=False)
class NgramModel:
    """An n-gram model.

    Attributes:
        words: The vocabulary, with ``<unk>``, ``<s>`` and ``</s>`` if it has them; a word's id is its index, and the
            row of its unigram.
        starts: First row of each order, and the number of rows; order + 1 numbers.
        keys: Of each row, (R,) int64, sorted.
        log_probs: Of each row, natural log, (R,) float64.
        backoffs: Natural log of the back-off weight of each state, (S,) float64; 0 for state 0.
    """

    words: list[str]
    starts: list[int]
    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray

    @classmethod
    def assemble(cls, words: list[str], ngrams: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> NgramModel:
        """Make a model of n-grams in any order of rows.

        Missing prefixes of n-grams are added, with the probabilities that the model of shorter n-grams gives.

        Args:
            words: The vocabulary.
            ngrams: Word ids of each order n, (K, n) int64; unigrams in the order of the vocabulary.
            known: Of each order, natural logs of probability and back-off weight, (K, 2).
        """
        keys = _make_keys(len(words), ngrams)
        if keys is None:
            ngrams, known = _complete(ngrams, known)
            keys = _make_keys(len(words), ngrams)
            assert keys is not None
        places = [np.argsort(each, kind="stable") for each in keys]
        keys = [each[place] for each, place in zip(keys, places, strict=True)]
        known = [each[place] for each, place in zip(known, places, strict=True)]
        model = cls(
            words,
            [0, *np.cumsum([len(each) for each in keys]).tolist()],
            np.concatenate(keys),
            np.concatenate([each[:, 0] for each in known]),
            np.concatenate([[0.0], *(each[:, 1] for each in known[:-1])]),
        )
        model._check_and_complete()
        return model

    def _check_and_complete(self) -> None:
        """Refuse duplicate n-grams; compute the probabilities of added ones."""
        twice = np.flatnonzero(self.keys[1:] == self.keys[:-1])
        if len(twice):
            raise ModelError(f"a language model: the n-gram {' '.join(self.spell(int(twice[0])))!r} occurs twice")
        for row in np.flatnonzero(np.isnan(self.log_probs)):
            *context, word = self.spell(int(row))
            state = int(self.keys[row]) // len(self.words)
            self.log_probs[row] = self.log_prob(word, context[1:]) + self.backoffs[state]

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams of each order."""
        return [last - first for first, last in zip(self.starts, self.starts[1:], strict=False)]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def spell(self, row: int) -> list[str]:
        """Return the words of a row."""
        return [self.words[word] for word in self.spell_all(row, row + 1)[0]]

    def spell_all(self, first: int, last: int) -> np.ndarray:
        """Return the word ids of rows of one order n, from ``first`` to before ``last``, (last - first, n) int64."""
        columns: list[np.ndarray] = []
        keys = self.keys[first:last]
        while True:
            states, words = np.divmod(keys, len(self.words))
            columns.append(words)
            if not len(states) or states[0] == NO_STATE:
                return np.stack(columns[::-1], axis=1)
            keys = self.keys[states - 1]

    def find_rows(self, states: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Find the rows of words in states, -1 where there is none; all of one shape, int64."""
        asked = states * len(self.words) + words
        rows = np.minimum(np.searchsorted(self.keys, asked), len(self.keys) - 1)
        return np.where(self.keys[rows] == asked, rows, -1)

    def find_state(self, words: Sequence[int]) -> int:
        """Find the state of word ids; -1 if they are not an n-gram shorter than the order."""
        if len(words) >= self.order:
            return -1
        state = NO_STATE
        for word in words:
            state = int(self.find_rows(np.array(state), np.array(word))) + 1
            if state == 0:
                return -1
        return state

    def log_prob(self, word: str, context: Sequence[str] = ()) -> float:
        """Compute the natural log of a word's probability after a context; ``<unk>`` stands for unknown words.

        Args:
            word: A word, or ``</s>``.
            context: The words before it; only the last order - 1 matter.

        Returns:
            The logarithm; minus infinity for an unknown word in a model without ``<unk>``.
        """
        unknown = self.ids.get(UNKNOWN, -1)
        asked = self.ids.get(word, unknown)
        if asked < 0:
            return -math.inf
        before = [self.ids.get(each, unknown) for each in context[max(0, len(context) - self.order + 1) :]]
        penalty = 0.0
        while True:
            state = self.find_state(before)
            if state >= 0:
                row = int(self.find_rows(np.array(state), np.array(asked)))
                if row >= 0:
                    return penalty + float(self.log_probs[row])
                penalty += float(self.backoffs[state])
            before = before[1:]

    def score(self, words: Sequence[str], *, has_begin: bool = True, has_end: bool = True) -> float:
        """Compute the natural log of a sentence's probability.

        Args:
            words: The sentence.
            has_begin: Whether it starts with ``<s>``.
            has_end: Whether ``</s>`` is scored.
        """
        context = [BEGIN, *words] if has_begin else list(words)
        asked = [*words, END] if has_end else list(words)
        offset = len(context) - len(words)
        return sum(self.log_prob(word, context[: place + offset]) for place, word in enumerate(asked))


def _make_keys(size: int, ngrams: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """Keys of the n-grams of each order, in their order of rows; None if a prefix of one is missing."""
    keys = [ngrams[0][:, 0].astype(np.int64)]
    known = [keys[0]]  # sorted keys of each order
    first = [0, size]
    for rows in ngrams[1:]:
        states = np.zeros(len(rows), dtype=np.int64)
        for place, column in enumerate(rows.T[:-1]):
            asked = states * size + column
            at = np.minimum(np.searchsorted(known[place], asked), len(known[place]) - 1)
            if len(rows) and (not len(known[place]) or (known[place][at] != asked).any()):
                return None
            states = first[place] + at + 1
        keys.append(states * size + rows[:, -1])
        known.append(np.sort(keys[-1]))
        first.append(first[-1] + len(rows))
    return keys


def _complete(ngrams: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Add missing prefixes of longer n-grams, with NaN for the probability and back-off weight 1."""
    ngrams, known = list(ngrams), list(known)
    for place in range(len(ngrams) - 1, 1, -1):
        begun, shorter = np.unique(ngrams[place][:, :-1], axis=0), ngrams[place - 1]
        both, inverse = np.unique(np.concatenate([begun, shorter]), axis=0, return_inverse=True)
        has = np.zeros(len(both), dtype=bool)
        has[inverse.ravel()[len(begun) :]] = True
        is_there = has[inverse.ravel()[: len(begun)]]
        if not is_there.all():
            ngrams[place - 1] = np.concatenate([shorter, begun[~is_there]])
            new = np.tile([np.nan, 0.0], (int((~is_there).sum()), 1))
            known[place - 1] = np.concatenate([known[place - 1], new])
    return ngrams, known
