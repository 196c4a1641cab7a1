"""N-gram models as arrays that a compiled search walks along: states, back-off and a table of n-grams; a file of them.

A state is what a model remembers of the words before: the longest n-gram at their end that it knows. Each (state,
word) that it knows has a probability and leads to a state; where it does not know one, it pays the state's back-off
weight and asks the state of one word less.

The file is memory-mapped: it opens in no time however large it is, and processes share it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.errors import ModelError
from speechrnn.language.hash_table import EMPTY, find_slot, insert, make_table
from speechrnn.language.ngram import BEGIN, END, UNKNOWN, Known, Ngram, NgramModel, read_arpa
from speechrnn.whole_files import write_whole

_MAGIC = b"speechrnn n-gram 1\n"
_ALIGNMENT = 64
_ARRAYS = ("table", "log_probs", "next_states", "backoffs", "backoff_states")
EMPTY_STATE = 0


@dataclass(frozen=True, eq=False)
class CompiledNgram:
    """An n-gram model to be asked from compiled code.

    Attributes:
        words: Its vocabulary; a word's id is its place.
        order: Longest n-grams that it knows.
        table: From state · W + word to the row of the n-gram, (n, 2) int64 (:mod:`speechrnn.language.hash_table`).
        log_probs: Of each row, natural log, (R,) float32.
        next_states: State after each row, (R,) int32.
        backoffs: What a state that does not know a word costs, natural log, (S,) float32.
        backoff_states: State of one word less, (S,) int32; -1 for the empty one.
        begin_state: State at the beginning of a sentence.
    """

    words: list[str]
    order: int
    table: np.ndarray
    log_probs: np.ndarray
    next_states: np.ndarray
    backoffs: np.ndarray
    backoff_states: np.ndarray
    begin_state: int

    @classmethod
    def of(cls, model: NgramModel) -> CompiledNgram:
        """Compile a model.

        Raises:
            ModelError: A word stands in an n-gram and not among the unigrams.
        """
        words = model.vocabulary
        word_ids = {word: number for number, word in enumerate(words)}
        states: dict[tuple[str, ...], int] = {(): EMPTY_STATE}
        tables = _fill(model)
        for table in tables[:-1]:
            for ngram in table:
                states[ngram] = len(states)

        def longest(ngram: tuple[str, ...]) -> int:
            while ngram not in states:
                ngram = ngram[1:]
            return states[ngram]

        backoffs = np.zeros(len(states), dtype=np.float32)
        backoff_states = np.full(len(states), -1, dtype=np.int32)
        for context, state in states.items():
            if context:
                backoffs[state] = tables[len(context) - 1][context].backoff
                backoff_states[state] = longest(context[1:])
        rows = [(ngram, known.log_prob) for table in tables for ngram, known in table.items()]
        try:
            keys = [states[ngram[:-1]] * len(words) + word_ids[ngram[-1]] for ngram, _ in rows]
        except KeyError as error:
            raise ModelError(f"a language model: {error.args[0]!r} stands in an n-gram and is no unigram") from error
        slots = make_table(2 * len(rows))
        insert(slots, np.array(keys, dtype=np.int64), np.arange(len(rows), dtype=np.int64))
        return cls(
            words,
            model.order,
            slots,
            np.array([log_prob for _, log_prob in rows], dtype=np.float32),
            np.array([longest(ngram[-model.order + 1 :] if model.order > 1 else ()) for ngram, _ in rows], np.int32),
            backoffs,
            backoff_states,
            longest((BEGIN,)),
        )

    @cached_property
    def word_ids(self) -> dict[str, int]:
        """Id of each word."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def unknown(self) -> int:
        """Id of ``<unk>``, -1 where the model has none."""
        return self.word_ids.get(UNKNOWN, -1)

    @property
    def end(self) -> int:
        """Id of ``</s>``, -1 where the model has none."""
        return self.word_ids.get(END, -1)

    def score(self, words: Sequence[str], *, has_begin: bool = True, has_end: bool = True) -> float:
        """The natural log of a sentence's probability, as :meth:`NgramModel.score` gives it."""
        state = self.begin_state if has_begin else EMPTY_STATE
        total = 0.0
        for word in [*words, *([END] if has_end else [])]:
            log_prob, state = self._ask(state, self.word_ids.get(word, self.unknown))
            total += log_prob
        return total

    def _ask(self, state: int, word: int) -> tuple[float, int]:
        """As the search's kernel asks: the natural log of a word's probability in a state, and the state after it."""
        cost = 0.0
        while state >= 0 and word >= 0:
            slot = find_slot(self.table, state * len(self.words) + word)
            if self.table[slot, 0] != EMPTY:
                row = self.table[slot, 1]
                return cost + float(self.log_probs[row]), int(self.next_states[row])
            cost += float(self.backoffs[state])
            state = int(self.backoff_states[state])
        return -math.inf, EMPTY_STATE

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Table, log-probabilities, next states, back-off weights and back-off states."""
        return self.table, self.log_probs, self.next_states, self.backoffs, self.backoff_states

    @cached_property
    def digest(self) -> str:
        """A short hash of what the model says: weights that were tuned for one do not suit another."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps([self.words, self.order, self.begin_state]).encode())
        for array in self.arrays:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


