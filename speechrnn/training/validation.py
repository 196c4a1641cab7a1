"""What validation adds up: losses, blanks, word and character errors, over all batches and all processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

import torch

from speechrnn.acoustic.ctc import compute_blank_rate, ctc_losses
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.processes import gather_from_processes, sum_over_processes
from speechrnn.text.scores import ErrorCounts, character_errors, word_errors
from speechrnn.text.tokens import Tokens
from speechrnn.types import Batch, Emission, move

logger = logging.getLogger("speechrnn")

WORDS_SAY_LESS = 0.5
"""From this word error rate on, character errors have a say in which network is the better one, and at 1 all of it."""

_KINDS: dict[str, Callable[[str, str], ErrorCounts]] = {"word": word_errors, "character": character_errors}


class Validation:
    """Sums over the validation set so far.

    Args:
        named: Unreadable recordings that the log has named already; those named here are added.
    """

    def __init__(self, named: set[str] | None = None) -> None:
        self._named = set() if named is None else named
        self._reset()

    def _reset(self) -> None:
        counts = [f"{kind}_{field.name}" for kind in _KINDS for field in fields(ErrorCounts)]
        self.sums = dict.fromkeys(["loss", "losses", "blanks", "frames", *counts], 0.0)
        self._failed: dict[str, str] = {}

    def _name(self, failed: Sequence[tuple[str, str]]) -> None:
        """Name each recording that cannot be read once."""
        for id, reason in failed:
            if id not in self._named:
                logger.warning("validation counts it as wrong: %s: %s", id, reason)
                self._named.add(id)

    def add(self, emission: Emission, batch: Batch, tokens: Tokens) -> None:
        """Add a model's output for a batch, decoded greedily."""
        losses = ctc_losses(
            emission.log_probs, batch.targets, lengths=emission.lengths, target_lengths=batch.target_lengths
        )
        # An utterance with a character that the model lacks has no targets: it counts in the WER, not in the loss.
        losses = losses[(move(batch.target_lengths, losses.device) > 0) & torch.isfinite(losses)]
        frames = int(emission.lengths.sum())
        self.sums["loss"] += float(losses.double().sum())
        self.sums["losses"] += len(losses)
        self.sums["frames"] += frames
        self.sums["blanks"] += float(compute_blank_rate(emission.log_probs, emission.lengths)) * frames
        # An utterance whose log-probabilities are not finite counts as not recognised, and training goes on.
        is_finite = emission.log_probs.amax(dim=2).isfinite().all(dim=1).to(emission.lengths.device)
        hypotheses = decode_greedy(emission.log_probs, emission.lengths.where(is_finite, 0))
        for hypothesis, reference in zip(hypotheses, batch.texts, strict=True):
            self.count(tokens.written(reference), tokens.decode(hypothesis.tokens))

    def fail(self, id: str, reference: str, reason: str) -> None:
        """Add an utterance that cannot be read: it counts as if nothing was recognised."""
        self._failed[id] = reason
        self.count(reference, "")

    def count(self, reference: str, hypothesis: str) -> None:
        """Add the errors of one utterance."""
        for kind, count in _KINDS.items():
            for name, value in asdict(count(reference, hypothesis)).items():
                self.sums[f"{kind}_{name}"] += value

    def finish(self, device: torch.device | None) -> dict[str, float]:
        """Rates over all that was added, by every process; resets the sums; unreadable recordings are named.

        Args:
            device: Where this process trains; None where it validates the whole set, and the others do not.

        Returns:
            ``wer``, ``cer``, ``loss`` (in nats an utterance, infinite where there is none), ``blank_rate``, and
            ``rank``: what checkpoints are chosen by (:func:`compute_rank`).
        """
        failed = list(self._failed.items())
        if device is None:
            sums = self.sums
        else:
            sums = dict(zip(self.sums, sum_over_processes(list(self.sums.values()), device), strict=True))
            failed = gather_from_processes(failed)
        self._name(failed)
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
    """What checkpoints are chosen by, the lower the better: word errors, and among equal ones the loss.

    Where nearly every word is wrong, one that says next to nothing has fewer word errors than one that begins to spell,
    so from :data:`WORDS_SAY_LESS` on character errors take their place, little by little. It rises with either rate.

    Args:
        wer: Word error rate, a fraction.
        cer: Character error rate, a fraction.
        loss: In nats an utterance; infinite where there is none.
    """
    lost = min(1.0, max(0.0, (wer - WORDS_SAY_LESS) / (1.0 - WORDS_SAY_LESS)))
    errors = (1.0 - lost) * wer + lost * (1.0 + cer)
    return errors + 1e-7 * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0)
