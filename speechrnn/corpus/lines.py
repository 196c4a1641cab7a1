"""The lines of a corpus's text files, with the errors that all readers share."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechrnn.errors import CorpusError


def read_lines(path: Path, *, kind: str) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank, one at a time.

    Args:
        path: In UTF-8, with or without a byte-order mark.
        kind: What an error calls the file ("manifest").

    Yields:
        The number of each line, from 1, and the line; a carriage return at its end stays.

    Raises:
        CorpusError: There is no such file, it is not UTF-8 from here on, or it cannot be read.
    """
    for number, line in enumerate(stream_lines(path, kind=kind), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def stream_lines(path: Path, *, kind: str) -> Iterator[str]:
    """Read all lines, one at a time, each with what ends it; as :func:`read_lines` in all else."""
    position = 0
    try:
        # str.splitlines would also break at U+2028 and its like, which JSON allows inside a string.
        with path.open("rb") as file:
            for line in file:
                mark = len(codecs.BOM_UTF8) if position == 0 and line.startswith(codecs.BOM_UTF8) else 0
                position += mark
                yield line[mark:].decode("utf-8")
                position += len(line) - mark
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {position + error.start}; save the {kind} as UTF-8") from error
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: there is no such {kind}; check the path") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise CorpusError(f"{path}: the {kind} cannot be read ({reason})") from error


def open_lines(path: Path) -> TextIO:
    """Open a text file in UTF-8, uncompressed where its name ends in ``.gz``."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8")
    return path.open(encoding="utf-8")
