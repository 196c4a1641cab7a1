"""Where in a recording each token of a known text is said: the most probable CTC path that says it (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from speechrnn.errors import SpeechRNNError
from speechrnn.types import BLANK_ID

DEFAULT_WINDOW = 4096


def align_tokens(
    log_probs: np.ndarray, tokens: Sequence[int], *, blank_id: int = BLANK_ID, window: int = DEFAULT_WINDOW
) -> list[tuple[int, int]]:
    """Align tokens with frames.

    Args:
        log_probs: (T', V), natural log.
        tokens: Token ids, U of them, without blanks.
        blank_id: Which token is the blank.
        window: Of the 2 U + 1 states of the text so many around the best one are followed, so that memory grows with
            T' alone; a text that is shorter than that is aligned exactly.

    Returns:
        First and last frame of each token, both inclusive; blanks lie between.

    Raises:
        SpeechRNNError: No path has room for the tokens, or has a probability above zero, or the window lost it.
    """
    spans, reached = _align(
        np.ascontiguousarray(log_probs, dtype=np.float64), np.asarray(tokens, dtype=np.int64), blank_id, window
    )
    if (spans < 0).any():
        hint = "" if 2 * len(tokens) + 1 <= window else f"; it ends where about the first {reached} of them are said"
        raise SpeechRNNError(
            f"the text cannot be aligned: {len(tokens)} tokens do not fit into {len(log_probs)} frames{hint}"
        )
    return [(int(first), int(last)) for first, last in spans]


@njit(cache=True, nogil=True)
def _align(log_probs: np.ndarray, targets: np.ndarray, blank: int, window: int) -> tuple[np.ndarray, int]:
    """First and last frame of each target, (U, 2), -1 where there is no path; and how many the best end has said.

    States are blank, target, blank … blank; those from ``lows[frame]`` on are in the window.
    """
    frames, length = len(log_probs), len(targets)
    spans = np.full((length, 2), -1, dtype=np.int64)
    if length == 0 or frames == 0:
        return spans, 0
    states = 2 * length + 1
    width = min(states, window)
    scores, before = np.full(width, -np.inf), np.empty(width)
    steps = np.zeros((frames, width), dtype=np.int8)  # how many states back a state was reached from
    lows = np.zeros(frames, dtype=np.int64)
    scores[0] = log_probs[0, blank]
    scores[1] = log_probs[0, targets[0]]
    for frame in range(1, frames):
        before[:] = scores
        low = min(max(lows[frame - 1], lows[frame - 1] + before.argmax() - width // 2), states - width)
        lows[frame] = low
        shift = low - lows[frame - 1]
        for place in range(width):
            state, origin = low + place, place + shift
            token = targets[state // 2] if state % 2 else blank
            best, step = before[origin] if origin < width else -np.inf, 0
            if 0 < origin <= width and before[origin - 1] > best:
                best, step = before[origin - 1], 1
            may_skip = state > 2 and state % 2 == 1 and targets[state // 2] != targets[state // 2 - 1]
            if may_skip and 1 < origin <= width + 1 and before[origin - 2] > best:
                best, step = before[origin - 2], 2
            scores[place] = best + log_probs[frame, token]
            steps[frame, place] = step
    low = lows[frames - 1]
    reached = (low + scores.argmax() + 1) // 2
    state = states - 1
    if state - low >= width or (scores[state - low] == -np.inf and scores[state - 1 - low] == -np.inf):
        return spans, reached
    if scores[state - 1 - low] > scores[state - low]:
        state -= 1
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            place = state // 2
            if spans[place, 1] < 0:
                spans[place, 1] = frame
            spans[place, 0] = frame
        state -= steps[frame, state - lows[frame]]
    return spans, reached
