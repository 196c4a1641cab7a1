"""Tokens: the symbols that a model writes, and their ids. The CTC blank is always id 0."""

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
from speechrnn.settings import Settings, bounded, shorten
from speechrnn.types import BLANK_ID

Kind = Literal["characters", "words", "sentencepiece", "phones"]

BLANK = "<blank>"
TOKENS_FILE = "tokens.json"

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would interpret them
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class TokensConfig(Settings, section="tokens"):
    """What a model writes.

    Attributes:
        kind: `characters`; `words`, one token per word, for small closed vocabularies; `sentencepiece`, learned
            subwords; or `phones`, from a lexicon.
        vocabulary_size: For `sentencepiece`: tokens to learn, SentencePiece's own unknown token included, the blank
            excluded.
        alphabet: For `characters`: a file with one character per line, such as the alphabet.txt of DeepSpeech or Coqui
            STT; the model writes these and no others. None uses those of the training texts.
        lexicon: For `phones`: a file with a word and its phones per line; utterances with other words are left out.
    """

    kind: Kind = "characters"
    vocabulary_size: int = bounded(500, 3, 200_000)
    alphabet: str | None = None
    lexicon: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alphabet is not None and self.kind != "characters":
            raise ConfigError(f"tokens.alphabet: requires tokens.kind characters, got {self.kind}; remove one of them")
        if (self.lexicon is not None) != (self.kind == "phones"):
            raise ConfigError("tokens.lexicon and tokens.kind phones go together; set both or neither")


class Tokens(ABC):
    """The symbols that a model writes.

    Text is converted to Unicode NFC with single spaces before it is split, and not normalised otherwise. Decoding gives
    exactly that text.

    Attributes:
        kind: Kind of tokens, as in `TokensConfig`.
        symbols: Symbol of each id, V of them; the blank at 0.
        spellings: For each id, whether it begins a word, and the letters that it writes.
    """

    kind: ClassVar[Kind]

    def __init__(self, symbols: Sequence[str]) -> None:
        """Check the symbols of a model.

        Raises:
            ModelError: The blank is not at 0, a symbol is repeated or invalid for this kind, or there are none.
        """
        self.symbols = list(symbols)
        if self.symbols[:1] != [BLANK]:
            raise ModelError(f"symbol 0: expected {BLANK}, got {name_symbols(self.symbols[:1]) or 'no symbols'}")
        if len(self.symbols) == 1:
            raise ModelError("there is no symbol except the blank")
        repeated = [symbol for symbol, count in Counter(self.symbols).items() if count > 1]
        if repeated:
            raise ModelError(f"repeated symbols: {name_symbols(repeated)}; expected each symbol once")
        wrong = [symbol for symbol in self.symbols[1:] if not self._is_symbol(symbol) or _CONTROLS.search(symbol)]
        if wrong:
            raise ModelError(f"{name_symbols(wrong)}: not a valid symbol for tokens of kind {self.kind}")
        self._ids = {symbol: token for token, symbol in enumerate(self.symbols) if token != BLANK_ID}
        self.spellings = [(False, ""), *(self._spell(symbol) for symbol in self.symbols[1:])]

    def __len__(self) -> int:
        """Number of symbols, the blank included: V."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Convert normalised text to token ids, (U,), without blanks.

        Raises:
            CorpusError: The model lacks a symbol of the text.
        """
        parts = self._split(clean(text))
        try:
            return [self._ids[part] for part in parts]
        except KeyError:
            raise CorpusError(self._explain_unknown(text)) from None

    def unknown(self, text: str) -> list[str]:
        """List the characters (words, if tokens are words) of normalised text that the model lacks, sorted."""
        return sorted({part for part in self._split(clean(text)) if part not in self._ids})

    def decode(self, ids: Iterable[int]) -> str:
        """Convert token ids, repeats already merged, to words with single spaces; blanks are skipped.

        Raises:
            ModelError: An id is not one of these tokens.
        """
        return " ".join(word for word, _, _ in self.words(ids))

    def written(self, text: str) -> str:
        """Normalised text as these tokens write it: the same, except for phones."""
        return text

    def spell(self, text: str) -> tuple[list[int], list[tuple[str, int, int]]]:
        """Token ids of normalised text, and its words with the positions of their first and last token.

        Raises:
            CorpusError: The model lacks a symbol of the text.
        """
        ids = self.encode(text)
        return ids, self.words(ids)

    def words(self, ids: Iterable[int]) -> list[tuple[str, int, int]]:
        """Convert token ids, repeats already merged, to words.

        Returns:
            Each word with the positions in `ids` of its first and last token, both inclusive. A token that only
            separates words (the space, a bare word-start sign) belongs to none.

        Raises:
            ModelError: An id is not one of these tokens.
        """
        words: list[tuple[str, int, int]] = []
        is_inside = False
        for position, token in enumerate(ids):
            if not 0 <= token < len(self.symbols):
                last = len(self.symbols) - 1
                raise ModelError(
                    f"token id {token}: expected 0 to {last}; use the tokens that the model was trained with"
                )
            begins, letters = self.spellings[token]
            is_inside = is_inside and not begins
            if letters and is_inside:
                word, first, _ = words[-1]
                words[-1] = (word + letters, first, position)
            elif letters:
                words.append((letters, position, position))
                is_inside = True
        return words

    def save(self, folder: str | Path) -> None:
        """Write the tokens into a model folder, created if missing.

        Raises:
            ModelError: The folder cannot be written.
        """
        content = json.dumps({"kind": self.kind, "symbols": self.symbols}, ensure_ascii=False, indent=1)
        write_atomic(Path(folder) / TOKENS_FILE, f"{content}\n", error=ModelError)

    @abstractmethod
    def _split(self, text: str) -> list[str]:
        """Split clean text into symbols, known or not."""

    @abstractmethod
    def _spell(self, symbol: str) -> tuple[bool, str]:
        """Whether a symbol ends the word before it, and the letters that it adds."""

    @abstractmethod
    def _is_symbol(self, symbol: str) -> bool:
        """Whether a string can be a symbol of this kind."""

    def _explain_unknown(self, text: str) -> str:
        excerpt = text if len(text) <= 60 else f"{text[:60]}…"
        return (
            f"transcript {excerpt!r}: the model has no token for {name_symbols(self.unknown(text))}; "
            "normalise the text, leave the utterance out, or train with tokens made from such text"
        )


