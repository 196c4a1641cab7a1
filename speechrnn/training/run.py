"""A run's folder: run.json, which a run is resumed from; and the log lines of a run started from Python."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechrnn.atomic_io import parse_json, write_json
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import is_first_process
from speechrnn.training.config import Config
from speechrnn.training.config_file import config_from_dict

RUN_FILE = "run.json"
_RUN_VERSION = 1
CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"


@contextmanager
def visible_log() -> Iterator[None]:
    """Write log lines to standard error if nothing has configured logging, as in a notebook or a plain script."""
    log, handler = logging.getLogger("speechrnn"), logging.StreamHandler()
    if log.handlers or logging.getLogger().handlers or not is_first_process():
        yield
        return
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@dataclass(frozen=True)
class Run:
    """A run as run.json describes it.

    Attributes:
        config: Its configuration, ``output`` set.
        folders: Where to look for manifests that are given by relative paths.
        provenance: Languages and corpora, for the model card.
        is_finished: Whether its model is released.
    """

    config: Config
    folders: list[Path]
    provenance: dict[str, Any]
    is_finished: bool = False

    @property
    def output(self) -> Path:
        """The run's folder."""
        assert self.config.output is not None
        return Path(self.config.output)

    def save(self) -> None:
        """Write run.json, with absolute paths."""
        write_json(
            self.output / RUN_FILE,
            {
                "version": _RUN_VERSION,
                "finished": self.is_finished,
                "configuration": self.config.to_dict(),
                "folders": [str(folder.resolve()) for folder in (*self.folders, Path())],
                "provenance": self.provenance,
            },
        )


def is_resumable(output: Path, config: Config) -> bool:
    """Whether the folder holds an unfinished run with this configuration, ``auto`` resolved, and a checkpoint."""
    if not (output / LAST).exists():
        return False
    try:
        run = read_run(output)
    except ConfigError:
        return False
    if config.data.batch_seconds == "auto":
        config = replace(config, data=replace(config.data, batch_seconds=run.config.data.batch_seconds))
    return not run.is_finished and _plain(run.config) == _plain(config)


def _plain(config: Config) -> Any:
    """A configuration as JSON holds it, without its output."""
    return json.loads(json.dumps({**config.to_dict(), "output": None}))


def make_output_folder(output: Path) -> None:
    """Make a run's folder.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output {output}: cannot make this folder ({error.strerror}); choose another") from error


def check_in_place(output: Path) -> None:
    """Check that a folder is still the run's own.

    Raises:
        SpeechRNNError: It was moved or deleted.
    """
    if not (output / RUN_FILE).is_file():
        raise SpeechRNNError(
            f"{output}: this folder was moved or deleted while the run wrote to it; move it back and continue with "
            "--resume"
        )


def refuse_to_replace(output: Path) -> None:
    """Check that a folder holds no run.

    Raises:
        ConfigError: It holds a run, finished or not.
    """
    if (output / "model").exists():
        raise ConfigError(f"{output}: already holds a trained model; pass another --output, or --overwrite")
    if (output / LAST).exists():
        raise ConfigError(
            f"{output}: holds an unfinished run; continue it with --resume {output}, or replace it with --overwrite"
        )


def read_run(output: Path) -> Run:
    """Read run.json; ``output`` is the folder's present place.

    Raises:
        ConfigError: There is none, it is damaged, or a newer speechrnn wrote it.
    """
    path = output / RUN_FILE
    try:
        kept = parse_json(path.read_text(encoding="utf-8"), where=str(path), error=ConfigError)
        version, settings, is_finished = kept["version"], kept["configuration"], kept["finished"]
        folders, provenance = [Path(folder) for folder in kept["folders"]], kept["provenance"]
    except FileNotFoundError as error:
        raise ConfigError(f"{output}: holds no run (no {RUN_FILE}); start one with --config") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error!r}); train again with --overwrite") from error
    if version != _RUN_VERSION:
        raise ConfigError(
            f"{path}: version {version}, this speechrnn reads {_RUN_VERSION}; resume it with a newer speechrnn"
        )
    config = config_from_dict(settings, where=str(path))
    return Run(replace(config, output=str(output)), folders, provenance, is_finished)
