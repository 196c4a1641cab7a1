"""The LightningDataModule: batches for training, validation and test, and how many of them are consumed."""

from __future__ import annotations

import logging
import os
import signal
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, SequentialSampler

from speechrnn.audio.containers import find_archive
from speechrnn.corpus.batches import DurationBatches, EpochSampler, Plan, ShardedBatches
from speechrnn.corpus.streams import StreamBatches
from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.errors import ConfigError
from speechrnn.model_folder import ModelFolder
from speechrnn.processes import count_cores
from speechrnn.training.batch_search import choose_batch_seconds
from speechrnn.training.config import Config, DataConfig
from speechrnn.training.config_file import to_config
from speechrnn.training.dataset import UtteranceDataset
from speechrnn.training.preflight import Preflight, prepare_run, read_test_set
from speechrnn.types import Batch

logger = logging.getLogger("speechrnn")

_MOST_WORKERS, _MOST_WORKERS_A_CORE = 16, 8


def count_workers(config: DataConfig) -> int:
    """Number of processes that read audio for training: as configured, or a default for this machine.

    Raises:
        ConfigError: The machine has too few cores for so many.
    """
    wanted, cores = config.num_workers, count_cores()
    if wanted is None:
        return 4 if torch.cuda.is_available() else min(1, cores - 1)
    most = max(_MOST_WORKERS, _MOST_WORKERS_A_CORE * cores)
    if wanted > most:
        raise ConfigError(f"data.num_workers: expected at most {most} with {cores} cores, got {wanted}")
    return wanted


