"""Pronunciation lexicons in the format of Kaldi and CMUdict: a word and its phones a line."""

from __future__ import annotations

import re
from pathlib import Path

from speechrnn.errors import CorpusError
from speechrnn.settings import shorten
from speechrnn.text_files import read_text

_STRESSED = re.compile(r"[A-Z]{2}[012]")  # a vowel of ARPAbet
_COMMENT = ";;;"


def read_pronunciations(path: str | Path) -> dict[str, list[str]]:
    """The phones of each word by its first pronunciation; ARPAbet's vowels lose their stress (``AH0`` is ``AH``).

    Args:
        path: In UTF-8; words and phones are separated by blanks or tabs, lines that begin with ``;;;`` are comments.

    Raises:
        CorpusError: The lexicon cannot be read, is empty, or a line has no phones.
    """
    lines = read_text(path, error=CorpusError, expected="a lexicon, a word and its phones a line").split("\n")
    pronunciations: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(_COMMENT):
            continue
        word, *phones = line.split()
        if not phones:
            raise CorpusError(f"{path} line {number}: {shorten(word)} has no phones; expected WORD PHONE PHONE …")
        pronunciations.setdefault(word, [phone[:-1] if _STRESSED.fullmatch(phone) else phone for phone in phones])
    if not pronunciations:
        raise CorpusError(f"{path}: no words in the lexicon; expected a word and its phones on each line")
    return pronunciations
