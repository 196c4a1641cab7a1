"""Logs of a run: CSV, TensorBoard and the user's own; a resumed run continues its files, and no log ends a run."""

from __future__ import annotations

import csv
import io
import logging
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError

logger = logging.getLogger("speechrnn")

METRICS_FILE = "metrics.csv"
_FLUSH_ROWS = 100


def make_loggers(output: Path, given: Logger | Iterable[Logger] | bool | None, *, resumed_after: int | None) -> Any:
    """Loggers that write to ``logs/csv/metrics.csv`` and ``logs/tensorboard``, and those that are given beside them.

    Args:
        output: The run's folder.
        given: Loggers of the user's own; False: no log at all.
        resumed_after: The last step that a resumed run keeps; what was logged after it will be logged again. None for a
            run that begins.

    Returns:
        Loggers whose errors are warnings, or False.

    Raises:
        ConfigError: One of those given cannot be opened.
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
    return [_keep_running(log) for log in (CSVLog(output / "logs" / "csv", resumed_after=resumed_after), board, *own)]


_WRITES = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")


def _keep_running(log: Logger) -> Logger:
    """Make a logger's failures to write warnings."""
    for name in _WRITES:
        setattr(log, name, _tolerate(log, getattr(log, name)))
    return log


def _tolerate(log: Logger, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with tolerated(log):
            return method(*args, **kwargs)

    return call


_named: WeakSet[Logger] = WeakSet()


@contextmanager
def tolerated(log: Logger) -> Iterator[None]:
    """Make the first error of a logger a warning, and pass over its later ones."""
    try:
        yield
    except Exception as error:  # a full disk, a lost connection, whatever a logger's own library raises
        if log not in _named:
            _named.add(log)
            logger.warning("%s cannot write: %s; the run continues without it", type(log).__name__, _shorten(error))


def _shorten(error: Exception) -> str:
    cause = error.__cause__ or error  # TensorBoardLogger reports any error as a wrong value
    return " ".join(str(cause).split())[:300] or type(cause).__name__


class CSVLog(Logger):
    """Writes metrics to a CSV file, a row each time that some are logged; columns are added as names turn up.

    Lightning's own CSVLogger deletes the file that it finds, and with it what a resumed run had logged before.

    Args:
        folder: Where ``metrics.csv`` stands.
        resumed_after: The last step whose rows are kept of the file that is there; None keeps none.
    """

    def __init__(self, folder: Path, *, resumed_after: int | None) -> None:
        super().__init__()
        self.path = folder / METRICS_FILE
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = ["step", "epoch"]
        self._resumed_after = resumed_after
        self._is_open = False

    @property
    def name(self) -> str:
        """Lightning's property."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning's property."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> CSVLog:
        """Lightning's property."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in run.json."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take in a row."""
        self._rows.append({"step": step, **metrics})
        if len(self._rows) >= _FLUSH_ROWS:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write what has come in."""
        if not self._is_open:
            self._open()
        new = sorted({name for row in self._rows for name in row} - set(self._columns))
        if new:
            earlier = self._read()
            self._columns += new
            write_atomic(self.path, self._format([*earlier, *self._rows], with_header=True))
        elif self._rows:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._format(self._rows, with_header=False))
        self._rows = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning's hook at the end."""
        self.save()

    def _open(self) -> None:
        """Begin the file anew, with those rows of an earlier part of the run that still hold."""
        self._is_open = True
        rows = []
        if self._resumed_after is not None and self.path.exists():
            rows = [row for row in self._read() if int(row["step"] or 0) <= self._resumed_after]
            self._columns += [name for row in rows[:1] for name in row if name not in self._columns]
        write_atomic(self.path, self._format(rows, with_header=True))

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            # A row that a kill cut off has no value in its last columns.
            return [row for row in csv.DictReader(file) if None not in row.values() and (row["step"] or "").isdigit()]

    def _format(self, rows: list[dict[str, Any]], *, with_header: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        if with_header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
