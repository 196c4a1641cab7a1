"""Batches of sequences of different lengths: padding them, and telling valid positions from padding.

Letters: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_sequences(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack 1-D tensors, with zeros at their ends: (B, T), T that of the longest, and their lengths, (B,), int64."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device. The host does not wait: a copy to a GPU is queued, one to the CPU is complete."""
    return tensor.to(device, non_blocking=device.type != "cpu")


def valid_mask(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Mark the positions that belong to each sequence.

    Args:
        sequences: (B, T, …); only its shape and device matter.
        lengths: Valid positions of each sequence, (B,), int64, on any device.

    Returns:
        (B, T), bool, on the device of the sequences; False is padding.
    """
    return torch.arange(sequences.shape[1], device=sequences.device) < move(lengths, sequences.device)[:, None]


def mask_padding(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Set what lies past each length to zero, also where it is NaN: (B, T, …), (B,) → (B, T, …)."""
    mask = valid_mask(sequences, lengths)
    return sequences.masked_fill(~mask.view(*mask.shape, *(1,) * (sequences.dim() - 2)), 0.0)


def pick_last(frames: Tensor, lengths: Tensor) -> Tensor:
    """The last valid frame of each utterance, (B, T, D) → (B, 1, D); the first one where none is valid."""
    last = (move(lengths, frames.device) - 1).clamp(min=0)[:, None, None]
    return frames.gather(1, last.expand(-1, 1, frames.shape[2]))
