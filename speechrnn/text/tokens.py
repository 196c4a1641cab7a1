"""Tokens: the symbols that a model writes, and the ids by which it knows them. The CTC blank is always id 0."""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, Self

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, CorpusError, ModelError, name_some
from speechrnn.settings import bounded, check_settings, shorten
from speechrnn.types import BLANK_ID

Kind = Literal["characters", "words", "sentencepiece", "phones"]

BLANK = "<blank>"
TOKENS_FILE = "tokens.json"

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class TokensConfig:
    """What a model writes.

    Attributes:
        kind: `characters`; `words`, one token per word, for small closed vocabularies; `sentencepiece`, learned
            subwords; or `phones`, from a lexicon.
        vocabulary_size: For `sentencepiece`: tokens to learn, SentencePiece's own unknown token included, the blank
            excluded.
        alphabet: For `characters`: a file with one character a line, such as the alphabet.txt of DeepSpeech or Coqui
            STT; the model then writes these and no others. None takes those of the training texts.
        lexicon: For `phones`: a file with a word and its phones a line; utterances with other words are left out.
    """

    kind: Kind = "characters"
    vocabulary_size: int = bounded(500, 3, 200_000)
    alphabet: str | None = None
    lexicon: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, "tokens")
        if self.alphabet is not None and self.kind != "characters":
            raise ConfigError(f"tokens.alphabet: is for tokens.kind characters, not {self.kind}; leave one of them out")
        if (self.lexicon is not None) != (self.kind == "phones"):
            raise ConfigError("tokens.lexicon and tokens.kind phones go together; give both or none of them")


class Tokens(ABC):
    """The symbols a model writes.

    Text is put into Unicode NFC with single spaces before it is cut, so how an editor stored it does not matter; it is
    not normalised otherwise. Decoding gives back exactly that text.

    Attributes:
        kind: Which kind of tokens, as in `TokensConfig`.
        symbols: Symbol of each id, V of them; the blank at 0.
        spellings: Of each id whether it begins a word, and the letters that it writes.
    """

    kind: ClassVar[Kind]

    def __init__(self, symbols: Sequence[str]) -> None:
        """Take the symbols of a model.

        Args:
            symbols: Symbol of each id, the blank at 0.

        Raises:
            ModelError: The blank is elsewhere, a symbol comes twice or is none of this kind, or there are none.
        """
        self.symbols = list(symbols)
        self._check_symbols()
        self._ids = {symbol: token for token, symbol in enumerate(self.symbols) if token != BLANK_ID}
        self.spellings = [(False, ""), *(self._spell(symbol) for symbol in self.symbols[1:])]

    def __len__(self) -> int:
        """Count the symbols, the blank included: V."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Write text as token ids.

        Args:
            text: Normalised text.

        Returns:
            Token ids, U of them; never the blank; none for empty text.

        Raises:
            CorpusError: The model lacks a symbol of the text.
        """
        parts = self._split(clean(text))
        try:
            return [self._ids[part] for part in parts]
        except KeyError:
            raise CorpusError(self._explain_unknown(text)) from None

    def unknown(self, text: str) -> list[str]:
        """List what `encode` would refuse.

        Args:
            text: Normalised text.

        Returns:
            Characters (words, where tokens are words) that this model lacks, each once, sorted.
        """
        return sorted({part for part in self._split(clean(text)) if part not in self._ids})

    def decode(self, ids: Iterable[int]) -> str:
        """Read token ids as text.

        Args:
            ids: Token ids, repeats already merged; blanks are passed over.

        Returns:
            The words, with single spaces between them.

        Raises:
            ModelError: An id that these tokens do not have.
        """
        return " ".join(word for word, _, _ in self.words(ids))

    def written(self, text: str) -> str:
        """Normalised text as these tokens write it: the same, but for phones."""
        return text

    def spell(self, text: str) -> tuple[list[int], list[tuple[str, int, int]]]:
        """Token ids of normalised text, and its words with the first and last place of their tokens among them.

        Raises:
            CorpusError: The model lacks a symbol of the text.
        """
        ids = self.encode(text)
        return ids, self.words(ids)

    def words(self, ids: Iterable[int]) -> list[tuple[str, int, int]]:
        """Read token ids as words, and say which tokens make each.

        Args:
            ids: Token ids, repeats already merged; blanks are passed over.

        Returns:
            Each word with the positions in `ids` of its first and last token, both inclusive. A token that only parts
            words (the space, a bare word-start sign) belongs to none.

        Raises:
            ModelError: An id that these tokens do not have.
        """
        words: list[tuple[str, int, int]] = []
        is_inside = False
        for position, token in enumerate(ids):
            begins, letters = self._spelling(token)
            is_inside = is_inside and not begins
            if letters and is_inside:
                word, first, _ = words[-1]
                words[-1] = (word + letters, first, position)
            elif letters:
                words.append((letters, position, position))
                is_inside = True
        return words

    def save(self, folder: str | Path) -> None:
        """Write the tokens into a model folder, which is made where missing.

        Args:
            folder: The model folder.

        Raises:
            ModelError: The folder cannot be written.
        """
        content = json.dumps({"kind": self.kind, "symbols": self.symbols}, ensure_ascii=False, indent=1)
        write_atomic(Path(folder) / TOKENS_FILE, f"{content}\n", error=ModelError)

    @abstractmethod
    def _split(self, text: str) -> list[str]:
        """Cut clean text into symbols, and into what would have to be one."""

    @abstractmethod
    def _spell(self, symbol: str) -> tuple[bool, str]:
        """Say whether a symbol ends the word before it, and which letters it adds."""

    @abstractmethod
    def _is_symbol(self, symbol: str) -> bool:
        """Tell whether a string can be a symbol of this kind."""

    def _spelling(self, token: int) -> tuple[bool, str]:
        if not 0 <= token < len(self.symbols):
            raise ModelError(
                f"token id {token}: these tokens have 0 to {len(self) - 1}; use the tokens the model was trained with"
            )
        return self.spellings[token]

    def _check_symbols(self) -> None:
        if self.symbols[:1] != [BLANK]:
            raise ModelError(f"symbol 0 must be {BLANK}, it is {name_symbols(self.symbols[:1]) or 'missing'}")
        if len(self.symbols) == 1:
            raise ModelError("there is no symbol but the blank")
        repeated = [symbol for symbol, count in Counter(self.symbols).items() if count > 1]
        if repeated:
            raise ModelError(f"each symbol must come once, {name_symbols(repeated)} comes twice")
        wrong = [symbol for symbol in self.symbols[1:] if not self._is_symbol(symbol) or _CONTROLS.search(symbol)]
        if wrong:
            raise ModelError(f"{name_symbols(wrong)} cannot be a symbol where tokens are of kind {self.kind}")

    def _explain_unknown(self, text: str) -> str:
        excerpt = text if len(text) <= 60 else f"{text[:60]}…"
        return (
            f"transcript {excerpt!r}: the model has no token for {name_symbols(self.unknown(text))}; "
            "normalise the text, leave the utterance out, or train with tokens made from such text"
        )


