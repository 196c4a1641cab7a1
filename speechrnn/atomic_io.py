"""Small files: atomic writes, and bounded reads of text, JSON and YAML.

A write goes to a temporary file beside the target, which then takes its name.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from speechrnn.errors import ConfigError, SpeechRNNError

_LARGEST = 64 * 2**20
_LARGEST_YAML = 2**20
_MOST_NODES = 100_000
_DEEPEST = 64


@contextmanager
def open_atomic(path: str | Path, *, error: type[SpeechRNNError] = SpeechRNNError) -> Iterator[IO[bytes]]:
    """Open a file for writing; readers see the old content until all of the new content is written.

    Args:
        path: The file; its folder is created if missing, and an existing file is replaced.
        error: Exception type to raise.

    Raises:
        SpeechRNNError: Of the given type: the file cannot be written; an existing file is left unchanged.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
        os.replace(beside, path)
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem.strerror}); check the folder and free space") from problem
    finally:
        with suppress(OSError):
            beside.unlink()


def write_atomic(path: str | Path, content: str | bytes, *, error: type[SpeechRNNError] = SpeechRNNError) -> None:
    """Write bytes, or text as UTF-8 with line feeds, like :func:`open_atomic`.

    Raises:
        SpeechRNNError: Of the given type: the file cannot be written; an existing file is left unchanged.
    """
    with open_atomic(path, error=error) as file:
        file.write(content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: str | Path, rows: Iterable[Any]) -> None:
    """Write rows as JSON, one per line, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_bytes(
    path: str | Path,
    *,
    error: type[SpeechRNNError] = SpeechRNNError,
    expected: str = "a text file",
    largest: int = _LARGEST,
) -> bytes:
    """Read a regular file of limited size.

    Args:
        path: The file.
        error: Exception type to raise.
        expected: Expected kind of file, for the message.
        largest: Largest size, in bytes.

    Raises:
        SpeechRNNError: Of the given type: the file is missing, unreadable, too large, or a folder, pipe or device.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise error(f"{path}: is {kind}; expected {expected}")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file; expected {expected}") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path}: cannot be read ({reason}); expected {expected}") from None
    if len(content) > largest:
        raise error(f"{path}: more than {largest / 2**20:g} MiB; expected {expected}")
    return content


def read_text(
    path: str | Path,
    *,
    error: type[SpeechRNNError] = SpeechRNNError,
    expected: str = "a text file",
    largest: int = _LARGEST,
) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; arguments as for :func:`read_bytes`.

    Raises:
        SpeechRNNError: Of the given type: as :func:`read_bytes`, or it is not UTF-8.
    """
    content = read_bytes(path, error=error, expected=expected, largest=largest)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{path} line {line}: not UTF-8 (byte 0x{content[problem.start]:02x}); save it as UTF-8") from None


def read_json(path: str | Path, *, error: type[SpeechRNNError] = SpeechRNNError, expected: str = "a JSON file") -> Any:
    """Read a JSON file; arguments as for :func:`read_bytes`.

    Raises:
        SpeechRNNError: Of the given type: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path, error=error, expected=expected), where=str(path), error=error)


def parse_json(text: str, *, where: str, error: type[SpeechRNNError] = SpeechRNNError) -> Any:
    """Parse JSON; an object with a key twice is refused.

    Args:
        text: The document.
        where: Its origin, for the message.
        error: Exception type to raise.

    Raises:
        SpeechRNNError: Of the given type: it is not JSON, nested too deeply, or holds a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_make_object)
    except RecursionError:
        raise error(f"{where}: nested too deeply for JSON; restore the file") from None
    except ValueError as problem:
        raise error(f"{where}: cannot be read as JSON ({problem}); restore the file") from None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return made


def read_yaml(path: str | Path, *, error: type[SpeechRNNError] = ConfigError, expected: str = "a YAML file") -> Any:
    """Read a YAML file of plain values; arguments as for :func:`read_bytes`.

    Raises:
        SpeechRNNError: Of the given type: as :func:`read_text` and :func:`parse_yaml`.
    """
    text = read_text(path, error=error, expected=expected, largest=_LARGEST_YAML)
    return parse_yaml(text, where=str(path), error=error)


def parse_yaml(text: str, *, where: str, error: type[SpeechRNNError] = ConfigError) -> Any:
    """Parse YAML of plain values; numbers such as ``1e-3`` are numbers, dates are text.

    Args:
        text: The document.
        where: Its origin, for the message.
        error: Exception type to raise.

    Raises:
        SpeechRNNError: Of the given type: it is not YAML, has a key twice, is nested too deeply or recursively, or is
            too large with its aliases resolved.
    """
    import yaml

    try:
        loader = _get_loader()(text)
        node = loader.get_single_node()
        _check_node(node, where, error)
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise error(f"{where}: nested too deeply or recursively; at most {_DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: a whole number of more than 4300 digits
        mark = getattr(problem, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        reason = " ".join(str(getattr(problem, "problem", None) or problem).split())
        raise error(f"{where}{line}: cannot be read as YAML ({reason})") from None


@lru_cache
def _get_loader() -> Any:
    """PyYAML's safe loader in pure Python (the compiled one can overflow the stack), with numbers as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, *arguments: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise RecursionError
            node = super().compose_node(*arguments)
            self.depth -= 1
            return node

    number = "tag:yaml.org,2002:float"
    Loader.yaml_implicit_resolvers = {
        first: [each for each in resolvers if each[0] not in (number, "tag:yaml.org,2002:timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    decimal = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    pattern = re.compile(rf"(?:{decimal}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")
    Loader.add_implicit_resolver(number, pattern, list("-+0123456789."))
    return Loader


def _check_node(root: Any, where: str, error: type[SpeechRNNError]) -> None:
    """Refuse duplicate keys, and documents that are deep or large with their aliases resolved."""
    waiting, count = [(root, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST:
            raise RecursionError
        if count > _MOST_NODES:
            raise error(f"{where}: more than {_MOST_NODES:,} values, counting each use of an alias")
        children = node.value if isinstance(getattr(node, "value", None), list) else []
        if node is not None and node.id == "mapping":
            seen = set()
            for key, _ in children:
                line = f"{where} line {key.start_mark.line + 1}"
                if not isinstance(key.value, str):
                    raise error(f"{line}: expected a name before the colon")
                if key.value in seen:
                    raise error(f"{line}: {key.value} is given twice; remove one of them")
                seen.add(key.value)
            children = [value for _, value in children]
        waiting += [(child, depth + 1) for child in children]
