"""Decoding of log-probabilities that arrive in pieces: the best hypothesis so far, and at the end those of the whole.

What :meth:`Incremental.settle` has settled is not looked at again, so that a hypothesis so far takes the time of its
unsettled part only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from speechrnn.decoding.greedy import decode_greedy
from speechrnn.types import Hypothesis


class GrowingArray:
    """Rows, (N, …), to which more are appended; the time for that does not depend on their number.

    Args:
        shape: Of a row.
    """

    def __init__(self, *shape: int) -> None:
        self._array = np.zeros((0, *shape), dtype=np.float32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> np.ndarray:
        """All rows, (N, …), float32; a view."""
        return self._array[: self._size]

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end."""
        needed = self._size + len(rows)
        if needed > len(self._array):
            grown = np.zeros((max(needed, 2 * len(self._array)), *self._array.shape[1:]), dtype=np.float32)
            grown[: self._size] = self.values
            self._array = grown
        self._array[self._size : needed] = rows
        self._size = needed

    def drop(self, count: int) -> None:
        """Remove rows at the beginning, and their memory."""
        self._array = self.values[count:].copy()
        self._size = len(self._array)


class Incremental(ABC):
    """A search that is fed in pieces.

    Attributes:
        rows: The log-probabilities so far, (T', V).
    """

    def __init__(self, vocabulary_size: int) -> None:
        self.rows = GrowingArray(vocabulary_size)

    def feed(self, log_probs: np.ndarray) -> None:
        """Advance the search by log-probabilities, (T', V), float32, natural log.

        Raises:
            ConfigError: A frame's log-probabilities are not finite.
        """
        if len(log_probs):
            self._advance(log_probs)
            self.rows.append(log_probs)

    @abstractmethod
    def _advance(self, log_probs: np.ndarray) -> None:
        """Advance the search by at least one row; ``rows`` are those before."""

    @abstractmethod
    def best(self) -> tuple[Hypothesis, int, int]:
        """The best hypothesis so far without its settled tokens; how many of them are stable, and how many certain.

        Later frames rarely change stable tokens and never change certain ones. Frames count from the beginning; scores
        are 0.
        """

    @abstractmethod
    def settle(self, count: int) -> None:
        """Leave the first ``count`` tokens of :meth:`best`, which are certain, out of it from now on."""

    @abstractmethod
    def finish(self) -> list[Hypothesis]:
        """Hypotheses of all log-probabilities, as those that :class:`~speechrnn.recognition.decoders.Decoder` finds."""


class IncrementalGreedy(Incremental):
    """:func:`~speechrnn.decoding.greedy.decode_greedy` in pieces. All tokens but the last are certain."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__(vocabulary_size)
        self._whole = Hypothesis([], [], 0.0)
        self._score, self._settled = 0.0, 0

    def _advance(self, log_probs: np.ndarray) -> None:
        before = self.rows.values[-1:]  # a run of one token may go on from there
        rows = np.concatenate([before, log_probs])
        [piece] = decode_greedy(rows[None], np.array([len(rows)]))
        whole, start = self._whole, len(self.rows) - len(before)
        frames = [(first + start, last + start) for first, last in piece.frames]
        repeated = 1 if len(before) and frames and frames[0][0] == start else 0
        if repeated:
            whole.frames[-1] = whole.frames[-1][0], frames[0][1]
            whole.confidences[-1] = max(whole.confidences[-1], piece.confidences[0])
        whole.tokens.extend(piece.tokens[repeated:])
        whole.frames.extend(frames[repeated:])
        whole.confidences.extend(piece.confidences[repeated:])
        self._score += piece.acoustic_score - (float(before.max()) if len(before) else 0.0)

    def best(self) -> tuple[Hypothesis, int, int]:
        """As :meth:`Incremental.best`."""
        _, tail = split_hypothesis(self._whole, self._settled)
        certain = max(0, len(tail.tokens) - 1)
        return tail, certain, certain

    def settle(self, count: int) -> None:
        """As :meth:`Incremental.settle`."""
        self._settled += count

    def finish(self) -> list[Hypothesis]:
        """As :meth:`Incremental.finish`."""
        return [replace(self._whole, acoustic_score=self._score)]


def split_hypothesis(hypothesis: Hypothesis, count: int) -> tuple[Hypothesis, Hypothesis]:
    """A hypothesis of the first ``count`` tokens, and one of the others; both keep the scores."""
    head, tail = (
        {name: getattr(hypothesis, name)[part] for name in ("tokens", "frames", "confidences")}
        for part in (slice(count), slice(count, None))
    )
    return replace(hypothesis, **head), replace(hypothesis, **tail)
