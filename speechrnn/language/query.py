"""The inner loop of asking an n-gram model, compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from speechrnn.language.hash_table import EMPTY, find_slot


@njit(cache=True, nogil=True)
def query(arrays: tuple[np.ndarray, ...], num_words: int, state: int, word: int) -> tuple[float, int]:
    """The natural log of a word's probability in a state, and the state after it; minus infinity for no word (-1).

    Args:
        arrays: ``CompiledNgram.arrays``.
        num_words: Words of the model, W.
        state: A state.
        word: A word's id.
    """
    table, log_probs, next_states, backoffs, backoff_states = arrays
    cost = 0.0
    if word < 0:
        return -np.inf, 0
    while state >= 0:
        slot = find_slot(table, state * num_words + word)
        if table[slot, 0] != EMPTY:
            row = table[slot, 1]
            return cost + log_probs[row], next_states[row]
        cost += backoffs[state]
        state = backoff_states[state]
    return -np.inf, 0
