"""Loggers of a run: CSV, TensorBoard, the user's own; a resumed run continues its files, and none ends a run."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from speechrnn.errors import ConfigError

logger = logging.getLogger("speechrnn")

_WRITES = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")


def make_loggers(output: Path, given: Logger | Iterable[Logger] | bool | None, *, resumed_after: int | None) -> Any:
    """Make loggers that write ``logs/csv/metrics.csv`` and ``logs/tensorboard``, beside the user's own.

    Args:
        output: The run's folder.
        given: The user's loggers; False: no logger at all.
        resumed_after: The last step that a resumed run keeps; later steps are logged again. None for a new run.

    Returns:
        Loggers whose errors are warnings, or False.

    Raises:
        ConfigError: One of the user's loggers cannot be opened.
    """
    if given is False:
        return False
    own = [given] if isinstance(given, Logger) else [] if given in (None, True) else list(given)  # type: ignore[arg-type]
    for log in own:
        try:
            _ = getattr(log, "experiment", None)
        except Exception as error:  # whatever a logger's own library raises
            raise ConfigError(f"trainer.logger: {type(log).__name__} cannot be opened: {_shorten(error)}") from error
    purge: dict[str, Any] = {} if resumed_after is None else {"purge_step": resumed_after + 1}
    board = TensorBoardLogger(output, "logs", "tensorboard", default_hp_metric=False, **purge)
    loggers = [CSVLogger(output, "logs", "csv"), board, *own]
    for log in loggers:
        for name in _WRITES:
            setattr(log, name, _tolerate(log, getattr(log, name)))
    _log_again(
        loggers[0], output / "logs" / "csv" / "metrics.csv", until=-1 if resumed_after is None else resumed_after
    )
    return loggers


@rank_zero_only
def _log_again(log: Any, path: Path, *, until: int) -> None:
    """Log the rows of an earlier part of the run: Lightning's CSVLogger does not continue a file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # A row that was cut off has no value in its last columns.
            rows = [row for row in csv.DictReader(file) if None not in row.values() and row["step"].isdigit()]
    except FileNotFoundError:
        return
    shutil.rmtree(path.parent)
    for row in rows:
        step = int(row.pop("step"))
        if step <= until:
            log.log_metrics({name: value for name, value in row.items() if value}, step)
    log.save()


def _tolerate(log: Logger, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with tolerated(log):
            return method(*args, **kwargs)

    return call


_named: WeakSet[Logger] = WeakSet()


@contextmanager
def tolerated(log: Logger) -> Iterator[None]:
    """Make the first error of a logger a warning, and ignore its later ones."""
    try:
        yield
    except Exception as error:  # a full disk, a lost connection, whatever a logger's own library raises
        if log not in _named:
            _named.add(log)
            logger.warning("%s cannot write: %s; the run continues without it", type(log).__name__, _shorten(error))


def _shorten(error: Exception) -> str:
    cause = error.__cause__ or error  # TensorBoardLogger reports any error as a wrong value
    return " ".join(str(cause).split())[:300] or type(cause).__name__
