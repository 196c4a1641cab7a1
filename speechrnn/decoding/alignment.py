"""Where in a recording each token of a known text is said: the most probable CTC path that says it (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechrnn.decoding.beam_kernels import align
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
    spans = align(np.ascontiguousarray(log_probs, dtype=np.float64), np.asarray(tokens, dtype=np.int64), blank_id)
    if (spans < 0).any():
        raise SpeechRNNError(
            f"the text cannot be aligned: {len(tokens)} tokens do not fit into {len(log_probs)} frames"
        )
    return [(int(first), int(last)) for first, last in spans]
