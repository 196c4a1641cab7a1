"""Greedy CTC decoding: the best token of every frame, repeats merged, blanks removed; the checks of all decoders."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speechrnn.errors import ConfigError
from speechrnn.types import BLANK_ID, Hypothesis, mask_padding, valid_mask


def decode_greedy(log_probs: Tensor, lengths: Tensor, *, blank_id: int = BLANK_ID) -> list[Hypothesis]:
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
    check_log_probs(log_probs, lengths, blank_id, name="decode_greedy")
    lengths = lengths.to(log_probs.device)
    best_log_probs, best = log_probs.max(dim=-1)  # (B, T'), (B, T')
    best = best.masked_fill(~valid_mask(best, lengths), blank_id)
    best_log_probs = mask_padding(best_log_probs, lengths)
    runs, confidences = _find_runs(best, best_log_probs, blank_id)
    hypotheses = [Hypothesis([], [], score) for score in best_log_probs.double().sum(dim=1).tolist()]
    for (row, token, first, last), confidence in zip(runs.tolist(), confidences.tolist(), strict=True):
        hypotheses[row].tokens.append(token)
        hypotheses[row].frames.append((first, last))
        hypotheses[row].confidences.append(confidence)
    return hypotheses


def _find_runs(best: Tensor, best_log_probs: Tensor, blank_id: int) -> tuple[Tensor, Tensor]:
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
    edge = torch.ones_like(best[:, :1], dtype=torch.bool)
    is_first = is_token & torch.cat([edge, is_change], dim=1)
    is_last = is_token & torch.cat([is_change, edge], dim=1)
    row, first = is_first.nonzero(as_tuple=True)
    last = is_last.nonzero(as_tuple=True)[1]  # as many and in the same order as the first frames
    run_of_frame = is_first.flatten().cumsum(dim=0)[is_token.flatten()] - 1
    posteriors = best_log_probs.flatten()[is_token.flatten()].exp().clamp(max=1.0)  # a rounded log may pass 0
    confidences = posteriors.new_zeros(len(row)).scatter_reduce(0, run_of_frame, posteriors, "amax")
    return torch.stack([row, best[row, first], first, last], dim=1), confidences


def check_log_probs(log_probs: Tensor, lengths: Tensor, blank_id: int, *, name: str) -> None:
    """Check shapes and lengths, and that each frame holds a distribution.

    Args:
        log_probs: (B, T', V); each valid frame needs a finite maximum, so no NaN.
        lengths: (B,), each in [0, T'].
        blank_id: One of V tokens.
        name: The caller, for error messages.

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
    is_finite = log_probs.amax(dim=2).isfinite()
    wrong = (valid_mask(is_finite, lengths) & ~is_finite).nonzero()
    if len(wrong):
        raise _describe_bad_frame(name, "row {} of the batch, frame {}".format(*wrong[0].tolist()))


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
