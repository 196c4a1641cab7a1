"""Text files split into the units of a language model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.text.normalize import TextConfig, normalize_text
from speechrnn.text.tokens import Tokens

SPACE = "<space>"
"""The space between words in language models of characters."""

Units = Literal["words", "characters", "model"]

_LONGEST_LINE = 2**20


class Sentences:
    """The sentences of text files, split into units; for one pass.

    Args:
        paths: Text files in UTF-8, one sentence per line; ``-`` is standard input.
        text: Normalisation of the text.
        units: Into what to split sentences; ``model`` uses the given tokens.
        tokens: A model's tokens, for ``model``.

    Attributes:
        left_out: Lines that the tokens cannot write.

    Raises:
        ConfigError: ``model`` without tokens.
        CorpusError: While reading: a file cannot be read, is not UTF-8, or has no line breaks.
    """

    def __init__(
        self, paths: Sequence[str], text: TextConfig, *, units: Units = "words", tokens: Tokens | None = None
    ) -> None:
        if units == "model" and tokens is None:
            raise ConfigError("--tokens model: needs the model, with -m MODEL")
        self.paths, self.text, self.units, self.tokens = paths, text, units, tokens
        self.left_out: list[str] = []

    def __iter__(self) -> Iterator[list[str]]:
        for line in _read_lines(self.paths):
            yield self._split(normalize_text(line, self.text))

    def _split(self, line: str) -> list[str]:
        if self.units == "words":
            return line.split()
        if self.units == "characters":
            symbols = list(line)
        else:
            assert self.tokens is not None
            if self.tokens.unknown(line):
                self.left_out.append(line)
                return []
            symbols = [self.tokens.symbols[token] for token in self.tokens.encode(line)]
        return [SPACE if symbol == " " else symbol for symbol in symbols]

    def describe_left_out(self) -> str:
        """Describe how many lines were left out, and the first of them; empty if none."""
        if not self.left_out:
            return ""
        assert self.tokens is not None
        first = self.left_out[0]
        return (
            f"{len(self.left_out):,} lines left out: the model has no token for them; the first: {first[:60]!r} "
            f"(no {self.tokens.unknown(first)[0]!r})"
        )


def _read_lines(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        try:
            with nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8-sig") as file:
                while line := file.readline(_LONGEST_LINE):
                    if len(line) == _LONGEST_LINE:
                        raise CorpusError(
                            f"{path}: expected one sentence per line, found a line above {_LONGEST_LINE:,}"
                        )
                    yield line
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path}: not UTF-8 at byte {error.start}; save the text as UTF-8") from error
        except OSError as error:
            raise CorpusError(f"{path}: the text cannot be read ({error.strerror or error})") from error
