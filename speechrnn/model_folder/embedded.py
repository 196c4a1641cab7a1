"""Models that come with the package, found by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from speechrnn.atomic_io import read_json, write_json
from speechrnn.errors import ModelError

FOLDER = Path(__file__).resolve().parents[1] / "models"
DIGESTS_FILE = "digests.json"
DEFAULT_MODEL = "english"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model of the package.

    Attributes:
        name: Name for ``load`` and ``-m``.
        folder: Its model folder.
    """

    name: str
    folder: Path

    @property
    def size(self) -> int:
        """Size of its files, in bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def check(self) -> None:
        """Compare its files with their digests.

        Raises:
            ModelError: A file is missing or was changed.
        """
        for name, digest in read_json(self.folder / DIGESTS_FILE, error=ModelError).items():
            path = self.folder / name
            if not path.is_file() or compute_digest(path) != digest:
                fault = "damaged" if path.is_file() else "missing"
                repair = "install speechrnn again: pip install --force-reinstall --no-deps speechrnn"
                raise ModelError(f"model {self.name}: {name} is {fault}; {repair}")


def list_embedded() -> dict[str, EmbeddedModel]:
    """The models of the package, by name."""
    found = sorted(path.parent for path in FOLDER.glob(f"*/{DIGESTS_FILE}"))
    return {folder.name: EmbeddedModel(folder.name, folder) for folder in found}


def find_embedded(name: str, *, to_change: bool = False) -> Path | None:
    """The folder of a model of the package; None if no model has the name.

    Args:
        name: Name of the model.
        to_change: Whether something will be stored in it.

    Raises:
        ModelError: A file of the model is missing or damaged, or the model is to be changed.
    """
    model = list_embedded().get(name)
    if model is None:
        return None
    if to_change:
        raise ModelError(
            f"model {name}: comes with speechrnn and is not changed; copy its folder, {model.folder}, and give the copy"
        )
    model.check()
    return model.folder


def write_digests(folder: Path) -> None:
    """Write the digests of a model folder's files, which make it an embedded model where it lies in the package."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS_FILE)
    write_json(folder / DIGESTS_FILE, {path.relative_to(folder).as_posix(): compute_digest(path) for path in paths})


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
