"""Types and bounds of settings: each field of each configuration dataclass, at its bounds and just past them."""

import dataclasses
import importlib
import math
import pkgutil
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import speechrnn
from speechrnn.errors import ConfigError
from speechrnn.recognition.decoders import DecodingConfig
from speechrnn.settings import bounded, check_settings, describe, shorten
from speechrnn.training.config_file import load_config


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
def test_values_within_bounds_are_accepted(settings):
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


def find_configurations() -> list[type]:
    """Every configuration dataclass of the package."""
    modules = pkgutil.walk_packages(speechrnn.__path__, "speechrnn.")
    names = [each.name for each in modules if not each.name.endswith("__main__")]
    found = [each for name in names for each in vars(importlib.import_module(name)).values()]
    return sorted(
        {
            each
            for each in found
            if isinstance(each, type)
            and dataclasses.is_dataclass(each)
            and each.__module__.startswith("speechrnn.")
            and (each.__name__.endswith("Config") or each.__name__ == "SequenceTraining")
            and not each.__name__.startswith("_")
            and each is not DecodingConfig  # its options take other types too; tests/recognition checks their bounds
        },
        key=lambda each: each.__qualname__,
    )


def is_numeric(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return False
    return hint in (int, float) or any(is_numeric(each) for each in get_args(hint))


CONFIGURATIONS = find_configurations()
NUMERIC = [
    pytest.param(kind, each, id=f"{kind.__name__}.{each.name}")
    for kind in CONFIGURATIONS
    for each in dataclasses.fields(kind)
    if is_numeric(get_type_hints(kind)[each.name])
]


def test_all_configurations_are_found():
    names = {kind.__name__ for kind in CONFIGURATIONS}
    assert names >= {"Config", "DataConfig", "FrontEndConfig", "EncoderConfig", "SequenceTraining", "FusionConfig"}
    assert len(names) >= 23
    assert len(NUMERIC) >= 80


def wrap(kind: type, each: dataclasses.Field, number: float) -> Any:
    """A number in the form that the field takes: itself, twice, as a tuple or by a name."""
    hint = get_type_hints(kind)[each.name]
    if get_origin(hint) is tuple:
        return (number,) if get_args(hint)[-1] is ... else (number, number)
    return {"name": number} if get_origin(hint) is dict else number


def is_whole(kind: type, each: dataclasses.Field) -> bool:
    hint = get_type_hints(kind)[each.name]
    return float not in (hint, *get_args(hint))


def is_taken(kind: type, each: dataclasses.Field, number: float) -> bool:
    """Whether a field takes a number, whatever the other fields say."""
    config = kind()
    object.__setattr__(config, each.name, wrap(kind, each, number))
    try:
        check_settings(config)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("kind", "each"), NUMERIC)
def test_every_numeric_setting_has_exact_bounds(kind, each):
    assert each.metadata, f"{kind.__name__}.{each.name}: declare it with speechrnn.settings.bounded"
    low, high, opened = (each.metadata[name] for name in ("low", "high", "open"))
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert is_taken(kind, each, low) == (opened not in ("low", "both"))
    assert is_taken(kind, each, high) == (opened not in ("high", "both"))
    if is_whole(kind, each):
        assert not is_taken(kind, each, low - 1)
        assert not is_taken(kind, each, high + 1)
    else:
        assert not is_taken(kind, each, math.nextafter(low, -math.inf))
        assert not is_taken(kind, each, math.nextafter(high, math.inf))
        assert is_taken(kind, each, math.nextafter(low, math.inf))
        assert is_taken(kind, each, math.nextafter(high, -math.inf))


@pytest.mark.parametrize(("kind", "each"), NUMERIC)
def test_absurd_numbers_are_refused_when_the_configuration_is_created(kind, each):
    for number in (-(10**10), 10**12, -1e308, 1e308, math.inf, -math.inf, math.nan):
        value = wrap(kind, each, number)
        with pytest.raises(ConfigError) as caught:
            kind(**{each.name: value})
        message = str(caught.value)
        assert "\n" not in message
        assert re.match(rf"([a-z_]+\.)*{each.name}: expected ", message)
        assert f"{each.metadata['low']}, {each.metadata['high']}" in message
        assert message.endswith(f"got {shorten(value)}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.num_workers", "100000"),
        ("encoder.num_layers", "1000"),
        ("encoder.hidden_size", "1000000000"),
        ("encoder.subsampling_factor", "1000000"),
        ("augment.spec_augment.time_masks", "1000000000"),
        ("front_end.sample_rate", "1000000000"),
        ("front_end.window_seconds", "1e9"),
        ("front_end.window_seconds", "1e308"),
        ("front_end.n_mels", "1000000"),
        ("optimizer.learning_rate", "1e400"),
        ("optimizer.learning_rate", ".inf"),
        ("optimizer.learning_rate", ".nan"),
        ("augment.noise.snr_db", "[-.inf, .inf]"),
        ("start.layers", "1000000"),
        ("seed", "-1"),
    ],
)
@pytest.mark.timeout(20)
def test_absurd_settings_of_a_run_are_refused_at_once_by_their_name(name, value):
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}: expected .* in .*, got .*"):
        load_config(None, [f"--{name}", value])
