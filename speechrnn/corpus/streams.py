"""Consecutive utterances, and batches whose rows continue them: for states that are carried over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from speechrnn.corpus.batches import Plan
from speechrnn.corpus.utterance import Utterance
from speechrnn.types import derive_seed

CarryState = Literal["no", "recording", "speaker"]


def find_sequences(utterances: Iterable[Utterance], carry: CarryState) -> list[list[int]]:
    """Positions of consecutive utterances; each utterance is in one sequence.

    Args:
        utterances: A corpus's, in its order.
        carry: ``recording``: parts of one recording, by time; ``speaker``: utterances of one speaker, in the corpus's
            order; ``no``: each utterance alone.
    """
    groups: dict[object, list[tuple[float, int]]] = {}
    for position, each in enumerate(utterances):
        own: object = position
        if carry == "recording":
            own = each.audio_path
        elif carry == "speaker" and each.speaker is not None:
            own = each.speaker_key
        groups.setdefault(own, []).append((each.start if carry == "recording" else 0.0, position))
    return [[position for _, position in sorted(group)] for group in groups.values()]


def find_previous(sequences: Sequence[Sequence[int]]) -> dict[int, int]:
    """The position of each utterance's predecessor, if it has one."""
    return {after: before for sequence in sequences for before, after in pairwise(sequence)}


class StreamBatches(Plan):
    """Batches whose rows continue: row b of a batch is the successor of row b of the batch before it.

    Sequences are distributed over as many rows as the budget allows for the longest utterance, so that rows have nearly
    equal lengths. The order of the sequences in a row is drawn for each epoch. Every epoch has the same number of
    batches; the last ones have fewer rows.

    Args:
        seconds: Duration of each utterance.
        sequences: Positions of consecutive utterances.
        batch_seconds: Budget of a batch, including padding, in seconds.
        seed: Seed of the order.
        shuffle: Whether the order is drawn; otherwise every epoch is the same.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        sequences: Sequence[Sequence[int]],
        *,
        batch_seconds: float,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.seed = seed
        self.shuffle = shuffle
        longest = float(self.seconds.max()) if len(self.seconds) else 1.0
        count = max(1, min(len(sequences), int(batch_seconds // longest)))
        self.rows: list[list[Sequence[int]]] = [[] for _ in range(count)]
        sizes = [0] * count
        for sequence in sorted(sequences, key=len, reverse=True):  # the longest first, each to the shortest row
            row = min(range(count), key=sizes.__getitem__)
            self.rows[row].append(sequence)
            sizes[row] += len(sequence)
        self._length = max(sizes, default=0)

    def __len__(self) -> int:
        return self._length

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch, each a list of positions in ``seconds``."""
        rng = np.random.default_rng(derive_seed(self.seed, epoch, "streams"))
        rows = []
        for row in self.rows:
            order = rng.permutation(len(row)) if self.shuffle else range(len(row))
            rows.append([position for number in order for position in row[number]])
        return [[row[step] for row in rows if step < len(row)] for step in range(self._length)]
