"""Lightning's Trainer as a run needs it: our callbacks, loggers and checkpoints beside the user's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import CheckpointIO

from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import count_cores
from speechrnn.training.callbacks import BlankHint, LogLearningRate, Progress
from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.config import Config
from speechrnn.training.config_file import make_trainer_options
from speechrnn.training.gradient_watch import GradientWatch
from speechrnn.training.loggers import make_loggers
from speechrnn.training.module import MONITOR

_DEFAULTS = {
    "log_every_n_steps": 10,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def make_trainer(
    config: Config, output: Path, callbacks: Sequence[pl.Callback], logger: Any, *, resumed_after: int | None
) -> pl.Trainer:
    """Make the Trainer of a run.

    Args:
        config: The run's configuration.
        output: Its folder.
        callbacks: What keeps the best weights, then callbacks of the user's, then what saves progress.
        logger: The user's loggers, instead of ``trainer.logger``; None: those.
        resumed_after: The last step that the log of a resumed run keeps; None for a run that begins.

    Raises:
        ConfigError: Lightning, or a class that the configuration names, refuses an option.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    options = {**_DEFAULTS, **make_trainer_options(config.trainer)}
    _check_devices(options)
    listed, configured = _as_list(options.pop("callbacks", None)), options.pop("logger", None)
    plugins = _as_list(options.pop("plugins", None))
    if not any(isinstance(each, CheckpointIO) for each in plugins):
        plugins.append(WholeCheckpointIO())
    try:
        return pl.Trainer(
            **options,
            default_root_dir=output,
            logger=make_loggers(output, configured if logger is None else logger, resumed_after=resumed_after),
            # The best weights are copied before a callback of the user's puts others back: callbacks keep their order.
            callbacks=[*_make_callbacks(config), callbacks[0], *listed, *callbacks[1:]],
            plugins=plugins,
            use_distributed_sampler=False,
        )
    except SpeechRNNError:
        raise
    except Exception as error:  # whatever Lightning and the libraries below it raise
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def _make_callbacks(config: Config) -> list[pl.Callback]:
    ours: list[pl.Callback] = [Progress(), BlankHint(), LogLearningRate(), GradientWatch(config.gradients)]
    if config.early_stopping_patience is not None:
        # After validation, not at the end of the epoch: then its count is part of what the epoch's end saves.
        stopping = EarlyStopping(MONITOR, patience=config.early_stopping_patience, check_on_train_epoch_end=False)
        ours.append(stopping)
    return ours


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _check_devices(options: Mapping[str, Any]) -> None:
    """Refuse more processes than cores on a CPU, before Lightning starts them."""
    accelerator, devices = str(options.get("accelerator", "auto")), str(options.get("devices", 1))
    if accelerator != "cpu" and (accelerator != "auto" or torch.cuda.is_available()):
        return
    if devices == "-1":
        raise ConfigError("trainer.devices: -1 means all GPUs, and torch finds none; give a number of processes")
    cores = max(2, count_cores())
    if devices.isdigit() and int(devices) > cores:
        raise ConfigError(f"trainer.devices: {devices} processes, but torch finds no GPU and {cores} cores; lower it")