@contextmanager
def share_cores(config: DataConfig) -> Iterator[None]:
    """Leave a core to each reading process while a model trains on a CPU; OMP_NUM_THREADS takes precedence.

    A recurrent layer waits for all its threads at every frame, so one thread that shares its core with a reading
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
    """Batches under the budget; those of a packed corpus read a few archives at a time."""
    seconds, weights = array("d"), array("d")
    shards: list[str] = []  # of those utterances that are in one
    shard_of: dict[str, str | None] = {}  # by folder: there are fewer folders than recordings
    rows = (utterances if isinstance(utterances, UtteranceList) else UtteranceList(utterances)).rows()
    for _, path, _, _, duration, _, corpus, *_ in rows:
        seconds.append(duration)
        weights.append(config.weights.get(corpus or "", 1.0))
        folder = os.path.dirname(path)
        if folder not in shard_of:
            inside = find_archive(path)
            shard_of[folder] = None if inside is None else str(inside[0])
        shard = shard_of[folder]
        if shard is not None:
            shards.append(shard)
    options: dict[str, Any] = {
        "batch_seconds": config.budget_seconds,
        "num_buckets": config.num_buckets,
        "seed": seed,
        "shuffle": shuffle,
        "weights": weights,
    }
    if not shuffle or not shards or len(shards) < len(utterances):
        return DurationBatches(seconds, **options)
    return ShardedBatches(seconds, shards, shards_at_once=config.shards_at_once, **options)


class SpeechData(pl.LightningDataModule):
    """Training, validation and test batches.

    ``setup`` runs the preflight: it reads the corpora, builds tokens and an untrained model, which ``SpeechModule``
    takes from here, and leaves out what cannot be trained on.

    Args:
        config: The run's configuration: a :class:`~speechrnn.training.config.Config`, a YAML file, or plain settings.
        folders: Where to look for manifests that are given by relative paths, beside a YAML file's own folder.
        preflight: Its result, if it has run already.
        corpora: Corpora that are read already, as :func:`~speechrnn.training.preflight.prepare_run` takes them.
        base: The model of ``start.model``, if it is loaded already.

    Attributes:
        preflight: The preflight's result; None before ``setup``.
        train_set: Utterances to train on, after ``setup``.
        valid_set: Utterances to choose checkpoints on, after ``setup``.
    """

    train_set: UtteranceDataset
    valid_set: UtteranceDataset

    def __init__(
        self,
        config: Config | str | Path | Mapping[str, Any],
        folders: Sequence[Path] = (),
        *,
        preflight: Preflight | None = None,
        corpora: Mapping[str, Sequence[Utterance]] | None = None,
        base: ModelFolder | None = None,
    ) -> None:
        super().__init__()
        self.config = to_config(config)
        own = [Path(config).resolve().parent] if isinstance(config, (str, Path)) else []
        self.folders = [Path(self.config.output or "."), *own, *folders]
        self.preflight = preflight
        self._opened: dict[str, Any] = {"corpora": corpora, "base": base}
        self._is_auto = self.config.data.batch_seconds == "auto"
        self._epoch = 0
        self._batches_done = 0

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook: run the preflight, once."""
        if hasattr(self, "train_set"):
            return
        if self.preflight is None:
            self.preflight = prepare_run(self.config, folders=self.folders, **self._opened)
        of_train, of_valid = self.preflight.speaker_stats or (None, None)
        self.train_set = self._make_dataset(
            self.preflight.train, augment=self.config.augment, chunks=self.config.chunks, speaker_stats=of_train
        )
        self.valid_set = self._make_dataset(self.preflight.valid, speaker_stats=of_valid)
        if self.config.data.batch_seconds == "auto":
            self._set_budget(choose_batch_seconds(self.config, self.preflight, self.train_set))
        _name_too_long(self.preflight.train, self.config.data.budget_seconds)
        if self.trainer is not None and self.trainer.lightning_module is not None:
            self.trainer.lightning_module.configure_model()  # before a callback copies the module

    @cached_property
    def fingerprint(self) -> str:
        """The preflight's fingerprint of the data."""
        assert self.preflight is not None
        return self.preflight.fingerprint()

    def _make_dataset(self, utterances: Sequence[Utterance], **options: Any) -> UtteranceDataset:
        assert self.preflight is not None
        return UtteranceDataset(
            utterances,
            sample_rate=self.preflight.model.sample_rate,
            explain_infeasible=self.preflight.model.explain_infeasible,
            seed=self.config.seed,
            with_references=self.config.encoder.initial_state == "encoded",
            carry=self.config.data.carry_state,
            **{"augment": None, **options},
        )

    def _set_budget(self, seconds: float) -> None:
        self.config = replace(self.config, data=replace(self.config.data, batch_seconds=seconds))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning's hook: count a batch that is trained on next; workers may have drawn more."""
        if self.trainer is not None and self.trainer.training:
            if self.trainer.current_epoch != self._epoch:
                self._epoch, self._batches_done = self.trainer.current_epoch, 0
            self._batches_done += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: the data's fingerprint and the position in them."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        is_at_end = epoch == self._epoch and self._batches_done >= self.trainer.num_training_batches
        done = self._batches_done if epoch == self._epoch and not is_at_end else 0
        found = {"batch_seconds": self.config.data.batch_seconds} if self._is_auto else {}
        return {"epoch": epoch + is_at_end, "batches_done": done, "data": self.fingerprint, **found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook: continue from this position."""
        self._epoch, self._batches_done = state_dict["epoch"], state_dict["batches_done"]
        if self._is_auto and "batch_seconds" in state_dict:
            self._set_budget(state_dict["batch_seconds"])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented batches."""
        readers = max(1, count_workers(self.config.data)) * (self.trainer.world_size if self.trainer else 1)
        self.train_set.cache(int(1e9 * self.config.data.cache_gigabytes / readers))
        return self._make_loader(self.train_set, is_training=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same batches at every validation."""
        return self._make_loader(self.valid_set)

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Batches of each set of ``data.test``."""
        assert self.preflight is not None
        sets = [read_test_set(self.config, name, self.preflight, self.folders) for name in self.config.data.test]
        return [self._make_loader(self._make_dataset(utterances)) for utterances in sets]

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """The test sets, or the validation set if there is none."""
        return self.test_dataloader() or [self.val_dataloader()]

    def _make_loader(self, dataset: UtteranceDataset, *, is_training: bool = False) -> DataLoader[Batch]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if world_size > 1 and dataset.sequences is not None:
            raise ConfigError("data.carry_state: states are carried on within one process; set trainer.devices to 1")
        is_fixed = bool(trainer and trainer.overfit_batches)  # type: ignore[attr-defined]
        batches = self._plan(dataset, shuffle=is_training and not is_fixed)
        where = (self._epoch, self._batches_done) if is_training else (0, 0)
        sampler = _FixedSampler if is_fixed else EpochSampler
        has_gpu = torch.cuda.is_available()
        # On a CPU a worker for validation costs more than it saves.
        workers = count_workers(self.config.data) if is_training or has_gpu else 0
        return _Loader(
            dataset,
            batch_size=None,
            sampler=sampler(batches, rank=rank, world_size=world_size, epoch=where[0], skip=where[1]),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=has_gpu,
        )

    def _plan(self, dataset: UtteranceDataset, *, shuffle: bool) -> Plan:
        config, seed = self.config.data, self.config.seed
        if dataset.sequences is None:
            assert self.preflight is not None
            config = replace(config, weights=self.preflight.weights)
            return plan_batches(dataset.utterances, config, seed=seed, shuffle=shuffle)
        seconds = array("d", (utterance.seconds for utterance in dataset.utterances))
        return StreamBatches(
            seconds, dataset.sequences, batch_seconds=config.budget_seconds, seed=seed, shuffle=shuffle
        )


def _name_too_long(utterances: Sequence[Utterance], seconds: float) -> None:
    too_long = [each for each in utterances if each.seconds > seconds]
    if too_long:
        longest = max(too_long, key=lambda each: each.seconds)
        logger.warning(
            "data.batch_seconds %g: %d utterances are longer, %s with %.1f s the longest; each is a batch of its own",
            seconds, len(too_long), longest.id, longest.seconds,
        )  # fmt: skip


class _FixedSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]
    """The same batches in every epoch; Lightning replaces any other sampler when ``overfit_batches`` is set."""


class _Loader(DataLoader[Batch]):
    """A loader whose workers block interrupts; the main process ends them.

    A worker that receives Ctrl-C while it starts dies with a traceback, and the run dies with it, unsaved.
    """

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
