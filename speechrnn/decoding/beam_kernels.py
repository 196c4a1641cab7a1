"""The inner loops of the beam search, compiled by numba. All logarithms are natural; arrays are changed in place."""

from __future__ import annotations

import numpy as np
from numba import njit

from speechrnn.decoding.fusion_kernels import extend
from speechrnn.language.hash_table import EMPTY, find_slot

Trie = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


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
def _stay(
    row: np.ndarray, blank: int, tokens: np.ndarray, nodes: np.ndarray, ending: np.ndarray, size: int, stays: np.ndarray
) -> None:
    """What becomes of the beam's prefixes where nothing is added: a blank, or the last token goes on."""
    for number in range(size):
        last = tokens[nodes[number]]
        stays[0, number] = _add(ending[0, number], ending[1, number]) + row[blank]
        stays[1, number] = ending[1, number] + row[last] if last >= 0 else -np.inf


@njit(cache=True, nogil=True)
def _grow(
    row: np.ndarray,
    chosen: np.ndarray,
    trie: Trie,
    table: np.ndarray,
    place_of: np.ndarray,
    nodes: np.ndarray,
    ending: np.ndarray,
    size: int,
    grammar: np.ndarray,
    fusion: tuple,
    stays: np.ndarray,
    new_scores: np.ndarray,
    new: np.ndarray,
) -> int:
    """The beam's prefixes with one token more; what is in the beam already is added there. How many others there are.

    Of each other one: in ``new_scores`` its acoustic score and what fusion adds; in ``new`` its parent, its token, the
    grammar's state after it and the four numbers that fusion knows of it.
    """
    _, tokens, states, known, added = trie
    is_fused = len(fusion[2]) > 0
    found = 0
    for number in range(size):
        node = nodes[number]
        total = _add(ending[0, number], ending[1, number])
        for token in chosen:
            # The last token is said anew only after a blank; else it just goes on.
            score = (ending[0, number] if token == tokens[node] else total) + row[token]
            state = 0
            if len(grammar) > 0:
                at = find_slot(grammar, states[node] * len(row) + token)
                if grammar[at, 0] == EMPTY:
                    continue
                state = grammar[at, 1]
            if score == -np.inf:
                continue
            slot = find_slot(table, node * len(row) + token)
            child = table[slot, 1] if table[slot, 0] != EMPTY else -1
            if child >= 0 and place_of[child] >= 0:
                place = place_of[child]
                stays[1, place] = _add(stays[1, place], score)
            else:
                new_scores[0, found], new_scores[1, found] = score, 0.0
                new[found, 0], new[found, 1], new[found, 2] = node, token, state
                if is_fused and child >= 0:  # it was kept before
                    new[found, 3:] = known[child]
                    new_scores[1, found] = added[child]
                elif is_fused:
                    new[found, 3:] = known[node]
                    new_scores[1, found] = added[node] + extend(fusion, new[found, 3:], token)
                found += 1
    return found


@njit(cache=True, nogil=True)
def _find_limit(
    stays: np.ndarray,
    nodes: np.ndarray,
    added: np.ndarray,
    size: int,
    new_scores: np.ndarray,
    found: int,
    beam: int,
) -> float:
    """The score of the last of so many best."""
    if size + found <= beam:
        return -np.inf
    everything = np.empty(size + found)
    for number in range(size):
        everything[number] = _add(stays[0, number], stays[1, number]) + added[nodes[number]]
    for index in range(found):
        everything[size + index] = new_scores[0, index] + new_scores[1, index]
    return np.partition(everything, size + found - beam)[size + found - beam]


@njit(cache=True, nogil=True)
def _enter(trie: Trie, table: np.ndarray, count: int, key: int, new: np.ndarray, bonus: float) -> tuple[int, int]:
    """The node of a prefix, made if it was never kept before, and how many nodes there are then."""
    slot = find_slot(table, key)
    if table[slot, 0] == EMPTY:
        parents, tokens, states, known, added = trie
        parents[count], tokens[count], states[count] = new[0], new[1], new[2]
        known[count], added[count] = new[3:], bonus
        table[slot, 0], table[slot, 1] = key, count
        count += 1
    return table[slot, 1], count


