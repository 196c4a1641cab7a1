"""Audio for training: reading, speed perturbation, batching; a batch is a pure function of (seed, epoch, members)."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from speechrnn.audio.archives import find_archive
from speechrnn.audio.augment import AugmentConfig, augment, draw_speed
from speechrnn.audio.resampling import resample
from speechrnn.corpus.batches import BatchRequest, DurationBatches, EpochSampler, Plan, ShardedBatches, collate
from speechrnn.corpus.streams import Carry, StreamBatches, find_previous, find_sequences
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.errors import AudioError, ConfigError
from speechrnn.processes import count_cores
from speechrnn.seeds import derive_seed
from speechrnn.training.config import DataConfig
from speechrnn.training.voices import Voices
from speechrnn.types import Batch

REFERENCE_SECONDS = 5.0
"""Most that is heard of a speaker's earlier speech in training."""

_OTHER_TRIES = 20
_WITHOUT_REFERENCE = 0.1


class UtteranceDataset(Dataset[Batch]):
    """Reads the utterances that a :class:`BatchRequest` names and pads them into a batch.

    One that cannot be read is missing from the batch and named in its ``failed``.

    Args:
        utterances: The corpus after the preflight.
        sample_rate: The model's, in Hz.
        augment: What to do to the recordings; None for validation.
        explain_infeasible: Why CTC cannot align tokens with a number of samples, or None where it can. An utterance
            that augmentation would make too short is taken as it is.
        seed: The run's seed.
        with_references: Whether each utterance comes with another one of its speaker, of at most REFERENCE_SECONDS.
        heard: Frames of each utterance and the mean features over them, (U, 1 + F), where the front end is to be told
            what was heard of each one's speaker.
        carry: Which utterances follow one another.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        *,
        sample_rate: int,
        augment: AugmentConfig | None,
        explain_infeasible: Callable[[Sequence[int], int], str | None],
        seed: int,
        with_references: bool = False,
        heard: np.ndarray | None = None,
        carry: Carry = "no",
    ) -> None:
        self.utterances = utterances
        self.sample_rate = sample_rate
        self.augment = augment
        self.explain_infeasible = explain_infeasible
        self.seed = seed
        self._cache: dict[str, np.ndarray] = {}
        self._free_bytes = 0
        self.sequences = find_sequences(utterances, carry) if carry != "no" else None
        self._previous = None if self.sequences is None else find_previous(self.sequences)
        self._by_speaker = _group_by_speaker(utterances) if with_references else None
        self._voices = None if heard is None else Voices(heard, [each.speaker_key for each in utterances], seed=seed)

    def cache(self, num_bytes: int) -> None:
        """Keep recordings as they are read, before augmentation, up to so much memory; those kept earlier go."""
        self._cache, self._free_bytes = {}, num_bytes

    def __getitem__(self, request: BatchRequest) -> Batch:
        members, waveforms, seeds, failed = [], [], [], []
        references, heard, previous = [], [], []
        for copy, position in (divmod(i, len(self.utterances)) for i in request.members):
            member = self.utterances[position]
            seed = derive_seed(self.seed, request.epoch, member.id, *([copy] if copy else []))
            try:
                waveforms.append(self._read(member, seed))
            except (AudioError, OSError) as error:
                failed.append((member.id, member.text, str(error)))
                continue
            members.append(member)
            seeds.append(seed)
            if self._previous is not None:
                before = self._previous.get(position)
                previous.append(None if before is None else self.utterances[before].id)
            if self._by_speaker is not None:
                references.append(self._read_reference(position, derive_seed(seed, "reference")))
            if self._voices is not None:
                rng = None if self.augment is None else np.random.default_rng(derive_seed(seed, "heard"))
                heard.append(self._voices.tell(position, rng))
        return collate(
            waveforms,
            [member.tokens for member in members],
            ids=[member.id for member in members],
            texts=[member.text for member in members],
            augment_seeds=seeds if self.augment else [],
            failed=failed,
            references=references if self._by_speaker is not None else None,
            heard=heard if heard else None,
            previous=previous,
        )

    def _read_reference(self, position: int, seed: int) -> np.ndarray:
        """A piece of another utterance of the same speaker, (R,); empty where there is none, and at times in training,
        so that a model knows what to do without one.
        """
        rng, member = np.random.default_rng(seed), self.utterances[position]
        others = (self._by_speaker or {}).get(member.speaker_key or "", np.zeros(0, np.int64))
        others = others[others != position]
        if not len(others) or (self.augment is not None and rng.random() < _WITHOUT_REFERENCE):
            return np.zeros(0, np.float32)
        try:
            samples = self._read_samples(self.utterances[int(rng.choice(others))])
        except (AudioError, OSError):
            return np.zeros(0, np.float32)  # it is named when its own turn comes
        most = int(REFERENCE_SECONDS * self.sample_rate)
        start = int(rng.integers(max(1, len(samples) - most + 1)))
        return samples[start : start + most]

    def _read(self, utterance: Utterance, seed: int) -> np.ndarray:
        samples = self._read_samples(utterance)
        if self.augment is None:
            return samples
        speed = draw_speed(self.augment, derive_seed(seed, "speed"))
        changed = samples if speed == 1.0 else resample(samples, self.sample_rate * speed, self.sample_rate)
        changed = augment(
            changed,
            self.augment,
            sample_rate=self.sample_rate,
            seed=seed,
            draw_other=lambda other_seed: self._read_other(utterance, other_seed),
        )
        return changed if self.explain_infeasible(utterance.tokens, len(changed)) is None else samples

    def _read_samples(self, utterance: Utterance) -> np.ndarray:
        """An utterance's samples, (N,), which nobody may change."""
        samples = self._cache.get(utterance.id)
        if samples is None:
            samples = read_utterance(utterance, sample_rate=self.sample_rate).samples
            if samples.nbytes <= self._free_bytes:
                self._cache[utterance.id] = samples
                self._free_bytes -= samples.nbytes
        return samples

    def _read_other(self, utterance: Utterance, seed: int) -> np.ndarray | None:
        """Another utterance for noise: by another speaker where speakers are known, and not the same in any case."""
        rng = np.random.default_rng(seed)
        for _ in range(_OTHER_TRIES):
            other = self.utterances[int(rng.integers(len(self.utterances)))]
            if other.id == utterance.id or (other.speaker_key and other.speaker_key == utterance.speaker_key):
                continue
            try:
                return self._read_samples(other)
            except (AudioError, OSError):
                continue  # it is named when its own turn comes
        return None


