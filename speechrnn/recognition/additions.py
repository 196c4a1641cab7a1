"""What is added to a model folder after training: dataclasses by name in a JSON file of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from speechrnn.atomic_io import write_json
from speechrnn.errors import ModelError

T = TypeVar("T")


def read_additions(path: Path, kind: type[T], *, mend: str) -> dict[str, T]:
    """What such a file holds, by name; nothing where there is none.

    Args:
        path: The file.
        kind: The dataclass that each value makes.
        mend: What an error tells the user to do.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: kind(**values) for name, values in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); {mend}") from error


def keep_addition(path: Path, name: str, value: Any, *, mend: str) -> None:
    """Add a dataclass to such a file, in the place of another of the same name.

    Raises:
        ModelError: The file is damaged.
    """
    kept = {**read_additions(path, type(value), mend=mend), name: value}
    write_json(path, {name: asdict(each) for name, each in kept.items()})
