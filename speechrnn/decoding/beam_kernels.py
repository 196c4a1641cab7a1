"""The inner loops of the beam search, compiled by numba. All logarithms are natural; arrays are changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_EMPTY = -1
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # the golden ratio's fraction, as a signed 64-bit number


def make_table(size: int) -> np.ndarray:
    """An empty hash table for at least so many prefixes: (2, n), keys and prefixes, n a power of two."""
    slots = 1 << max(4, (size - 1).bit_length())
    return np.full((slots, 2), _EMPTY, dtype=np.int64)


@njit(cache=True, nogil=True, inline="always")
def _slot(table: np.ndarray, key: int) -> Any:
    """Where a key stands, or would."""
    mask = len(table) - 1
    place = ((key * np.int64(_MIX)) >> np.int64(20)) & mask
    while table[place, 0] != _EMPTY and table[place, 0] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def insert_all(table: np.ndarray, parents: np.ndarray, tokens: np.ndarray, count: int, vocabulary_size: int) -> None:
    """Put all prefixes but the root into a table."""
    for node in range(1, count):
        key = parents[node] * vocabulary_size + tokens[node]
        place = _slot(table, key)
        table[place, 0], table[place, 1] = key, node


@njit(cache=True, nogil=True)
def insert(table: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    """Put keys and their values into a table that has room for them."""
    for number in range(len(keys)):
        place = _slot(table, keys[number])
        table[place, 0], table[place, 1] = keys[number], values[number]


@njit(cache=True, nogil=True, inline="always")
def _add(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    if b == -np.inf:
        return a
    return a + np.log1p(np.exp(b - a))


@njit(cache=True, nogil=True)
def _choose_tokens(row: np.ndarray, blank: int, threshold: float, most: int, chosen: np.ndarray) -> int:
    """The tokens worth trying in a frame, the blank not among them, the most probable first; how many."""
    best = row.max()
    count = 0
    for token in range(len(row)):
        if token == blank or not row[token] > best - threshold:
            continue
        place = count
        if count < most:
            count += 1
        elif row[chosen[most - 1]] >= row[token]:
            continue
        else:
            place = most - 1
        while place > 0 and row[chosen[place - 1]] < row[token]:
            chosen[place] = chosen[place - 1]
            place -= 1
        chosen[place] = token
    return count


@njit(cache=True, nogil=True)
def advance(
    log_probs: np.ndarray,
    blank: int,
    threshold: float,
    most_tokens: int,
    parents: np.ndarray,
    tokens: np.ndarray,
    count: int,
    table: np.ndarray,
    nodes: np.ndarray,
    ending: np.ndarray,
    size: int,
    grammar: np.ndarray,
    states: np.ndarray,
) -> tuple[int, int]:
    """Take in frames.

    Args:
        log_probs: (T', V).
        blank: Which token is the blank.
        threshold: Tokens so much below a frame's best are not tried.
        most_tokens: At most so many are tried.
        parents: Parent of each prefix, (P,).
        tokens: Last token of each prefix, (P,).
        count: Prefixes there are.
        table: From parent · V + token to the prefix, (n, 2).
        nodes: The beam's prefixes, (K,).
        ending: Log-probabilities of their paths that end in a blank, and in the last token, (2, K).
        size: Prefixes in the beam.
        grammar: From state · V + token to the next state, (n, 2); nothing in it where everything may be said.
        states: State of the grammar after each prefix, (P,).

    Returns:
        Prefixes there are now, and how many of them in the beam.
    """
    frames, vocabulary_size = log_probs.shape
    beam = len(nodes)
    chosen = np.empty(most_tokens, dtype=np.int64)
    place_of = np.full(len(parents), -1, dtype=np.int64)  # where in the beam a prefix stands
    for number in range(size):
        place_of[nodes[number]] = number
    most = beam * (most_tokens + 1)
    stays = np.empty((2, beam))
    new_scores = np.empty(most)
    new_parent = np.empty(most, dtype=np.int64)
    new_token = np.empty(most, dtype=np.int64)
    new_state = np.zeros(most, dtype=np.int64)
    is_closed = len(grammar) > 0
    next_nodes = np.empty(beam, dtype=np.int64)
    next_ending = np.empty((2, beam))
    for frame in range(frames):
        row = log_probs[frame]
        tried = _choose_tokens(row, blank, threshold, most_tokens, chosen)
        for number in range(size):
            last = tokens[nodes[number]]
            stays[0, number] = _add(ending[0, number], ending[1, number]) + row[blank]
            stays[1, number] = ending[1, number] + row[last] if last >= 0 else -np.inf
        found = 0
        for number in range(size):
            node = nodes[number]
            last = tokens[node]
            total = _add(ending[0, number], ending[1, number])
            for index in range(tried):
                token = chosen[index]
                # The last token is said anew only after a blank; else it just goes on.
                score = (ending[0, number] if token == last else total) + row[token]
                if score == -np.inf:
                    continue
                state = 0
                if is_closed:
                    at = _slot(grammar, states[node] * vocabulary_size + token)
                    if grammar[at, 0] == _EMPTY:
                        continue
                    state = grammar[at, 1]
                slot = _slot(table, node * vocabulary_size + token)
                child = table[slot, 1] if table[slot, 0] != _EMPTY else -1
                if child >= 0 and place_of[child] >= 0:
                    place = place_of[child]
                    stays[1, place] = _add(stays[1, place], score)
                else:
                    new_scores[found], new_parent[found], new_token[found] = score, node, token
                    new_state[found] = state
                    found += 1
        for number in range(size):
            place_of[nodes[number]] = -1
        limit = -np.inf
        if size + found > beam:
            everything = np.empty(size + found)
            for number in range(size):
                everything[number] = _add(stays[0, number], stays[1, number])
            everything[size:] = new_scores[:found]
            limit = np.partition(everything, size + found - beam)[size + found - beam]
        kept = 0
        # Above the limit first: those that stand on it share the places that are left.
        for is_on_limit in range(2):
            for number in range(size):
                score = _add(stays[0, number], stays[1, number])
                if kept < beam and (score == limit if is_on_limit else score > limit):
                    next_nodes[kept] = nodes[number]
                    next_ending[0, kept], next_ending[1, kept] = stays[0, number], stays[1, number]
                    kept += 1
            for index in range(found):
                score = new_scores[index]
                if kept < beam and (score == limit if is_on_limit else score > limit):
                    key = new_parent[index] * vocabulary_size + new_token[index]
                    slot = _slot(table, key)
                    if table[slot, 0] == _EMPTY:
                        parents[count], tokens[count] = new_parent[index], new_token[index]
                        states[count] = new_state[index]
                        table[slot, 0], table[slot, 1] = key, count
                        count += 1
                    next_nodes[kept] = table[slot, 1]
                    next_ending[0, kept], next_ending[1, kept] = -np.inf, score
                    kept += 1
            if limit == -np.inf:
                break
        size = kept
        for number in range(size):
            nodes[number] = next_nodes[number]
            ending[0, number], ending[1, number] = next_ending[0, number], next_ending[1, number]
            place_of[nodes[number]] = number
    return count, size


@njit(cache=True, nogil=True)
def read_prefix(parents: np.ndarray, tokens: np.ndarray, node: int) -> np.ndarray:
    """The tokens of a prefix, in their order."""
    length = 0
    at = node
    while parents[at] >= 0:
        length += 1
        at = parents[at]
    prefix = np.empty(length, dtype=np.int64)
    at = node
    while length > 0:
        length -= 1
        prefix[length] = tokens[at]
        at = parents[at]
    return prefix


@njit(cache=True, nogil=True)
def align(log_probs: np.ndarray, targets: np.ndarray, blank: int) -> np.ndarray:
    """The most probable path that says the targets: first and last frame of each, (U, 2); -1 where there is none."""
    frames, length = len(log_probs), len(targets)
    spans = np.full((length, 2), -1, dtype=np.int64)
    if length == 0 or frames == 0:
        return spans
    states = 2 * length + 1
    scores = np.full(states, -np.inf)
    steps = np.zeros((frames, states), dtype=np.int8)  # how many states back a state was reached from
    scores[0] = log_probs[0, blank]
    scores[1] = log_probs[0, targets[0]]
    before = np.empty(states)
    for frame in range(1, frames):
        before[:] = scores
        for state in range(states):
            token = targets[state // 2] if state % 2 else blank
            best, step = before[state], 0
            if state > 0 and before[state - 1] > best:
                best, step = before[state - 1], 1
            if state > 2 and state % 2 and targets[state // 2] != targets[state // 2 - 1] and before[state - 2] > best:
                best, step = before[state - 2], 2
            scores[state] = best + log_probs[frame, token]
            steps[frame, state] = step
    state = states - 1 if scores[states - 1] >= scores[states - 2] else states - 2
    if scores[state] == -np.inf:
        return spans
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            place = state // 2
            if spans[place, 1] < 0:
                spans[place, 1] = frame
            spans[place, 0] = frame
        state -= steps[frame, state]
    return spans
