"""A list of utterances behaves like a list, and returns equal utterances."""

import pickle
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.types import AudioInfo


def make_items(count):
    return [Utterance(f"u{number}", Path(f"{number}.wav"), "x" if number % 3 else "") for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_an_utterance_list_behaves_like_a_list(count):
    items = make_items(count)
    compact = UtteranceList(items)
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


def test_an_utterance_list_equals_only_sequences_of_equal_items():
    items = make_items(40)
    compact = UtteranceList(items)
    assert compact == items == compact
    assert compact == UtteranceList(items)
    assert compact != items[:-1]
    assert compact != [*items[:-1], replace(items[-1], text="another")]
    assert compact != 40
    assert UtteranceList() == []


def test_an_utterance_list_grows_after_reads():
    compact, items = UtteranceList(), make_items(70)
    for number, item in enumerate(items):
        compact.append(item)
        assert compact[number] == item
        assert compact[0] == items[0]
    assert compact == items


def test_an_utterance_list_can_be_pickled_and_grows_afterwards():
    items = make_items(50)
    copy = pickle.loads(pickle.dumps(UtteranceList(items)))
    assert copy == items
    for item in items:
        copy.append(item)
    assert copy == [*items, *items]


def test_utterances_are_restored_exactly():
    one = Utterance(
        "ä/1", Path("/a b/ü.wav"), "gr\u2028üße \ud800", 0.1 + 0.2, 1e-3, corpus="x", tokens=array("B", [0, 255])
    )
    two = replace(one, tokens=array("H", [65535]), speaker="f1", corpus=None)
    three = replace(one, tokens=array("I", [70000]))
    compact = UtteranceList([one, two, three])
    assert compact == [one, two, three]
    assert [utterance.tokens.typecode for utterance in compact] == ["B", "H", "I"]
    full = UtteranceList([one, two, three] * 20)
    assert full == [one, two, three] * 20
    assert full[31].tokens.typecode == "H"


def test_utterances_are_restored_with_and_without_a_header():
    utterances = [
        Utterance("a", Path("/x/a.wav"), ""),
        Utterance("b", Path("rel/b.wav"), "zwei", 0.25, 1.5, "f1", "c", AudioInfo(8000, 2, 14000)),
    ] * 20
    compact = UtteranceList(utterances)
    assert compact == utterances
    assert compact[1].header == AudioInfo(8000, 2, 14000)
    assert compact[2].header is None
