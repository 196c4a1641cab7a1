"""The lines of a corpus's text files, with the errors that all readers share."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechrnn.errors import CorpusError


def read_lines(path: Path, *, kind: str) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank.

    Args:
        path: In UTF-8, with or without a byte-order mark.
        kind: What an error calls the file ("manifest").

    Yields:
        The number of each line, from 1, and the line; a carriage return at its end stays.

    Raises:
        CorpusError: There is no such file, it is not UTF-8, or it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {error.start}; save the {kind} as UTF-8") from error
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: there is no such {kind}; check the path") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise CorpusError(f"{path}: the {kind} cannot be read ({reason})") from error
    # str.splitlines would also break at U+2028 and its like, which JSON allows inside a string.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def open_lines(path: Path) -> TextIO:
    """Open a text file in UTF-8, uncompressed where its name ends in ``.gz``."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8")
    return path.open(encoding="utf-8")
