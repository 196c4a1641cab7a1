"""A compact list is a list, whatever stands in a block, and forgets nothing of an item."""

import pickle
from array import array
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from speechrnn.corpus.utterance import CompactList, Utterance, compact_utterances
from speechrnn.types import AudioInfo


@dataclass(frozen=True)
class Item:
    number: int
    text: str | None


def make_items(count):
    return [Item(number, f"item {number}" if number % 3 else None) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_it_is_the_list_that_it_was_made_of(count):
    items = make_items(count)
    compact = CompactList(Item, astuple, items)
    assert len(compact) == count
    assert bool(compact) == bool(items)
    assert list(compact) == items
    assert [compact[position] for position in range(-count, count)] == [*items, *items]
    assert [compact[position] for position in np.arange(count)] == items
    for part in (slice(None), slice(5, 70, 7), slice(None, None, -1), slice(-3, None), slice(200, 300)):
        assert compact[part] == items[part]
    for outside in (count, -count - 1):
        with pytest.raises(IndexError):
            compact[outside]


def test_it_is_equal_to_sequences_of_equal_items_alone():
    items = make_items(40)
    compact = CompactList(Item, astuple, items)
    assert compact == items == compact
    assert compact == CompactList(Item, astuple, items)
    assert compact != items[:-1]
    assert compact != [*items[:-1], Item(39, "another")]
    assert compact != 40
    assert CompactList(Item, astuple) == []
    assert compact + items == [*items, *items]


def test_it_grows_whatever_was_read_before():
    compact, items = CompactList(Item, astuple), make_items(70)
    for number, item in enumerate(items):
        compact.append(item)
        assert compact[number] == item
        assert compact[0] == items[0]
    assert compact == items


def test_it_goes_to_another_process_and_grows_there():
    items = make_items(50)
    copy = pickle.loads(pickle.dumps(CompactList(Item, astuple, items)))
    assert copy == items
    copy.extend(items)
    assert copy == [*items, *items]


def test_utterances_come_back_as_they_were_to_the_last_bit():
    one = Utterance(
        "ä/1", Path("/a b/ü.wav"), "gr\u2028üße \ud800", 0.1 + 0.2, 1e-3, corpus="x", tokens=array("B", [0, 255])
    )
    two = replace(one, tokens=array("H", [65535]), speaker="f1", corpus=None)
    three = replace(one, tokens=array("I", [70000]))
    compact = compact_utterances([one, two, three])
    assert compact == [one, two, three]
    assert [utterance.tokens.typecode for utterance in compact] == ["B", "H", "I"]
    full = compact_utterances([one, two, three] * 20)
    assert full == [one, two, three] * 20
    assert full[31].tokens.typecode == "H"


def test_utterances_come_back_with_and_without_what_a_header_says():
    utterances = [
        Utterance("a", Path("/x/a.wav"), ""),
        Utterance("b", Path("rel/b.wav"), "zwei", 0.25, 1.5, "f1", "c", AudioInfo(8000, 2, 14000)),
    ] * 20
    compact = compact_utterances(utterances)
    assert compact == utterances
    assert compact[1].header == AudioInfo(8000, 2, 14000)
    assert compact[2].header is None
