"""How words are spoken: a pronunciation lexicon as Kaldi's and CMUdict's, a word and its phones a line."""

from __future__ import annotations

import re
from pathlib import Path

from speechrnn.errors import CorpusError

_STRESSED = re.compile(r"[A-Z]{2}[012]")  # a vowel of ARPAbet
_COMMENT = ";;;"


def read_pronunciations(path: str | Path) -> dict[str, list[str]]:
    """The phones of each word by its first pronunciation; ARPAbet's vowels lose their stress (``AH0`` is ``AH``).

    Args:
        path: In UTF-8; words and phones are parted by blanks or tabs, lines that begin with ``;;;`` say nothing.

    Raises:
        CorpusError: The lexicon cannot be read, is empty, or a line has no phones.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: there is no such lexicon; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: the lexicon cannot be read as UTF-8 ({error})") from error
    pronunciations: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(_COMMENT):
            continue
        word, *phones = line.split()
        if not phones:
            raise CorpusError(f"{path} line {number}: {word} has no phones; expected a word and its phones on a line")
        pronunciations.setdefault(word, [phone[:-1] if _STRESSED.fullmatch(phone) else phone for phone in phones])
    if not pronunciations:
        raise CorpusError(f"{path}: the lexicon holds no word; expected a word and its phones on each line")
    return pronunciations
