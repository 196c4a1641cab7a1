"""Forced alignment: the most probable CTC path of known tokens (Viterbi).

An hour of speech has some 90,000 frames and 56,000 states (blank, token, blank … blank), too many steps to store. The
scores of all states are stored every few hundred frames only; from the end backwards each block is computed again, over
the few states that can lead to the rest of the path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from speechrnn.decoding.greedy import check_frames
from speechrnn.errors import SpeechRNNError
from speechrnn.types import BLANK_ID


def align_tokens(log_probs: np.ndarray, tokens: Sequence[int], *, blank_id: int = BLANK_ID) -> list[tuple[int, int]]:
    """Align tokens with frames.

    Args:
        log_probs: (T', V), natural log.
        tokens: Token ids, U of them, without blanks.
        blank_id: Token id of the blank.

    Returns:
        First and last frame of each token, both inclusive; blanks lie between.

    Raises:
        SpeechRNNError: The tokens do not fit into the frames, or every path has probability zero.
        ConfigError: A frame's log-probabilities are not finite.
    """
    if not len(tokens):
        return []
    check_frames(log_probs, name="align_tokens")
    every = max(16, int(len(log_probs) ** 0.5))
    spans = _align(
        np.ascontiguousarray(log_probs, dtype=np.float64), np.asarray(tokens, dtype=np.int64), blank_id, every
    )
    if (spans < 0).any():
        raise SpeechRNNError(
            f"the text cannot be aligned: {len(tokens)} tokens do not fit into {len(log_probs)} frames"
        )
    return [(int(first), int(last)) for first, last in spans]


@njit(cache=True, nogil=True)
def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copy (N,) to the beginning of another array. An assignment to a slice takes numba a second or two to compile."""
    for place in range(len(source)):
        target[place] = source[place]


@njit(cache=True, nogil=True)
def _step(
    row: np.ndarray, labels: np.ndarray, skips: np.ndarray, before: np.ndarray, after: np.ndarray, low: int, high: int
) -> None:
    """Scores after a frame of the states from ``low`` to before ``high``."""
    for state in range(low, high):
        best = before[state]
        if state > 0 and before[state - 1] > best:
            best = before[state - 1]
        if skips[state] and before[state - 2] > best:
            best = before[state - 2]
        after[state] = best + row[labels[state]]


@njit(cache=True, nogil=True)
def _lay_out(targets: np.ndarray, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Token of each state, and whether the blank before it can be skipped; (2 U + 1,) each."""
    labels = np.full(2 * len(targets) + 1, blank, dtype=np.int64)
    for place in range(len(targets)):
        labels[2 * place + 1] = targets[place]
    skips = np.zeros(len(labels), dtype=np.bool_)
    for place in range(1, len(targets)):
        skips[2 * place + 1] = targets[place] != targets[place - 1]
    return labels, skips


@njit(cache=True, nogil=True)
def _walk_forward(
    log_probs: np.ndarray, labels: np.ndarray, skips: np.ndarray, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all states after every ``every`` frames, (K, S), and after the last frame, (S,)."""
    frames, states = len(log_probs), len(labels)
    kept = np.full(((frames - 1) // every + 1, states), -np.inf)
    scores, other = np.full(states, -np.inf), np.full(states, -np.inf)
    scores[0], scores[1] = log_probs[0, labels[0]], log_probs[0, labels[1]]
    _copy(kept[0], scores)
    for frame in range(1, frames):
        _step(log_probs[frame], labels, skips, scores, other, 0, min(states, 2 * frame + 2))
        scores, other = other, scores
        if frame % every == 0:
            _copy(kept[frame // every], scores)
    return kept, scores


@njit(cache=True, nogil=True)
def _walk_back(
    log_probs: np.ndarray, labels: np.ndarray, skips: np.ndarray, kept: np.ndarray, every: int, state: int
) -> np.ndarray:
    """State at each frame of the best path that ends in ``state``, (T',)."""
    path = np.empty(len(log_probs), dtype=np.int64)
    last = len(log_probs) - 1
    scores, other = np.empty(len(labels)), np.empty(len(labels))
    walked = np.empty((every + 1, 2 * every + 3))
    for block in range(len(kept) - 1, -1, -1):
        first = block * every
        low = max(0, state - 2 * (last - first))
        for at in range(len(labels)):
            scores[at] = other[at] = -np.inf
        _copy(scores[low:], kept[block, low : state + 1])
        _copy(walked[0], scores[low : state + 1])
        for frame in range(first + 1, last + 1):
            _step(log_probs[frame], labels, skips, scores, other, low, state + 1)
            scores, other = other, scores
            _copy(walked[frame - first], scores[low : state + 1])
        for frame in range(last, first, -1):
            path[frame] = state
            row = walked[frame - 1 - first]
            best, back = row[state - low], 0
            if state > low and row[state - 1 - low] > best:
                best, back = row[state - 1 - low], 1
            if skips[state] and state - 2 >= low and row[state - 2 - low] > best:
                back = 2
            state -= back
        path[first] = state
        last = first
    return path


@njit(cache=True, nogil=True)
def _align(log_probs: np.ndarray, targets: np.ndarray, blank: int, every: int) -> np.ndarray:
    """First and last frame of each target, (U, 2); -1 without a path. Scores are stored every ``every`` frames."""
    spans = np.full((len(targets), 2), -1, dtype=np.int64)
    if len(log_probs) == 0:
        return spans
    labels, skips = _lay_out(targets, blank)
    kept, scores = _walk_forward(log_probs, labels, skips, every)
    state = len(labels) - 1 if scores[-1] >= scores[-2] else len(labels) - 2
    if scores[state] == -np.inf:
        return spans
    path = _walk_back(log_probs, labels, skips, kept, every, state)
    for frame in range(len(path) - 1, -1, -1):
        if path[frame] % 2:
            place = path[frame] // 2
            if spans[place, 1] < 0:
                spans[place, 1] = frame
            spans[place, 0] = frame
    return spans
