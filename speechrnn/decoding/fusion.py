"""Shallow fusion: the scores of a language model and of hotwords, added to the acoustic score in the beam search.

A language model over words scores a word when it ends; until then the search follows a trie of the model's words. A
word that leaves the trie is unknown to the model and costs ``unknown_cost`` at once. A model over characters, or over
the acoustic model's own tokens, scores each of them. Hotwords earn a part of their bonus with each matching letter, and
lose it again if they are not completed; their words need not be in any vocabulary.

Source:
    A. Hannun et al., arXiv:1408.2873 (the score: acoustic + weight · language + bonus · words); A. Aho and M. Corasick,
    "Efficient string matching", 1975 (the automaton of the hotwords).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np

from speechrnn.decoding.kernels import begin_prefix, extend, finish_prefix
from speechrnn.errors import ConfigError
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.hash_table import make_table
from speechrnn.language.sentences import SPACE
from speechrnn.settings import Settings, bounded

Unit = Literal["words", "characters", "tokens"]

_UNITS: dict[Unit, int] = {"words": 1, "characters": 2, "tokens": 3}
_BOUNDARY = 0  # the letter between words


@dataclass(frozen=True)
class FusionConfig(Settings):
    """Weights of a language model.

    Attributes:
        language_weight: Factor of the natural log of the language model's probability.
        word_bonus: Added for each word (character, token) that the language model scores: it prefers few words.
        unknown_cost: Subtracted for each word unknown to the language model, besides the score of ``<unk>``.
    """

    language_weight: float = bounded(0.5, 0, 1000)
    word_bonus: float = bounded(1.0, -1000, 1000, unit="nats")
    unknown_cost: float = bounded(8.0, 0, 1000, unit="nats")


def find_unit(model: CompiledNgram, symbols: Sequence[str]) -> Unit:
    """Find the unit of a language model: words, characters, or the acoustic model's tokens."""
    if SPACE in model.word_ids:
        return "characters"
    words = [word for word in model.words if not word.startswith("<")]
    known = set(symbols)
    has_word_starts = any(word.startswith("\u2581") for word in words)
    return "tokens" if has_word_starts and all(word in known for word in words) else "words"


