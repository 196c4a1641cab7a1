"""The reference covers the code: each public name, setting and option, compared with what the code itself declares."""

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import generated_pages
import jsonargparse
import pytest

import speechrnn
from speechrnn.cli import main as cli
from speechrnn.training.config import Config

ROOT = Path(__file__).parents[2]
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
PATHS = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", PYTHON, flags=re.MULTILINE)
DOCUMENTED = {path.rpartition(".")[2] for path in PATHS}
WITH_MEMBERS = set(re.findall(r"^\.\. autoclass:: (?:\w+\.)*(\w+)\n   :members:", PYTHON, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def settings() -> str:
    return generated_pages.describe_settings()


@pytest.fixture(scope="module")
def commands() -> str:
    return generated_pages.describe_commands()


def find_leaves(config: object, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from find_leaves(value, f"{prefix}{field.name}.")
        elif field.name != "trainer":
            yield prefix + field.name


def test_every_setting_is_in_the_configuration_reference(settings):
    from lightning.pytorch import Trainer

    described = re.findall(r"^```\{confval\} (.+)$", settings, flags=re.MULTILINE)
    assert len(described) == len(set(described))
    of_trainer = {name for name in described if name.startswith("trainer.")}
    assert set(described) - of_trainer == set(find_leaves(Config()))
    assert "trainer.max_epochs" in of_trainer
    assert of_trainer <= {f"trainer.{name}" for name in inspect.signature(Trainer).parameters}


@dataclasses.dataclass(frozen=True)
class Undescribed:
    """A section.

    Attributes:
        known: Described.
    """

    known: int = 1
    unknown: int = 2


def test_a_setting_without_description_is_named():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(Undescribed)
    with pytest.raises(ValueError, match="^unknown: no description"):
        generated_pages.describe_settings(parser, Undescribed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("augment.codec.kinds", "some of mp3, opus, vorbis, gsm, mulaw"),
        ("data.num_workers", "a whole number"),
        ("encoder.cell", "one of tanh, elementwise, gru, lstm, mingru, minlstm"),
        ("trainer.max_epochs", "`int | null`"),
    ],
)
def test_the_values_that_a_setting_takes_are_described(settings, name, kind):
    assert f"```{{confval}} {name}\n:type: {kind}" in settings


def test_every_option_is_in_the_command_reference(capsys, commands):
    sections = dict(re.findall(r"^## (speechrnn .+?)\n(.*?)(?=^## |\Z)", commands, flags=re.MULTILINE | re.DOTALL))
    assert {title.removeprefix("speechrnn ") for title in sections} == set(cli.COMMANDS)
    assert "speechrnn corpus check" in sections
    for title, section in sections.items():
        assert cli.main([*title.split()[1:], "--help"]) == 0
        printed = capsys.readouterr().out
        options = re.findall(r"^ {2,4}(?:-\w[^,\n]*, )?(--[a-z][\w-]*)(?![\w.])", printed, flags=re.MULTILINE)
        assert "--help" in options
        for option in options:
            assert re.search(rf"^```\{{option\}} .*{option}\b.*\n\S", section, flags=re.MULTILINE), f"{title} {option}"


def find_class(name: str) -> type | None:
    for module in [module for key, module in sys.modules.items() if key.startswith("speechrnn.")]:
        found = getattr(module, name, None)
        if inspect.isclass(found) and found.__module__.startswith("speechrnn."):
            return found
    return None


def find_returned(name: str) -> set[str]:
    """Names of the project's classes in what a function, the methods of a class or its fields return."""
    thing = getattr(speechrnn, name, None) or find_class(name)
    functions = [] if inspect.isclass(thing) else [thing]
    if name in WITH_MEMBERS:
        ours = [base for base in thing.__mro__ if base.__module__.startswith("speechrnn.")]
        members = [member for base in ours for key, member in vars(base).items() if not key.startswith("_")]
        functions = [getattr(member, "fget", member) for member in members]
    written = [str(getattr(function, "__annotations__", {}).get("return", "")) for function in functions]
    if dataclasses.is_dataclass(thing):
        written += [str(field.type) for field in dataclasses.fields(thing)]
    words = {word for text in written for word in re.findall(r"\b[A-Z]\w+", text)}
    return {word for word in words if find_class(word) is not None}


def test_every_public_name_and_what_it_returns_is_in_the_python_reference():
    for path in PATHS:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    todo = set(speechrnn.__all__) - {"__version__"}
    seen: set[str] = set()
    while todo:
        seen |= todo
        todo = {name for known in todo for name in find_returned(known)} - seen
    assert {"load", "Emission", "Word", "TrainingResult"} <= seen
    assert seen <= DOCUMENTED, f"not in docs/reference/python.md: {', '.join(sorted(seen - DOCUMENTED))}"
