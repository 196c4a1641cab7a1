"""Types and bounds of settings: declared with each field of a configuration dataclass, checked by one function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from speechrnn.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_LONGEST = 80
_KINDS = {int: "whole number", float: "number"}
_MAPPINGS, _SEQUENCES = (dict, Mapping), (list, tuple, Sequence)
_NAMES: dict[Any, str] = {
    **{str: "text", bool: "true or false"},
    **dict.fromkeys(_MAPPINGS, "a mapping"),
    **dict.fromkeys(_SEQUENCES, "a list such as [a, b]"),
}

_read_hints: Callable[[Any], dict[str, Any]] = lru_cache(maxsize=None)(get_type_hints)  # they take a millisecond

RENAMED = {"augment.remains": "augment.word_fragments"}
"""Settings that were renamed; both names are read."""


def rename_settings(settings: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Replace setting names of earlier versions by the present ones.

    Args:
        settings: Plain values by name, sections nested.
        section: Name of their section, such as ``augment``; empty at the top level.

    Raises:
        ConfigError: A setting has both its old and its new name.
    """
    renamed: dict[str, Any] = {}
    for name, value in settings.items():
        old = f"{section}.{name}" if section else str(name)
        new = RENAMED.get(old, old)
        key = new.rpartition(".")[2] if new != old else name
        if key in renamed or (key != name and key in settings):
            raise ConfigError(f"{new}: given twice, as {old} too; remove one of them")
        renamed[key] = rename_settings(value, new) if isinstance(value, dict) else value
    return renamed


def bounded(
    default: Any, low: float, high: float, *, unit: str = "", open: Literal["", "low", "high", "both"] = ""
) -> Any:
    """Declare a dataclass field whose numbers have bounds.

    Args:
        default: Default value: a number, None, a tuple of numbers; or ``dict``, the type, for an empty mapping.
        low: Lowest value.
        high: Highest value.
        unit: Unit of the numbers, for messages and documentation.
        open: Bounds that are excluded.
    """
    metadata = {"low": low, "high": high, "open": open, "unit": unit}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_format_version(version: Any, newest: int, *, where: Path | str, instead: str = "") -> None:
    """Check that a model's format is known.

    Args:
        version: As read.
        newest: Newest known.
        where: The file, for messages.
        instead: What else helps against a newer one.

    Raises:
        ModelError: It is no version, or a newer one.
    """
    if type(version) is not int or version < 1:
        raise ModelError(
            f"{where}: expected a format_version of 1 or more, got {version!r:.40}; is this a speechrnn model?"
        )
    if version > newest:
        raise ModelError(
            f"{where}: made by a newer speechrnn, format {version}; this one reads up to {newest}: "
            f"upgrade with pip install -U speechrnn{instead}"
        )


def build(
    kind: type[T], values: Mapping[str, Any], *, path: Path, section: str = "", optional: Collection[str] = ()
) -> T:
    """Create a configuration dataclass from the values in a file.

    Args:
        kind: The dataclass; it raises ConfigError for a wrong value.
        values: Each of its fields, and nothing else.
        path: The file, for messages.
        section: Section of the file, for messages.
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


def check_settings(config: Any, section: str = "") -> None:
    """Check each field of a configuration dataclass against its annotation and its bounds.

    A tuple may be empty only if its default is.

    Args:
        config: The instance, usually from its ``__post_init__``.
        section: Name of its section, as in ``augment.noise``; empty at the top level.

    Raises:
        ConfigError: One line with the setting, the expected value, and its value.
    """
    hints = _read_hints(type(config))
    for each in fields(config):
        value, hint = getattr(config, each.name), hints[each.name]
        if not (is_of(value, hint) and _is_within(value, each)):
            name = f"{section}.{each.name}" if section else each.name
            raise ConfigError(f"{name}: expected {describe(each, hint)}, got {shorten(value)}")


@dataclass(frozen=True)  # jsonargparse requires it of base classes
class Settings:
    """Base class of configuration dataclasses: their fields are checked when they are created.

    Subclasses name their section: ``class NoiseConfig(Settings, section="augment.noise")``; without, they are at the
    top level.
    """

    _section: ClassVar[str] = ""

    def __init_subclass__(cls, *, section: str = "") -> None:
        cls._section = section

    def __post_init__(self) -> None:
        check_settings(self, self._section)


def is_of(value: Any, hint: Any) -> bool:
    """Whether a plain value has an annotated type; a whole number is a number, true and false are neither.

    A pair of numbers is a range: its first number must not exceed its second.
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in (Union, UnionType):
        return any(is_of(value, choice) for choice in inner)
    if origin in _MAPPINGS:
        return isinstance(value, dict) and all(is_of(each, inner[-1]) for each in value.values() if inner)
    if origin in _SEQUENCES:
        if not isinstance(value, tuple | list) or not all(is_of(each, inner[0]) for each in value if inner):
            return False
        is_pair = origin is tuple and bool(inner) and inner[-1] is not ...
        return not is_pair or (len(value) == len(inner) and value[0] <= value[-1])
    if hint in _KINDS:
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return hint is Any or not isinstance(origin, type) or isinstance(value, origin)


