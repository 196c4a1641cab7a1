"""The tokens of an exported model, from its description alone."""

from __future__ import annotations

from typing import NoReturn, get_args

from speechrnn.errors import CorpusError, ModelError
from speechrnn.export.metadata import Metadata
from speechrnn.text.tokens import CharacterTokens, Kind, Tokens, WordTokens


class WrittenTokens(Tokens):
    """Tokens that are only written: subwords without SentencePiece, phones without a lexicon.

    Args:
        kind: Kind of tokens, as in :class:`~speechrnn.text.tokens.TokensConfig`.
        symbols: Symbol of each id; the blank at 0.
        spellings: For each id, whether it begins a word, and the letters that it writes.
    """

    def __init__(self, kind: Kind, symbols: list[str], spellings: list[tuple[bool, str]]) -> None:
        self.kind = kind  # type: ignore[misc]
        super().__init__(symbols)
        self.spellings = spellings

    def _split(self, text: str) -> NoReturn:
        raise CorpusError(f"an exported model does not encode text as {self.kind} tokens; use the model folder")

    def _spell(self, symbol: str) -> tuple[bool, str]:
        return False, ""

    def _is_symbol(self, symbol: str) -> bool:
        return bool(symbol)


def make_tokens(metadata: Metadata, name: str) -> Tokens:
    """Make the tokens of an exported model.

    Args:
        metadata: Its description.
        name: Of the file.

    Raises:
        ModelError: The symbols are no tokens of their kind.
    """
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((each for each in kinds if each == metadata.token_kind), None)
    if kind is None:
        raise ModelError(f"{name}: token_kind {metadata.token_kind!r:.40}: expected one of {', '.join(kinds)}")
    if not all(isinstance(symbol, str) for symbol in metadata.symbols):
        raise ModelError(f"{name}: symbols: expected a list of texts; export the model again")
    try:
        if kind in ("characters", "words"):
            return (CharacterTokens if kind == "characters" else WordTokens)(metadata.symbols)
        return WrittenTokens(kind, metadata.symbols, [(begins, letters) for begins, letters in metadata.spellings])
    except ModelError as error:
        raise ModelError(f"{name}: {error}; export the model again") from error
