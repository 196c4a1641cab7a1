"""Plans of batches, in buckets of similar duration under a budget of seconds, and padded batches.

A plan is a pure function of (durations, seed, epoch), and every epoch has the same number of batches. lhotse's own
bucketing sampler guarantees neither: it counts batches that workers prefetch, and its epochs differ in length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from speechrnn.types import Batch, derive_seed, pad_sequences


class Plan(ABC):
    """A plan of batches."""

    seconds: np.ndarray

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches in every epoch."""

    @abstractmethod
    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch."""

    def padded_seconds(self, batch: Sequence[int]) -> float:
        """Seconds of a batch, including padding."""
        return float(self._seconds_of(batch).max() * len(batch))

    def _seconds_of(self, batch: Sequence[int]) -> np.ndarray:
        return self.seconds[np.asarray(batch) % len(self.seconds)]

    def padding_share(self, epoch: int = 0) -> float:
        """Share of an epoch's seconds that is padding, in [0, 1)."""
        batches = self.plan(epoch)
        padded = sum(self.padded_seconds(batch) for batch in batches)
        spoken = sum(float(self._seconds_of(batch).sum()) for batch in batches)
        return 1.0 - spoken / padded if padded else 0.0

    def _put_largest_first(self, batches: list[list[int]]) -> None:
        """Move the largest batch to the front, so that a lack of memory shows at once."""
        if batches:
            batches.insert(0, batches.pop(int(np.argmax([self.padded_seconds(batch) for batch in batches]))))


