"""Batch plans: nothing lost, the budget kept, little padding, every epoch a function of the seed."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from speechrnn.corpus.batches import BatchRequest, DurationBatches, EpochSampler, ShardedBatches, collate
from speechrnn.errors import ConfigError
from speechrnn.training.config import DataConfig


def librispeech_like(count=4000, *, seed=0):
    """Durations that lean to the long side and end at 16 s, as sentences read from books do."""
    return np.random.default_rng(seed).beta(4, 2, count) * 15 + 1


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_utterance_is_in_exactly_one_batch_of_an_epoch(epoch):
    seconds = librispeech_like(501)
    members = [i for batch in DurationBatches(seconds, batch_seconds=60, seed=3).plan(epoch) for i in batch]
    assert sorted(members) == list(range(501))


def test_no_batch_exceeds_the_budget_unless_one_utterance_does():
    seconds = [*librispeech_like(300), 90.0]
    batches = DurationBatches(seconds, batch_seconds=60, seed=0)
    for epoch in range(3):
        for batch in batches.plan(epoch):
            assert batches.padded_seconds(batch) <= 60 or batch == [300]


def test_every_epoch_has_the_announced_number_of_batches():
    batches = DurationBatches(librispeech_like(777), batch_seconds=100, seed=1)
    assert {len(batches.plan(epoch)) for epoch in range(8)} == {len(batches)}


def test_plans_depend_only_on_seed_and_epoch():
    def make(seed):
        return DurationBatches(librispeech_like(300), batch_seconds=60, seed=seed)

    assert make(1).plan(4) == make(1).plan(4)
    assert make(1).plan(4) != make(1).plan(5)
    assert make(1).plan(4) != make(2).plan(4)


def make_sharded(count=600, shard_size=50, shards_at_once=3, **options):
    seconds = librispeech_like(count)
    shards = [f"{number // shard_size:03d}.tar" for number in range(count)]
    options = {"batch_seconds": 60, "seed": 5, **options}
    return ShardedBatches(seconds, shards, shards_at_once=shards_at_once, **options), shards


@pytest.mark.parametrize("epoch", [0, 3])
def test_with_shards_every_utterance_occurs_once_and_the_budget_is_kept(epoch):
    batches, _ = make_sharded()
    planned = batches.plan(epoch)
    assert sorted(member for batch in planned for member in batch) == list(range(600))
    assert max(batches.padded_seconds(batch) for batch in planned) <= 60
    assert len(planned) == len(batches)
    assert planned == make_sharded()[0].plan(epoch)
    assert planned != batches.plan(epoch + 1)


def test_only_a_few_shards_are_read_at_a_time():
    batches, shards = make_sharded()
    groups = [frozenset(shards[member] for member in batch) for batch in batches.plan(2)]
    together = [{*first, *second} for first, second in pairwise(groups)]
    seen: list[set[str]] = []
    for group in groups:  # runs of batches that share shards
        if seen and seen[-1] & group:
            seen[-1] |= group
        else:
            seen.append(set(group))
    assert max(len(each) for each in groups) == 3
    assert sum(len(each) > 3 for each in together) <= 3  # where one group ends and the next begins
    assert [len(each) for each in seen] == [3, 3, 3, 3]
    assert set().union(*seen) == set(shards)


def test_equal_groups_of_shards_are_shuffled_differently():
    seconds = [1.0 + number % 50 / 50 for number in range(200)]  # four shards of the same durations
    shards = [f"{number // 50}.tar" for number in range(200)]
    batches = ShardedBatches(seconds, shards, shards_at_once=1, batch_seconds=10, seed=0)
    orders = [[member % 50 for batch in part.plan(1) for member in batch] for part in batches.parts]
    assert len({tuple(order) for order in orders}) == 4


def test_groups_are_reordered_in_each_epoch():
    batches, shards = make_sharded()
    first = [shards[batches.plan(epoch)[5][0]] for epoch in range(1, 9)]
    assert len(set(first)) > 2


def test_the_largest_batch_of_all_shards_comes_first():
    batches, _ = make_sharded()
    sizes = [batches.padded_seconds(batch) for batch in batches.plan(0)]
    assert sizes[0] == max(sizes)


def test_copies_of_weighted_utterances_keep_their_names_in_shards():
    weights = [2.0 if number % 2 else 1.0 for number in range(600)]
    batches, _ = make_sharded(weights=weights)
    members = np.array([member for batch in batches.plan(1) for member in batch])
    counts = np.bincount(members % 600, minlength=600)
    assert (counts == weights).all()
    assert set(members // 600) == {0, 1}
    assert len(set(members.tolist())) == len(members)


def test_one_group_of_shards_is_planned_like_a_corpus_without_shards():
    batches, _ = make_sharded(shards_at_once=100)
    assert len(batches.parts) == 1
    assert batches.padding_share() == pytest.approx(batches.parts[0].padding_share())


def test_the_first_epoch_begins_with_the_largest_batch():
    batches = DurationBatches(librispeech_like(500), batch_seconds=80, seed=0)
    sizes = [batches.padded_seconds(batch) for batch in batches.plan(0)]
    assert sizes[0] == max(sizes)
    assert sizes[1:] != sorted(sizes[1:], reverse=True)


def test_padding_is_under_four_per_cent_of_librispeech_like_speech():
    assert DurationBatches(librispeech_like(), batch_seconds=200, seed=0).padding_share(epoch=1) < 0.04


def test_without_shuffling_every_epoch_is_the_same():
    batches = DurationBatches(librispeech_like(100), batch_seconds=60, shuffle=False)
    assert batches.plan(0) == batches.plan(5)


def test_an_empty_corpus_has_no_batches():
    assert len(DurationBatches([], batch_seconds=10)) == 0
    assert DurationBatches([], batch_seconds=10).plan(0) == []


@pytest.mark.parametrize(
    "settings", [{"batch_seconds": 0}, {"batch_seconds": -1}, {"batch_seconds": 5, "num_buckets": 0}]
)
def test_impossible_budgets_are_refused(settings):
    with pytest.raises(ConfigError, match=r"data\.(batch_seconds|num_buckets): expected "):
        DataConfig(**settings)


def make_weighted(**options):
    """100 utterances of weight 1, 100 of 2.5, 100 of 0.3, of all durations."""
    weights = [1.0, 2.5, 0.3] * 100
    return DurationBatches(librispeech_like(300), batch_seconds=60, seed=0, weights=weights, **options)


def count_members(batches, epoch):
    """How often each utterance comes in an epoch, (300,), and whether each of its copies comes once."""
    members = [member for batch in batches.plan(epoch) for member in batch]
    assert len(set(members)) == len(members)
    return np.bincount(np.array(members) % 300, minlength=300)


def test_weights_set_how_often_an_utterance_occurs_in_an_epoch():
    batches = make_weighted()
    per_epoch = np.stack([count_members(batches, epoch) for epoch in range(40)])
    once, often, seldom = (per_epoch[:, first::3] for first in range(3))
    assert (once == 1).all()
    assert set(np.unique(often)) == {2, 3}
    assert set(np.unique(seldom)) == {0, 1}
    assert set(often.sum(axis=1)) == {250}
    assert set(seldom.sum(axis=1)) <= set(range(30, 34))  # every bucket takes at least one
    assert (seldom.sum(axis=0) > 0).all()  # each has its turn


def test_with_weights_epochs_have_equal_lengths_and_batches_keep_the_budget():
    batches = make_weighted()
    assert {len(batches.plan(epoch)) for epoch in range(8)} == {len(batches)}
    assert max(batches.padded_seconds(batch) for batch in batches.plan(3)) <= 60
    assert batches.padding_share(epoch=1) < 0.1
    assert batches.plan(2) == make_weighted().plan(2)


def test_ten_recordings_among_thousands_of_rare_ones_fill_batches():
    """Not as with as many buckets as all of them would fill: a batch held one, and the seldom came too often."""
    seconds = librispeech_like(2410) / 20
    weights = [1.0] * 10 + [10 / 2400] * 2400
    batches = DurationBatches(seconds, batch_seconds=8, seed=0, weights=weights)
    members = [[member % 2410 for member in batch] for batch in batches.plan(0)]
    assert sorted(member for batch in members for member in batch if member < 10) == list(range(10))
    assert sum(member >= 10 for batch in members for member in batch) == 10
    assert len(members) < 5


def test_weights_of_one_change_nothing_and_validation_ignores_weights():
    plain = DurationBatches(librispeech_like(300), batch_seconds=60, seed=0)
    weighted = DurationBatches(librispeech_like(300), batch_seconds=60, seed=0, weights=[1.0] * 300)
    assert plain.plan(3) == weighted.plan(3)
    unshuffled = make_weighted(shuffle=False)
    assert (count_members(unshuffled, 0) == 1).all()
    assert len(unshuffled.plan(0)) == len(unshuffled)
    seldom = DurationBatches(librispeech_like(300), batch_seconds=60, seed=0, shuffle=False, weights=[0.1] * 300)
    assert seldom.plan(0) == DurationBatches(librispeech_like(300), batch_seconds=60, seed=0, shuffle=False).plan(0)


def test_sampler_hands_out_the_plan_of_its_epoch():
    batches = DurationBatches(librispeech_like(50), batch_seconds=60, seed=0)
    sampler = EpochSampler(batches)
    sampler.set_epoch(3)
    assert list(sampler) == [BatchRequest(3, i, members) for i, members in enumerate(batches.plan(3))]
    assert len(sampler) == len(batches)


def test_collate_pads_on_the_right_with_zeros():
    batch = collate([np.ones(3, np.float32), np.ones(5, np.float32)], [(1, 2), (3,)], ids=["a", "b"], texts=["x", "y"])
    assert batch.waveforms.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.waveform_lengths.tolist() == [3, 5]
    assert batch.targets.tolist() == [[1, 2], [3, 0]]
    assert batch.target_lengths.tolist() == [2, 1]
    assert batch.waveforms.dtype == torch.float32