class CharacterTokens(Tokens):
    """One token a character (Unicode code point of the NFC form); the space parts words."""

    kind: ClassVar[Kind] = "characters"

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Collect every character of the texts, in code point order.

        Args:
            texts: Normalised training transcripts; empty ones are passed over.

        Raises:
            CorpusError: There is no text.
        """
        return cls([BLANK, *sorted(set(chain.from_iterable(clean_all(texts))))])

    def _split(self, text: str) -> list[str]:
        return list(text)

    def _spell(self, symbol: str) -> tuple[bool, str]:
        return (True, "") if symbol == " " else (False, symbol)

    def _is_symbol(self, symbol: str) -> bool:
        return len(symbol) == 1 and (symbol == " " or clean(symbol) == symbol)


class WordTokens(Tokens):
    """One token a word: for small closed vocabularies."""

    kind: ClassVar[Kind] = "words"

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Collect every word of the texts, in code point order.

        Args:
            texts: Normalised training transcripts; empty ones are passed over.

        Raises:
            CorpusError: There is no text, or a word is spelled like the blank.
        """
        words = {word for text in clean_all(texts) for word in text.split()}
        if BLANK in words:
            raise CorpusError(f"the word {BLANK} in the texts is the name of the CTC blank; write it otherwise")
        return cls([BLANK, *sorted(words)])

    def _split(self, text: str) -> list[str]:
        return text.split()

    def _spell(self, symbol: str) -> tuple[bool, str]:
        return True, symbol

    def _is_symbol(self, symbol: str) -> bool:
        return symbol != "" and " " not in symbol and clean(symbol) == symbol


def clean(text: str) -> str:
    """Convert text to Unicode NFC with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean_all(texts: Iterable[str]) -> Iterator[str]:
    """Yield cleaned texts, without empty ones; raises after the last where all together cannot be used."""
    is_empty, surrogates = True, set[str]()
    for text in filter(None, map(clean, texts)):
        is_empty = False
        surrogates.update(_SURROGATES.findall(text))
        yield text
    if is_empty:
        raise CorpusError("there is no text to make tokens from; check that the transcripts are not all empty")
    if surrogates:
        raise CorpusError(f"the texts contain lone surrogates, {name_symbols(sorted(surrogates))}; save them as UTF-8")


def name_symbols(symbols: Sequence[str]) -> str:
    """Name symbols in one line, single characters with their code point."""
    return name_some(f"{s!r} (U+{ord(s):04X})" if len(s) == 1 else shorten(s) for s in symbols)
