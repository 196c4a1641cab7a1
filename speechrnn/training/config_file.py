"""Read a configuration: YAML and the command line into :class:`~speechrnn.training.config.Config`.

Each setting is declared once, as a field of a dataclass or an argument of Lightning's Trainer.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_type_hints

import jsonargparse

from speechrnn.atomic_io import parse_yaml, read_yaml
from speechrnn.errors import ConfigError
from speechrnn.settings import RENAMED, describe, find_field, is_of, rename_settings, shorten
from speechrnn.training.config import Config

_YAML = "speechrnn"
_LONGEST = 200
_RENAMED_ARGUMENT = re.compile(rf"^--({'|'.join(map(re.escape, RENAMED))})\b")

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 30,
    "gradient_clip_val": 1.0,
    "gradient_clip_algorithm": "norm",
    "precision": "32-true",
    "devices": 1,
}
"""Where speechrnn's defaults differ from those of ``lightning.pytorch.Trainer``."""

TRAINER_REFUSED = {
    "use_distributed_sampler": "every process gets its share of each batch already",
    "default_root_dir": "set output, the run's folder",
    "barebones": "a run is chosen by validation and resumed from checkpoints, which it switches off",
}
"""Options of ``lightning.pytorch.Trainer`` that a configuration cannot set, with the reasons."""


@lru_cache
def build_parser() -> jsonargparse.ArgumentParser:
    """Build the parser of a configuration, once."""
    from lightning.pytorch import Trainer

    jsonargparse.set_loader(_YAML, partial(parse_yaml, where="value"), exceptions=(ConfigError,))
    parser = jsonargparse.ArgumentParser(
        exit_on_error=False, allow_abbrev=False, add_help=False, parser_mode=_YAML, default_env=False
    )
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)  # for its --print_config
    parser.add_class_arguments(Config, None, skip={"trainer"})
    parser.add_class_arguments(Trainer, "trainer", skip=set(TRAINER_REFUSED), instantiate=False)
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
    return parser


@lru_cache
def _get_defaults() -> jsonargparse.Namespace:
    return build_parser().get_defaults()