def _fill(model: NgramModel) -> list[dict[Ngram, Known]]:
    """The tables with all that their n-grams begin with; where a pruned model lacks it, it is backed off to."""
    tables = [dict(table) for table in model.tables]
    for order in range(model.order - 1, 0, -1):
        for ngram in tables[order]:
            begun = ngram[:-1]
            if begun not in tables[order - 1] and (begun[-1],) in tables[0]:
                tables[order - 1][begun] = Known(model.log_prob(begun[-1], begun[:-1]))
    return tables


def write_compiled(path: str | Path, model: CompiledNgram) -> None:
    """Write a file to be memory-mapped, whole or not at all.

    Raises:
        ModelError: It cannot be written.
    """
    header: dict[str, Any] = {"words": model.words, "order": model.order, "begin_state": model.begin_state}
    header["arrays"] = [[name, array.dtype.str, list(array.shape)] for name, array in _named(model)]
    encoded = json.dumps(header, ensure_ascii=False).encode("utf-8")
    parts = [_MAGIC, len(encoded).to_bytes(8, "little"), encoded]
    at = sum(map(len, parts))
    for _, array in _named(model):
        data = np.ascontiguousarray(array).tobytes()
        padding = -at % _ALIGNMENT
        parts += [bytes(padding), data]
        at += padding + len(data)
    write_whole(path, b"".join(parts), error=ModelError)


def _named(model: CompiledNgram) -> list[tuple[str, np.ndarray]]:
    return list(zip(_ARRAYS, model.arrays, strict=True))


def read_language_model(path: str | os.PathLike[str]) -> CompiledNgram:
    """Open what :func:`write_compiled` wrote, or compile an ARPA file.

    Raises:
        ModelError: It is neither, or cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return _map(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such language model; check the path") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: a damaged language model ({error}); build it again") from error
    return CompiledNgram.of(read_arpa(path))


def _map(path: Path) -> CompiledNgram:
    whole = np.memmap(path, dtype=np.uint8, mode="c")  # private: nothing is written, and the arrays count as writable
    at = len(_MAGIC) + 8
    length = int.from_bytes(whole[len(_MAGIC) : at].tobytes(), "little")
    header = json.loads(whole[at : at + length].tobytes().decode("utf-8"))
    at += length
    arrays = {}
    for name, kind, shape in header["arrays"]:
        at += -at % _ALIGNMENT
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape))
        arrays[name] = whole[at : at + size].view(dtype).reshape(shape)
        at += size
    if at != len(whole):
        raise ValueError(f"{len(whole)} bytes where {at} were written")
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    return CompiledNgram(header["words"], header["order"], begin_state=header["begin_state"], **arrays)
