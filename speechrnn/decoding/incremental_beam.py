"""Beam search of log-probabilities that arrive in pieces; apart from the greedy one, which does not need numba."""

from __future__ import annotations

import bisect
import math
from itertools import takewhile

import numpy as np

from speechrnn.decoding.beam import ROOT, BeamConfig, BeamSearch, make_hypotheses, make_hypothesis
from speechrnn.decoding.fusion import Fusion
from speechrnn.decoding.grammar import Grammar
from speechrnn.decoding.incremental import Incremental, split_hypothesis
from speechrnn.types import BLANK_ID, Hypothesis

STABLE_FRAMES = 10
"""After so many frames in the best prefix a token rarely leaves it: 0.4 s of 40 ms."""


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
