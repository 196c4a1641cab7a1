"""N-gram models as arrays for the compiled search (states, back-off and a table of n-grams), and their file format.

A state is the longest known n-gram at the end of the previous words. Each known (state, word) has a probability and a
next state; for an unknown one the state's back-off weight is added, and the state of one word less is asked.

The file is memory-mapped: it opens fast at any size, and processes share it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from speechrnn.atomic_io import open_atomic, parse_json
from speechrnn.errors import ModelError
from speechrnn.language.arpa import read_arpa
from speechrnn.language.hash_table import make_table
from speechrnn.language.ngram import BEGIN, END, UNKNOWN, NgramModel

_MAGIC = b"speechrnn n-gram 2\n"
_MAGIC_WITHOUT_DIGEST = b"speechrnn n-gram 1\n"
_ALIGNMENT = 64
_ARRAYS = {"table": "<i8", "log_probs": "<f4", "next_states": "<i4", "backoffs": "<f4", "backoff_states": "<i4"}
_MOST_LOG_PROB = 1e-3  # a probability of 1, rounded
EMPTY_STATE = 0


@dataclass(frozen=True, eq=False)
class CompiledNgram:
    """An n-gram model for compiled code.

    Attributes:
        words: The vocabulary; a word's id is its index.
        order: Length of the longest n-grams.
        table: From state · W + word to the row of the n-gram, (n, 2) int64 (:mod:`speechrnn.language.hash_table`).
        log_probs: Of each row, natural log, (R,) float32.
        next_states: State after each row, (R,) int32.
        backoffs: Back-off weight of each state, natural log, (S,) float32.
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
        return cls(
            model.words,
            model.order,
            make_table(2 * len(model.keys), model.keys, np.arange(len(model.keys))),
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
        """Id of ``<unk>``, -1 if the model has none."""
        return self.word_ids.get(UNKNOWN, -1)

    @property
    def end(self) -> int:
        """Id of ``</s>``, -1 if the model has none."""
        return self.word_ids.get(END, -1)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Table, log-probabilities, next states, back-off weights and back-off states."""
        return self.table, self.log_probs, self.next_states, self.backoffs, self.backoff_states

    @cached_property
    def digest(self) -> str:
        """A short hash of the content, by which tuned weights are stored."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps([self.words, self.order, self.begin_state]).encode())
        for array in self.arrays:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


def _find_suffixes(model: NgramModel) -> np.ndarray:
    """State of the longest known n-gram that is a proper suffix of each row's, (R,) int64."""
    states = np.zeros(len(model.keys), dtype=np.int64)
    for first, last in zip(model.starts[1:], model.starts[2:], strict=False):
        contexts, words = np.divmod(model.keys[first:last], len(model.words))
        shorter = states[contexts - 1]  # of the order below, which is already filled in
        found = model.find_rows(shorter, words)
        while (missing := np.flatnonzero(found < 0)).size:
            shorter[missing] = states[shorter[missing] - 1]
            found[missing] = model.find_rows(shorter[missing], words[missing])
        states[first:last] = found + 1
    return states


def write_compiled(path: str | Path, model: CompiledNgram) -> None:
    """Write a file to be memory-mapped, atomically. Its header holds the model's digest.

    Raises:
        ModelError: It cannot be written.
    """
    header = {"words": model.words, "order": model.order, "begin_state": model.begin_state, "digest": model.digest}
    shapes = [[name, array.dtype.str, list(array.shape)] for name, array in zip(_ARRAYS, model.arrays, strict=True)]
    encoded = json.dumps(header | {"arrays": shapes}, ensure_ascii=False).encode("utf-8")
    with open_atomic(path, error=ModelError) as file:
        file.write(_MAGIC + len(encoded).to_bytes(8, "little") + encoded)
        for array in model.arrays:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(np.ascontiguousarray(array).view(np.uint8).data)


def read_language_model(path: str | os.PathLike[str]) -> CompiledNgram:
    """Open a file of :func:`write_compiled`, or compile an ARPA file.

    The content is compared with its digest, and every index is checked, because compiled code checks nothing. Files of
    version 1 have no digest.

    Raises:
        ModelError: It is neither, is damaged, or cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
        if magic in (_MAGIC, _MAGIC_WITHOUT_DIGEST):
            return _map(path, has_digest=magic == _MAGIC)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such language model; check the path") from error
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise ModelError(f"{path}: a damaged language model ({error}); build it again") from error
    return CompiledNgram.of(read_arpa(path))


def _map(path: Path, *, has_digest: bool) -> CompiledNgram:
    whole = np.memmap(path, dtype=np.uint8, mode="c")  # private: writable arrays, but nothing is written to the file
    at = len(_MAGIC) + 8
    length = int.from_bytes(whole[len(_MAGIC) : at].tobytes(), "little")
    header = parse_json(whole[at : at + length].tobytes().decode("utf-8"), where="header", error=ModelError)
    at += length
    arrays = {}
    for name, kind, shape in header["arrays"]:
        at += -at % _ALIGNMENT
        if kind != _ARRAYS[name]:
            raise ValueError(f"{name}: expected {_ARRAYS[name]}, got {kind}")
        size = np.dtype(kind).itemsize * math.prod(shape)
        arrays[name] = np.asarray(whole[at : at + size].view(kind).reshape(shape))
        at += size
    if at != len(whole):
        raise ValueError(f"expected {at} bytes, found {len(whole)}")
    model = CompiledNgram(header["words"], header["order"], begin_state=header["begin_state"], **arrays)
    _check(model)
    if has_digest and model.digest != header["digest"]:
        raise ValueError(f"the content has the digest {model.digest}, expected {header['digest']}")
    return model


def _check(model: CompiledNgram) -> None:
    """Check that the search stays within the arrays and ends, and that probabilities are valid."""
    table, log_probs, next_states, backoffs, backoff_states = model.arrays
    rows, states, num_words, slots = len(log_probs), len(backoffs), len(model.words), len(table)
    keys, values = table.T
    is_filled = keys >= 0
    checks = {
        "words": isinstance(model.words, list) and all(isinstance(word, str) for word in model.words),
        "order": type(model.order) is int and model.order > 0,
        "begin_state": type(model.begin_state) is int and 0 <= model.begin_state < states,
        "shapes": log_probs.shape == next_states.shape == (rows,)
        and backoffs.shape == backoff_states.shape == (states,),
        "table": slots & (slots - 1) == 0 and np.count_nonzero(is_filled) == rows < slots,
        "keys": keys.min() == -1 and keys.max() < states * num_words,
        "rows": values.min() == -1 and values.max() < rows and ((values >= 0) == is_filled).all(),
        "log_probs": log_probs.max() <= _MOST_LOG_PROB,  # false for NaN too
        "next_states": next_states.min() >= 0 and next_states.max() < states,
        "backoffs": np.isfinite(backoffs).all(),
        "backoff_states": (backoff_states[:1] == -1).all()
        and (backoff_states[1:] >= 0).all()
        and (backoff_states < np.arange(states)).all(),
    }
    wrong = [name for name, is_right in checks.items() if not is_right]
    if wrong:
        raise ValueError(f"out of range: {', '.join(wrong)}")
