"""Closed tasks: what may be said at all, as an automaton over tokens that the beam search walks along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from speechrnn.errors import ConfigError

_START = 0


@dataclass(frozen=True)
class Grammar:
    """A deterministic automaton: what may come next, and where a sentence may end.

    Attributes:
        transitions: (state, token) → state; a token that is missing may not come.
        finals: States at which a sentence may end.
    """

    transitions: dict[tuple[int, int], int]
    finals: frozenset[int]
    _compiled: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def num_states(self) -> int:
        """States, the start (0) included."""
        return 1 + max([_START, *self.finals, *self.transitions.values()])

    @classmethod
    def of_sentences(cls, sentences: Iterable[Sequence[int]]) -> Grammar:
        """One of these token sequences, and nothing else.

        Raises:
            ConfigError: There is none.
        """
        transitions: dict[tuple[int, int], int] = {}
        finals = set()
        count = 1
        for sentence in sentences:
            state = _START
            for token in sentence:
                if (state, token) not in transitions:
                    transitions[state, token] = count
                    count += 1
                state = transitions[state, token]
            finals.add(state)
        if not finals:
            raise ConfigError("a closed task: expected sentences that may be said, found none")
        return cls(transitions, frozenset(finals))

    @classmethod
    def of_words(
        cls, words: Iterable[Sequence[int]], *, separator: int | None = None, most: int | None = None
    ) -> Grammar:
        """Any of these words, one after the other, at least one.

        Args:
            words: Each as tokens.
            separator: What stands between two words (the space, where tokens are characters); None: nothing.
            most: At most so many words; None: any number.

        Raises:
            ConfigError: There is none, or ``most`` is below 1.
        """
        if most is not None and most < 1:
            raise ConfigError(f"a closed task: expected at least one word, got {most}")
        words = [tuple(word) for word in words if len(word)]
        if not words:
            raise ConfigError("a closed task: expected words that may be said, found none")
        one = cls.of_sentences(words)
        size, rounds = one.num_states, 1 if most is None else most
        transitions: dict[tuple[int, int], int] = {}
        finals = set()
        for turn in range(rounds):
            offset = turn * size
            onward = offset if most is None else offset + size  # where the next word begins
            for (state, token), to in one.transitions.items():
                transitions[offset + state, token] = offset + to
            for final in one.finals:
                finals.add(offset + final)
                if turn == rounds - 1 and most is not None:
                    continue
                if separator is not None:
                    transitions[offset + final, separator] = onward
                    continue
                for (state, token), to in one.transitions.items():
                    if state == _START:
                        transitions.setdefault((offset + final, token), onward + to)
        return cls(transitions, frozenset(finals))

    def compile(self, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
        """For the search: a table from state · V + token to the next state, (n, 2), and the final states, (S,) bool."""
        if vocabulary_size not in self._compiled:
            self._compiled[vocabulary_size] = self._compile(vocabulary_size)
        return self._compiled[vocabulary_size]

    def _compile(self, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
        from speechrnn.language.hash_table import insert, make_table

        table = make_table(2 * len(self.transitions) + 1)
        keys = [state * vocabulary_size + token for state, token in self.transitions]
        insert(table, np.array(keys, dtype=np.int64), np.array(list(self.transitions.values()), dtype=np.int64))
        finals = np.zeros(self.num_states, dtype=bool)
        finals[list(self.finals)] = True
        return table, finals
