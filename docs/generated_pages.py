"""A Sphinx extension: writes the reference of settings and commands from the code, and copies the recipes' pages."""

import argparse
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from speechrnn.cli import main as cli
from speechrnn.settings import describe
from speechrnn.training.config import Config
from speechrnn.training.config_file import TRAINER_REFUSED, build_parser

CONFIGURATION = """# Configuration reference

A configuration is a YAML file that holds what differs from the defaults below. Every setting is also an option of
`speechrnn train`, `speechrnn recipe` and `speechrnn finetune`, with its full name: `--encoder.hidden_size 256`.
`null` in YAML is `None` in Python.
"""
COMMANDS = """# Command reference

Results go to standard output, everything else to standard error. This page is what `--help` prints.

{exit_codes}
"""
RESULTS = "\n```{toctree}\n:hidden:\n\nRESULTS\n```\n"
REFUSED = "\n".join(f"- `{name}`: {reason}" for name, reason in TRAINER_REFUSED.items())
TRAINER = f"Options of Lightning's `Trainer`, in Lightning's words, with speechrnn's defaults. Refused:\n\n{REFUSED}"

COPIED = ("CHANGELOG.md", "CONTRIBUTING.md")


def setup(app: Any) -> None:
    """Make the pages before Sphinx looks for pages."""
    app.connect("config-inited", lambda app, config: write_pages(Path(app.srcdir)))
    app.connect("source-read", point_to_copies)
    app.connect("doctree-read", draw_dashes)


def write_pages(docs: Path) -> None:
    """Write the generated pages, and copy those outside of docs: the recipes' with the files that they link to."""
    for name, describe_code in GENERATED.items():
        (docs / name).write_text(describe_code(), encoding="utf-8")
    for name in COPIED:
        shutil.copy(docs.parent / name, docs / name)
    shutil.rmtree(docs / "recipes", ignore_errors=True)
    shutil.copytree(docs.parent / "recipes", docs / "recipes", ignore=shutil.ignore_patterns("__pycache__"))


def point_to_copies(app: Any, page: str, source: list[str]) -> None:
    """Make links lead to the copies, and from these to the pages of docs; a recipe's folder is its README."""
    above = "../" * page.count("/")
    source[0] = source[0].replace(f"](../{above}", f"]({above}")
    source[0] = source[0].replace("](docs/", "](") if f"{page}.md" in COPIED else source[0]
    if page.startswith("recipes/"):
        source[0] = source[0].replace("../docs/", "../")
        source[0] += RESULTS if page.count("/") == 2 and page.endswith("/README") else ""
        source[0] = re.sub(r"\]\(((?:\.\./)?\w+)\)", r"](\1/README.md)", source[0])


def draw_dashes(app: Any, page: Any) -> None:
    """Turn the two hyphens that Sphinx writes between an argument and its description into a dash."""
    from docutils import nodes

    for text in list(page.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def find_fields(config: type, prefix: str = "") -> Iterator[tuple[str, type, dataclasses.Field]]:
    """Every field of a configuration and of the dataclasses in it: full name, type, field."""
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        yield prefix + field.name, types[field.name], field
        if dataclasses.is_dataclass(types[field.name]):
            yield from find_fields(types[field.name], f"{prefix}{field.name}.")


def describe_settings(parser: argparse.ArgumentParser | None = None, config: type = Config) -> str:
    """The configuration reference, in MyST Markdown.

    Raises:
        ValueError: A setting has no description.
    """
    fields = {name: (kind, field) for name, kind, field in find_fields(config)}
    sections: dict[str, list[str]] = {"": []}
    for action in (parser or build_parser())._actions:
        if argparse.SUPPRESS in (action.default, action.help) or action.dest == "config":
            continue
        if not (action.help or "").strip():
            raise ValueError(f"{action.dest}: no description; add it to the Attributes of the class that defines it")
        kind, field = fields.get(action.dest, (None, None))
        values = describe(field, kind) if field else f"`{write_type(action._typehint)}`"
        sections.setdefault(action.dest.rpartition(".")[0], []).append(_describe_setting(action, values))
    parts = [CONFIGURATION]
    for section, settings in sections.items():
        about = (fields[section][0].__doc__ or "").split("\n\n")[0] if section in fields else ""
        about = TRAINER if section == "trainer" else to_myst(about)
        parts += [f"## {section or 'Top level'}", about, *settings]
    return "\n\n".join(parts) + "\n"


def _describe_setting(action: argparse.Action, values: str) -> str:
    default = json.dumps(action.default, ensure_ascii=False, default=str)
    lines = [f"```{{confval}} {action.dest}", f":type: {values}", f":default: `{default}`"]
    return "\n".join([*lines, "", to_myst(action.help), "```"])


def write_type(kind: Any) -> str:
    """An annotation without modules, unions with bars, the choices of a Literal alone."""
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(write_type, inner))
    if get_origin(kind) is Literal:
        return " | ".join(map(repr, inner))
    name = "null" if kind is NoneType else getattr(kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(write_type, inner))}]" if inner else name


@cache
def find_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands, by name: ``speechrnn corpus check``."""
    return {f"speechrnn {name}": cli._make_parser(name, cli._find_command(name)) for name in sorted(cli.COMMANDS)}


def describe_commands() -> str:
    """The command reference, in MyST Markdown.

    Raises:
        ValueError: An option has no help.
    """
    return (
        "\n\n".join(
            [COMMANDS.format(exit_codes=_describe_exit_codes()), *map(_describe_parser, find_parsers().values())]
        )
        + "\n"
    )


def _describe_exit_codes() -> str:
    codes = re.findall(r"^ +(\d+) +(.+)$", cli.EXIT_CODES, flags=re.MULTILINE)
    return "\n".join(["| exit code | meaning |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in codes)])


def _describe_parser(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = partial(parser.formatter_class, width=80)  # and not the width of the terminal
    parts = [f"## {parser.prog}", to_myst(parser.description or ""), f"```text\n{parser.format_usage().strip()}\n```"]
    parts.append(f"```{{program}} {parser.prog}\n```")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if group not in (parser._positionals, parser._optionals):
            parts.append(to_myst(f"**{group.title}**" + f": {group.description}" * bool(group.description)))
        parts += [_describe_option(parser, action) for action in actions]
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog}\n```")
    return "\n\n".join(parts)


def _describe_option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter: Any = parser._get_formatter()
    written = formatter._format_action_invocation(action)
    if not action.help:
        raise ValueError(f"{parser.prog}: {written} has no help")
    return f"```{{option}} {written}\n{to_myst(formatter._expand_help(action))}\n```"


def to_myst(text: str) -> str:
    """A docstring's reStructuredText roles as code, its lines joined."""
    return re.sub(r":(?:py:)?[a-z]+:`~?([^`]+)`", r"`\1`", " ".join(text.split()))


GENERATED = {"reference/configuration.md": describe_settings, "reference/commands.md": describe_commands}
