"""A hash table of integers for code that numba compiles: open addressing in one array.

Compiled code in other files contains :func:`find_slot` inline and is not recompiled when it changes. After a change,
remove the ``*.nbi`` files in ``__pycache__`` of ``decoding``, and raise the version of the files that
:mod:`speechrnn.language.compiled` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

EMPTY = -1
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # the golden ratio's fraction, as a signed 64-bit number


def make_table(size: int, keys: Sequence[int] | np.ndarray = (), values: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    """Make a table of keys and their values, (n, 2) int64, n a power of two, with at least ``size`` slots."""
    table = np.full((1 << max(4, (size - 1).bit_length()), 2), EMPTY, dtype=np.int64)
    _insert(table, np.asarray(keys, dtype=np.int64), np.asarray(values, dtype=np.int64))
    return table


@njit(cache=True, nogil=True, inline="always")
def find_slot(table: np.ndarray, key: int) -> Any:
    """Find the slot of a key, or the free slot for it."""
    mask = len(table) - 1
    place = ((key * np.int64(_MIX)) >> np.int64(20)) & mask
    while table[place, 0] != EMPTY and table[place, 0] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def _insert(table: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    for number in range(len(keys)):
        place = find_slot(table, keys[number])
        table[place, 0], table[place, 1] = keys[number], values[number]
