"""Checkpoints of a run: its whole state, to resume from, and the weights of its best validations.

A checkpoint is written atomically, so that a kill or a full disk leaves the one before it. It is saved at the end of a
batch or of an epoch. Batches, augmentation and dropout are functions of the seed, the epoch and the batch alone, and
:class:`~speechrnn.training.data.SpeechData` holds how many batches are consumed, so a resumed run needs nothing else.
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
from safetensors.torch import load_file, save

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import sum_over_processes
from speechrnn.training.config import CheckpointsConfig
from speechrnn.training.module import SpeechModule
from speechrnn.training.run import RUN_FILE

logger = logging.getLogger("speechrnn")


class WholeCheckpointIO(CheckpointIO):
    """Writes a checkpoint whole or not at all, and reads nothing that could run code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write it atomically."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read it; plain data and tensors only, so that nothing in it can run code."""
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # torch raises what its archive reader, pickle or the file system raise
            message = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{path}: no checkpoint that can be read ({message}); train anew with --overwrite"
            ) from error

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete it."""
        with suppress(FileNotFoundError):
            os.unlink(path)


class SaveProgress(Checkpoint):
    """Saves the run's whole state every few minutes, at the end of an epoch, and when it is interrupted.

    As a ``Checkpoint`` it comes after all other callbacks, and at the end of an epoch after the module.

    Args:
        path: Where the state is saved.
        config: How often.
    """

    def __init__(self, path: Path, config: CheckpointsConfig) -> None:
        self.path = path
        self.every_seconds = 60.0 * config.every_minutes
        self._seconds_before = 0.0
        self._started_at = time.monotonic()
        self._saved_at = time.monotonic()
        self._is_interrupted = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; let Ctrl-C and SIGTERM wait for the end of the batch, but not a second Ctrl-C.

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
                again = " (once more: at once, without saving)" if number == signal.SIGINT else ""
                logger.info("interrupted: saving after this batch%s", again)
            self._is_interrupted = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to; not in the middle of a step, and not before a validation is due.

        Several processes agree on it after each batch, as Lightning itself does about SIGTERM; one does not wait.
        """
        assert isinstance(pl_module, SpeechModule)
        is_due = time.monotonic() - self._saved_at >= self.every_seconds
        wants = [is_due, self._is_interrupted or trainer.received_sigterm]
        due, interrupted = sum_over_processes(wants, pl_module.device)
        if (due or interrupted) and not pl_module.is_in_a_step and not _is_validation_next(trainer, batch_idx):
            self._save(trainer)
            _stop_if(interrupted)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """An interrupt does not wait for the end of the validation."""
        _stop_if(*sum_over_processes([self._is_interrupted], pl_module.device))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what the epoch has brought, validation included."""
        self._save(trainer)

    @property
    def seconds(self) -> float:
        """Time spent training and validating, in all parts of the run."""
        return self._seconds_before + max(0.0, time.monotonic() - self._started_at)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        _check_in_place(self.path.parent)
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


def _check_in_place(folder: Path) -> None:
    """Refuse to write into a folder that replaced the run's own."""
    if not (folder.parent / RUN_FILE).is_file():
        raise SpeechRNNError(
            f"{folder.parent}: this folder was moved or deleted while the run wrote to it; move it back and continue "
            "with --resume"
        )


def _stop_if(interrupted: float) -> None:
    """Stop where one process or more was interrupted; each of them knows the same number."""
    if interrupted:
        raise KeyboardInterrupt


def _is_validation_next(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after this batch: then the state is saved at a later moment."""
    every = trainer.val_check_batch
    done = trainer.fit_loop.epoch_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return trainer.is_last_batch or trainer.should_stop or (isinstance(every, int) and (done + 1) % every == 0)


class KeepBest(pl.Callback):
    """Keeps the weights of the best validations, each as ``epoch-N-step-M.safetensors``.

    Args:
        folder: Where they stand.
        best: How many to keep.
    """

    def __init__(self, folder: Path, best: int) -> None:
        self.folder = folder
        self.best = best
        self.kept: list[dict[str, Any]] = []
        self._validated: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the weights that are validated: a callback that averages them puts others back after validation."""
        assert isinstance(pl_module, SpeechModule)
        self._validated = {name: value.detach().cpu().clone() for name, value in pl_module.model.state_dict().items()}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep these weights if they are among the best."""
        assert isinstance(pl_module, SpeechModule)
        if trainer.sanity_checking or pl_module.last_validation is None:
            return
        entry: dict[str, Any] = {
            "file": f"epoch-{trainer.current_epoch + 1}-step-{trainer.global_step}.safetensors",
            "epoch": trainer.current_epoch + 1,
            **pl_module.last_validation,
        }
        ranked = sorted([*self.kept, entry], key=lambda kept: kept["rank"])
        dropped = ranked[self.best :]
        if entry not in dropped and trainer.is_global_zero:
            _check_in_place(self.folder)
            write_atomic(self.folder / entry["file"], save(self._validated))
        self.kept = ranked[: self.best]
        for old in dropped:
            if trainer.is_global_zero:
                with suppress(FileNotFoundError):
                    (self.folder / old["file"]).unlink()

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: what is kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.kept = state_dict["kept"]

    def load(self, entry: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weights of one of those kept."""
        return load_file(self.folder / entry["file"])


def average_weights(weights: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, added up in float64; whole numbers are taken from the first."""
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in weights[0].items()
    }
