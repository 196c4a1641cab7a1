"""JSON files of a model folder and the dataclasses that they fill; each dataclass checks its own fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from speechrnn.atomic_io import read_json, write_json
from speechrnn.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def read_dataclasses(path: Path, kind: type[T]) -> dict[str, T]:
    """Read a JSON object of dataclasses by name; a missing file is an empty one.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.is_file():
        return {}
    content = read_json(path, error=ModelError)
    optional = [each.name for each in fields(kind) if each.default is not MISSING]
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ModelError(f"{path}: expected settings by name; remove the file, and calibrate or tune again")
    return {name: build(kind, values, path=path, section=name, optional=optional) for name, values in content.items()}


def write_dataclasses(path: Path, values: Mapping[str, Any]) -> None:
    """Write what :func:`read_dataclasses` reads."""
    write_json(path, {name: asdict(each) for name, each in values.items()})


def build(
    kind: type[T], values: Mapping[str, Any], *, path: Path, section: str = "", optional: Collection[str] = ()
) -> T:
    """Make a dataclass of JSON values.

    Args:
        kind: The dataclass; it raises ConfigError for a wrong value.
        values: Each of its fields, and nothing else.
        path: The file, for messages.
        section: Where in the file, for messages.
        optional: Fields that may be missing.

    Raises:
        ModelError: A field is missing, unknown or wrong; the message names it.
    """
    names, prefix = {each.name for each in fields(kind)}, f"{section}." if section else ""
    for name in sorted(names - values.keys() - set(optional)):
        raise ModelError(f"{path}: {prefix}{name} is missing; restore the file")
    for name in sorted(values.keys() - names):
        raise ModelError(f"{path}: unknown setting {prefix}{name}; restore the file, or upgrade speechrnn")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}; restore the file") from error