def find_field(config: type, name: str) -> Field[Any]:
    """The field of a configuration dataclass, or of one in it, by its full name; without bounds for unknown names."""
    first, _, rest = name.partition(".")
    each = next((each for each in fields(config) if each.name == first), field())
    section = get_type_hints(config).get(first)
    return find_field(section, rest) if rest and isinstance(section, type) and is_dataclass(section) else each


def describe(each: Field[Any], hint: Any) -> str:
    """Describe the values that a setting takes, such as ``a whole number in [1, 64] or null``."""
    is_union = get_origin(hint) in (Union, UnionType)
    parts = [part for part in get_args(hint) if part is not type(None)] if is_union else [hint]
    described = [*(_describe_type(part, each) for part in parts), *(["null"] if _is_optional(hint) else [])]
    return " or ".join(described)


def shorten(value: Any) -> str:
    """Show a value in a message, cut to one short line."""
    try:
        shown = repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # a whole number of more than 4300 digits
        return "a number of thousands of digits"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _describe_type(hint: Any, each: Field[Any]) -> str:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(str, inner))
    if inner and get_origin(inner[0]) is Literal:
        return "some of " + ", ".join(map(str, get_args(inner[0])))
    if hint in _KINDS:
        return f"a {_KINDS[hint]}{_describe_bounds(each)}"
    numbers = next((f"{_KINDS[part]}s{_describe_bounds(each)}" for part in inner if part in _KINDS), None)
    if numbers is None:
        name = str(getattr(origin, "__name__", origin))
        return "settings" if is_dataclass(origin) else _NAMES.get(origin, name)
    if origin in _MAPPINGS:
        return f"{numbers} by name"
    return f"two {numbers}, lowest first" if origin is tuple and inner[-1] is not ... else numbers


def _describe_bounds(each: Field[Any]) -> str:
    if "low" not in each.metadata:
        return ""
    low, high, opened, unit = (each.metadata[key] for key in ("low", "high", "open", "unit"))
    brackets = "(" if opened in ("low", "both") else "[", ")" if opened in ("high", "both") else "]"
    return f"{' of ' if unit else ''}{unit} in {brackets[0]}{low}, {high}{brackets[1]}"


def _is_within(value: Any, each: Field[Any]) -> bool:
    """Whether all numbers of a value lie within the field's bounds; NaN and infinities do not."""
    if isinstance(value, tuple | list) and not value:
        return each.default is MISSING or not each.default
    if "low" not in each.metadata or value is None or isinstance(value, str):
        return True
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else [value]
    low, high, opened = (each.metadata[key] for key in ("low", "high", "open"))
    is_above = all(low < n if opened in ("low", "both") else low <= n for n in numbers)
    return is_above and all(n < high if opened in ("high", "both") else n <= high for n in numbers)


def _is_optional(hint: Any) -> bool:
    return type(None) in get_args(hint)
