"""Connectionist temporal classification: output layer, loss, and which utterances it can align at all.

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
from speechrnn.settings import bounded, check_settings
from speechrnn.types import BLANK_ID, mask_padding, valid_mask


@dataclass(frozen=True)
class CTCConfig:
    """How the output layer begins, and what is added to the loss.

    Attributes:
        blank_bias: Bias of the blank before training, in nats. Above zero a model begins by saying nothing and then
            learns where to speak; at zero one with few tokens may learn to count instead: to write as many as usual,
            spread evenly, whatever is said.
        consistency: Weight α of consistency regularisation; 0 is off. Each utterance goes through the model twice, with
            masks of its own each time (``augment.spec_augment``), and each pass learns from the text and, by α, from
            what the other one said; a step takes nearly twice as long.
        consistency_warmup_steps: Steps over which α rises from 0 in a straight line: at first neither pass knows
            anything that the other could learn.
        intermediate_layers: Recurrent layers, counted from 1, that learn the text by themselves too, through the same
            output layer; the last layer does so anyway.
        intermediate_weight: Share of the loss that is the mean of theirs, in [0, 1).
        lexicon: Pronunciations, a word and its phones a line: the intermediate layers then learn the phones of the
            words instead of the text, through an output layer of their own that is not part of the model.

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
        check_settings(self, "ctc")
        if self.lexicon is not None and not self.intermediate_layers:
            raise ConfigError("ctc.lexicon: say which layers are to learn the phones, ctc.intermediate_layers")


class CTCHead(nn.Module):
    """Encoder frames to log-probabilities of tokens, in float32 whatever the encoder ran in."""

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
    """Minus the log probability of each utterance's text: summed over all paths, their frames added up in log.

    Args:
        log_probs: (B, T', V), float32, natural log.
        targets: Token ids, (B, U), int64, without blanks.
        lengths: Valid encoder frames, (B,), int64.
        target_lengths: Valid tokens, (B,), int64.

    Returns:
        One loss an utterance, (B,), in nats, not divided by any length; infinite where no path fits
        (see :func:`count_frames_needed`).
    """
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1),  # torch wants (T', B, V)
        targets,
        lengths,
        target_lengths,
        blank=BLANK_ID,
        reduction="none",
        zero_infinity=False,
    )


def ctc_loss(log_probs: Tensor, targets: Tensor, *, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """The mean over utterances of :func:`ctc_losses`, a scalar in nats an utterance.

    This is not torch's ``reduction="mean"``, which divides each loss by its target length and so weighs a word in a
    long sentence less than the same word alone.
    """
    return ctc_losses(log_probs, targets, lengths=lengths, target_lengths=target_lengths).mean()


def consistency_losses(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """How far each of two passes over the same utterances is from what the other one said.

    Args:
        log_probs: Both passes, one after the other: utterance b stands in rows b and B + b; (2B, T', V), natural log.
        lengths: Valid encoder frames, (2B,), int64.

    Returns:
        Kullback-Leibler divergence of each row from the other pass, which is held fixed (no gradient), summed over
        valid frames, (2B,), in nats.
    """
    other = torch.cat(log_probs.chunk(2)[::-1]).detach()
    divergence = (other.exp() * (other - log_probs)).sum(dim=-1)
    return mask_padding(divergence, lengths).sum(dim=1)


def count_frames_needed(targets: Sequence[int]) -> int:
    """Fewest encoder frames that some CTC path for these tokens has: U, and one blank between equal neighbours."""
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def explain_infeasible(targets: Sequence[int], frames: int) -> str | None:
    """Why no CTC path for these tokens fits into so many encoder frames; None where one does (T' ≥ U + repeats)."""
    needed = count_frames_needed(targets)
    if frames >= needed:
        return None
    return (
        f"{len(targets)} tokens with {needed - len(targets)} repeats need at least {needed} encoder frames, "
        f"this model makes {frames}; cut the text or lower the subsampling"
    )


def compute_blank_rate(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Share of valid frames whose best token is the blank, a scalar in [0, 1]."""
    is_valid = valid_mask(log_probs, lengths)
    is_blank = log_probs.argmax(dim=-1) == BLANK_ID
    return (is_blank & is_valid).sum() / is_valid.sum().clamp(min=1)
