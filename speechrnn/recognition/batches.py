"""Recordings of like kind, decoded together: neighbours in batches of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def collect_batches(items: Iterator[Item], size: Callable[[Item], int], *, most_samples: float) -> Iterator[list[Item]]:
    """Put neighbours together while their padded size keeps to the budget; an error comes after all read before it.

    Args:
        items: Whatever is to be batched, in order; read as far as the next batch needs.
        size: Samples of one.
        most_samples: Budget of a batch, padding included; a longer item goes alone.
    """
    batch: list[Item] = []
    longest = 0
    failure: Exception | None = None
    while True:
        try:
            item = next(items)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        longest = max(longest, size(item))
        if batch and longest * (len(batch) + 1) > most_samples:
            yield batch
            batch, longest = [], size(item)
        batch.append(item)
    if batch:
        yield batch
    if failure is not None:
        raise failure
