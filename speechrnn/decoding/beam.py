"""CTC prefix beam search: the token sequences with the most probability over all of their paths.

A beam is a set of prefixes. Each has two probabilities: of all paths that end in a blank, after which the last token
can be repeated, and of those that end in the last token. In each frame a prefix stays as it is (a blank, or the last
token again) or is extended by a token; equal prefixes are added, and the most probable ones are kept.

The search is compiled by numba and releases the interpreter lock; utterances run in threads.

Source:
    A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012; A. Hannun et al., "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", arXiv:1408.2873.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.decoding.alignment import align_tokens
from speechrnn.decoding.fusion import Fusion
from speechrnn.decoding.grammar import Grammar
from speechrnn.decoding.greedy import check_frames, check_log_probs
from speechrnn.decoding.kernels import advance, begin_prefix, finish_prefix
from speechrnn.errors import ConfigError
from speechrnn.language.hash_table import make_table
from speechrnn.processes import count_cores
from speechrnn.settings import Settings, bounded
from speechrnn.types import BLANK_ID, Hypothesis, as_array

if TYPE_CHECKING:
    from torch import Tensor

ROOT = 0
"""The empty prefix."""


@dataclass(frozen=True)
class BeamConfig(Settings):
    """Limits of the search.

    Attributes:
        beam_size: Prefixes kept after each frame.
        token_threshold: Tokens that are this much less probable than a frame's best one are not tried, in nats.
        most_tokens: Most tokens tried in a frame.
        nbest: Hypotheses returned, the best first.
    """

    beam_size: int = bounded(16, 1, 10_000)
    token_threshold: float = bounded(12.0, 0, 10**9, open="low", unit="nats")
    most_tokens: int = bounded(64, 1, 4096)
    nbest: int = bounded(1, 1, 10_000)


@dataclass
class BeamSearch:
    """The search over one utterance, which may be fed in pieces with the same result.

    Args:
        vocabulary_size: V, the blank included.
        config: Limits of the search.
        blank_id: Token id of the blank.
        grammar: Allowed token sequences; None: any.
        fusion: Language model and hotwords; None: neither.

    Attributes:
        frames: Number of encoder frames so far.
    """

    vocabulary_size: int
    config: BeamConfig = field(default_factory=BeamConfig)
    blank_id: int = BLANK_ID
    grammar: Grammar | None = None
    fusion: Fusion | None = None
    frames: int = 0

    def __post_init__(self) -> None:
        # The trie of all prefixes that were ever in the beam: parent and token of each, and a table from both to it.
        self._parents = np.full(1, -1, dtype=np.int64)
        self._tokens = np.full(1, -1, dtype=np.int64)
        self._states = np.zeros(1, dtype=np.int64)
        # Fusion state of each prefix, and the score of fusion.
        self._known, self._added = np.zeros((1, 4), dtype=np.int64), np.zeros(1)
        self._fusion = _no_fusion() if self.fusion is None else self.fusion.arrays
        if self.fusion is not None:
            if len(self.fusion.begins) != self.vocabulary_size:
                raise ConfigError(f"fusion: made for {len(self.fusion.begins)} tokens, not {self.vocabulary_size}")
            begin_prefix(self._fusion, self._known[0])
        self._place_of = np.zeros(1, dtype=np.int64)  # the root is first in the beam
        self._count = 1
        self._table = make_table(64)
        self._transitions, self._finals = np.empty((0, 2), dtype=np.int64), np.ones(1, dtype=bool)
        if self.grammar is not None:
            self._transitions, self._finals = self.grammar.compile(self.vocabulary_size)
        # The beam: prefixes, and the logs of their two probabilities.
        self._nodes = np.full(self.config.beam_size, -1, dtype=np.int64)
        self._nodes[0] = ROOT
        self._ending = np.full((2, self.config.beam_size), -np.inf)
        self._ending[0, 0] = 0.0
        self._size = 1

    def feed(self, log_probs: np.ndarray) -> None:
        """Advance the search.

        Args:
            log_probs: (T', V), natural log, any floating type.

        Raises:
            ConfigError: The vocabulary size differs, or a frame's log-probabilities are not finite.
        """
        if log_probs.ndim != 2 or log_probs.shape[1] != self.vocabulary_size:
            raise ConfigError(f"beam search: expected (T', {self.vocabulary_size}), got {tuple(log_probs.shape)}")
        if not len(log_probs):
            return
        check_frames(log_probs, name="beam search")
        self._make_room(len(log_probs))
        self._count, self._size = advance(
            np.ascontiguousarray(log_probs, dtype=np.float64),
            self.blank_id,
            self.config.token_threshold,
            min(self.config.most_tokens, self.vocabulary_size),
            (self._parents, self._tokens, self._states, self._known, self._added),
            self._table,
            self._count,
            self._place_of,
            self._nodes,
            self._ending,
            self._size,
            self._transitions,
            self._fusion,
        )
        self.frames += len(log_probs)

    def _make_room(self, frames: int) -> None:
        """Grow the arrays for all prefixes that these frames can add."""
        needed = self._count + frames * self.config.beam_size
        if needed > len(self._parents):
            grown = max(needed, 2 * len(self._parents))
            for name in ("_parents", "_tokens", "_states", "_place_of", "_known", "_added"):
                array = getattr(self, name)
                larger = np.full((grown, *array.shape[1:]), -1, dtype=array.dtype)
                larger[: self._count] = array[: self._count]
                setattr(self, name, larger)
        if 2 * needed > len(self._table):
            known = np.arange(1, self._count)
            keys = self._parents[known] * self.vocabulary_size + self._tokens[known]
            self._table = make_table(4 * needed, keys, known)

    def ranked(self, count: int | None = None) -> list[tuple[list[int], float, float]]:
        """Return the best prefixes so far: token ids, natural log of their probability, and the score of fusion.

        The score of fusion assumes that the utterance ends here. With a grammar only allowed sentences are returned;
        if none is in the beam, the longest allowed beginnings of its prefixes, if there are any.
        """
        nodes = self._nodes[: self._size]
        acoustic = np.logaddexp(self._ending[0, : self._size], self._ending[1, : self._size])
        language = np.zeros(self._size)
        if self.fusion is not None:
            language = np.array([self._added[node] + finish_prefix(self._fusion, self._known[node]) for node in nodes])
        is_whole = self._finals[self._states[nodes]]
        if not is_whole.any():
            nodes = np.array([self._cut(node) for node in nodes])
            is_whole = nodes != ROOT
        order = [number for number in np.argsort(-(acoustic + language), kind="stable") if is_whole[number]]
        return [
            (self.read(self.path(int(nodes[number]))), float(acoustic[number]), float(language[number]))
            for number in order[: count or self.config.nbest]
        ]

    def best(self) -> int:
        """The most probable prefix so far, as a node, without what the end of an utterance adds; not always allowed."""
        nodes, ending = self._nodes[: self._size], self._ending[:, : self._size]
        return int(nodes[np.argmax(np.logaddexp(ending[0], ending[1]) + self._added[nodes])])

    def shared(self) -> int:
        """The longest common beginning of all prefixes in the beam, as a node: later frames do not change it."""
        nodes = set(self._nodes[: self._size].tolist())
        while len(nodes) > 1:
            last = max(nodes)  # created after its parent, so no beginning of the others
            nodes.remove(last)
            nodes.add(int(self._parents[last]))
        return nodes.pop()

    def path(self, node: int, since: int = ROOT) -> list[int]:
        """The nodes from below ``since``, a beginning of the prefix ``node``, to ``node``."""
        nodes = []
        while node != since:
            nodes.append(node)
            node = int(self._parents[node])
        return nodes[::-1]

    def read(self, nodes: Sequence[int]) -> list[int]:
        """The last token of each node."""
        return [int(self._tokens[node]) for node in nodes]

    def _cut(self, node: int) -> int:
        """The longest beginning of a prefix that is an allowed sentence; the root if there is none."""
        while node != ROOT and not self._finals[self._states[node]]:
            node = self._parents[node]
        return node


@cache
def _no_fusion() -> tuple[np.ndarray, ...]:
    return Fusion([]).arrays


def decode_beam(
    log_probs: Tensor | np.ndarray,
    lengths: Tensor | np.ndarray,
    config: BeamConfig | None = None,
    *,
    blank_id: int = BLANK_ID,
    grammar: Grammar | None = None,
    fusion: Fusion | None = None,
) -> list[list[Hypothesis]]:
    """Decode a batch.

    Args:
        log_probs: (B, T', V), natural log, on any device; rows past an utterance's length are ignored.
        lengths: Valid frames, (B,), int64, each in [0, T'].
        config: Limits of the search.
        blank_id: Token id of the blank.
        grammar: Allowed token sequences; None: any.
        fusion: Language model and hotwords; None: neither.

    Returns:
        For each utterance at most ``nbest`` hypotheses, the best first; with a grammar as in
        :meth:`BeamSearch.ranked`. The acoustic score is the natural log of the probability over all paths in the
        beam. A token's frames are those of the most probable path of the hypothesis; its confidence is the highest
        posterior in them.

    Raises:
        ConfigError: The shapes do not match, a length is not in [0, T'], the blank is not a token, or a frame has
            log-probabilities that are not finite; the message names the row.
    """
    config = config or BeamConfig()
    check_log_probs(log_probs, lengths, blank_id, name="decode_beam")
    pairs = zip(as_array(log_probs), lengths.tolist(), strict=True)
    utterances = [row[:length].astype(np.float64) for row, length in pairs]
    with ThreadPoolExecutor(max_workers=count_cores()) as pool:
        return list(pool.map(lambda row: _decode_one(row, config, blank_id, grammar, fusion), utterances))


def _decode_one(
    log_probs: np.ndarray, config: BeamConfig, blank_id: int, grammar: Grammar | None, fusion: Fusion | None
) -> list[Hypothesis]:
    search = BeamSearch(log_probs.shape[1], config, blank_id, grammar, fusion)
    search.feed(log_probs)
    return make_hypotheses(search, log_probs)


def make_hypotheses(search: BeamSearch, log_probs: np.ndarray) -> list[Hypothesis]:
    """Make the hypotheses of a search that was fed these log-probabilities, (T', V), float64; the best first."""
    return [
        make_hypothesis(log_probs, tokens, acoustic, search.blank_id, language)
        for tokens, acoustic, language in search.ranked()
    ]


def make_hypothesis(
    log_probs: np.ndarray, tokens: Sequence[int], score: float, blank_id: int, language_score: float = 0.0
) -> Hypothesis:
    """Make a hypothesis of tokens, with the frames of its most probable path."""
    frames = align_tokens(log_probs, tokens, blank_id=blank_id)
    confidences = [
        min(1.0, float(np.exp(log_probs[first : last + 1, token].max())))
        for token, (first, last) in zip(tokens, frames, strict=True)
    ]
    return Hypothesis(list(tokens), frames, score, language_score, confidences=confidences)
