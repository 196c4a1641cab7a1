"""Types and bounds of settings: each field of each configuration dataclass, at its bounds and just past them."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import pytest

from speechrnn.errors import ConfigError
from speechrnn.settings import bounded, check_settings, describe


@dataclass(frozen=True)
class Sample:
    count: int = bounded(3, 1, 64)
    share: float = bounded(0.5, 0, 1, open="low")
    angle: float | None = bounded(None, -1, 1, unit="rad", open="both")
    band: tuple[float, float] = bounded((0.0, 1.0), 0, 8, unit="Hz")
    speeds: tuple[float, ...] = bounded((1.0,), 0.25, 4)
    layers: tuple[int, ...] = bounded((), 1, 64)
    weights: dict[str, float] = bounded(dict, 0, 100, open="low")
    kind: Literal["a", "b"] = "a"
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    is_on: bool = False
    name: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, "sample")


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 1},
        {"count": 64},
        {"share": 1},
        {"angle": 0.99},
        {"band": [0, 8]},
        {"band": (2.0, 2.0)},
        {"layers": (1, 64)},
        {"weights": {"a": 100.0}},
        {"kinds": ["b", "a"]},
        {"extra": {"a": [1]}},
    ],
)
def test_values_within_bounds_are_taken(settings):
    name, value = next(iter(settings.items()))
    assert getattr(Sample(**settings), name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count: expected a whole number in [1, 64], got 0"),
        ({"count": 65}, "count: expected a whole number in [1, 64], got 65"),
        ({"count": 2.0}, "count: expected a whole number in [1, 64], got 2.0"),
        ({"count": True}, "count: expected a whole number in [1, 64], got True"),
        ({"count": None}, "count: expected a whole number in [1, 64], got None"),
        ({"count": 10**5000}, "count: expected a whole number in [1, 64], got a number of thousands of digits"),
        ({"share": 0}, "share: expected a number in (0, 1], got 0"),
        ({"share": math.nan}, "share: expected a number in (0, 1], got nan"),
        ({"share": math.inf}, "share: expected a number in (0, 1], got inf"),
        ({"share": "0.5"}, "share: expected a number in (0, 1], got '0.5'"),
        ({"angle": 1.0}, "angle: expected a number of rad in (-1, 1) or null, got 1.0"),
        ({"angle": -1.0}, "angle: expected a number of rad in (-1, 1) or null, got -1.0"),
        ({"band": (5.0, 1.0)}, "band: expected two numbers of Hz in [0, 8], lowest first, got [5.0, 1.0]"),
        ({"band": (5.0,)}, "band: expected two numbers of Hz in [0, 8], lowest first, got [5.0]"),
        ({"band": (0.0, math.nan)}, "band: expected two numbers of Hz in [0, 8], lowest first, got [0.0, nan]"),
        ({"band": 3.0}, "band: expected two numbers of Hz in [0, 8], lowest first, got 3.0"),
        ({"speeds": ()}, "speeds: expected numbers in [0.25, 4], got []"),
        ({"speeds": (1.0, 5.0)}, "speeds: expected numbers in [0.25, 4], got [1.0, 5.0]"),
        ({"layers": (1.5,)}, "layers: expected whole numbers in [1, 64], got [1.5]"),
        ({"weights": {"a": 0.0}}, "weights: expected numbers in (0, 100] by name, got {'a': 0.0}"),
        ({"kind": "c"}, "kind: expected one of a, b, got 'c'"),
        ({"kinds": ("c",)}, "kinds: expected some of a, b, got ['c']"),
        ({"kinds": ()}, "kinds: expected some of a, b, got []"),
        ({"is_on": 1}, "is_on: expected true or false, got 1"),
        ({"name": 3}, "name: expected text or null, got 3"),
        ({"name": b"x" * 500}, "name: expected text or null, got b'" + "x" * 78 + "…"),
        ({"extra": []}, "extra: expected a mapping, got []"),
    ],
)
def test_other_values_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        Sample(**settings)
    assert str(caught.value) == f"sample.{message}"


def test_a_setting_at_the_top_level_has_no_section():
    with pytest.raises(ConfigError, match="^share: expected"):
        check_settings(dataclasses.make_dataclass("Top", [("share", float, bounded(2.0, 0, 1))])())


def test_bounds_can_be_read_from_the_class():
    count = dataclasses.fields(Sample)[0]
    assert dict(count.metadata) == {"low": 1, "high": 64, "open": "", "unit": ""}
    assert describe(count, get_type_hints(Sample)["count"]) == "a whole number in [1, 64]"
