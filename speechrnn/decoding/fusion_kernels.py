"""A prefix that grows by a token, as language model and hotwords see it; compiled by numba.

What is known of a prefix are four numbers: its node in the trie of words (-1: no word of the model's), the language
model's state, the state among the hotwords, and whether a word is open. ``arrays`` is ``Fusion.arrays``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from speechrnn.language.hash_table import EMPTY, find_slot
from speechrnn.language.query import query

_WORDS, _CHARACTERS, _TOKENS = 1, 2, 3
_BOUNDARY = 0
_ROOT, _LEFT = 0, -1


@njit(cache=True, nogil=True, inline="always")
def _weigh(weights: np.ndarray, log_prob: float) -> float:
    """What a log-probability counts; nothing at all without weight, even where it is minus infinity."""
    return weights[0] * log_prob if weights[0] > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _ask(arrays: tuple, state: int, word: int) -> tuple[float, int]:
    """Weighted score of a word, and the state after it."""
    settings, weights = arrays[0], arrays[1]
    log_prob, state = query(arrays[11:], settings[2], state, word)
    return _weigh(weights, log_prob) + weights[1], state


@njit(cache=True, nogil=True)
def _hear(arrays: tuple, state: int, letter: int) -> tuple[float, int]:
    """What a letter earns or costs among the hotwords, and the state after it."""
    following, pending, gain = arrays[8], arrays[9], arrays[10]
    if len(following) == 1:
        return 0.0, 0
    after = following[state, letter]
    return pending[after] - pending[state] + gain[after], after


@njit(cache=True, nogil=True)
def _close_word(arrays: tuple, known: np.ndarray) -> float:
    """A word ends: the language model's and the hotwords' say."""
    settings, weights, trie_words = arrays[0], arrays[1], arrays[6]
    score = 0.0
    if settings[0] == _WORDS:
        word = trie_words[known[0]] if known[0] >= 0 else -1
        if word < 0:
            if known[0] >= 0:
                score -= weights[2]  # it looked like one of the model's words to its end
            word = settings[3]
        if word >= 0:
            asked, known[1] = _ask(arrays, known[1], word)
            score += asked
        else:
            score += weights[1]
            known[1] = 0
    heard, known[2] = _hear(arrays, known[2], _BOUNDARY)
    known[0], known[3] = _ROOT, 0
    return score + heard


@njit(cache=True, nogil=True)
def extend(arrays: tuple, known: np.ndarray, token: int) -> float:
    """Add a token to what is known of a prefix, (4,), changed in place; what that is worth."""
    settings, weights, begins, letters, starts = arrays[0], arrays[1], arrays[2], arrays[3], arrays[4]
    trie, unit_words = arrays[5], arrays[7]
    unit, num_letters = settings[0], settings[1]
    score = 0.0
    if unit == _TOKENS:
        asked, known[1] = _ask(arrays, known[1], unit_words[token])
        score += asked
    if begins[token] and known[3]:
        score += _close_word(arrays, known)
        if unit == _CHARACTERS:
            asked, known[1] = _ask(arrays, known[1], unit_words[_BOUNDARY])
            score += asked
    for place in range(starts[token], starts[token + 1]):
        letter = letters[place]
        if unit == _WORDS and known[0] >= 0:
            slot = find_slot(trie, known[0] * num_letters + letter)
            if trie[slot, 0] == EMPTY:
                known[0] = _LEFT
                score -= weights[2]
            else:
                known[0] = trie[slot, 1]
        elif unit == _CHARACTERS:
            asked, known[1] = _ask(arrays, known[1], unit_words[letter])
            score += asked
        heard, known[2] = _hear(arrays, known[2], letter)
        score += heard
        known[3] = 1
    return score


@njit(cache=True, nogil=True)
def begin(arrays: tuple, known: np.ndarray) -> None:
    """What is known of the empty prefix."""
    known[0], known[1], known[3] = _ROOT, arrays[0][5], 0
    _, known[2] = _hear(arrays, 0, _BOUNDARY)


@njit(cache=True, nogil=True)
def finish(arrays: tuple, known: np.ndarray) -> float:
    """What the end of the utterance is worth to a prefix; ``known`` is left as it is."""
    settings, weights, pending = arrays[0], arrays[1], arrays[9]
    at = known.copy()
    score = _close_word(arrays, at) if at[3] else 0.0
    if settings[0] > 0 and settings[4] >= 0:
        log_prob, _ = query(arrays[11:], settings[2], at[1], settings[4])
        score += _weigh(weights, log_prob)
    return score - pending[at[2]]