class DurationBatches(Plan):
    """Batches of utterances of similar duration.

    Utterances are sorted by duration and split into buckets of equal total time. A bucket's batch size is limited by
    its longest utterance and the budget. Each epoch shuffles within buckets, splits them into batches of nearly equal
    size, and shuffles the batches; the first epoch starts with the largest batch, so that a lack of memory shows at
    once.

    Args:
        seconds: Duration of each utterance.
        batch_seconds: Budget of a batch, including padding, in seconds. A longer utterance is a batch of its own.
        num_buckets: Most buckets; fewer if an epoch would have less than two batches of one.
        seed: Seed of the shuffling.
        shuffle: Whether to shuffle; otherwise every epoch is the same, shortest first.
        weights: How often an epoch contains each utterance, on average over those of the same weight: 2 contains all of
            them twice, 0.5 half of them, drawn for each epoch. None, or without shuffling: each once.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        *,
        batch_seconds: float,
        num_buckets: int = 30,
        seed: int = 0,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.shuffle = shuffle
        is_weighted = shuffle and weights is not None
        self.weights = np.asarray(weights if is_weighted else np.ones(len(self.seconds)), dtype=np.float64)
        self.buckets = self._make_buckets(num_buckets)
        self.groups = self._make_groups()

    def _make_buckets(self, num_buckets: int) -> list[np.ndarray]:
        order = np.argsort(self.seconds, kind="stable")
        ends = np.cumsum(self.seconds[order])
        if not len(ends):
            return []
        # With low weights, buckets by the corpus's time would contain only one or two utterances of an epoch.
        spoken = min(ends[-1], float(self.seconds @ self.weights))
        count = int(min(num_buckets, max(1, spoken // (2 * self.batch_seconds))))
        # The bucket of each utterance's middle on the axis of total time.
        middles = ends - self.seconds[order] / 2
        bucket = np.minimum((middles / ends[-1] * count).astype(int), count - 1)
        return [order[bucket == number] for number in range(count) if (bucket == number).any()]

    def _make_groups(self) -> list[list[tuple[np.ndarray, int]]]:
        """For each bucket its utterances by weight, and how many of them an epoch contains.

        Rounding is carried over to the next bucket, so that the total is right; but each bucket contributes at least
        one, so that every utterance is used.
        """
        groups: list[list[tuple[np.ndarray, int]]] = [[] for _ in self.buckets]
        for weight in np.unique(self.weights):
            members = [bucket[self.weights[bucket] == weight] for bucket in self.buckets]
            ends = np.round(np.cumsum([weight * len(part) for part in members]) + 1e-9).astype(int)
            for group, part, wanted in zip(groups, members, np.diff(ends, prepend=0).tolist(), strict=True):
                if len(part):
                    group.append((part, max(1, wanted)))
        return groups

    def _count_batches(self, bucket: np.ndarray, group: list[tuple[np.ndarray, int]]) -> int:
        batch_size = max(1, int(self.batch_seconds // self.seconds[bucket].max()))
        return -(-sum(wanted for _, wanted in group) // batch_size)

    def _draw_members(self, group: list[tuple[np.ndarray, int]], rng: np.random.Generator) -> np.ndarray:
        """An epoch's utterances of a bucket, in random order; repeated ones are numbered copies."""
        drawn = []
        for members, wanted in group:
            copies = -(-wanted // len(members))
            everyone = [rng.permutation(members) + copy * len(self.seconds) for copy in range(copies)]
            drawn.append(np.concatenate(everyone)[:wanted])
        return drawn[0] if len(drawn) == 1 else rng.permutation(np.concatenate(drawn))

    def __len__(self) -> int:
        return sum(self._count_batches(*part) for part in zip(self.buckets, self.groups, strict=True))

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch, each a list of members: positions in ``seconds``.

        Copies of an utterance are the position plus once, twice … the number of utterances, so that each is augmented
        differently.
        """
        rng = np.random.default_rng(derive_seed(self.seed, epoch, "batches"))
        batches = []
        for bucket, group in zip(self.buckets, self.groups, strict=True):
            members = self._draw_members(group, rng) if self.shuffle else bucket
            batches += [part.tolist() for part in np.array_split(members, self._count_batches(bucket, group))]
        if self.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
            if epoch == 0:
                self._put_largest_first(batches)
        return batches


class ShardedBatches(Plan):
    """Batches of a corpus in shards, of which a few are mixed at a time, so that few files are read at a time.

    Shards are grouped once, by the seed. Each epoch shuffles the groups and plans each one as :class:`DurationBatches`
    does.

    Args:
        seconds: Duration of each utterance.
        shards: Shard of each utterance.
        shards_at_once: Shards in a group.
        weights: As for :class:`DurationBatches`.
        seed: Seed of the shuffling.
        options: Further arguments of :class:`DurationBatches`.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        shards: Sequence[str],
        *,
        shards_at_once: int,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.seed = seed
        names = sorted(set(shards))
        numbers = {name: number for number, name in enumerate(names)}
        shard_of = np.array([numbers[shard] for shard in shards])
        shuffled = np.random.default_rng(derive_seed(seed, "shards")).permutation(len(names))
        groups = np.array_split(shuffled, max(1, round(len(names) / shards_at_once)))
        self.members = [np.flatnonzero(np.isin(shard_of, group)) for group in groups]
        self.parts = [
            DurationBatches(
                self.seconds[members].tolist(),
                weights=None if weights is None else np.asarray(weights)[members].tolist(),
                seed=derive_seed(seed, "group", number),
                **options,
            )
            for number, members in enumerate(self.members)
        ]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch; members as in :meth:`DurationBatches.plan`."""
        batches = []
        for number in np.random.default_rng(derive_seed(self.seed, epoch, "groups")).permutation(len(self.parts)):
            members = self.members[number]
            for batch in self.parts[number].plan(epoch):
                copies, positions = np.divmod(batch, len(members))
                batches.append((copies * len(self.seconds) + members[positions]).tolist())
        if epoch == 0:
            self._put_largest_first(batches)
        return batches


@dataclass(frozen=True)
class BatchRequest:
    """One batch to read: its utterances, as in :meth:`DurationBatches.plan`, and the epoch.

    Augmentation depends on the epoch and on the copy of an utterance.
    """

    epoch: int
    index: int
    members: list[int]


class EpochSampler(Sampler[BatchRequest]):
    """Yields a plan's batches for a DataLoader; Lightning sets the epoch with ``set_epoch``.

    Args:
        batches: The plan.
        rank: Number of this process in distributed training. Each process gets its share of every batch's utterances,
            so that the batches are those of a single process.
        world_size: Number of processes.
        epoch: The first epoch.
        skip: Batches of that epoch that a resumed run has already done.
    """

    def __init__(self, batches: Plan, *, rank: int = 0, world_size: int = 1, epoch: int = 0, skip: int = 0) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self.skip = skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchRequest]:
        for index, members in enumerate(self.batches.plan(self.epoch)):
            if index >= self.skip:
                yield BatchRequest(self.epoch, index, members[self.rank :: self.world_size])


def collate(
    waveforms: Sequence[np.ndarray],
    targets: Sequence[Sequence[int]],
    *,
    ids: Sequence[str],
    texts: Sequence[str],
    augment_seeds: Sequence[int] = (),
    failed: Sequence[tuple[str, str, str]] = (),
    references: Sequence[np.ndarray] | None = None,
    speaker_stats: Sequence[np.ndarray] | None = None,
    previous: Sequence[str | None] = (),
) -> Batch:
    """Pad utterances into a batch.

    Args:
        waveforms: B arrays (N,), float32, at one sample rate.
        targets: B lists of token ids.
        ids: Name of each utterance.
        texts: Reference text of each.
        augment_seeds: Seed of each for masks, or none.
        failed: Id, reference text and reason of each utterance that could not be read.
        references: B arrays (R,), float32: another recording of each speaker, possibly empty; None if not used.
        speaker_stats: B arrays (1 + F,), float32, as in :class:`~speechrnn.types.Batch`; None if not used.
        previous: Id of each one's predecessor, if states are carried over.
    """
    if not waveforms:
        nothing, none = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        return Batch(nothing, none, torch.zeros(0, 0, dtype=torch.int64), none, [], failed=list(failed))
    padded, lengths = pad_sequences([torch.from_numpy(waveform) for waveform in waveforms])
    tokens, token_lengths = pad_sequences([torch.tensor(target, dtype=torch.int64) for target in targets])
    spoken, spoken_lengths = (
        (None, None) if references is None else pad_sequences([torch.from_numpy(each) for each in references])
    )
    return Batch(
        *(padded, lengths, tokens, token_lengths),
        *(list(ids), list(texts), list(augment_seeds), list(failed)),
        references=spoken,
        reference_lengths=spoken_lengths,
        speaker_stats=None if speaker_stats is None else torch.from_numpy(np.stack(speaker_stats)),
        previous=list(previous),
    )


def select_utterances(batch: Batch, members: Sequence[int]) -> Batch:
    """Some utterances of a batch, without needless padding."""
    rows = torch.tensor(members, dtype=torch.int64)
    index = rows.to(batch.waveforms.device)
    tensors: dict[str, Any] = {
        name: tensor[rows if name.endswith("lengths") else index] for name, tensor in batch.tensors.items()
    }
    for name in ("waveforms", "targets"):
        tensors[name] = tensors[name][:, : int(tensors[f"{name[:-1]}_lengths"].max())]
    lists: dict[str, Any] = {
        name: [values[i] for i in members] if (values := getattr(batch, name)) else []
        for name in ("ids", "texts", "augment_seeds", "previous")
    }
    return Batch(**tensors, **lists, chunk_seconds=batch.chunk_seconds)


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into parts of nearly equal numbers of utterances, sorted by length.

    Args:
        batch: The batch; its unreadable recordings are dropped.
        parts: From 1, which returns the batch itself, to the number of utterances.
    """
    if parts <= 1:
        return [batch]
    order = batch.waveform_lengths.argsort(stable=True).tolist()
    return [select_utterances(batch, part.tolist()) for part in np.array_split(np.array(order), parts)]
