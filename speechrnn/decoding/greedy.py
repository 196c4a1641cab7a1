"""Greedy CTC decoding: the best token of every frame, repeats merged, blanks removed; the checks of all decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from speechrnn.errors import ConfigError
from speechrnn.types import BLANK_ID, Hypothesis

if TYPE_CHECKING:
    from torch import Tensor


def decode_greedy(
    log_probs: Tensor | np.ndarray, lengths: Tensor | np.ndarray, *, blank_id: int = BLANK_ID
) -> list[Hypothesis]:
    """Decode a batch along its best paths.

    Args:
        log_probs: (B, T', V), natural log, on any device; rows past an utterance's length are ignored.
        lengths: Valid frames, (B,), int64, each in [0, T'].
        blank_id: Token id of the blank.

    Returns:
        B hypotheses. A token's frames are the run in which it was the best one; its confidence is its highest
        posterior in that run; the acoustic score is the log probability of the best path, blanks included.

    Raises:
        ConfigError: The shapes do not match, a length is not in [0, T'], the blank is not a token, or a frame has
            log-probabilities that are not finite; the message names the row.
    """
    best_log_probs, best = check_log_probs(log_probs, lengths, blank_id, name="decode_greedy")
    hypotheses = [Hypothesis([], [], score) for score in best_log_probs.sum(axis=1).tolist()]
    runs, confidences = _find_runs(best, best_log_probs, blank_id)
    for (row, token, first, last), confidence in zip(runs.tolist(), confidences.tolist(), strict=True):
        hypotheses[row].tokens.append(token)
        hypotheses[row].frames.append((first, last))
        hypotheses[row].confidences.append(confidence)
    return hypotheses


def _find_runs(best: np.ndarray, best_log_probs: np.ndarray, blank_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the runs of each non-blank token.

    Args:
        best: Best token of each frame, (B, T'), blank where padded.
        best_log_probs: Its log probability, (B, T').
        blank_id: Token id of the blank.

    Returns:
        One row per run, in order: utterance, token, first frame, last frame, (R, 4) int64; its highest posterior, (R,).
    """
    is_token = best != blank_id
    is_change = best[:, 1:] != best[:, :-1]
    edge = np.ones_like(best[:, :1], dtype=bool)
    is_first = is_token & np.concatenate([edge, is_change], axis=1)
    is_last = is_token & np.concatenate([is_change, edge], axis=1)
    row, first = is_first.nonzero()
    last = is_last.nonzero()[1]  # as many and in the same order as the first frames
    posteriors = np.minimum(np.exp(best_log_probs[is_token]), 1.0)  # a rounded log may pass 0
    starts = np.flatnonzero(is_first[is_token])
    confidences = np.maximum.reduceat(posteriors, starts) if len(starts) else posteriors
    return np.stack([row, best[row, first], first, last], axis=1), confidences


def check_log_probs(
    log_probs: Tensor | np.ndarray, lengths: Tensor | np.ndarray, blank_id: int, *, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Check shapes and lengths, and that each frame holds a distribution.

    Args:
        log_probs: (B, T', V), on any device; each valid frame needs a finite maximum, so no NaN.
        lengths: (B,), each in [0, T'].
        blank_id: One of V tokens.
        name: The caller, for error messages.

    Returns:
        Log-probability of the best token of each frame, float64, and the token, (B, T') each; 0 and the blank where
        padded.

    Raises:
        ConfigError: One of them is not as expected; the message names the row and the frame.
    """
    if log_probs.ndim != 3 or lengths.shape != log_probs.shape[:1]:
        raise ConfigError(
            f"{name}: expected log_probs (B, T', V) and lengths (B,), "
            f"got {tuple(log_probs.shape)} and {tuple(lengths.shape)}"
        )
    if not 0 <= blank_id < log_probs.shape[2]:
        raise ConfigError(f"{name}: blank_id {blank_id}: expected one of {log_probs.shape[2]} tokens")
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= log_probs.shape[1]:
        raise ConfigError(
            f"{name}: lengths must be in [0, {log_probs.shape[1]}], the frames of log_probs; "
            f"got {int(lengths.min())} to {int(lengths.max())}"
        )
    if isinstance(log_probs, np.ndarray):
        best = log_probs.argmax(axis=-1)
        best_log_probs = np.take_along_axis(log_probs, best[..., None], axis=-1)[..., 0].astype(np.float64)
    else:  # only the best of each frame leave the device, in one copy
        import torch

        both = torch.stack([part.double() for part in log_probs.detach().max(dim=-1)]).cpu().numpy()
        best_log_probs, best = both[0], both[1].astype(np.int64)
    is_valid = np.arange(best.shape[1]) < np.array(lengths.tolist(), dtype=np.int64)[:, None]
    wrong = np.argwhere(is_valid & ~np.isfinite(best_log_probs))
    if len(wrong):
        raise _describe_bad_frame(name, "row {} of the batch, frame {}".format(*wrong[0].tolist()))
    return np.where(is_valid, best_log_probs, 0.0), np.where(is_valid, best, blank_id)


def check_frames(log_probs: np.ndarray, *, name: str) -> None:
    """Check one utterance's frames, (T', V), likewise.

    Raises:
        ConfigError: A frame has no finite maximum.
    """
    wrong = np.flatnonzero(~np.isfinite(log_probs.max(axis=1)))
    if len(wrong):
        raise _describe_bad_frame(name, f"frame {wrong[0]}")


def _describe_bad_frame(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"{name}: {where}: the highest log-probability is NaN or infinite; expected finite log-probabilities, "
        "check the model's weights and its input"
    )
