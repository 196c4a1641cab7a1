"""The state of a run on disk: written atomically, at the end of a batch or an epoch, so that a run can be resumed.

Batches, augmentation and dropout are functions of the seed, the epoch and the batch, and
:class:`~speechrnn.training.data.SpeechData` counts the batches that are consumed, so a checkpoint needs nothing else.
"""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError
from speechrnn.processes import sum_over_processes
from speechrnn.training.config import CheckpointsConfig
from speechrnn.training.run import check_in_place

logger = logging.getLogger("speechrnn")


class WholeCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically, and reads plain data and tensors only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint atomically."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; nothing in it can run code.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # torch raises what its archive reader, pickle or the file system raise
            message = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{path}: cannot read this checkpoint ({message}); train again with --overwrite"
            ) from error

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint."""
        with suppress(FileNotFoundError):
            os.unlink(path)


def convert_checkpoint(kept: dict[str, Any]) -> dict[str, Any]:
    """Convert a checkpoint of the versions that optimised manually; a run continues from it exactly."""
    position, loop = kept.pop("position"), kept["loops"]["fit_loop"]
    steps = loop["epoch_loop.manual_optimization.optim_step_progress"]
    zeroed = {name: {**counts, "started": counts["ready"]} for name, counts in steps.items()}
    loop["epoch_loop.automatic_optimization.optim_progress"] = {"optimizer": {"step": steps, "zero_grad": zeroed}}
    loop["epoch_loop.scheduler_progress"] = steps
    if position["batches_done"] == 0:  # the start of an epoch
        stages = ("ready", "completed", "started", "processed")
        loop["epoch_progress"] = dict.fromkeys(("total", "current"), dict.fromkeys(stages, position["epoch"]))
        loop["epoch_loop.batch_progress"] |= {"current": dict.fromkeys(stages, 0), "is_last_batch": False}
    kept["SpeechData"] = {name: position[name] for name in ("epoch", "batches_done", "data")}
    kept["callbacks"]["SaveProgress"] = {"seconds": position["seconds"]}
    kept["speechrnn"].setdefault("carried", {})
    return kept


class SaveProgress(Checkpoint):
    """Saves the state of the run every few minutes, at the end of an epoch, and when the run is interrupted.

    Lightning calls a ``Checkpoint`` after all other callbacks, and at the end of an epoch after the module.

    Args:
        path: File to save to.
        config: How often to save.
    """

    def __init__(self, path: Path, config: CheckpointsConfig) -> None:
        self.path = path
        self.every_seconds = 60.0 * config.every_minutes
        self._seconds_before = 0.0
        self._started_at = self._saved_at = time.monotonic()
        self._is_interrupted = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; let the first Ctrl-C and any SIGTERM wait for the end of the batch.

        SIGTERM may come twice: from a cluster, and from a launcher that passes it on. Lightning's own handler
        broadcasts: where every process gets the signal, they would wait for one another for ever. At the end Lightning
        restores all handlers.
        """
        self._saved_at = self._started_at = time.monotonic()
        if threading.current_thread() is not threading.main_thread():
            return
        earlier = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: Any) -> None:
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, earlier)
            if not self._is_interrupted:
                again = " (press again to stop at once, without saving)" if number == signal.SIGINT else ""
                logger.info("interrupted: saving after this batch%s", again)
            self._is_interrupted = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, note)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save when it is due; not within a step, and not before a validation that follows this batch.

        Several processes agree on it after each batch, as Lightning does about SIGTERM. One process does not wait.
        """
        is_due = time.monotonic() - self._saved_at >= self.every_seconds
        wants = [is_due, self._is_interrupted or trainer.received_sigterm]
        due, interrupted = sum_over_processes(wants, pl_module.device)
        if (due or interrupted) and not pl_module.is_in_a_step and not _is_validation_next(trainer, batch_idx):
            self._save(trainer)
            _stop_if(interrupted)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Stop an interrupted run within its validation."""
        _stop_if(*sum_over_processes([self._is_interrupted], pl_module.device))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state, validation included."""
        self._save(trainer)

    @property
    def seconds(self) -> float:
        """Time spent training and validating, in all parts of the run."""
        return self._seconds_before + max(0.0, time.monotonic() - self._started_at)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        check_in_place(self.path.parents[1])
        for log in trainer.loggers:
            log.save()
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the clock."""
        self._seconds_before, self._started_at = self.seconds, math.inf

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: the time spent so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._seconds_before = state_dict["seconds"]


def _stop_if(interrupted: float) -> None:
    """Stop if any process was interrupted; all processes pass the same number."""
    if interrupted:
        raise KeyboardInterrupt


def _is_validation_next(trainer: pl.Trainer, batch_idx: int) -> bool:
    every = trainer.val_check_batch
    done = trainer.fit_loop.epoch_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return trainer.is_last_batch or trainer.should_stop or (isinstance(every, int) and (done + 1) % every == 0)
