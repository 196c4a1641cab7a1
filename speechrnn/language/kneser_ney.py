"""Estimate an n-gram model from text: interpolated modified Kneser-Ney smoothing.

The probability of a word w after a context h of order n - 1 is what the counts say, less a discount, and the rest is
given to the next shorter context h':

    p(w|h) = max(c(hw) - D(c(hw)), 0) / Σ_x c(hx) + γ(h) p(w|h')
    γ(h)   = (D1 N1(h) + D2 N2(h) + D3 N3(h)) / Σ_x c(hx)

where Ni(h) is how many words follow h exactly i times (three times or more for N3), and D depends on the count in the
same way. Below the highest order c is not how often an n-gram occurs but after how many different words, for that is
what a shorter context is asked about; n-grams that begin a sentence have no word before them and keep their counts.
Unigrams are interpolated with the uniform distribution, which is what ``<unk>`` gets.

Source:
    S. Chen and J. Goodman, "An empirical study of smoothing techniques for language modeling", Harvard TR-10-98, 1998
    (equations 26 to 31); K. Heafield et al., "Scalable modified Kneser-Ney language model estimation", ACL 2013.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.language.ngram import BEGIN, END, UNKNOWN, Known, Ngram, NgramModel

_FALLBACK = (0.5, 1.0, 1.5)  # discounts where a text is too small to tell: those that KenLM offers
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
        sentences: Words (or characters, or pieces) of each; read once.
        order: Longest n-grams.
        prune: For each order, n-grams that occur at most so often are left out of the model; the last number holds for
            all higher orders, and unigrams are never left out. Nothing is left out by default.
        most_words: Most words in the vocabulary, the commonest ones; others become ``<unk>``.

    Raises:
        ConfigError: The order or a threshold is impossible.
        CorpusError: There is no sentence, or one holds ``<s>``, ``</s>`` or ``<unk>``.
    """
    if order < 1:
        raise ConfigError(f"order: expected 1 or more, got {order}")
    if any(limit < 0 for limit in prune) or list(prune) != sorted(prune) or (prune and prune[0]):
        raise ConfigError(f"prune: expected thresholds from 0 upwards, none for unigrams, got {list(prune)}")
    if most_words is not None and most_words < 1:
        raise ConfigError(f"most_words: expected 1 or more, got {most_words}")
    raw = _count(sentences, order, most_words)
    adjusted = _adjust(raw)
    discounts = [_find_discounts(table.values()) for table in adjusted]
    limits = [0, *(prune[min(place, len(prune) - 1)] if prune else 0 for place in range(1, order))]
    return _interpolate(raw, adjusted, discounts, limits)


def _count(sentences: Iterable[Sequence[str]], order: int, most_words: int | None) -> list[Counter[Ngram]]:
    """How often each n-gram of each order occurs."""
    texts = [tuple(sentence) for sentence in sentences if sentence]
    if not texts:
        raise CorpusError("a language model: expected sentences, found none")
    words = Counter(word for text in texts for word in text)
    reserved = next((word for word in _RESERVED if word in words), None)
    if reserved is not None:
        raise CorpusError(f"a sentence holds {reserved}, which has a meaning of its own; take it out")
    kept = {word for word, _ in words.most_common(most_words)}
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for text in texts:
        padded = (BEGIN, *(word if word in kept else UNKNOWN for word in text), END)
        for length, table in enumerate(counts, start=1):
            table.update(padded[first : first + length] for first in range(len(padded) - length + 1))
    return counts


def _adjust(raw: Sequence[Counter[Ngram]]) -> list[dict[Ngram, int]]:
    """Counts as each order needs them: occurrences in the highest, different words before it in the others."""
    adjusted: list[dict[Ngram, int]] = [dict(table) for table in raw]
    for place in range(len(raw) - 1):
        continuations: Counter[Ngram] = Counter(longer[1:] for longer in raw[place + 1])
        adjusted[place] = {
            ngram: count if ngram[0] == BEGIN else continuations[ngram] for ngram, count in raw[place].items()
        }
    return adjusted


