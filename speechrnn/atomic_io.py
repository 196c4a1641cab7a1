"""Writing files atomically: into a temporary file beside the target, which then takes its name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from speechrnn.errors import SpeechRNNError


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
