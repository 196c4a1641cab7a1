"""Decoding of log-probabilities that arrive in pieces: the best hypothesis so far, and at the end those of the whole.

What :meth:`Incremental.settle` has settled is not looked at again, so that a hypothesis so far takes the time of its
unsettled part only.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import takewhile

import numpy as np

from speechrnn.decoding.beam import ROOT, BeamConfig, BeamSearch, make_hypotheses, make_hypothesis
from speechrnn.decoding.fusion import Fusion
from speechrnn.decoding.grammar import Grammar
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.types import BLANK_ID, Hypothesis

STABLE_FRAMES = 10
"""After so many frames in the best prefix a token rarely leaves it: 0.4 s of 40 ms."""


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


class IncrementalBeam(Incremental):
    """:func:`~speechrnn.decoding.beam.decode_beam` in pieces.

    Certain is what all prefixes in the beam begin with; that may be long ago, as alternatives of a word keep their
    difference in score. Stable is what the best prefix has had for :data:`STABLE_FRAMES`.
    """

    def __init__(
        self, vocabulary_size: int, config: BeamConfig, *, grammar: Grammar | None = None, fusion: Fusion | None = None
    ) -> None:
        super().__init__(vocabulary_size)
        self._search = BeamSearch(vocabulary_size, config, grammar=grammar, fusion=fusion)
        self._node = ROOT  # of the settled tokens
        self._start = 0  # first frame after them
        self._path: list[int] = []  # the best prefix after them, and since which frame it has each token
        self._since: list[int] = []
        self._tail = Hypothesis([], [], 0.0)

    def _advance(self, log_probs: np.ndarray) -> None:
        self._search.feed(log_probs)

    def best(self) -> tuple[Hypothesis, int, int]:
        """As :meth:`Incremental.best`; tokens that remain in the best prefix keep their frames and confidences."""
        path = self._search.path(self._search.best(), self._node)
        if path != self._path:
            kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, self._path, strict=False)))
            self._since = self._since[:kept] + [len(self.rows)] * (len(path) - kept)
            self._path, self._tail = path, self._align(path, kept)
        certain = [self._node, *path].index(self._search.shared())
        stable = bisect.bisect_right(self._since, len(self.rows) - STABLE_FRAMES)
        return self._tail, max(certain, stable), certain

    def _align(self, path: list[int], kept: int) -> Hypothesis:
        """The hypothesis of a prefix whose first tokens are those of the present one."""
        start = self._tail.frames[kept - 1][1] + 1 if kept else self._start
        if 2 * (len(path) - kept) > len(self.rows) - start:  # with blanks between they may not fit
            kept = start = 0
        before, _ = split_hypothesis(self._tail, kept)
        found = make_hypothesis(self.rows.values[start:], self._search.read(path[kept:]), 0.0, BLANK_ID)
        return Hypothesis(
            before.tokens + found.tokens,
            before.frames + [(first + start, last + start) for first, last in found.frames],
            0.0,
            confidences=before.confidences + found.confidences,
        )

    def settle(self, count: int) -> None:
        """As :meth:`Incremental.settle`."""
        if not count:
            return
        self._node, self._start = self._path[count - 1], self._tail.frames[count - 1][1] + 1
        self._path, self._since = self._path[count:], self._since[count:]
        self._tail = split_hypothesis(self._tail, count)[1]

    def finish(self) -> list[Hypothesis]:
        """As :meth:`Incremental.finish`."""
        found = make_hypotheses(self._search, self.rows.values.astype(np.float64))
        return found or [Hypothesis([], [], -math.inf)]


def split_hypothesis(hypothesis: Hypothesis, count: int) -> tuple[Hypothesis, Hypothesis]:
    """A hypothesis of the first ``count`` tokens, and one of the others; both keep the scores."""
    head, tail = (
        {name: getattr(hypothesis, name)[part] for name in ("tokens", "frames", "confidences")}
        for part in (slice(count), slice(count, None))
    )
    return replace(hypothesis, **head), replace(hypothesis, **tail)