def _find_discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """D1, D2 and D3+ of one order (Chen and Goodman, equation 26), or what KenLM falls back to."""
    often = Counter(counts)
    n1, n2, n3, n4 = (often[count] for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return _FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= discount <= count for count, discount in enumerate(found, start=1)) else _FALLBACK


def _interpolate(
    raw: Sequence[Counter[Ngram]],
    adjusted: Sequence[dict[Ngram, int]],
    discounts: Sequence[tuple[float, float, float]],
    limits: Sequence[int],
) -> NgramModel:
    probabilities = _interpolate_unigrams(adjusted[0], discounts[0])
    known: list[dict[Ngram, float]] = [probabilities]
    gammas: list[dict[Ngram, float]] = []
    for place in range(1, len(adjusted)):
        sums, gamma_parts = _sum_contexts(adjusted[place], discounts[place], raw[place], limits[place])
        gammas.append({context: part / sums[context] for context, part in gamma_parts.items()})
        table = {}
        for ngram, count in adjusted[place].items():
            if raw[place][ngram] <= limits[place]:
                continue
            context = ngram[:-1]
            own = max(count - _discount(count, discounts[place]), 0.0) / sums[context]
            table[ngram] = own + gammas[-1][context] * _back_off(ngram[1:], known, gammas)
        known.append(table)
    return _to_model(known, gammas)


def _interpolate_unigrams(counts: dict[Ngram, int], discounts: tuple[float, float, float]) -> dict[Ngram, float]:
    """All words, ``<unk>`` and ``</s>``; ``<s>`` is never predicted."""
    counted = {ngram: count for ngram, count in counts.items() if ngram != (BEGIN,)}
    total = sum(counted.values())
    rest = sum(min(_discount(count, discounts), count) for count in counted.values()) / total
    words = {**dict.fromkeys(counted), (UNKNOWN,): None}
    uniform = rest / len(words)
    probabilities: dict[Ngram, float] = {(UNKNOWN,): uniform, (BEGIN,): 0.0}
    for ngram, count in counted.items():
        probabilities[ngram] = max(count - _discount(count, discounts), 0.0) / total + uniform
    return probabilities


def _sum_contexts(
    counts: dict[Ngram, int], discounts: tuple[float, float, float], raw: Counter[Ngram], limit: int
) -> tuple[dict[Ngram, float], dict[Ngram, float]]:
    """Of each context: the sum of counts after it, and the mass that is taken from them and given to the shorter one.

    What is left out of the model gives all of its mass.
    """
    sums: dict[Ngram, float] = defaultdict(float)
    given: dict[Ngram, float] = defaultdict(float)
    for ngram, count in counts.items():
        context = ngram[:-1]
        sums[context] += count
        given[context] += count if raw[ngram] <= limit else min(_discount(count, discounts), count)
    return sums, given


def _discount(count: int, discounts: tuple[float, float, float]) -> float:
    return discounts[min(count, 3) - 1] if count else 0.0


def _back_off(ngram: Ngram, known: Sequence[dict[Ngram, float]], gammas: Sequence[dict[Ngram, float]]) -> float:
    """The probability of the last word after the others, in the shorter orders that are done."""
    found = known[len(ngram) - 1].get(ngram)
    if found is not None:
        return found
    return gammas[len(ngram) - 2].get(ngram[:-1], 1.0) * _back_off(ngram[1:], known, gammas)


def _to_model(known: Sequence[dict[Ngram, float]], gammas: Sequence[dict[Ngram, float]]) -> NgramModel:
    tables = []
    for place, table in enumerate(known):
        weights = gammas[place] if place < len(gammas) else {}
        tables.append(
            {
                ngram: Known(
                    math.log(probability) if probability > 0 else -math.inf,
                    math.log(weights[ngram]) if weights.get(ngram) else 0.0,
                )
                for ngram, probability in sorted(table.items())
            }
        )
    return NgramModel(tables)
