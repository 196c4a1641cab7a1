"""Files that are written whole or not at all: beside their place, and then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from speechrnn.errors import SpeechRNNError


@contextmanager
def open_whole(path: str | Path, *, error: type[SpeechRNNError] = SpeechRNNError) -> Iterator[IO[bytes]]:
    """Open a file to be written; whoever looks sees the old one or, when all of it is there, the new one.

    Args:
        path: Where to; its folder is made if need be, and a file that stands there is replaced.
        error: What to raise.

    Raises:
        SpeechRNNError: Of the given kind: the file cannot be written; what stood there before still does.
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


def write_whole(path: str | Path, content: str | bytes, *, error: type[SpeechRNNError] = SpeechRNNError) -> None:
    """As :func:`open_whole`, with the content at hand: bytes, or text that is written as UTF-8 with line feeds.

    Raises:
        SpeechRNNError: Of the given kind: the file cannot be written; what stood there before still does.
    """
    with open_whole(path, error=error) as file:
        file.write(content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: str | Path, rows: Iterable[Any]) -> None:
    """Write rows as JSON, one a line, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
