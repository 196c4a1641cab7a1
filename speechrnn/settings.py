"""Types and bounds of settings: declared with each field of a configuration dataclass, checked by one function."""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from speechrnn.errors import ConfigError

_LONGEST = 80
_KINDS = {int: "whole number", float: "number"}
_NAMES = {str: "text", bool: "true or false", dict: "a mapping", type(None): "null"}


def bounded(
    default: Any, low: float, high: float, *, unit: str = "", open: Literal["", "low", "high", "both"] = ""
) -> Any:
    """Declare a dataclass field whose numbers have bounds.

    Args:
        default: Default value: a number, None, a tuple of numbers; or ``dict``, the type, for an empty mapping.
        low: Lowest value.
        high: Highest value.
        unit: Unit of the numbers, for messages and documentation.
        open: Which bounds are themselves excluded.
    """
    metadata = {"low": low, "high": high, "open": open, "unit": unit}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_settings(config: Any, section: str = "") -> None:
    """Check each field of a configuration dataclass against its annotation and its bounds.

    A pair of numbers is a range: its first number must not exceed its second. A tuple may be empty only where its
    default is.

    Args:
        config: The instance, usually from its ``__post_init__``.
        section: Name of its section, as in ``augment.noise``; empty at the top level.

    Raises:
        ConfigError: One line with the setting, what it must be, and its value.
    """
    hints = get_type_hints(type(config))
    for each in fields(config):
        value, hint = getattr(config, each.name), hints[each.name]
        if not (is_of(value, hint) and _is_within(value, each) and _is_range(value, hint)):
            name = f"{section}.{each.name}" if section else each.name
            raise ConfigError(f"{name}: expected {describe(each, hint)}, got {shorten(value)}")


def is_of(value: Any, hint: Any) -> bool:
    """Whether a plain value has an annotated type; a whole number is a number, true and false are neither."""
    origin, choices = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in choices)
    if origin in (Union, UnionType):
        return any(is_of(value, choice) for choice in choices)
    if origin is dict:
        return isinstance(value, dict) and all(is_of(k, choices[0]) and is_of(v, choices[1]) for k, v in value.items())
    if origin is tuple:
        is_long_enough = choices[-1] is ... or (isinstance(value, tuple | list) and len(value) == len(choices))
        return isinstance(value, tuple | list) and is_long_enough and all(is_of(each, choices[0]) for each in value)
    if hint in _KINDS:
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe(each: Field[Any], hint: Any) -> str:
    """Describe the values that a setting takes, such as ``a whole number in [1, 64] or null``."""
    parts = [part for part in get_args(hint) if part is not type(None)] if _is_optional(hint) else [hint]
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
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, inner))
    if get_origin(hint) is tuple and get_origin(inner[0]) is Literal:
        return "some of " + ", ".join(map(str, get_args(inner[0])))
    if hint in _KINDS:
        return f"a {_KINDS[hint]}{_describe_bounds(each)}"
    kind = _KINDS.get(inner[0 if get_origin(hint) is tuple else -1]) if inner else None
    if kind is None:
        return _NAMES.get(get_origin(hint) or hint) or f"settings ({getattr(hint, '__name__', hint)})"
    if inner[-1] is ... or get_origin(hint) is dict:
        return f"{kind}s{_describe_bounds(each)}" + (" by name" if get_origin(hint) is dict else "")
    return f"two {kind}s{_describe_bounds(each)}, lowest first"


def _describe_bounds(each: Field[Any]) -> str:
    if not each.metadata:
        return ""
    low, high, opened, unit = (each.metadata[key] for key in ("low", "high", "open", "unit"))
    brackets = "(" if opened in ("low", "both") else "[", ")" if opened in ("high", "both") else "]"
    return f"{' of ' if unit else ''}{unit} in {brackets[0]}{low}, {high}{brackets[1]}"


def _is_within(value: Any, each: Field[Any]) -> bool:
    """Whether all numbers of a value lie within the field's bounds; NaN and infinities do not."""
    if isinstance(value, tuple | list) and not value:
        return each.default is MISSING or not each.default
    if not each.metadata or value is None:
        return True
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else [value]
    low, high, opened = (each.metadata[key] for key in ("low", "high", "open"))
    is_above = all(low < n if opened in ("low", "both") else low <= n for n in numbers)
    return is_above and all(n < high if opened in ("high", "both") else n <= high for n in numbers)


def _is_range(value: Any, hint: Any) -> bool:
    is_pair = get_origin(hint) is tuple and get_args(hint)[-1] is not ...
    return not is_pair or value[0] <= value[-1]


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)
