"""Reading in a thread, and batches of recordings and pieces of similar length from a bounded look-ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from speechrnn.recognition.cutting import End, Failure, Item, Piece, Recording

if TYPE_CHECKING:
    from speechrnn.errors import SpeechRNNError
    from speechrnn.recognition.joining import Assembly
    from speechrnn.recognition.transcript import Transcript

T = TypeVar("T")

POOL_BATCHES = 4  # audio read ahead to sort by length, in batches
_READY_ITEMS = 8
_JOIN_SECONDS = 1.0


def prefetch(items: Iterator[T], *, most: int = _READY_ITEMS) -> Iterator[T]:
    """Compute items in a thread while the last ones are used.

    Args:
        items: Computed in the thread, in order; an exception is raised after the items before it.
        most: Items that wait at most.
    """
    ready: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    room, is_stopped = threading.Semaphore(most), threading.Event()

    def compute() -> None:
        try:
            for item in items:
                ready.put((item, None))
                room.acquire()
                if is_stopped.is_set():
                    return
            ready.put((None, StopIteration()))
        except BaseException as error:
            ready.put((None, error))

    thread = threading.Thread(target=compute, name="speechrnn reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]
    finally:
        is_stopped.set()
        room.release()
        thread.join(_JOIN_SECONDS)  # longer where a source waits for its next sound


def transcribe_pooled(
    items: Iterable[Any], compute: Callable[[list[Recording]], list[Any]], *, most_samples: float
) -> Iterator[tuple[Any, Any]]:
    """Compute results in batches of similar length, lazily; they come in the order of the items.

    Args:
        items: Recordings and pieces, and other items, which pass through with the result None.
        compute: From a batch to the result of each.
        most_samples: Budget of a batch, padding included; a longer recording goes alone. Four times as much audio is
            read ahead.

    Yields:
        Each item and its result. An exception of ``items`` is raised after all items before it.
    """
    waiting: dict[int, Recording] = {}
    done: dict[int, tuple[Any, Any]] = {}
    numbered = enumerate(items)
    failure: Exception | None = None
    following = 0
    while True:
        while failure is None and sum(len(each.samples) for each in waiting.values()) < POOL_BATCHES * most_samples:
            try:
                number, item = next(numbered)
            except Exception as error:  # StopIteration is one of them
                failure = error
                break
            if isinstance(item, Recording):
                waiting[number] = item
            else:
                done[number] = (item, None)
        if waiting:
            batch = choose_batch(waiting, most_samples=most_samples)
            recordings = [waiting.pop(number) for number in batch]
            done.update(zip(batch, zip(recordings, compute(recordings), strict=True), strict=True))
        while following in done:
            yield done.pop(following)
            following += 1
        if failure is not None and not waiting:
            if isinstance(failure, StopIteration):
                return
            raise failure


def choose_batch(waiting: dict[int, Recording], *, most_samples: float) -> list[int]:
    """Return the numbers of the recordings of similar length that the oldest one is computed with.

    Args:
        waiting: Recordings by number, at least one.
        most_samples: Budget of a batch, padding included.
    """
    batches: list[list[int]] = [[]]
    for number in sorted(waiting, key=lambda number: (len(waiting[number].samples), number)):
        if batches[-1] and len(waiting[number].samples) * (len(batches[-1]) + 1) > most_samples:
            batches.append([])
        batches[-1].append(number)
    oldest = min(waiting)
    return next(batch for batch in batches if oldest in batch)


def collect_batches(recordings: Iterable[Recording], *, most_samples: float) -> Iterator[list[Recording]]:
    """Batch neighbours while their padded size is within the budget; an error is raised after all recordings before it.

    Args:
        recordings: In order; read as far as the next batch needs.
        most_samples: Budget of a batch, padding included; a longer recording goes alone.
    """
    batch: list[Recording] = []
    longest = 0
    recordings = iter(recordings)
    while True:
        try:
            recording = next(recordings)
        except Exception as error:  # StopIteration is one of them
            failure = error
            break
        longest = max(longest, len(recording.samples))
        if batch and longest * (len(batch) + 1) > most_samples:
            yield batch
            batch, longest = [], len(recording.samples)
        batch.append(recording)
    if batch:
        yield batch
    if not isinstance(failure, StopIteration):
        raise failure


def assemble(
    pairs: Iterable[tuple[Item, Any]],
    make: Callable[[], Assembly],
    on_error: Callable[[Any, SpeechRNNError], None] | None,
    on_progress: Callable[[str | None, float], None] | None = None,
) -> Iterator[Transcript]:
    """Transcripts of recordings from the results of their pieces, in order.

    Args:
        pairs: Items and their results.
        make: Makes an empty assembly.
        on_error: Called with a source that failed and the error; without it the error is raised.
        on_progress: Called after each piece with the recording's name and the seconds of it that are done.
    """
    assembly: Assembly | None = None
    for item, found in pairs:
        if isinstance(item, Failure):
            assembly = None
            item.report(on_error)
        elif isinstance(item, Piece):
            assembly = assembly or make()
            assembly.add(item, found)
            if on_progress is not None:
                on_progress(item.name, assembly.count_seconds(item))
        elif isinstance(item, End):
            yield (assembly or make()).finish(item)
            assembly = None
        else:
            yield found
