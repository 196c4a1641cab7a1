"""Log-probabilities of recordings of any length: pieces with some context on both sides, put together on one grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from speechrnn.recognition.recognizer import Recognizer

PIECE_SECONDS = 30.0
CONTEXT_SECONDS = 4.0


def compute_log_probs(
    recognizer: Recognizer,
    samples: np.ndarray,
    *,
    piece_seconds: float = PIECE_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
) -> np.ndarray:
    """Compute log-probabilities piece by piece; what is as short as a piece with its context is computed at once.

    Args:
        recognizer: The model.
        samples: The recording at the model's rate, (N,), float32; long enough for a frame.
        piece_seconds: How much of each piece is kept.
        context_seconds: How much is heard before and after that, so that both directions know where they are.

    Returns:
        (T', V), natural log, float32.
    """
    hop = round(recognizer.seconds_per_frame * recognizer.sample_rate)
    piece, context = (
        max(1, round(seconds / recognizer.seconds_per_frame)) for seconds in (piece_seconds, context_seconds)
    )
    total = recognizer.count_frames(len(samples))
    if total <= piece + 2 * context:
        return _compute(recognizer, samples)
    parts = []
    for first in range(0, total, piece):
        begin = max(0, first - context)
        # The last frame reads past its hop: some more samples than frames times hop.
        last = min(total, first + piece + context)
        end = len(samples) if last == total else (last + 1) * hop
        rows = _compute(recognizer, samples[begin * hop : end])
        parts.append(rows[first - begin : min(first + piece, total) - begin])
    return np.concatenate(parts)


def _compute(recognizer: Recognizer, samples: np.ndarray) -> np.ndarray:
    waveform = torch.from_numpy(np.ascontiguousarray(samples))[None]
    emission = recognizer.emissions(waveform, torch.tensor([waveform.shape[1]]))
    return emission.log_probs[0, : int(emission.lengths[0])].cpu().numpy()