class Fusion:
    """Language model and hotwords over one model's tokens, as arrays for the compiled search.

    Args:
        spellings: For each token whether it begins a word, and its letters; none for the blank.
        model: The language model; None: hotwords only.
        config: Weights of the language model.
        hotwords: Phrases, words separated by single spaces, and the bonus of each in nats.
        symbols: The tokens' symbols, for a language model of tokens.

    Raises:
        ConfigError: The acoustic model cannot write a letter of a hotword, a bonus is not finite, or language model and
            acoustic model have no letter in common.
    """

    def __init__(
        self,
        spellings: Sequence[tuple[bool, str]],
        model: CompiledNgram | None = None,
        config: FusionConfig | None = None,
        *,
        hotwords: Mapping[str, float] | None = None,
        symbols: Sequence[str] = (),
    ) -> None:
        config = config or FusionConfig()
        self.config, self.model = config, model
        self.unit: Unit | None = None if model is None else find_unit(model, symbols)
        alphabet = sorted({letter for _, letters in spellings for letter in letters})
        self._letter_ids = {letter: number for number, letter in enumerate(alphabet, start=_BOUNDARY + 1)}
        self.num_letters = len(alphabet) + 1
        self.begins = np.array([begins for begins, _ in spellings], dtype=bool)
        self.letters = np.array([self._letter_ids[a] for _, letters in spellings for a in letters], dtype=np.int64)
        self.letter_starts = np.cumsum([0, *(len(letters) for _, letters in spellings)]).astype(np.int64)
        self.trie, self.trie_words = self._make_trie(model if self.unit == "words" else None)
        self.unit_words = self._make_unit_words(symbols, alphabet)
        self.hot_next, self.hot_pending, self.hot_gain = self._make_automaton(hotwords or {})
        self.weights = self._weigh(config)
        of_model = (1, -1, -1, 0) if model is None else (len(model.words), model.unknown, model.end, model.begin_state)
        self.settings = np.array([_UNITS[self.unit] if self.unit else 0, self.num_letters, *of_model], dtype=np.int64)

    def with_config(self, config: FusionConfig) -> Fusion:
        """Return the same with other weights; trie and automaton are shared."""
        other = copy(self)
        other.config = config
        other.weights = other._weigh(config)
        return other

    def _weigh(self, config: FusionConfig) -> np.ndarray:
        """The weights, and the most that a token can add to a prefix's score (log-probabilities add nothing)."""
        steps = int((np.diff(self.letter_starts) + self.begins).max(initial=0))  # letters, and a boundary before them
        scored = 1 if self.unit == "words" else steps
        bonuses = self.hot_pending[self.hot_next] - self.hot_pending[:, None] + self.hot_gain[self.hot_next]
        most = scored * max(0.0, config.word_bonus) + steps * max(0.0, float(bonuses.max(initial=0.0)))
        return np.array([config.language_weight, config.word_bonus, config.unknown_cost, most])

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Arguments of :mod:`speechrnn.decoding.kernels`."""
        language = self.model.arrays if self.model is not None else _NO_LANGUAGE
        return (
            self.settings,
            self.weights,
            self.begins,
            self.letters,
            self.letter_starts,
            self.trie,
            self.trie_words,
            self.unit_words,
            self.hot_next,
            self.hot_pending,
            self.hot_gain,
            *language,
        )

    def score(self, tokens: Sequence[int]) -> float:
        """Return what they add to the log probability of a whole utterance of these tokens."""
        arrays, known = self.arrays, np.zeros(4, dtype=np.int64)
        begin_prefix(arrays, known)
        added = sum(extend(arrays, known, token) for token in tokens)
        return float(added + finish_prefix(arrays, known))

    def _make_trie(self, model: CompiledNgram | None) -> tuple[np.ndarray, np.ndarray]:
        """The words that the acoustic model can spell: (node, letter) → node, and the word that ends at each node."""
        if model is None:
            return make_table(1), np.full(1, -1, dtype=np.int64)
        children: dict[tuple[int, int], int] = {}
        ends: dict[int, int] = {}
        for number, word in enumerate(model.words):
            if word.startswith("<") or any(letter not in self._letter_ids for letter in word):
                continue
            node = 0
            for letter in word:
                node = children.setdefault((node, self._letter_ids[letter]), len(children) + 1)
            ends[node] = number
        if not ends:
            raise ConfigError(
                "the language model has no word that the acoustic model can write; normalise both texts in the "
                "same way (case, punctuation)"
            )
        keys = [node * self.num_letters + letter for node, letter in children]
        table = make_table(2 * len(children), keys, list(children.values()))
        words = np.full(len(children) + 1, -1, dtype=np.int64)
        words[list(ends)] = list(ends.values())
        return table, words

    def _make_unit_words(self, symbols: Sequence[str], alphabet: Sequence[str]) -> np.ndarray:
        """Word id of each letter (the boundary first) or of each token."""
        if self.model is None or self.unit == "words":
            return np.full(1, -1, dtype=np.int64)
        units = symbols if self.unit == "tokens" else [SPACE, *alphabet]
        words = np.array([self.model.word_ids.get(unit, self.model.unknown) for unit in units], dtype=np.int64)
        if not any(unit in self.model.word_ids for unit in units[1:]):
            raise ConfigError("the language model has no character that the acoustic model can write")
        return words

    def _make_automaton(self, hotwords: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Automaton of the phrases: next state by state and letter, bonus so far and final bonus of each state."""
        for phrase, bonus in hotwords.items():
            if not np.isfinite(bonus):
                raise ConfigError(f"hotword {phrase!r}: expected a bonus in nats, such as 8, got {bonus}")
        patterns = {self._spell(phrase): float(bonus) for phrase, bonus in hotwords.items()}
        if not patterns:
            return np.zeros((1, 1), dtype=np.int64), np.zeros(1), np.zeros(1)
        children: list[dict[int, int]] = [{}]
        pending, gain = [0.0], [0.0]
        for pattern, bonus in patterns.items():
            state = 0
            for place, letter in enumerate(pattern, start=1):
                if letter not in children[state]:
                    children[state][letter] = len(children)
                    children.append({})
                    pending.append(0.0)
                    gain.append(0.0)
                state = children[state][letter]
                # No bonus for the first boundary: every word begins with one.
                part = bonus * (place - 1) / (len(pattern) - 1)
                pending[state] = max(pending[state], part, key=abs) if place < len(pattern) else pending[state]
            gain[state] += bonus
        return _connect(children, pending, gain, self.num_letters)

    def _spell(self, phrase: str) -> tuple[int, ...]:
        words = phrase.split()
        if not words:
            raise ConfigError("hotwords: one of them is empty; expected words")
        unknown = sorted({letter for word in words for letter in word if letter not in self._letter_ids})
        if unknown:
            raise ConfigError(
                f"hotword {phrase!r}: the model cannot write {', '.join(map(repr, unknown))}; spell it with the "
                f"letters that it has ({''.join(self._letter_ids)})"
            )
        spelled = [_BOUNDARY]
        for word in words:
            spelled += [*(self._letter_ids[letter] for letter in word), _BOUNDARY]
        return tuple(spelled)


def _connect(
    children: list[dict[int, int]], pending: list[float], gain: list[float], num_letters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Connect the automaton: where a phrase breaks off, the longest other one that has begun continues."""
    following = np.zeros((len(children), num_letters), dtype=np.int64)
    fail = [0] * len(children)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for letter in range(num_letters):
            child = children[state].get(letter)
            elsewhere = following[fail[state], letter] if state else 0
            if child is None:
                following[state, letter] = elsewhere
                continue
            following[state, letter] = child
            fail[child] = int(elsewhere)
            gain[child] += gain[fail[child]]
            if not pending[child]:
                pending[child] = pending[fail[child]]
            queue.append(child)
    return following, np.array(pending), np.array(gain)


_NO_LANGUAGE = (
    make_table(1),
    np.zeros(1, dtype=np.float32),
    np.zeros(1, dtype=np.int32),
    np.zeros(1, dtype=np.float32),
    np.full(1, -1, dtype=np.int32),
)
