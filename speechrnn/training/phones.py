"""Phones as what lower layers learn: an output layer of their own, which the released model does without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from speechrnn.acoustic.ctc import CTCHead, count_frames_needed, ctc_losses
from speechrnn.padding import pad_sequences


class PhoneOutput(nn.Module):
    """Lower layers' frames to log-probabilities of phones, and the CTC losses of those.

    Args:
        pronunciations: Phones of each word.
        input_size: Units of a layer's output.

    Attributes:
        head: The output layer; the blank first, then the phones in alphabetical order.
        pronunciations: As given.
    """

    def __init__(self, pronunciations: Mapping[str, Sequence[str]], input_size: int) -> None:
        super().__init__()
        phones = sorted({phone for word in pronunciations.values() for phone in word})
        ids = {phone: number for number, phone in enumerate(phones, start=1)}
        self.pronunciations = dict(pronunciations)
        self._spoken = {word: [ids[phone] for phone in spoken] for word, spoken in pronunciations.items()}
        self.head = CTCHead(input_size, 1 + len(phones))

    def encode(self, text: str) -> list[int] | None:
        """Ids of a text's phones, from 1; None where the pronunciation of a word is not known."""
        words = [self._spoken.get(word) for word in text.split()]
        return None if None in words else [phone for word in words for phone in word or ()]

    def losses(self, log_probs: Tensor, texts: Sequence[str], *, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log probability of each utterance's phones.

        Args:
            log_probs: What :attr:`head` made of a layer, (B, T', phones and blank).
            texts: What was said, B of them.
            lengths: Valid encoder frames, (B,), int64.

        Returns:
            The losses, (B,), in nats, and whether they count, (B,): not where a word's phones are not known, or there
            are more phones than frames.
        """
        encoded = [self.encode(text) for text in texts]
        frames = lengths.tolist()
        fits = [ids is not None and count_frames_needed(ids) <= n for ids, n in zip(encoded, frames, strict=True)]
        usable = [ids if ids and fit else [] for ids, fit in zip(encoded, fits, strict=True)]
        device = log_probs.device
        padded = pad_sequences([torch.tensor(ids, dtype=torch.int64) for ids in usable])
        targets, sizes = (each.to(device) for each in padded)
        losses = ctc_losses(log_probs, targets, lengths=lengths, target_lengths=sizes)
        return losses, torch.tensor(fits, device=device)
