"""N-gram models as arrays that a compiled search walks along: states, back-off and a table of n-grams; a file of them.

A state is what a model remembers of the words before: the longest n-gram at their end that it knows. Each (state,
word) that it knows has a probability and leads to a state; where it does not know one, it pays the state's back-off
weight and asks the state of one word less.

The file is memory-mapped: it opens in no time however large it is, and processes share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.atomic_io import open_atomic
from speechrnn.errors import ModelError
from speechrnn.language.arpa import read_arpa
from speechrnn.language.hash_table import insert, make_table
from speechrnn.language.ngram import BEGIN, END, UNKNOWN, NgramModel

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
        """Compile a model."""
        shorter = _find_suffixes(model)
        lower = model.starts[-2]  # rows that are states
        slots = make_table(2 * len(model.keys))
        insert(slots, model.keys, np.arange(len(model.keys), dtype=np.int64))
        return cls(
            model.words,
            model.order,
            slots,
            model.log_probs.astype(np.float32),
            np.concatenate([np.arange(1, lower + 1), shorter[lower:]]).astype(np.int32),
            model.backoffs.astype(np.float32),
            np.concatenate([[-1], shorter[:lower]]).astype(np.int32),
            max(EMPTY_STATE, model.find_state([model.ids[BEGIN]])) if BEGIN in model.ids else EMPTY_STATE,
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


def _find_suffixes(model: NgramModel) -> np.ndarray:
    """State of the longest n-gram that the model knows at the end of each row's, itself apart; (R,) int64."""
    states = np.zeros(len(model.keys), dtype=np.int64)
    for first, last in zip(model.starts[1:], model.starts[2:], strict=False):
        contexts, words = np.divmod(model.keys[first:last], len(model.words))
        shorter = states[contexts - 1]  # of fewer words, so that what they know is done
        found = model.find_rows(shorter, words)
        while (missing := np.flatnonzero(found < 0)).size:
            shorter[missing] = states[shorter[missing] - 1]
            found[missing] = model.find_rows(shorter[missing], words[missing])
        states[first:last] = found + 1
    return states


def write_compiled(path: str | Path, model: CompiledNgram) -> None:
    """Write a file to be memory-mapped, whole or not at all.

    Raises:
        ModelError: It cannot be written.
    """
    header: dict[str, Any] = {"words": model.words, "order": model.order, "begin_state": model.begin_state}
    header["arrays"] = [[name, array.dtype.str, list(array.shape)] for name, array in _named(model)]
    encoded = json.dumps(header, ensure_ascii=False).encode("utf-8")
    with open_atomic(path, error=ModelError) as file:
        file.write(_MAGIC + len(encoded).to_bytes(8, "little") + encoded)
        for _, array in _named(model):
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(np.ascontiguousarray(array).view(np.uint8).data)


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
