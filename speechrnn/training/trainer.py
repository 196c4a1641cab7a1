"""Lightning's Trainer as a run needs it, and what it shows: a progress bar, a line an epoch, a hint about blanks."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import CheckpointIO

from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import count_cores
from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.config import Config
from speechrnn.training.config_file import make_trainer_options
from speechrnn.training.gradient_watch import GradientWatch
from speechrnn.training.loggers import make_loggers
from speechrnn.training.module import MONITOR
from speechrnn.training.optimization import count_steps

logger = logging.getLogger("speechrnn")

_BLANK_RATE_LIMIT = 0.999
_BLANK_VALIDATIONS = 3
_DEFAULTS = {
    "log_every_n_steps": 10,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def make_trainer(
    config: Config, output: Path, callbacks: Sequence[pl.Callback], given: Any, *, resumed_after: int | None
) -> pl.Trainer:
    """Make the Trainer of a run.

    Args:
        config: The run's configuration.
        output: The run's folder.
        callbacks: What keeps the best weights, then the user's callbacks, then what saves progress.
        given: The user's loggers, which replace ``trainer.logger``; None: those of ``trainer.logger``.
        resumed_after: The last step that the log of a resumed run keeps; None for a new run.

    Raises:
        ConfigError: Lightning, or a class that the configuration names, refuses an option.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    options = {**_DEFAULTS, **make_trainer_options(config.trainer)}
    _check_devices(options)
    _warn_of_precision(config, options)
    listed, configured = _as_list(options.pop("callbacks", None)), options.pop("logger", None)
    plugins = _as_list(options.pop("plugins", None))
    if not any(isinstance(each, CheckpointIO) for each in plugins):
        plugins.append(WholeCheckpointIO())
    try:
        return pl.Trainer(
            **options,
            default_root_dir=output,
            logger=make_loggers(output, configured if given is None else given, resumed_after=resumed_after),
            # The best weights are copied before a callback of the user's restores others: callbacks keep their order.
            callbacks=[*_make_callbacks(config), callbacks[0], *listed, *callbacks[1:]],
            plugins=plugins,
            use_distributed_sampler=False,
        )
    except SpeechRNNError:
        raise
    except Exception as error:  # whatever Lightning and the libraries below it raise
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def _make_callbacks(config: Config) -> list[pl.Callback]:
    ours: list[pl.Callback] = [Progress(), BlankHint(), GradientWatch(config.gradients)]
    if config.early_stopping_patience is not None:
        # After validation, so that the checkpoint at the end of the epoch holds its count.
        ours.append(EarlyStopping(MONITOR, patience=config.early_stopping_patience, check_on_train_epoch_end=False))
    return ours


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _check_devices(options: Mapping[str, Any]) -> None:
    """Refuse more processes than cores on a CPU, before Lightning starts them."""
    devices = str(options.get("devices", 1))
    if not _trains_on_cpu(options):
        return
    if devices == "-1":
        raise ConfigError("trainer.devices: -1 means all GPUs, and torch finds none; give a number of processes")
    cores = max(2, count_cores())
    if devices.isdigit() and int(devices) > cores:
        raise ConfigError(f"trainer.devices: {devices} processes, but torch finds no GPU and {cores} cores; lower it")


def _trains_on_cpu(options: Mapping[str, Any]) -> bool:
    accelerator = str(options.get("accelerator", "auto"))
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def _warn_of_precision(config: Config, options: Mapping[str, Any]) -> None:
    """Name a precision that is slower than float32: torch computes a GRU on a CPU in bfloat16 step by step."""
    precision = str(options.get("precision", "32-true"))
    if precision.startswith("bf16") and config.encoder.cell == "gru" and _trains_on_cpu(options):
        logger.warning("trainer.precision: %s is slower than 32-true for a GRU on a CPU; use 32-true", precision)


def _metric(trainer: pl.Trainer, name: str) -> float:
    return float(trainer.callback_metrics.get(name, float("nan")))


class Progress(pl.Callback):
    """A progress bar with loss, WER and audio hours per hour on a terminal; one line per epoch everywhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._resumed = 0.0
        self._train_seconds = self._waited_seconds = self._asked = 0.0
        self._audio_before = 0.0
        self._is_validated = False
        self._loss = self._wer = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock, and the bar on a terminal."""
        self._resumed = self._asked = time.perf_counter()
        self._audio_before = pl_module.totals.seconds  # a resumed epoch has some already
        if not sys.stderr.isatty() or not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps  {task.fields[state]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        steps = count_steps(trainer)
        self._task = self._bar.add_task("train", total=None if steps == float("inf") else steps, epoch="1", state="")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock for the epoch."""
        self._resumed = self._asked = time.perf_counter()
        self._train_seconds = self._waited_seconds = self._audio_before = 0.0
        self._is_validated = False

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Count the time waited for this batch."""
        self._waited_seconds += time.perf_counter() - self._asked

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Start waiting for the next batch; update the bar."""
        self._asked = time.perf_counter()
        if self._bar is None:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every > 0 and trainer.global_step % every == 0:  # otherwise no tensor is read
            self._loss = _metric(trainer, "train/loss_step")
        speed = self._audio_hours_an_hour(pl_module)
        state = f"loss {self._loss:.2f}  WER {100 * self._wer:.1f} %  {speed:,.0f} h of audio/h"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._bar.update(self._task, completed=trainer.global_step, epoch=epoch, state=state)

    def _audio_hours_an_hour(self, pl_module: Any) -> float:
        return max(0.0, pl_module.totals.seconds - self._audio_before) / self._seconds()

    def _seconds(self) -> float:
        """Seconds of training in this epoch, without validation."""
        return self._train_seconds + max(1e-9, time.perf_counter() - self._resumed)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock: validation does not count as training."""
        self._train_seconds += time.perf_counter() - self._resumed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock."""
        self._resumed = self._asked = time.perf_counter()
        self._is_validated = not trainer.sanity_checking
        self._wer = _metric(trainer, "valid/wer")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the epoch in one line."""
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

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    on_exception = on_train_end


class BlankHint(pl.Callback):
    """Warns when a model still emits only blanks."""

    def __init__(self) -> None:
        self._validations = 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count consecutive validations with blanks alone."""
        is_blank = _metric(trainer, "valid/blank_rate") >= _BLANK_RATE_LIMIT
        self._validations = self._validations + 1 if is_blank else 0
        if self._validations == _BLANK_VALIDATIONS:
            logger.warning(
                "for %d validations the model has emitted only blanks. CTC models begin like this, but this is long: "
                "if it stays, check that transcripts match the audio, train longer, try optimizer.learning_rate three "
                "times higher or lower, a smaller encoder.subsampling_factor, or fewer masks in augment.spec_augment",
                _BLANK_VALIDATIONS,
            )
