"""JSON files of a model folder, checked against the annotations of the dataclasses that they fill."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from speechrnn.atomic_io import write_json
from speechrnn.errors import ConfigError, ModelError

T = TypeVar("T")


def read_json(path: Path, *, advice: str) -> Any:
    """Read a JSON file; a byte order mark is accepted.

    Raises:
        ModelError: The file cannot be read, is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); {advice}") from error


def read_dataclasses(path: Path, kind: type[T], *, advice: str) -> dict[str, T]:
    """Read a JSON object of dataclasses by name; a missing file is an empty one.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.is_file():
        return {}
    content = read_json(path, advice=advice)
    check_types({"content": content}, {"content": dict[str, dict]}, path=path, advice=advice)
    return {name: build(kind, values, path=path, section=f"{name}.", advice=advice) for name, values in content.items()}


def write_dataclasses(path: Path, values: Mapping[str, Any]) -> None:
    """Write what :func:`read_dataclasses` reads."""
    write_json(path, {name: asdict(each) for name, each in values.items()})


def build(kind: type[T], values: Mapping[str, Any], *, path: Path, section: str, advice: str) -> T:
    """Make a dataclass of JSON values; every field must be there, and no other key.

    Raises:
        ModelError: The name of the first wrong field, after ``path`` and ``section``.
    """
    hints = get_type_hints(kind)
    check_types(values, hints, path=path, section=section, advice=advice)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}; {advice}") from error


def check_types(
    values: Mapping[str, Any], hints: Mapping[str, Any], *, path: Path, section: str = "", advice: str
) -> None:
    """Refuse a missing key, an unknown one, and a value that is not of its annotated type.

    Raises:
        ModelError: Its name, after ``path`` and ``section``.
    """
    for name in sorted(hints.keys() - values.keys()):
        raise ModelError(f"{path}: {section}{name} is missing; {advice}")
    for name in sorted(values.keys() - hints.keys()):
        raise ModelError(f"{path}: unknown setting {section}{name}; {advice}, or upgrade speechrnn")
    for name, hint in hints.items():
        if not _is_of(values[name], hint):
            wanted = hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")
            raise ModelError(f"{path}: {section}{name} is {repr(values[name])[:80]}, expected {wanted}; {advice}")


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type: a plain one, a choice of literals, a union, a list or a dict."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return any(_is_of(value, choice) for choice in arguments)
    if origin is list:
        return type(value) is list and all(_is_of(each, arguments[0]) for each in value)
    if origin is dict:
        return type(value) is dict and all(_is_of(each, arguments[1]) for each in value.values())
    if hint is float:
        return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
    return type(value) is hint
