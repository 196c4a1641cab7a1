"""Closed vocabularies: the allowed token sequences as an automaton that the beam search follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from speechrnn.errors import ConfigError
from speechrnn.language.hash_table import make_table

_START = 0


@dataclass(frozen=True)
class Grammar:
    """A deterministic automaton over tokens.

    Attributes:
        transitions: (state, token) → state; a missing token is not allowed in that state.
        finals: States at which a sentence may end.
    """

    transitions: dict[tuple[int, int], int]
    finals: frozenset[int]
    _compiled: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_sentences(cls, sentences: Iterable[Sequence[int]]) -> Grammar:
        """Allow these token sequences only.

        Raises:
            ConfigError: There is none.
        """
        transitions: dict[tuple[int, int], int] = {}
        finals = set()
        for sentence in sentences:
            state = _START
            for token in sentence:
                state = transitions.setdefault((state, token), len(transitions) + 1)
            finals.add(state)
        if not finals:
            raise ConfigError("closed vocabulary: expected allowed sentences, found none")
        return cls(transitions, frozenset(finals))

    @classmethod
    def of_words(cls, words: Iterable[Sequence[int]], *, separator: int | None = None) -> Grammar:
        """Allow any sequence of one or more of these words.

        Args:
            words: Each as tokens.
            separator: Token between two words (the space, where tokens are characters); None: nothing.

        Raises:
            ConfigError: There is none.
        """
        words = [tuple(word) for word in words if len(word)]
        if not words:
            raise ConfigError("closed vocabulary: expected allowed words, found none")
        one = cls.of_sentences(words)
        transitions = dict(one.transitions)
        for final in one.finals:
            if separator is not None:
                transitions[final, separator] = _START
                continue
            for (state, token), to in one.transitions.items():
                if state == _START:
                    transitions.setdefault((final, token), to)
        return cls(transitions, one.finals)

    def compile(self, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a table from state · V + token to the next state, (n, 2), and the final states, (S,) bool."""
        if vocabulary_size not in self._compiled:
            keys = [state * vocabulary_size + token for state, token in self.transitions]
            table = make_table(2 * len(keys) + 1, keys, list(self.transitions.values()))
            finals = np.zeros(1 + max([_START, *self.finals, *self.transitions.values()]), dtype=bool)
            finals[list(self.finals)] = True
            self._compiled[vocabulary_size] = table, finals
        return self._compiled[vocabulary_size]