class CharacterTokens(Tokens):
    """One token per character (Unicode code point of the NFC form); the space separates words."""

    kind: ClassVar[Kind] = "characters"

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Collect all characters of normalised training transcripts, in code point order; empty ones are skipped.

        Raises:
            CorpusError: There is no text.
        """
        return cls([BLANK, *sorted(set(chain.from_iterable(clean_all(texts))))])

    def _split(self, text: str) -> list[str]:
        return list(text)

    def _spell(self, symbol: str) -> tuple[bool, str]:
        return (True, "") if symbol == " " else (False, symbol)

    def _is_symbol(self, symbol: str) -> bool:
        is_clean = not symbol.isspace() and unicodedata.is_normalized("NFC", symbol)
        return len(symbol) == 1 and (symbol == " " or is_clean)


class WordTokens(Tokens):
    """One token per word: for small closed vocabularies."""

    kind: ClassVar[Kind] = "words"

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Collect all words of normalised training transcripts, in code point order; empty ones are skipped.

        Raises:
            CorpusError: There is no text, or a word is spelled like the blank.
        """
        words = {word for text in clean_all(texts) for word in text.split()}
        if BLANK in words:
            raise CorpusError(f"the texts contain the word {BLANK}, the name of the CTC blank; replace it")
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
        raise CorpusError("all transcripts are empty: no tokens can be made from them; check the corpus")
    if surrogates:
        raise CorpusError(f"the texts contain lone surrogates, {name_symbols(sorted(surrogates))}; save them as UTF-8")


def name_symbols(symbols: Sequence[str]) -> str:
    """List symbols in one line, single characters with their code points."""
    return name_some(f"{s!r} (U+{ord(s):04X})" if len(s) == 1 else shorten(s) for s in symbols)
