"""Estimate an n-gram model from text: interpolated modified Kneser-Ney smoothing.

The probability of a word w after a context h of order n - 1 is its discounted relative count; the rest of the
probability goes to the next shorter context h':

    p(w|h) = max(c(hw) - D(c(hw)), 0) / Σ_x c(hx) + γ(h) p(w|h')
    γ(h)   = (D1 N1(h) + D2 N2(h) + D3 N3(h)) / Σ_x c(hx)

where Ni(h) is the number of words that follow h exactly i times (three times or more for N3), and D depends on the
count in the same way. Below the highest order c is the number of different words before an n-gram instead of its
count; n-grams that begin a sentence have no word before them and keep their counts. Unigrams are interpolated with the
uniform distribution, which is the probability of ``<unk>``.

The text is one array of word ids, an n-gram is the state of its first words (as in
:class:`~speechrnn.language.ngram.NgramModel`) and its last word, and counting is sorting.

Source:
    S. Chen and J. Goodman, "An empirical study of smoothing techniques for language modeling", Harvard TR-10-98, 1998
    (equations 26 to 31); K. Heafield et al., "Scalable modified Kneser-Ney language model estimation", ACL 2013.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.language.ngram import BEGIN, END, UNKNOWN, NgramModel

_FALLBACK = (0.5, 1.0, 1.5)  # discounts for texts too small to estimate them: KenLM's
_RESERVED = (BEGIN, END, UNKNOWN)


def build_ngram(
    sentences: Iterable[Sequence[str]],
    *,
    order: int = 4,
    prune: Sequence[int] = (),
    most_words: int | None = None,
) -> NgramModel:
    """Estimate a model.

    Args:
        sentences: Words, characters or tokens of each; read once. Needs four bytes of memory for each word, and some
            tens of bytes for each different n-gram.
        order: Length of the longest n-grams.
        prune: For each order, the highest count of n-grams that are left out; the last number holds for all higher
            orders, and unigrams are always kept. Nothing is left out by default.
        most_words: Most words in the vocabulary, the most frequent ones; others become ``<unk>``.

    Raises:
        ConfigError: The order or a threshold is out of range.
        CorpusError: There is no sentence, or one contains ``<s>``, ``</s>`` or ``<unk>``.
    """
    if order < 1:
        raise ConfigError(f"order: expected 1 or more, got {order}")
    if any(limit < 0 for limit in prune) or list(prune) != sorted(prune) or (prune and prune[0]):
        raise ConfigError(f"prune: expected thresholds from 0 upwards, none for unigrams, got {list(prune)}")
    if most_words is not None and most_words < 1:
        raise ConfigError(f"most_words: expected 1 or more, got {most_words}")
    words, text = _number_words(sentences, most_words)
    levels = _count(text, words, order)
    limits = [0, *(prune[min(place, len(prune) - 1)] if prune else 0 for place in range(1, order))]
    return _estimate(words, levels, limits)


def _number_words(sentences: Iterable[Sequence[str]], most_words: int | None) -> tuple[list[str], np.ndarray]:
    """The vocabulary, sorted, and the text as its ids, (N,) int32, each sentence between BEGIN and END."""
    ids: dict[str, int] = {}
    text = array("i")
    for sentence in sentences:
        if sentence:
            text.append(0)
            text.extend([ids.setdefault(word, len(ids) + 2) for word in sentence])
            text.append(1)
    if not text:
        raise CorpusError("a language model: expected sentences, found none")
    reserved = next((word for word in _RESERVED if word in ids), None)
    if reserved is not None:
        raise CorpusError(f"a sentence contains {reserved}, which is reserved; remove it")
    numbers = np.frombuffer(text, np.int32)
    names = [BEGIN, END, *ids]
    commonest = 2 + np.argsort(-np.bincount(numbers)[2:], kind="stable")[:most_words]
    words = sorted([*(names[number] for number in commonest), *_RESERVED])
    places = {word: place for place, word in enumerate(words)}
    renamed = np.array([places.get(name, places[UNKNOWN]) for name in names], dtype=np.int32)
    return words, renamed[numbers]


@dataclass(frozen=True, eq=False)
class _Level:
    """The different n-grams of one order in a text, sorted.

    Attributes:
        contexts: Row of all but its last word in the order below, (K,) int64.
        words: Its last word, (K,) int64.
        suffixes: Row of all but its first word in the order below, (K,) int64.
        begins: Whether its first word is BEGIN, (K,).
        counts: Number of occurrences, (K,) int64.
    """

    contexts: np.ndarray
    words: np.ndarray
    suffixes: np.ndarray
    begins: np.ndarray
    counts: np.ndarray


def _count(text: np.ndarray, words: list[str], order: int) -> list[_Level]:
    """N-grams of each order from 1 on; of order 1 all words, even with count 0."""
    begin, end, size = words.index(BEGIN), words.index(END), len(words)
    everything = np.arange(size)
    none = np.zeros(size, dtype=np.int64)
    levels = [_Level(none, everything, none, everything == begin, np.bincount(text, minlength=size))]
    places = np.arange(len(text))  # starts of n-grams of this order
    rows = text.astype(np.int64)  # row of the n-gram at each place, -1 for none
    for length in range(2, order + 1):
        places = places[text[places + length - 2] != end]
        keys, first, inverse, counts = np.unique(
            rows[places] * size + text[places + length - 1], return_index=True, return_inverse=True, return_counts=True
        )
        contexts, last = np.divmod(keys, size)
        levels.append(_Level(contexts, last, rows[places[first] + 1], levels[-1].begins[contexts], counts))
        rows = np.full(len(text), -1, dtype=np.int64)
        rows[places] = inverse
    return levels


def _estimate(words: list[str], levels: Sequence[_Level], limits: Sequence[int]) -> NgramModel:
    """Estimate probabilities from the lowest order up, and leave out pruned n-grams."""
    below, gammas = np.zeros(0), np.ones(1)
    is_kept = np.ones(1, dtype=bool)  # of the order below
    starts, states = [0], np.zeros(1, dtype=np.int64)  # states of the rows of the order below
    keys, log_probs, backoffs = [], [], []
    for place, level in enumerate(levels):
        counts = _adjust(level, levels[place + 1] if place + 1 < len(levels) else None)
        discounts = _choose(_find_discounts(counts), counts)
        was_kept, is_kept = is_kept, level.counts > limits[place] if place else np.ones(len(counts), dtype=bool)
        if place == 0:
            below = _interpolate_unigrams(counts, discounts, level.begins)
        else:
            below, gammas = _interpolate(level, counts, np.where(is_kept, discounts, counts), below)
        backoffs.append(np.log(gammas, out=np.zeros(len(gammas)), where=gammas > 0)[was_kept])
        keys.append(states[level.contexts[is_kept]] * len(words) + level.words[is_kept])
        with np.errstate(divide="ignore"):  # <s> is never predicted
            log_probs.append(np.log(below[is_kept]))
        states = starts[-1] + np.cumsum(is_kept)  # of kept rows: index + 1
        starts.append(starts[-1] + int(is_kept.sum()))
    return NgramModel(words, starts, np.concatenate(keys), np.concatenate(log_probs), np.concatenate(backoffs))


def _interpolate(
    level: _Level, counts: np.ndarray, discounts: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an order's n-grams, (K,), and back-off weights of their contexts.

    The discount of a pruned n-gram is its whole count.
    """
    sums = np.bincount(level.contexts, counts, minlength=len(below))
    given = np.bincount(level.contexts, np.minimum(discounts, counts), minlength=len(below))
    gammas = np.where(sums > 0, given / np.maximum(sums, 1), 1.0)
    own = np.maximum(counts - discounts, 0.0) / sums[level.contexts]
    return own + gammas[level.contexts] * below[level.suffixes], gammas