def _group_by_speaker(utterances: Sequence[Utterance]) -> dict[str, np.ndarray]:
    """Positions of each speaker's utterances."""
    positions: dict[str, list[int]] = {}
    for position, utterance in enumerate(utterances):
        if utterance.speaker_key is not None:
            positions.setdefault(utterance.speaker_key, []).append(position)
    return {speaker: np.array(places) for speaker, places in positions.items()}


def count_workers(config: DataConfig) -> int:
    """Processes that read audio for training: as configured, or what suits the machine."""
    if config.num_workers is not None:
        return config.num_workers
    return 4 if torch.cuda.is_available() else min(1, count_cores() - 1)


@contextmanager
def share_cores(config: DataConfig) -> Iterator[None]:
    """Leave a core to each reading process while a model trains on a CPU; OMP_NUM_THREADS has the last word.

    A recurrent layer waits for all its threads at every frame, so one thread that has to share its core with a reading
    process slows training many times over.
    """
    threads = torch.get_num_threads()
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(threads, count_cores() - count_workers(config))))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def plan_batches(
    utterances: Sequence[Utterance], config: DataConfig, *, seed: int, shuffle: bool
) -> DurationBatches | ShardedBatches:
    """Batches under the budget; of utterances in archives, so that only a few of those are read at a time."""
    seconds, weights = array("d"), array("d")
    shards: list[str] = []  # of those that lie in one
    shard_of: dict[str, str | None] = {}  # by folder: what is asked of a few folders is not asked of each recording
    for utterance in utterances:
        seconds.append(utterance.seconds)
        weights.append(config.weights.get(utterance.corpus or "", 1.0))
        folder = os.path.dirname(utterance.audio_path)
        if folder not in shard_of:
            inside = find_archive(utterance.audio_path)
            shard_of[folder] = None if inside is None else str(inside[0])
        shard = shard_of[folder]
        if shard is not None:
            shards.append(shard)
    options: dict[str, Any] = {
        "batch_seconds": config.batch_seconds,
        "num_buckets": config.num_buckets,
        "seed": seed,
        "shuffle": shuffle,
        "weights": weights,
    }
    if not shuffle or not shards or len(shards) < len(utterances):
        return DurationBatches(seconds, **options)
    return ShardedBatches(seconds, shards, shards_at_once=config.shards_at_once, **options)


