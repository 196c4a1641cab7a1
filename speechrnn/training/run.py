"""What stands in a run's folder, and what it takes to go on with a run: run.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechrnn.atomic_io import write_json
from speechrnn.errors import ConfigError
from speechrnn.training.config import Config
from speechrnn.training.config_file import config_from_dict

RUN_FILE = "run.json"
_RUN_VERSION = 1
CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"


@dataclass(frozen=True)
class Run:
    """What a run needs to be taken up again.

    Attributes:
        config: Its configuration, ``output`` set.
        folders: Where else manifests that are given by relative paths are looked for.
        provenance: What the model card shall say of languages and corpora.
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
        """Write run.json; it holds wherever it is read from."""
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
    """Whether a run with this configuration was begun there, saved its progress, and did not come to its end."""
    if not (output / LAST).exists():
        return False
    try:
        run = read_run(output)
    except ConfigError:
        return False
    return not run.is_finished and _plain(run.config) == _plain(config)


def _plain(config: Config) -> Any:
    """A configuration as JSON gives it back, without where it is written to."""
    return json.loads(json.dumps({**config.to_dict(), "output": None}))


def make_output_folder(output: Path) -> None:
    """Make a run's folder, before anything that takes time.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output {output}: no folder can be made there ({error.strerror}); choose another") from error


def refuse_to_replace(output: Path) -> None:
    """Refuse a folder that holds a run, finished or not.

    Raises:
        ConfigError: It does.
    """
    if (output / "model").exists():
        raise ConfigError(f"{output}: already holds a trained model; pass another --output, or --overwrite")
    if (output / LAST).exists():
        raise ConfigError(
            f"{output}: holds a run that is not finished; --resume {output} goes on with it, --overwrite begins anew"
        )


def read_run(output: Path) -> Run:
    """Read run.json; the run's folder is where it stands now.

    Raises:
        ConfigError: There is none, it is not whole, or a newer speechrnn wrote it.
    """
    path = output / RUN_FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version, settings, is_finished = kept["version"], kept["configuration"], kept["finished"]
        folders, provenance = [Path(folder) for folder in kept["folders"]], kept["provenance"]
    except FileNotFoundError as error:
        raise ConfigError(f"{output}: no run was begun there (no {RUN_FILE}); train one with --config") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error!r}); train anew with --overwrite") from error
    if version != _RUN_VERSION:
        raise ConfigError(f"{path}: version {version}, this speechrnn knows {_RUN_VERSION}; resume with the newer one")
    config = config_from_dict(settings, where=str(path))
    return Run(replace(config, output=str(output)), folders, provenance, is_finished)
