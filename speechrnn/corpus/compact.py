"""Long lists of utterances in little memory: as rows of plain values, compressed some dozens at a time."""

from __future__ import annotations

import pickle
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")

_BLOCK = 32  # rows; access by position decompresses one block
_LEVEL = 1  # of zlib: higher ones take a few per cent less memory and twice the time


class CompactList(Sequence[T]):
    """A list that only grows, in a fraction of the memory that its items would take up.

    Each access creates a new item. All rows are in one buffer, which forked processes share, as no reference count in
    it changes. Equal to any sequence of equal items.

    Args:
        make: Makes an item of a row's values.
        to_row: The values of an item, which pickle can take.
        items: What is in it at first.
    """

    def __init__(self, make: Callable[..., T], to_row: Callable[[T], tuple[Any, ...]], items: Iterable[T] = ()) -> None:
        self._make = make
        self._to_row = to_row
        self._packed = bytearray()
        self._ends = array("Q", [0])  # where each block ends in it
        self._last: list[tuple[Any, ...]] = []  # rows that do not fill a block yet
        self.extend(items)

    def append(self, item: T) -> None:
        """Put an item behind the others."""
        self._last.append(self._to_row(item))
        if len(self._last) == _BLOCK:
            self._packed += zlib.compress(pickle.dumps(self._last, pickle.HIGHEST_PROTOCOL), _LEVEL)
            self._ends.append(len(self._packed))
            self._last = []

    def extend(self, items: Iterable[T]) -> None:
        """Put items behind the others."""
        for item in items:
            self.append(item)

    def _read(self, block: int) -> list[tuple[Any, ...]]:
        if block == len(self._ends) - 1:
            return self._last
        rows: list[tuple[Any, ...]] = pickle.loads(
            zlib.decompress(self._packed[self._ends[block] : self._ends[block + 1]])
        )
        return rows

    def __len__(self) -> int:
        return _BLOCK * (len(self._ends) - 1) + len(self._last)

    def __iter__(self) -> Iterator[T]:
        return (self._make(*row) for block in range(len(self._ends)) for row in self._read(block))

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self[position] for position in positions]
        block, place = divmod(positions, _BLOCK)
        return self._make(*self._read(block)[place])

    def __add__(self, other: Sequence[T]) -> list[T]:
        return [*self, *other]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
