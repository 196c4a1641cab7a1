"""Reading a configuration: YAML and the command line into :class:`~speechrnn.training.config.Config`.

Every setting stands once, as a field of the rooms' own dataclasses or an argument of Lightning's Trainer; the parser is
made from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from speechrnn.errors import ConfigError
from speechrnn.training.config import Config

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 30,
    "gradient_clip_val": 1.0,
    "gradient_clip_algorithm": "norm",
    "precision": "32-true",
    "devices": 1,
}
"""Where speechrnn's defaults differ from those of ``lightning.pytorch.Trainer``."""

_TRAINER_OURS = [
    "logger",
    "callbacks",
    "plugins",
    "strategy",
    "profiler",
    "model_registry",
    "default_root_dir",
    "enable_checkpointing",
    "enable_progress_bar",
    "enable_model_summary",
    "use_distributed_sampler",
    "barebones",
    "reload_dataloaders_every_n_epochs",
    "sync_batchnorm",
    "limit_test_batches",
    "limit_predict_batches",
    "fast_dev_run",
    "num_sanity_val_steps",
    "inference_mode",
    "enable_autolog_hparams",
    "overfit_batches",
]
"""Trainer arguments that the training code itself sets, and so are no settings."""


def build_parser() -> jsonargparse.ArgumentParser:
    """The parser of a configuration: every setting once, typed by the dataclasses and by Trainer's signature."""
    from lightning.pytorch import Trainer

    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    parser.add_class_arguments(Config, None, skip={"trainer"})
    parser.add_class_arguments(Trainer, "trainer", skip=set(_TRAINER_OURS), instantiate=False)
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
    return parser


def load_config(path: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read a configuration.

    Args:
        path: YAML file; None for the defaults alone.
        overrides: Settings that win over the file: ``["--encoder.hidden_size", "256"]`` or
            ``{"encoder.hidden_size": 256}``.

    Raises:
        ConfigError: There is no such file, it is no YAML mapping, or a setting is unknown, abbreviated or impossible.
    """
    if isinstance(overrides, Mapping):
        overrides = to_arguments(overrides)
    where = str(path) if path is not None else "configuration"
    if path is not None and not Path(path).is_file():
        raise ConfigError(f"{path}: {'is a folder' if Path(path).is_dir() else 'no such file'}; expected a YAML file")
    arguments = (["--config", str(path)] if path is not None else []) + list(overrides)
    return _parse(lambda parser: parser.parse_args(arguments), where)


def to_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they stand on a command line."""
    return [part for name, value in settings.items() for part in (f"--{name}", _to_yaml(value))]


def config_from_dict(settings: Mapping[str, Any], *, where: str) -> Config:
    """The configuration that :meth:`Config.to_dict` turned into plain values.

    Args:
        settings: Plain dicts, lists and numbers.
        where: What an error calls their origin.

    Raises:
        ConfigError: A setting is unknown or impossible.
    """
    return _parse(lambda parser: parser.parse_object(dict(settings)), where)


def _parse(parse: Callable[[jsonargparse.ArgumentParser], jsonargparse.Namespace], where: str) -> Config:
    parser = build_parser()
    try:
        parsed = parse(parser)
        _check_sections(parsed, where)
        settings = parser.instantiate(parsed).as_dict()
    except ConfigError:
        raise
    except (ArgumentError, ValueError, TypeError) as error:
        raise _explain(error, where, parser) from None
    settings.pop("config", None)
    return Config(**settings)


def check_arguments(function: Callable[..., None], settings: Mapping[str, Any], *, where: str, skip: set[str]) -> None:
    """Refuse settings of another type than a function's arguments have, and null where that is not the default.

    Args:
        function: What they are for.
        settings: By the names of its arguments, all of which it has.
        where: What an error calls the settings, before a dot.
        skip: Arguments that are no settings.

    Raises:
        ConfigError: One has another type, or is missing and has no default.
    """
    arguments = inspect.signature(function).parameters
    for name, argument in arguments.items():
        if argument.default is argument.empty and name not in {*skip, *settings}:
            raise ConfigError(f"{where}.{name}: it has no default; say --{where}.{name} VALUE")
    for name, value in settings.items():
        if value is None and arguments[name].default is not None:  # the parser takes it for no setting at all
            raise ConfigError(f"{where}.{name}: expected a value, got null; leave it out for the default")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function, where, skip=set(skip), fail_untyped=False)
    try:
        parser.parse_object({where: dict(settings)})
    except ArgumentError as error:
        raise ConfigError(_shorten_type_error(" ".join(str(error).split()))) from None


_PLAIN = ("prepare",)  # whose names are a recipe's own


def _check_sections(parsed: jsonargparse.Namespace, where: str) -> None:
    for section in dataclasses.fields(Config):
        value = parsed.get(section.name)
        is_section = section.default is dataclasses.MISSING and section.name not in _PLAIN
        if is_section and not isinstance(value, jsonargparse.Namespace):
            raise ConfigError(f"{where}: {section.name}: expected settings, as in {section.name}: {{…}}, got {value!r}")


def _to_yaml(value: Any) -> str:
    import yaml

    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")


def _explain(error: Exception, where: str, parser: jsonargparse.ArgumentParser) -> ConfigError:
    """One line out of what the parser said, with the nearest known setting where a name is unknown."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        cause = cause.__cause__ or cause.__context__
    message = " ".join(str(error).split())
    name = _find_unknown_name(message)
    if name is not None:
        known = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return ConfigError(f"{where}: unknown setting {name}{hint} (names cannot be shortened)")
    if message.startswith("Unexpected config"):
        message = "expected settings, as in encoder: {cell: gru}"
    return ConfigError(f"{where}: {_shorten_type_error(message)}")


def _find_unknown_name(message: str) -> str | None:
    argument = re.search(r"unrecognized arguments: --([\w.]+)", message)
    option = re.search(r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message)
    if argument is not None:
        return argument[1]
    return ".".join(part for part in option.groups() if part) if option is not None else None


_TYPES = {"NoneType": "null", "Sequence": "list", "Mapping": "settings"}


def _shorten_type_error(message: str) -> str:
    """Setting, expected types and what arrived, out of the parser's report on every member of a union."""
    key = re.search(r'Parser key "([\w.]+)":', message)
    expected = re.findall(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[([^\]]*)\])", message)
    given = re.search(r"(?:Given value|Got value): (.+)$", message)
    if key is None or not expected or given is None:
        return message
    wanted = " or ".join(_TYPES.get(kind, kind) or f"one of {choices}" for kind, choices in expected)
    hint = f"; write [{given[1]}]" if any(kind == "Sequence" for kind, _ in expected) else ""
    return f"{key[1]}: expected {wanted}, got {given[1]}{hint}"
