"""Alphabet files of Mozilla DeepSpeech and Coqui STT: one character a line."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

from speechrnn.errors import ConfigError
from speechrnn.settings import shorten
from speechrnn.text_files import read_text


def read_alphabet(path: str | Path) -> list[str]:
    """Read an ``alphabet.txt``.

    Args:
        path: One character a line, in UTF-8; lines that begin with ``#`` are comments, ``\\#`` stands for the
            character, and a line with a blank alone for the space between words.

    Returns:
        The characters in Unicode NFC, in the file's order; the CTC blank is not among them.

    Raises:
        ConfigError: The file cannot be read, is empty, or a line holds several characters or one that came before.

    Source:
        The comments of the alphabet.txt that DeepSpeech 0.9 ships; an entry may be several code points that make one.
    """
    text = read_text(path, error=ConfigError, expected="an alphabet, one character a line (tokens.alphabet)")
    symbols = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        symbol = unicodedata.normalize("NFC", "#" if line == "\\#" else line)
        if len(symbol) != 1:
            raise ConfigError(f"tokens.alphabet {path} line {number}: expected one character, got {shorten(symbol)}")
        symbols.append(symbol)
    repeated = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if repeated:
        raise ConfigError(f"tokens.alphabet {path}: {repeated[0]!r} is given twice; remove one of them")
    if not symbols:
        raise ConfigError(f"tokens.alphabet {path}: has no characters; expected one a line")
    return symbols
