"""What is shown while a model trains: a progress bar, a line for each epoch, and a hint when only blanks come out."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from speechrnn.training.module import SpeechModule
from speechrnn.training.optimization import count_steps

logger = logging.getLogger("speechrnn")

_BLANK_RATE_LIMIT = 0.999
_BLANK_EPOCHS = 3


def _metric(trainer: pl.Trainer, name: str) -> float:
    return float(trainer.callback_metrics.get(name, float("nan")))


def is_log_step(trainer: pl.Trainer) -> bool:
    """Whether this step is logged: only then are tensors read."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and trainer.global_step % every == 0


class Progress(pl.Callback):
    """A progress bar with loss, WER and hours of audio an hour on a terminal; one line an epoch anywhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._resumed = 0.0
        self._train_seconds = self._waited_seconds = self._asked = 0.0
        self._audio_before = 0.0
        self._is_validated = False
        self._loss = float("nan")
        self._wer = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and the bar on a terminal."""
        assert isinstance(pl_module, SpeechModule)
        self._resumed = self._asked = time.perf_counter()
        self._audio_before = pl_module.totals.seconds  # a resumed epoch has some already
        if not sys.stderr.isatty() or not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps  {task.fields[state]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        steps = count_steps(trainer)
        total = steps if steps != float("inf") else None
        self._task = self._bar.add_task("train", total=total, epoch="1", state="")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._resumed = self._asked = time.perf_counter()
        self._train_seconds = self._waited_seconds = self._audio_before = 0.0
        self._is_validated = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time waited for this batch."""
        self._waited_seconds += time.perf_counter() - self._asked

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start waiting for the next batch; update the bar."""
        self._asked = time.perf_counter()
        if self._bar is None:
            return
        if is_log_step(trainer):
            self._loss = _metric(trainer, "train/loss_step")
        speed = self._audio_hours_an_hour(pl_module)
        state = f"loss {self._loss:.2f}  WER {100 * self._wer:.1f} %  {speed:,.0f} h of audio/h"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._bar.update(self._task, completed=trainer.global_step, epoch=epoch, state=state)

    def _audio_hours_an_hour(self, pl_module: pl.LightningModule) -> float:
        assert isinstance(pl_module, SpeechModule)
        return max(0.0, pl_module.totals.seconds - self._audio_before) / self._seconds()

    def _seconds(self) -> float:
        """Seconds of training in this epoch, validation left out."""
        return self._train_seconds + max(1e-9, time.perf_counter() - self._resumed)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock: validation is no training."""
        self._train_seconds += time.perf_counter() - self._resumed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock."""
        self._resumed = self._asked = time.perf_counter()
        self._is_validated = not trainer.sanity_checking
        self._wer = _metric(trainer, "valid/wer")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch in one line."""
        assert isinstance(pl_module, SpeechModule)
        totals = pl_module.gather_totals()
        speed, waiting = self._audio_hours_an_hour(pl_module), self._waited_seconds / self._seconds()
        logger.info(
            "epoch %d: loss %.3f, %sgradient norm %.1f (clipped in %.0f %% of steps%s), %.0f %% of the time waiting "
            "for audio, %s h of audio/h",
            trainer.current_epoch + 1,
            totals.mean("loss"),
            self._describe_validation(trainer) if self._is_validated else "",
            totals.mean("norms"),
            100 * totals.mean("clipped"),
            f", {totals.skipped:.0f} skipped" if totals.skipped else "",
            100 * waiting,
            f"{speed:,.0f}",
        )
        pl_module.log("train/audio_hours_an_hour", speed)
        pl_module.log("train/waiting_share", waiting)

    def _describe_validation(self, trainer: pl.Trainer) -> str:
        loss, cer, blank_rate = (_metric(trainer, f"valid/{name}") for name in ("loss", "cer", "blank_rate"))
        return (
            f"validation loss {loss:.3f}, WER {100 * self._wer:.2f} %, CER {100 * cer:.2f} %, "
            f"blanks {100 * blank_rate:.0f} %, "
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar before the error is reported."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class BlankHint(pl.Callback):
    """Warns when a model still emits only blanks."""

    def __init__(self) -> None:
        self._epochs = 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count validations in a row with blanks alone."""
        is_blank = _metric(trainer, "valid/blank_rate") >= _BLANK_RATE_LIMIT
        self._epochs = self._epochs + 1 if is_blank else 0
        if self._epochs == _BLANK_EPOCHS:
            logger.warning(
                "for %d validations the model has emitted only blanks. CTC models begin so, but this is long: if it "
                "stays, check that transcripts match the audio, train longer, try optimizer.learning_rate three times "
                "higher or lower, a smaller encoder.subsampling_factor, or fewer masks in augment.spec_augment",
                _BLANK_EPOCHS,
            )


class LogLearningRate(pl.Callback):
    """Logs the learning rate at each logged step."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log it."""
        if not is_log_step(trainer):
            return
        optimizer = trainer.optimizers[0]
        assert isinstance(optimizer, torch.optim.Optimizer)
        pl_module.log("train/learning_rate", optimizer.param_groups[0]["lr"])
