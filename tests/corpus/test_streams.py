"""Utterances that follow one another: which do, and batches in whose rows they do."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from speechrnn.corpus.streams import StreamBatches, find_previous, find_sequences
from speechrnn.corpus.utterance import Utterance

CORPUS = [
    Utterance("u", Path(recording), "", start, 1.0, speaker, corpus)
    for recording, start, speaker, corpus in [
        ("a", 3.0, "x", None),
        ("b", 0.0, "y", None),
        ("a", 0.0, "x", None),
        ("c", 0.0, "x", None),
        ("d", 0.0, None, None),
        ("a", 1.5, "x", None),
        ("e", 0.0, "x", "other"),
    ]
]


@pytest.mark.parametrize(
    ("carry", "expected"),
    [
        ("recording", [[2, 5, 0], [1], [3], [4], [6]]),
        ("speaker", [[0, 2, 3, 5], [1], [4], [6]]),
        ("no", [[n] for n in range(7)]),
    ],
)
def test_predecessors_are_found(carry, expected):
    sequences = find_sequences(CORPUS, carry)
    assert sequences == expected
    before = find_previous(sequences)
    assert before == {b: a for sequence in expected for a, b in pairwise(sequence)}


def make_batches(seed=0, *, shuffle=True, count=40, batch_seconds=20.0):
    rng = np.random.default_rng(1)
    seconds = rng.uniform(1.0, 4.0, count)
    cuts = np.sort(rng.choice(np.arange(1, count), 9, replace=False))
    sequences = [part.tolist() for part in np.split(np.arange(count), cuts)]
    return StreamBatches(seconds, sequences, batch_seconds=batch_seconds, seed=seed, shuffle=shuffle), sequences


def test_rows_continue_and_every_utterance_occurs_once():
    batches, sequences = make_batches()
    before = find_previous(sequences)
    for epoch in range(3):
        plan = batches.plan(epoch)
        assert sorted(position for batch in plan for position in batch) == list(range(40))
        for last, batch in zip([[], *plan], plan, strict=False):
            for row, position in enumerate(batch):
                if position in before:
                    assert last[row] == before[position]
        assert len(plan) == len(batches)
        assert max(batches.padded_seconds(batch) for batch in plan) <= 20.0
    assert batches.plan(0) != batches.plan(1)
    assert batches.plan(1) == make_batches()[0].plan(1)
    assert batches.plan(1) != make_batches(seed=1)[0].plan(1)


def test_rows_have_similar_lengths():
    batches, _ = make_batches()
    sizes = [sum(map(len, row)) for row in batches.rows]
    assert max(sizes) - min(sizes) <= 10
    assert sum(len(batch) == len(batches.rows) for batch in batches.plan(0)) >= 0.5 * len(batches)


def test_without_shuffling_every_epoch_is_the_same():
    batches, _ = make_batches(shuffle=False)
    assert batches.plan(0) == batches.plan(5)


def test_one_sequence_is_one_row():
    batches = StreamBatches([1.0, 2.0, 3.0], [[0, 1, 2]], batch_seconds=100)
    assert batches.plan(0) == [[0], [1], [2]]
