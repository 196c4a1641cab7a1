"""A hash table of whole numbers for code that numba compiles: open addressing in one array.

Compiled code of other files has :func:`find_slot` within it and does not notice when it changes: whoever changes it
removes the ``*.nbi`` files in ``__pycache__`` of ``decoding``, and raises the version of the files that
:mod:`speechrnn.language.compiled` writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

EMPTY = -1
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # the golden ratio's fraction, as a signed 64-bit number


def make_table(size: int) -> np.ndarray:
    """An empty table for at least so many entries: (n, 2) int64, keys and values, n a power of two."""
    slots = 1 << max(4, (size - 1).bit_length())
    return np.full((slots, 2), EMPTY, dtype=np.int64)


@njit(cache=True, nogil=True, inline="always")
def find_slot(table: np.ndarray, key: int) -> Any:
    """Where a key stands, or would."""
    mask = len(table) - 1
    place = ((key * np.int64(_MIX)) >> np.int64(20)) & mask
    while table[place, 0] != EMPTY and table[place, 0] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def insert(table: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    """Put keys and their values into a table that has room for them."""
    for number in range(len(keys)):
        place = find_slot(table, keys[number])
        table[place, 0], table[place, 1] = keys[number], values[number]