def load_config(path: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read a configuration.

    Args:
        path: YAML file; None for the defaults alone.
        overrides: Settings that take precedence over the file: ``["--encoder.hidden_size", "256"]`` or
            ``{"encoder.hidden_size": 256}``; ``--config FILE`` among them adds a YAML file, which takes precedence
            over the one before it.

    Raises:
        ConfigError: There is no such file, it is no YAML mapping, or a setting is unknown, abbreviated or impossible.
    """
    given = to_arguments(overrides) if isinstance(overrides, Mapping) else list(overrides)
    given = [_RENAMED_ARGUMENT.sub(lambda found: f"--{RENAMED[found[1]]}", argument) for argument in given]
    files, given = _split_files(given)
    files = [*([] if path is None else [path]), *files]
    parser = build_parser()
    settings = _get_defaults().clone()
    for file in files:
        values = _read_settings(file)
        _check_size(values, given, str(file))
        with _explained(str(file)):
            settings = parser.parse_object(values, settings, defaults=False)
    where = ", ".join(map(str, files)) or "configuration"
    return _parse(lambda parser: parser.parse_args(given, namespace=settings, defaults=False), where)


def _split_files(arguments: Sequence[str]) -> tuple[list[str | Path], list[str]]:
    """The files that ``--config FILE`` and ``--config=FILE`` name, and the other arguments."""
    files: list[str | Path] = []
    others: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name == "--config":
            files.append(value if equals else next(waiting, ""))
        else:
            others.append(argument)
    return files, others


def _read_settings(file: str | Path) -> dict[str, Any]:
    settings = read_yaml(file, expected="a YAML file of settings")
    if not isinstance(settings, dict | None):
        raise ConfigError(f"{file}: expected settings, as in encoder: {{cell: gru}}, got {shorten(settings)}")
    return rename_settings(settings or {})


def _check_size(settings: Mapping[str, Any], arguments: Sequence[str], where: str) -> None:
    """Refuse ``--encoder.size`` if the file sets what it stands for, which would take precedence."""
    names = {argument.split("=")[0].removeprefix("--") for argument in arguments}
    encoder = settings.get("encoder")
    for name in ("hidden_size", "num_layers"):
        value = encoder.get(name) if isinstance(encoder, dict) else None
        if value is not None and "encoder.size" in names and f"encoder.{name}" not in names:
            raise ConfigError(
                f"--encoder.size: {where} sets encoder.{name} to {shorten(value)}, which takes precedence; "
                f"add --encoder.{name} null"
            )


def to_config(config: Config | str | Path | Mapping[str, Any]) -> Config:
    """A configuration as it is, or read from a YAML file or from :meth:`Config.to_dict`'s plain values."""
    if isinstance(config, Config):
        return config
    return config_from_dict(config, where="config") if isinstance(config, Mapping) else load_config(config)


def make_trainer_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make arguments for ``lightning.pytorch.Trainer`` from a configuration's ``trainer``, classes instantiated.

    Args:
        settings: Plain values; an object is given by ``class_path`` and ``init_args``.

    Raises:
        ConfigError: A class refuses its arguments.
    """
    parser = build_parser()
    options: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if not _has_class(value):
            options[name] = value
            continue
        try:
            parsed = parser.parse_object({"trainer": {name: copy.deepcopy(value)}}, defaults=False)
            options[name] = parser.instantiate(parsed).trainer[name]
        except Exception as error:  # whatever a user's class raises
            message = " ".join(str(error).split()) or type(error).__name__
            reason = re.search(r"Errors: - (.*?) - (?:Not a valid|Expected)", message)  # of the first type of a union
            message = reason[1] if reason is not None else message
            raise ConfigError(f"trainer.{name}: {_name_classes(value)}: {message}") from error
    return options


def _has_class(value: Any) -> bool:
    """Whether a setting is a class with its arguments, or a list of them."""
    return any(isinstance(each, Mapping) and "class_path" in each for each in _as_list(value))


def _to_plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, (dict, jsonargparse.Namespace)):
        items = vars(value) if isinstance(value, jsonargparse.Namespace) else value
        return {name: _to_plain(each) for name, each in items.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _name_classes(value: Any) -> str:
    """The class paths in a setting."""
    names = (each.get("class_path", each) if isinstance(each, Mapping) else each for each in _as_list(value))
    return ", ".join(map(str, names))


def _as_list(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else [value]


def to_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as command-line arguments."""
    return [part for name, value in settings.items() for part in (f"--{name}", _to_yaml(value))]


def config_from_dict(settings: Mapping[str, Any], *, where: str) -> Config:
    """Read a configuration from the plain values of :meth:`Config.to_dict`.

    Args:
        settings: Plain dicts, lists and numbers.
        where: Their origin, for errors.

    Raises:
        ConfigError: A setting is unknown or impossible.
    """
    values = rename_settings(settings)
    return _parse(lambda parser: parser.parse_object(values, _get_defaults().clone(), defaults=False), where)


def _parse(parse: Callable[[jsonargparse.ArgumentParser], jsonargparse.Namespace], where: str) -> Config:
    parser = build_parser()
    with _explained(where):
        parsed = parse(parser)
        _check_sections(parsed, where)
        trainer = parsed.pop("trainer")  # stays plain, so that run.json can hold it; see make_trainer_options
        settings = {**parser.instantiate(parsed).as_dict(), "trainer": _to_plain(trainer.as_dict())}
    settings.pop("config", None)
    return Config(**settings)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn the parser's errors into one line."""
    try:
        yield
    except ConfigError:
        raise
    except (ArgumentError, ValueError, TypeError) as error:
        raise _explain(error, where, build_parser()) from None


def check_arguments(function: Callable[..., None], settings: Mapping[str, Any], *, where: str, skip: set[str]) -> None:
    """Check settings against the types of a function's arguments; null is refused unless it is the default.

    Args:
        function: The function.
        settings: Values by argument name, all known to the function.
        where: The settings' section, for errors.
        skip: Arguments that are not settings.

    Raises:
        ConfigError: One has another type, or is missing and has no default.
    """
    arguments, hints = inspect.signature(function).parameters, _get_hints(function)
    for name, argument in arguments.items():
        if argument.default is argument.empty and name not in {*skip, *settings}:
            raise ConfigError(f"{where}.{name}: required; add --{where}.{name} VALUE")
    for name, value in settings.items():
        hint = hints.get(name, Any)
        if not is_of(value, hint) or (value is None and arguments[name].default is not None):
            raise ConfigError(f"{where}.{name}: expected {describe(field(), hint)}, got {shorten(value)}")


def _get_hints(function: Callable[..., None]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # a type that is imported for type checkers only
        return {}


_PLAIN = ("prepare",)  # its names are those of a recipe


def _check_sections(parsed: jsonargparse.Namespace, where: str) -> None:
    for section in dataclasses.fields(Config):
        value = parsed.get(section.name)
        is_section = section.default is dataclasses.MISSING and section.name not in _PLAIN
        if is_section and not isinstance(value, jsonargparse.Namespace):
            raise ConfigError(f"{where}: {section.name}: expected settings, as in {section.name}: {{…}}, got {value!r}")


def _to_yaml(value: Any) -> str:
    import yaml

    return (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").rstrip("\n")
    )


def _explain(error: Exception, where: str, parser: jsonargparse.ArgumentParser) -> ConfigError:
    """The parser's error in one line, with the nearest known setting for an unknown name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        cause = cause.__cause__ or cause.__context__
    message = " ".join(str(error).split())
    wrong_class = _explain_class(message)
    if wrong_class is not None:
        return ConfigError(f"{where}: {wrong_class}")
    name = _find_unknown_name(message)
    if name is not None and name.removeprefix("trainer.") in TRAINER_REFUSED:
        return ConfigError(f"{where}: {name} cannot be set: {TRAINER_REFUSED[name.removeprefix('trainer.')]}")
    if name is not None:
        known = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return ConfigError(f"{where}: unknown setting {name}{hint} (names cannot be shortened)")
    if message.startswith("Unexpected config"):
        message = "expected settings, as in encoder: {cell: gru}"
    return ConfigError(f"{where}: {_explain_type(message, parser)}")


def _explain_class(message: str) -> str | None:
    """The class of a callback, logger, … that does not exist or refuses its arguments; None for other errors."""
    key = re.search(r'Parser key "([\w.]+)":', message)
    problem = re.search(r"Problem with given class_path '([^']*)': (.*?) - (?:Not a valid|Expected)", message)
    path = re.search(r"Expected a dot import path string: ([^ ]*[A-Za-z][^ ]*)", message)
    if key is not None and problem is not None:
        return f"{key[1]}: {problem[1]}: {problem[2]}"
    if key is not None and path is not None:
        return f"{key[1]}: no class {path[1]}; expected class_path: package.module.Class"
    return None


def _find_unknown_name(message: str) -> str | None:
    argument = re.search(r"unrecognized arguments: --([\w.]+)", message)
    option = re.search(r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message)
    if argument is not None:
        return argument[1]
    return ".".join(part for part in option.groups() if part) if option is not None else None


def _explain_type(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """Setting, expected and given value, from the parser's report on every member of a union."""
    key = re.search(r'Parser key "([\w.]+)":', message)
    given = re.search(r"(?:Given value|Got value): (.+)$", message)
    hints = {action.dest: getattr(action, "_typehint", None) for action in parser._actions}
    hint = hints.get(key[1]) if key is not None else None
    if key is None or hint is None or given is None:
        return message[:_LONGEST]
    return f"{key[1]}: expected {describe(find_field(Config, key[1]), hint)}, got {given[1][:_LONGEST]}"
