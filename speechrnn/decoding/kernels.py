"""The inner loops of the beam search, compiled by numba. All logarithms are natural; arrays are changed in place.

They are in one file because numba's disk cache only checks a function's own file for changes, not the files of the
functions that it calls.

The fusion state of a prefix (language model and hotwords) is four numbers, ``known``: its node in the trie of words
(-1: outside), the language model's state, the state of the hotword automaton, and whether a word is open. ``arrays``
and ``fusion`` are :attr:`speechrnn.decoding.fusion.Fusion.arrays`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from speechrnn.language.hash_table import EMPTY, find_slot

_WORDS, _CHARACTERS, _TOKENS = 1, 2, 3
_BOUNDARY = 0
_ROOT, _LEFT = 0, -1

Trie = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@njit(cache=True, nogil=True)
def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copy (N,) to the beginning of another array. An assignment to a slice takes numba a second or two to compile."""
    for place in range(len(source)):
        target[place] = source[place]


@njit(cache=True, nogil=True, inline="always")
def _look_up(table: np.ndarray, key: int) -> int:
    """Return the value of a key, -1 if it is missing."""
    slot = find_slot(table, key)
    return table[slot, 1] if table[slot, 0] != EMPTY else -1


@njit(cache=True, nogil=True)
def query(arrays: tuple[np.ndarray, ...], num_words: int, state: int, word: int) -> tuple[float, int]:
    """Return the natural log of a word's probability in a state, and the next state; minus infinity for word -1.

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


@njit(cache=True, nogil=True)
def _score_word(arrays: tuple, state: int, word: int) -> tuple[float, int]:
    """Return the weighted score of a word, and the next state."""
    settings, weights = arrays[0], arrays[1]
    log_prob, state = query(arrays[11:], settings[2], state, word)
    # Without a language weight 0, even for minus infinity.
    return (weights[0] * log_prob if weights[0] > 0.0 else 0.0) + weights[1], state


@njit(cache=True, nogil=True, inline="always")
def _follow_hotwords(arrays: tuple, state: int, letter: int) -> tuple[float, int]:
    """Return the hotword bonus of a letter, which may be negative, and the next state."""
    following, pending, gain = arrays[8], arrays[9], arrays[10]
    if len(following) == 1:
        return 0.0, 0
    after = following[state, letter]
    return pending[after] - pending[state] + gain[after], after


@njit(cache=True, nogil=True)
def _close_word(arrays: tuple, known: np.ndarray) -> float:
    """Close the open word; return what language model and hotwords add."""
    settings, weights, trie_words = arrays[0], arrays[1], arrays[6]
    score = 0.0
    if settings[0] == _WORDS:
        word = trie_words[known[0]] if known[0] >= 0 else -1
        if word < 0:
            if known[0] >= 0:
                score -= weights[2]  # until here it was the beginning of a known word
            word = settings[3]
        if word >= 0:
            added, known[1] = _score_word(arrays, known[1], word)
            score += added
        else:
            score += weights[1]
            known[1] = 0
    bonus, known[2] = _follow_hotwords(arrays, known[2], _BOUNDARY)
    known[0], known[3] = _ROOT, 0
    return score + bonus


# Inlined: as a call with all these arrays it doubles the time of a search with a language model.
@njit(cache=True, nogil=True, inline="always")
def extend(arrays: tuple, known: np.ndarray, token: int) -> float:
    """Extend a fusion state, (4,), by a token, in place; return what that adds to the score."""
    settings, weights, begins, letters, starts = arrays[0], arrays[1], arrays[2], arrays[3], arrays[4]
    trie, unit_words = arrays[5], arrays[7]
    unit, num_letters = settings[0], settings[1]
    score = 0.0
    if unit == _TOKENS:
        added, known[1] = _score_word(arrays, known[1], unit_words[token])
        score += added
    if begins[token] and known[3]:
        score += _close_word(arrays, known)
        if unit == _CHARACTERS:
            added, known[1] = _score_word(arrays, known[1], unit_words[_BOUNDARY])
            score += added
    for place in range(starts[token], starts[token + 1]):
        letter = letters[place]
        if unit == _WORDS and known[0] >= 0:
            known[0] = _look_up(trie, known[0] * num_letters + letter)
            if known[0] == _LEFT:
                score -= weights[2]
        elif unit == _CHARACTERS:
            added, known[1] = _score_word(arrays, known[1], unit_words[letter])
            score += added
        bonus, known[2] = _follow_hotwords(arrays, known[2], letter)
        score += bonus
        known[3] = 1
    return score


@njit(cache=True, nogil=True)
def begin_prefix(arrays: tuple, known: np.ndarray) -> None:
    """Set the fusion state of the empty prefix."""
    known[0], known[1], known[3] = _ROOT, arrays[0][5], 0
    _, known[2] = _follow_hotwords(arrays, 0, _BOUNDARY)


@njit(cache=True, nogil=True)
def finish_prefix(arrays: tuple, known: np.ndarray) -> float:
    """Return what the end of the utterance adds to the score of a prefix; ``known`` is not changed."""
    settings, weights, pending = arrays[0], arrays[1], arrays[9]
    at = known.copy()
    score = _close_word(arrays, at) if at[3] else 0.0
    if settings[0] > 0 and settings[4] >= 0:
        log_prob, _ = query(arrays[11:], settings[2], at[1], settings[4])
        score += weights[0] * log_prob if weights[0] > 0.0 else 0.0
    return score - pending[at[2]]


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
    """Choose the tokens to try in a frame, without the blank, most probable first; return their number."""
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
def _push(heap: np.ndarray, score: float) -> None:
    """Replace the lowest score, which comes first, by a higher one."""
    if not score > heap[0]:
        return
    place, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = score


@njit(cache=True, nogil=True)
def _merge(
    row: np.ndarray,
    blank: int,
    is_chosen: np.ndarray,
    trie: Trie,
    place_of: np.ndarray,
    nodes: np.ndarray,
    ending: np.ndarray,
    size: int,
    stays: np.ndarray,
    heap: np.ndarray,
) -> None:
    """Compute ``stays``, like ``ending`` after a frame that adds nothing to the beam; ``heap`` becomes its scores."""
    parents, tokens, _, _, added = trie
    for number in range(size):
        parent, token = parents[nodes[number]], tokens[nodes[number]]
        stays[0, number] = _add(ending[0, number], ending[1, number]) + row[blank]
        stays[1, number] = ending[1, number] + row[token] if token >= 0 else -np.inf
        if parent >= 0 and place_of[parent] >= 0 and is_chosen[token]:
            at = place_of[parent]
            # A repeated token needs a blank between.
            before = ending[0, at] if token == tokens[parent] else _add(ending[0, at], ending[1, at])
            stays[1, number] = _add(stays[1, number], before + row[token])
    heap.fill(-np.inf)
    for number in range(size):
        _push(heap, _add(stays[0, number], stays[1, number]) + added[nodes[number]])


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
    heap: np.ndarray,
    new_scores: np.ndarray,
    new: np.ndarray,
) -> int:
    """Extend the beam's prefixes by one token, except to prefixes in the beam; return the number of extensions.

    For each, ``new_scores`` holds its acoustic score and the score of fusion, ``new`` its parent, its token, the next
    state of the grammar and the fusion state. ``heap`` becomes the best scores of all, the lowest first. Extensions
    that cannot be among them, whatever fusion adds, are skipped, because fusion is slow.
    """
    _, tokens, states, known, added = trie
    is_fused = len(fusion[2]) > 0
    found = 0
    for number in range(size):
        node = nodes[number]
        total = _add(ending[0, number], ending[1, number])
        most = added[node] + (fusion[1][3] if is_fused else 0.0)
        for token in chosen:
            if total + most + row[token] < heap[0]:
                break  # the remaining tokens are less probable
            score = (ending[0, number] if token == tokens[node] else total) + row[token]
            if score == -np.inf or score + most < heap[0]:
                continue
            state = _look_up(grammar, states[node] * len(row) + token) if len(grammar) > 0 else 0
            child = _look_up(table, node * len(row) + token)
            if state < 0 or (child >= 0 and place_of[child] >= 0):
                continue
            new_scores[0, found], new_scores[1, found] = score, 0.0
            new[found, 0], new[found, 1], new[found, 2] = node, token, state
            if is_fused:
                at = child if child >= 0 else node  # the prefix may have been in the beam before
                _copy(new[found, 3:], known[at])
                new_scores[1, found] = added[at]
                if child < 0:
                    new_scores[1, found] += extend(fusion, new[found, 3:], token)
            if new_scores[0, found] + new_scores[1, found] >= heap[0]:
                _push(heap, new_scores[0, found] + new_scores[1, found])
                found += 1
    return found


@njit(cache=True, nogil=True)
def _enter(trie: Trie, table: np.ndarray, count: int, key: int, new: np.ndarray, bonus: float) -> tuple[int, int]:
    """Return the node of a prefix, created if it is new, and the number of nodes."""
    slot = find_slot(table, key)
    if table[slot, 0] == EMPTY:
        parents, tokens, states, known, added = trie
        parents[count], tokens[count], states[count] = new[0], new[1], new[2]
        _copy(known[count], new[3:])
        added[count] = bonus
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
    limit: float,
) -> tuple[int, int]:
    """Put the prefixes from the limit up into the beam; return the number of nodes and of prefixes in the beam."""
    beam = len(nodes)
    added = trie[4]
    next_nodes, next_ending, kept = np.empty_like(nodes), np.empty_like(ending), 0
    # First those above the limit: those at the limit share the remaining places.
    for is_on_limit in range(2):
        for number in range(size):
            score = _add(stays[0, number], stays[1, number]) + added[nodes[number]]
            if kept < beam and (score == limit if is_on_limit else score > limit):
                next_nodes[kept] = nodes[number]
                next_ending[0, kept], next_ending[1, kept] = stays[0, number], stays[1, number]
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
    _copy(nodes, next_nodes[:kept])
    _copy(ending[0], next_ending[0, :kept])
    _copy(ending[1], next_ending[1, :kept])
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
    """Advance the search by some frames.

    Args:
        log_probs: (T', V).
        blank: Token id of the blank.
        threshold: Tokens that are this much below a frame's best are not tried.
        most_tokens: Most tokens tried in a frame.
        trie: For each prefix that was ever in the beam its parent, its last token, the grammar's state, (P,) each, the
            fusion state, (P, 4), and the score of fusion, (P,).
        table: From parent · V + token to the prefix, (n, 2).
        count: Number of prefixes.
        place_of: Place of each prefix in the beam, (P,); -1 outside.
        nodes: The beam's prefixes, (K,).
        ending: Log-probabilities of their paths that end in a blank, and in the last token, (2, K).
        size: Number of prefixes in the beam.
        grammar: From state · V + token to the next state, (n, 2); empty if everything is allowed.
        fusion: Arrays of language model and hotwords; the third is empty without them.

    Returns:
        Number of prefixes, and of those in the beam.
    """
    vocabulary_size, beam = log_probs.shape[1], len(nodes)
    chosen = np.empty(most_tokens, dtype=np.int64)
    stays = np.empty((2, beam))
    new_scores = np.empty((2, beam * most_tokens))
    new = np.empty((beam * most_tokens, 7), dtype=np.int64)
    is_chosen, heap = np.zeros(vocabulary_size, dtype=np.bool_), np.empty(beam)
    for row in log_probs:
        tried = _choose_tokens(row, blank, threshold, most_tokens, chosen)
        for token in chosen[:tried]:
            is_chosen[token] = True
        _merge(row, blank, is_chosen, trie, place_of, nodes, ending, size, stays, heap)
        found = _grow(
            row, chosen[:tried], trie, table, place_of, nodes, ending, size, grammar, fusion, heap, new_scores, new
        )  # fmt: skip
        for node in nodes[:size]:
            place_of[node] = -1
        for token in chosen[:tried]:
            is_chosen[token] = False
        count, size = _keep(
            trie, table, count, vocabulary_size, nodes, ending, size, stays, new_scores, new, found, heap[0]
        )  # fmt: skip
        for place in range(size):
            place_of[nodes[place]] = place
    return count, size
