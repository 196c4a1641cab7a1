"""Validation sums: losses, blanks, word and character errors, over all batches and all processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, fields

import torch

from speechrnn.acoustic.ctc import compute_blank_rate, ctc_losses
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.processes import gather_from_processes, sum_over_processes
from speechrnn.text.scores import ErrorCounts, character_errors, word_errors
from speechrnn.text.tokens import Tokens
from speechrnn.types import Batch, Emission, move

logger = logging.getLogger("speechrnn")

CHARACTERS_COUNT_FROM = 0.5
"""From this word error rate on, character errors count in the rank, and at 1 they alone."""

_KINDS: dict[str, Callable[[str, str], ErrorCounts]] = {"word": word_errors, "character": character_errors}


class Validation:
    """Sums over the validation set so far.

    Args:
        named: Unreadable recordings that are logged already; those logged here are added.
    """

    def __init__(self, named: set[str] | None = None) -> None:
        self._named = set() if named is None else named
        self._reset()

    def _reset(self) -> None:
        counts = [f"{kind}_{field.name}" for kind in _KINDS for field in fields(ErrorCounts)]
        self.sums = dict.fromkeys(["loss", "losses", "blanks", "frames", *counts], 0.0)
        self._failed: dict[str, str] = {}

    def add(self, emission: Emission, batch: Batch, tokens: Tokens) -> None:
        """Add a model's output for a batch, decoded greedily."""
        losses = ctc_losses(
            emission.log_probs, batch.targets, lengths=emission.lengths, target_lengths=batch.target_lengths
        )
        # An utterance with an unknown character has no targets: it counts in the WER, not in the loss.
        losses = losses[(move(batch.target_lengths, losses.device) > 0) & torch.isfinite(losses)]
        frames = int(emission.lengths.sum())
        self.sums["loss"] += float(losses.double().sum())
        self.sums["losses"] += len(losses)
        self.sums["frames"] += frames
        self.sums["blanks"] += float(compute_blank_rate(emission.log_probs, emission.lengths)) * frames
        # An utterance with non-finite log-probabilities counts as an empty transcript.
        is_finite = emission.log_probs.amax(dim=2).isfinite().all(dim=1).to(emission.lengths.device)
        hypotheses = decode_greedy(emission.log_probs, emission.lengths.where(is_finite, 0))
        for hypothesis, reference in zip(hypotheses, batch.texts, strict=True):
            self.count(tokens.written(reference), tokens.decode(hypothesis.tokens))

    def fail(self, id: str, reference: str, reason: str) -> None:
        """Add an utterance that cannot be read, as an empty transcript."""
        self._failed[id] = reason
        self.count(reference, "")

    def count(self, reference: str, hypothesis: str) -> None:
        """Add the errors of one utterance."""
        for kind, count in _KINDS.items():
            for name, value in asdict(count(reference, hypothesis)).items():
                self.sums[f"{kind}_{name}"] += value

    def finish(self, device: torch.device | None) -> dict[str, float]:
        """Compute the rates over all processes, log unreadable recordings, and reset the sums.

        Args:
            device: This process's training device; None if it alone validates the whole set.

        Returns:
            ``wer``, ``cer``, ``loss`` (in nats an utterance, infinite without one), ``blank_rate``, and ``rank``, by
            which checkpoints are chosen (:func:`compute_rank`).
        """
        failed = list(self._failed.items())
        if device is None:
            sums = self.sums
        else:
            sums = dict(zip(self.sums, sum_over_processes(list(self.sums.values()), device), strict=True))
            failed = gather_from_processes(failed)
        for id, reason in failed:
            if id not in self._named:
                logger.warning("counted as wrong in validation: %s: %s", id, reason)
                self._named.add(id)
        counts = {
            kind: ErrorCounts(**{f.name: int(sums[f"{kind}_{f.name}"]) for f in fields(ErrorCounts)}) for kind in _KINDS
        }
        wer, cer = (counts[kind].errors / max(1, counts[kind].length) for kind in ("word", "character"))
        loss = sums["loss"] / sums["losses"] if sums["losses"] else math.inf
        rank = compute_rank(wer, cer, loss)
        self._reset()
        blank_rate = sums["blanks"] / max(1.0, sums["frames"])
        return {"rank": rank, "wer": wer, "cer": cer, "loss": loss, "blank_rate": blank_rate}


def compute_rank(wer: float, cer: float, loss: float) -> float:
    """Rank checkpoints, lower is better: by word error rate, then by loss.

    While nearly every word is wrong, a model that emits little has fewer word errors than one that begins to spell.
    From :data:`CHARACTERS_COUNT_FROM` on, character errors gradually replace word errors. The rank rises with both.

    Args:
        wer: Word error rate, a fraction.
        cer: Character error rate, a fraction.
        loss: In nats an utterance; infinite without one.
    """
    lost = min(1.0, max(0.0, (wer - CHARACTERS_COUNT_FROM) / (1.0 - CHARACTERS_COUNT_FROM)))
    errors = (1.0 - lost) * wer + lost * (1.0 + cer)
    return errors + 1e-7 * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0)
