"""What every decoder checks first: shapes, lengths, and that each frame holds a distribution."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from speechrnn.errors import ConfigError
from speechrnn.types import valid_mask


def check_log_probs(log_probs: Tensor, lengths: Tensor, blank_id: int, *, name: str) -> None:
    """Refuse what cannot be decoded.

    Args:
        log_probs: Expected to be (B, T', V); each valid frame needs a finite maximum, so no NaN.
        lengths: Expected to be (B,), each in [0, T'].
        blank_id: Expected to be one of V tokens.
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
        raise ConfigError(f"{name}: blank_id {blank_id} is none of the {log_probs.shape[2]} tokens")
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
    """The same check of one utterance's frames, (T', V).

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
