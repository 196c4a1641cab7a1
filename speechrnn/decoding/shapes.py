"""Whether log-probabilities and lengths fit each other; all decoders ask this first."""

from __future__ import annotations

from torch import Tensor

from speechrnn.errors import ConfigError


def check_shapes(log_probs: Tensor, lengths: Tensor, blank_id: int, *, name: str) -> None:
    """Refuse what cannot be decoded.

    Args:
        log_probs: Should be (B, T', V).
        lengths: Should be (B,), each in [0, T'].
        blank_id: Should be one of V tokens.
        name: Whom an error speaks for.

    Raises:
        ConfigError: One of them is not so.
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
