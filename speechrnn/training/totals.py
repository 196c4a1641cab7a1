"""What an epoch of training adds up."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from speechrnn.training.collectives import sum_over_processes


@dataclass
class EpochTotals:
    """What an epoch has seen so far; it is part of a checkpoint, so that a resumed epoch reports all of itself.

    Attributes:
        loss: CTC losses of all utterances, in nats.
        consistency: Divergences of all utterances, in nats.
        utterances: How many there were, one for each pass.
        seconds: Audio trained on.
        norms: Norms of the gradients before clipping, of all steps taken.
        steps: Steps taken.
        clipped: Steps whose gradient was clipped.
        skipped: Steps not taken because loss or gradient was not finite.
    """

    loss: float = 0.0
    consistency: float = 0.0
    utterances: int = 0
    seconds: float = 0.0
    norms: float = 0.0
    steps: int = 0
    clipped: int = 0
    skipped: int = 0

    def mean(self, name: str) -> float:
        """The mean of ``loss`` or ``consistency`` over utterances, or of ``norms`` or ``clipped`` over steps."""
        count = self.utterances if name in ("loss", "consistency") else self.steps
        return getattr(self, name) / count if count else 0.0

    def gather(self, device: torch.device) -> None:
        """Take in what the other processes have seen; steps are the same on all of them.

        Args:
            device: Where the process trains.
        """
        own = [self.loss, self.consistency, self.utterances, self.seconds]
        self.loss, self.consistency, utterances, self.seconds = sum_over_processes(own, device)
        self.utterances = int(utterances)
