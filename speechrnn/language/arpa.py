"""Reading and writing ARPA files, the exchange format of n-gram models, with logarithms to base 10.

Source:
    The file format: SRILM's manual page "ngram-format".
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from speechrnn.atomic_io import open_atomic
from speechrnn.errors import ModelError
from speechrnn.language.ngram import NgramModel

_LN10 = math.log(10.0)
_NEVER = -99.0  # probability zero in ARPA files
_MOST_BACKOFF = 1000.0  # of the logarithm, far above any real one
_ROWS_AT_ONCE = 100_000


def write_arpa(path: str | Path, model: NgramModel) -> None:
    """Write an ARPA file atomically, compressed if its name ends in ``.gz``.

    Raises:
        ModelError: It cannot be written.
    """
    with open_atomic(path, error=ModelError) as raw, _text(raw, is_compressed=str(path).endswith(".gz")) as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {order}={size}\n" for order, size in enumerate(model.sizes, start=1))
        for order in range(1, model.order + 1):
            file.write(f"\n\\{order}-grams:\n")
            file.writelines(_describe(model, order))
        file.write("\n\\end\\\n")


@contextmanager
def _text(raw: IO[bytes], *, is_compressed: bool) -> Iterator[IO[str]]:
    data: Any = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if is_compressed else raw
    text = io.TextIOWrapper(data, encoding="utf-8", newline="\n")
    try:
        yield text
        text.flush()
    finally:
        text.detach()
        if is_compressed:
            data.close()


def _describe(model: NgramModel, order: int) -> Iterator[str]:
    """Lines of one order."""
    for first in range(model.starts[order - 1], model.starts[order], _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, model.starts[order])
        logs = np.maximum(model.log_probs[first:last] / _LN10, _NEVER).tolist()
        ngrams = (" ".join([model.words[word] for word in row]) for row in model.spell_all(first, last).tolist())
        if order == model.order:
            yield from (f"{log:.7g}\t{ngram}\n" for log, ngram in zip(logs, ngrams, strict=True))
            continue
        backoffs = (model.backoffs[first + 1 : last + 1] / _LN10).tolist()
        rows = zip(logs, ngrams, backoffs, strict=True)
        yield from (f"{log:.7g}\t{ngram}\t{backoff:.7g}\n" for log, ngram, backoff in rows)


def read_arpa(path: str | Path) -> NgramModel:
    """Read an ARPA file.

    Args:
        path: In UTF-8, compressed if its name ends in ``.gz``.

    Raises:
        ModelError: It cannot be read or is not an ARPA file; the message names the line.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            return _parse(path, enumerate(file, start=1))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such language model; check the path") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ModelError(f"{path}: cannot be read as an ARPA file ({error})") from error


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8-sig")


@dataclass
class _Read:
    """Content read so far: words and, for each order, word ids and two logarithms per row, as flat arrays."""

    ids: dict[str, int] = field(default_factory=dict)
    ngrams: list[array[int]] = field(default_factory=list)
    known: list[array[float]] = field(default_factory=list)

    @property
    def order(self) -> int:
        return len(self.ngrams)

    def begin_order(self) -> None:
        self.ngrams.append(array("i"))
        self.known.append(array("d"))

    def add(self, text: str, where: str) -> None:
        """Add the line of an n-gram."""
        parts, order = text.split(), self.order
        if len(parts) not in (order + 1, order + 2):
            raise ModelError(
                f"{where}: expected a logarithm, {order} words and an optional back-off weight, got {text[:60]}"
            )
        try:
            log_prob, backoff = float(parts[0]), float(parts[order + 1]) if len(parts) == order + 2 else 0.0
        except ValueError:
            raise ModelError(f"{where}: expected numbers at both ends, got {text[:60]}") from None
        if not log_prob <= 1e-4:
            raise ModelError(f"{where}: expected the logarithm of a probability from 0 to 1, got {parts[0]}")
        if not abs(backoff) <= _MOST_BACKOFF:
            raise ModelError(f"{where}: expected the logarithm of a back-off weight, got {parts[-1]}")
        if order == 1:
            if parts[1] in self.ids:
                raise ModelError(f"{where}: {parts[1]} is among the 1-grams twice")
            self.ids[parts[1]] = len(self.ids)
        try:
            self.ngrams[-1].extend([self.ids[word] for word in parts[1 : order + 1]])
        except KeyError as error:
            raise ModelError(f"{where}: {error.args[0]} is not among the 1-grams") from None
        self.known[-1].extend((-math.inf if log_prob <= _NEVER else log_prob * _LN10, backoff * _LN10))

    def finish(self) -> NgramModel:
        ngrams = [np.frombuffer(rows, np.int32).reshape(-1, order) for order, rows in enumerate(self.ngrams, start=1)]
        return NgramModel.assemble(
            list(self.ids), ngrams, [np.frombuffer(rows, np.float64).reshape(-1, 2) for rows in self.known]
        )


def _parse(path: Path, lines: Iterator[tuple[int, str]]) -> NgramModel:
    counts: dict[int, int] = {}
    read = _Read()
    is_begun = is_ended = False
    for number, line in lines:
        text = line.strip("\r\n ")
        if not text:
            continue
        if not is_begun:
            is_begun = text == "\\data\\"
            continue  # comments before the data
        if text == "\\end\\":
            is_ended = True
            break
        where = f"{path} line {number}"
        if text.startswith("ngram ") and not read.order:
            order, _, count = text.removeprefix("ngram ").partition("=")
            if not (order.strip().isdecimal() and count.strip().isdecimal()):
                raise ModelError(f"{where}: expected ngram ORDER=COUNT, got {text}")
            counts[int(order)] = int(count)
        elif text.startswith("\\") and text.endswith("-grams:"):
            if text != f"\\{read.order + 1}-grams:":
                raise ModelError(f"{where}: expected \\{read.order + 1}-grams:, got {text}")
            read.begin_order()
        elif read.order:
            read.add(text, where)
        else:
            raise ModelError(f"{where}: expected n-grams, got {text[:40]}")
    if not is_begun or not is_ended:
        missing = r"\end\ " if is_begun else r"\data\ "
        raise ModelError(f"{path}: no ARPA file, or truncated: {missing}is missing")
    found = {order: len(rows) // 2 for order, rows in enumerate(read.known, start=1)}
    if counts != found:
        raise ModelError(f"{path}: states {counts} n-grams and has {found}; the file may be truncated")
    if not found.get(1):
        raise ModelError(f"{path}: expected unigrams, found none")
    return read.finish()
