"""Phone tokens, and pronunciation lexicons in the format of Kaldi and CMUdict: a word and its phones per line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from speechrnn.atomic_io import read_text, write_atomic
from speechrnn.errors import CorpusError, ModelError
from speechrnn.settings import shorten
from speechrnn.text.tokens import BLANK, Kind, Tokens

LEXICON_FILE = "lexicon.txt"
_STRESSED = re.compile(r"[A-Z]{2}[012]")  # a vowel of ARPAbet
_COMMENT = ";;;"


class PhoneTokens(Tokens):
    """One token per phone. Encodes words; decodes to their phones, separated by spaces.

    Args:
        symbols: The blank and the phones.
        pronunciations: Phones of each word; words with other phones are unknown.
    """

    kind: ClassVar[Kind] = "phones"

    def __init__(self, symbols: Sequence[str], pronunciations: Mapping[str, Sequence[str]]) -> None:
        super().__init__(symbols)
        known = set(self._ids)
        self.pronunciations = {
            word: list(spoken) for word, spoken in pronunciations.items() if known.issuperset(spoken)
        }

    @classmethod
    def build(
        cls, texts: Iterable[str], pronunciations: Mapping[str, Sequence[str]], *, normalize: Callable[[str], str] = str
    ) -> Self:
        """Collect the phones of the words of normalised training transcripts, in alphabetical order.

        Args:
            texts: Normalised training transcripts.
            pronunciations: Phones of each word.
            normalize: The model's text normalisation, applied to the lexicon's words.

        Raises:
            CorpusError: The lexicon has none of the words.
        """
        spoken: dict[str, Sequence[str]] = {}
        for word, phones in pronunciations.items():
            spoken.setdefault(normalize(word), phones)
        words = {word for text in texts for word in text.split()}
        found = {phone for word in words for phone in spoken.get(word, ())}
        if not found:
            named = ", ".join(sorted(words)[:5]) or "(no words)"
            raise CorpusError(f"tokens.lexicon: has none of the words of the training texts: {named}")
        return cls([BLANK, *sorted(found)], spoken)

    def unknown(self, text: str) -> list[str]:
        """List the words of normalised text that are not in the lexicon, each once, sorted."""
        return sorted({word for word in text.split() if word not in self.pronunciations})

    def written(self, text: str) -> str:
        """The phones of normalised text; unknown words stay as they are."""
        return " ".join(" ".join(self.pronunciations.get(word, [word])) for word in text.split())

    def spell(self, text: str) -> tuple[list[int], list[tuple[str, int, int]]]:
        """Token ids of normalised text, and its words with the positions of their first and last phone."""
        ids: list[int] = []
        words = []
        for word in text.split():
            spoken = self.encode(word)
            words.append((word, len(ids), len(ids) + len(spoken) - 1))
            ids += spoken
        return ids, words

    def save(self, folder: str | Path) -> None:
        """Write the tokens and the lexicon into a model folder, created if missing.

        Raises:
            ModelError: The folder cannot be written.
        """
        lines = [f"{word} {' '.join(spoken)}\n" for word, spoken in self.pronunciations.items()]
        write_atomic(Path(folder) / LEXICON_FILE, "".join(lines), error=ModelError)
        super().save(folder)

    def _split(self, text: str) -> list[str]:
        return [phone for word in text.split() for phone in self.pronunciations.get(word, [word])]

    def _spell(self, symbol: str) -> tuple[bool, str]:
        return True, symbol

    def _is_symbol(self, symbol: str) -> bool:
        return symbol != "" and not any(character.isspace() for character in symbol)


def read_pronunciations(path: str | Path) -> dict[str, list[str]]:
    """Read the first pronunciation of each word; ARPAbet vowels lose their stress (``AH0`` becomes ``AH``).

    Args:
        path: In UTF-8; words and phones are separated by blanks or tabs, lines that begin with ``;;;`` are comments.

    Raises:
        CorpusError: The lexicon cannot be read, is empty, or a line has no phones.
    """
    lines = read_text(path, error=CorpusError, expected="a lexicon, a word and its phones per line").split("\n")
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
