"""Connectionist temporal classification: output layer, losses, and a check that a text can be aligned.

Source:
    A. Graves et al., "Connectionist Temporal Classification", ICML 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from speechrnn.acoustic.recurrent import MOST_LAYERS
from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded
from speechrnn.types import BLANK_ID, mask_padding, valid_mask


@dataclass(frozen=True)
class CTCConfig(Settings, section="ctc"):
    """Initial output layer, and additional losses.

    Attributes:
        blank_bias: Initial bias of the blank, in nats. Above zero, a model first outputs only blanks and then learns
            where tokens are; at zero, a model with few tokens may output a constant number of evenly spaced tokens
            independent of the audio.
        consistency: Weight α of consistency regularisation; 0 disables it. Each utterance passes through the model
            twice, with different masks (``augment.spec_augment``), and each pass learns from the text and, by α, from
            the output of the other; a step takes nearly twice as long.
        consistency_warmup_steps: Steps over which α rises linearly from 0.
        intermediate_layers: Recurrent layers, counted from 1, whose outputs also get a CTC loss, through the same
            output layer.
        intermediate_weight: Share of the loss that is the mean of these losses, in [0, 1).
        lexicon: Pronunciations, a word and its phones per line: the intermediate layers then learn the phones of the
            words instead of the text, through an additional output layer that is not part of the model.

    Source:
        Z. Yao et al., "CR-CTC: Consistency regularization on CTC for improved speech recognition", ICLR 2025; J. Lee
        and S. Watanabe, "Intermediate Loss Regularization for CTC-based Speech Recognition", ICASSP 2021; S. Fernández
        et al., "Sequence Labelling in Structured Domains with Hierarchical Recurrent Neural Networks", IJCAI 2007.
    """

    blank_bias: float = bounded(0.0, -20, 20, unit="nats")
    consistency: float = bounded(0.0, 0, 100)
    consistency_warmup_steps: int = bounded(2000, 0, 10**9)
    intermediate_layers: tuple[int, ...] = bounded((), 1, MOST_LAYERS)
    intermediate_weight: float = bounded(0.3, 0, 1, open="high")
    lexicon: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lexicon is not None and not self.intermediate_layers:
            raise ConfigError("ctc.lexicon: say which layers are to learn the phones, ctc.intermediate_layers")


class CTCHead(nn.Module):
    """Encoder frames to log-probabilities of tokens, always in float32."""

    def __init__(self, input_size: int, vocabulary_size: int, *, blank_bias: float = 0.0) -> None:
        super().__init__()
        self.projection = nn.Linear(input_size, vocabulary_size)
        if blank_bias:
            with torch.no_grad():
                self.projection.bias[BLANK_ID] = blank_bias

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T', D) → natural-log probabilities (B, T', V), float32."""
        return self.projection(frames).float().log_softmax(dim=-1)


def ctc_losses(log_probs: Tensor, targets: Tensor, *, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Negative log probability of each utterance's text, summed over all CTC paths.

    Args:
        log_probs: (B, T', V), float32, natural log.
        targets: Token ids, (B, U), int64, without blanks.
        lengths: Valid encoder frames, (B,), int64.
        target_lengths: Valid tokens, (B,), int64.

    Returns:
        One loss per utterance, (B,), in nats, not divided by any length; infinite if no path fits
        (:func:`count_frames_needed`).
    """
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1),  # torch expects (T', B, V)
        targets,
        lengths,
        target_lengths,
        blank=BLANK_ID,
        reduction="none",
        zero_infinity=False,
    )


def ctc_loss(log_probs: Tensor, targets: Tensor, *, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """The mean over utterances of :func:`ctc_losses`, a scalar in nats per utterance.

    Unlike torch's ``reduction="mean"``, it does not divide each loss by its target length.
    """
    return ctc_losses(log_probs, targets, lengths=lengths, target_lengths=target_lengths).mean()


def consistency_losses(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Divergence between two passes over the same utterances.

    Args:
        log_probs: Both passes, one after the other: utterance b is in rows b and B + b; (2B, T', V), natural log.
        lengths: Valid encoder frames, (2B,), int64.

    Returns:
        Kullback-Leibler divergence of each row from the other pass, which gets no gradient, summed over valid frames,
        (2B,), in nats.
    """
    other = torch.cat(log_probs.chunk(2)[::-1]).detach()
    divergence = (other.exp() * (other - log_probs)).sum(dim=-1)
    return mask_padding(divergence, lengths).sum(dim=1)


def count_frames_needed(targets: Sequence[int]) -> int:
    """Minimum number of encoder frames of a CTC path for these tokens: U plus adjacent repeats."""
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def explain_infeasible(targets: Sequence[int], frames: int) -> str | None:
    """Reason why no CTC path for these tokens fits into this many encoder frames; None if one does."""
    needed = count_frames_needed(targets)
    if frames >= needed:
        return None
    return (
        f"{len(targets)} tokens with {needed - len(targets)} repeats need at least {needed} encoder frames, "
        f"this model makes {frames}; shorten the text or lower the subsampling"
    )


def compute_blank_rate(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Share of valid frames whose most probable token is the blank, a scalar in [0, 1]."""
    is_valid = valid_mask(log_probs, lengths)
    is_blank = log_probs.argmax(dim=-1) == BLANK_ID
    return (is_blank & is_valid).sum() / is_valid.sum().clamp(min=1)
