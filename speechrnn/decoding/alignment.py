"""Where in a recording each token of a known text is said: the most probable CTC path that says it (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from speechrnn.errors import SpeechRNNError
from speechrnn.types import BLANK_ID


def align_tokens(log_probs: np.ndarray, tokens: Sequence[int], *, blank_id: int = BLANK_ID) -> list[tuple[int, int]]:
    """Align tokens with frames.

    Args:
        log_probs: (T', V), natural log.
        tokens: Token ids, U of them, without blanks.
        blank_id: Which token is the blank.

    Returns:
        First and last frame of each token, both inclusive; blanks lie between.

    Raises:
        SpeechRNNError: No path has room for the tokens, or has a probability above zero.
    """
    spans = _align(np.ascontiguousarray(log_probs, dtype=np.float64), np.asarray(tokens, dtype=np.int64), blank_id)
    if (spans < 0).any():
        raise SpeechRNNError(
            f"the text cannot be aligned: {len(tokens)} tokens do not fit into {len(log_probs)} frames"
        )
    return [(int(first), int(last)) for first, last in spans]


@njit(cache=True, nogil=True)
def _align(log_probs: np.ndarray, targets: np.ndarray, blank: int) -> np.ndarray:
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
