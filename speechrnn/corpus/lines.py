"""The lines of a corpus's text files, with the errors that all readers share."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from speechrnn.errors import CorpusError
from speechrnn.text_files import parse_json

_LONGEST_LINE = 8 * 2**20  # bytes


def read_lines(path: Path, *, kind: str) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank, one at a time.

    Args:
        path: In UTF-8, with or without a byte-order mark; compressed where its name ends in ``.gz``.
        kind: What an error calls the file ("manifest").

    Yields:
        The number of each line, from 1, and the line; a carriage return at its end stays.

    Raises:
        CorpusError: There is no such file or it is no regular one, it is not UTF-8 from here on, a line is too long,
            or it cannot be read.
    """
    for number, line in enumerate(stream_lines(path, kind=kind), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def stream_lines(path: Path, *, kind: str) -> Iterator[str]:
    """Read all lines, one at a time, each with what ends it; as :func:`read_lines` in all else."""
    position = 0
    try:
        # str.splitlines would also break at U+2028 and its like, which JSON allows inside a string.
        with _open(path, kind) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    megabytes = _LONGEST_LINE // 2**20
                    raise CorpusError(f"{path}: a line of the {kind} is longer than {megabytes} MiB; check the file")
                mark = len(codecs.BOM_UTF8) if position == 0 and line.startswith(codecs.BOM_UTF8) else 0
                position += mark
                yield line[mark:].decode("utf-8")
                position += len(line) - mark
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {position + error.start}; save the {kind} as UTF-8") from error
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: there is no such {kind}; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CorpusError(f"{path}: the {kind} cannot be read ({reason}); copy or make it again") from error


def _open(path: Path, kind: str) -> IO[bytes]:
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise CorpusError(f"{path}: the {kind} cannot be read (it is no regular file)")
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def read_records(path: Path, *, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file of JSON lines: the number of each line that is not blank, from 1, and its object.

    Raises:
        CorpusError: As for :func:`read_lines`, or a line is not a JSON object; the message names it.
    """
    for number, line in read_lines(path, kind=kind):
        where = f"{path.name} line {number}"
        record = parse_json(line, where=where, error=CorpusError)
        if not isinstance(record, dict):
            raise CorpusError(f"{where}: expected a JSON object")
        yield number, record