def _adjust(level: _Level, longer: _Level | None) -> np.ndarray:
    """Occurrences in the highest order, numbers of different preceding words in the others; (K,)."""
    if longer is None:
        return level.counts.astype(float)
    different = np.bincount(longer.suffixes, minlength=len(level.counts))
    return np.where(level.begins, level.counts, different).astype(float)


def _find_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """D1, D2 and D3+ of one order (Chen and Goodman, equation 26), or KenLM's fallback."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5).astype(np.int64), minlength=6)[1:5].tolist()
    if not (n1 and n2 and n3 and n4):
        return _FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= discount <= count for count, discount in enumerate(found, start=1)) else _FALLBACK


def _choose(discounts: tuple[float, float, float], counts: np.ndarray) -> np.ndarray:
    """The discount of each count, (K,)."""
    return np.array([0.0, *discounts])[np.minimum(counts, 3).astype(np.int64)]


def _interpolate_unigrams(counts: np.ndarray, discounts: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Probabilities of all words, ``<unk>`` and ``</s>``; ``<s>`` is never predicted."""
    counts = np.where(begins, 0.0, counts)
    total = counts.sum()
    uniform = np.where(begins, 0.0, np.minimum(discounts, counts)).sum() / total / (len(counts) - 1)
    return np.where(begins, 0.0, np.maximum(counts - discounts, 0.0) / total + uniform)