class SpeechData(pl.LightningDataModule):
    """Training and validation batches.

    Args:
        train: Utterances to train on.
        valid: Utterances to choose checkpoints on.
        config: Budget, buckets, workers, memory for recordings.
        augment: What to do to training recordings.
        sample_rate: The model's, in Hz.
        explain_infeasible: As :class:`UtteranceDataset` has it.
        seed: The run's seed.
        with_references: As :class:`UtteranceDataset` has it.
        heard: Likewise, of the training and of the validation utterances.
    """

    def __init__(
        self,
        train: Sequence[Utterance],
        valid: Sequence[Utterance],
        *,
        config: DataConfig,
        augment: AugmentConfig,
        sample_rate: int,
        explain_infeasible: Callable[[Sequence[int], int], str | None],
        seed: int,
        with_references: bool = False,
        heard: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        options: dict[str, Any] = {
            "sample_rate": sample_rate,
            "explain_infeasible": explain_infeasible,
            "seed": seed,
            "with_references": with_references,
            "carry": config.carry_state,
        }
        of_train, of_valid = (None, None) if heard is None else heard
        self.train_set = UtteranceDataset(train, augment=augment, heard=of_train, **options)
        self.valid_set = UtteranceDataset(valid, augment=None, heard=of_valid, **options)
        self._epoch = 0
        self._batches_done = 0

    def resume_at(self, epoch: int, batches_done: int) -> None:
        """Begin in this epoch, counted from 0, after so many of its batches."""
        self._epoch, self._batches_done = epoch, batches_done

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented batches."""
        readers = max(1, count_workers(self.config)) * (self.trainer.world_size if self.trainer else 1)
        self.train_set.cache(int(1e9 * self.config.cache_gigabytes / readers))
        return self._make_loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same batches at every validation."""
        return self._make_loader(self.valid_set, shuffle=False)

    def _make_loader(self, dataset: UtteranceDataset, *, shuffle: bool) -> DataLoader[Batch]:
        batches: Plan
        if dataset.sequences is not None:
            seconds = array("d", (utterance.seconds for utterance in dataset.utterances))
            budget = self.config.batch_seconds
            batches = StreamBatches(seconds, dataset.sequences, batch_seconds=budget, seed=self.seed, shuffle=shuffle)
        else:
            batches = plan_batches(dataset.utterances, self.config, seed=self.seed, shuffle=shuffle)
        where = (self._epoch, self._batches_done) if shuffle else (0, 0)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if world_size > 1 and dataset.sequences is not None:
            raise ConfigError("data.carry_state: states are carried on within one process; set trainer.devices to 1")
        has_gpu = torch.cuda.is_available()
        # On a CPU validation waits for nothing: a process of its own would cost more than it brings.
        workers = count_workers(self.config) if shuffle or has_gpu else 0
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=EpochSampler(batches, rank=rank, world_size=world_size, epoch=where[0], skip=where[1]),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=has_gpu,
        )