@njit(cache=True, nogil=True)
def _keep(
    trie: Trie,
    table: np.ndarray,
    count: int,
    vocabulary_size: int,
    nodes: np.ndarray,
    ending: np.ndarray,
    size: int,
    stays: np.ndarray,
    new_scores: np.ndarray,
    new: np.ndarray,
    found: int,
) -> tuple[int, int]:
    """Make the best prefixes the beam; how many nodes there are now, and how many prefixes in the beam."""
    beam = len(nodes)
    added = trie[4]
    limit = _find_limit(stays, nodes, added, size, new_scores, found, beam)
    next_nodes, next_ending, kept = np.empty_like(nodes), np.empty_like(ending), 0
    # Above the limit first: those that stand on it share the places that are left.
    for is_on_limit in range(2):
        for number in range(size):
            score = _add(stays[0, number], stays[1, number]) + added[nodes[number]]
            if kept < beam and (score == limit if is_on_limit else score > limit):
                next_nodes[kept] = nodes[number]
                next_ending[:, kept] = stays[:, number]
                kept += 1
        for index in range(found):
            score = new_scores[0, index] + new_scores[1, index]
            if kept < beam and (score == limit if is_on_limit else score > limit):
                key = new[index, 0] * vocabulary_size + new[index, 1]
                next_nodes[kept], count = _enter(trie, table, count, key, new[index], new_scores[1, index])
                next_ending[0, kept], next_ending[1, kept] = -np.inf, new_scores[0, index]
                kept += 1
        if limit == -np.inf:
            break
    nodes[:kept], ending[:, :kept] = next_nodes[:kept], next_ending[:, :kept]
    return count, kept


@njit(cache=True, nogil=True)
def advance(
    log_probs: np.ndarray,
    blank: int,
    threshold: float,
    most_tokens: int,
    trie: Trie,
    table: np.ndarray,
    count: int,
    place_of: np.ndarray,
    nodes: np.ndarray,
    ending: np.ndarray,
    size: int,
    grammar: np.ndarray,
    fusion: tuple,
) -> tuple[int, int]:
    """Take in frames.

    Args:
        log_probs: (T', V).
        blank: Which token is the blank.
        threshold: Tokens so much below a frame's best are not tried.
        most_tokens: At most so many are tried.
        trie: Of each prefix that was ever kept its parent, its last token, the grammar's state after it, (P,) each,
            what fusion knows of it, (P, 4), and what it added to its score, (P,).
        table: From parent · V + token to the prefix, (n, 2).
        count: Prefixes there are.
        place_of: Where in the beam each prefix stands, (P,); -1 where it does not.
        nodes: The beam's prefixes, (K,).
        ending: Log-probabilities of their paths that end in a blank, and in the last token, (2, K).
        size: Prefixes in the beam.
        grammar: From state · V + token to the next state, (n, 2); nothing in it where everything may be said.
        fusion: Arrays of language model and hotwords; the third of them is empty where there are none.

    Returns:
        Prefixes there are now, and how many of them in the beam.
    """
    vocabulary_size, beam = log_probs.shape[1], len(nodes)
    chosen = np.empty(most_tokens, dtype=np.int64)
    stays = np.empty((2, beam))
    new_scores = np.empty((2, beam * most_tokens))
    new = np.empty((beam * most_tokens, 7), dtype=np.int64)
    for row in log_probs:
        tried = _choose_tokens(row, blank, threshold, most_tokens, chosen)
        _stay(row, blank, trie[1], nodes, ending, size, stays)
        found = _grow(
            row, chosen[:tried], trie, table, place_of, nodes, ending, size, grammar, fusion, stays, new_scores, new
        )  # fmt: skip
        place_of[nodes[:size]] = -1
        count, size = _keep(
            trie, table, count, vocabulary_size, nodes, ending, size, stays, new_scores, new, found
        )  # fmt: skip
        place_of[nodes[:size]] = np.arange(size)
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
