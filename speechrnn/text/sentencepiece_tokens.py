"""Learned subword tokens (SentencePiece). SentencePiece itself is imported at first use."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.text.tokens import BLANK, Kind, Tokens, clean, clean_all, name_symbols

SENTENCEPIECE_FILE = "tokenizer.model"
WORD_START = "\u2581"
"""SentencePiece's sign for the space before a word."""


class SentencePieceTokens(Tokens):
    """The subword tokens of a SentencePiece model; id n of SentencePiece is token id n + 1.

    SentencePiece's unknown token keeps its id, but `encode` never returns it, and it decodes to nothing.
    """

    kind: ClassVar[Kind] = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        """Open a SentencePiece model.

        Args:
            model: Content of a `tokenizer.model`.

        Raises:
            ModelError: This is not a SentencePiece model.
        """
        self._model = model
        self._processor = processor = _open(model)
        ids = range(processor.get_piece_size())
        symbols = [processor.id_to_piece(id) for id in ids]
        self._unwritten = {symbols[id] for id in ids if processor.is_unknown(id) or processor.is_control(id)}
        super().__init__([BLANK, *symbols])
        for symbol in self._unwritten:
            del self._ids[symbol]

    @classmethod
    def build(cls, texts: Iterable[str], *, vocabulary_size: int = 500) -> Self:
        """Train SentencePiece's unigram model on texts, deterministically.

        Args:
            texts: Normalised training transcripts; empty ones are skipped.
            vocabulary_size: Number of tokens, SentencePiece's unknown token included, the blank excluded.

        Raises:
            CorpusError: There is no text, or it has characters that SentencePiece reserves.
            ConfigError: The texts support fewer tokens, or need more.
        """
        cleaned = list(clean_all(texts))
        tokens = cls(_train(cleaned, vocabulary_size))
        lacking = tokens.unknown(" ".join(sorted(set().union(*cleaned))))
        if lacking:
            raise CorpusError(f"SentencePiece reserves {name_symbols(lacking)}; remove it from the texts")
        return tokens

    def unknown(self, text: str) -> list[str]:
        """List the characters of normalised text that this model lacks, each once, sorted."""
        return sorted({character for part in self._split(clean(text)) if part not in self._ids for character in part})

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model`, and its tokens as `tokens.json` for people, into a model folder.

        Args:
            folder: The model folder; created if missing.

        Raises:
            ModelError: The folder cannot be written.
        """
        write_atomic(Path(folder) / SENTENCEPIECE_FILE, self._model, error=ModelError)
        super().save(folder)

    def _split(self, text: str) -> list[str]:
        # SentencePiece reads a word-start sign in the text as a space; doubled, it is a symbol that no model has.
        if WORD_START in text:
            return [*self._split(clean(text.replace(WORD_START, " "))), 2 * WORD_START]
        return self._processor.encode(text, out_type=str)

    def _spell(self, symbol: str) -> tuple[bool, str]:
        if symbol in self._unwritten:
            return False, ""
        return symbol.startswith(WORD_START), symbol.replace(WORD_START, "")

    def _is_symbol(self, symbol: str) -> bool:
        return bool(symbol)


def _open(model: bytes) -> Any:
    from sentencepiece import SentencePieceProcessor

    if not model:  # SentencePieceProcessor accepts an empty model and fails at first use
        raise ModelError(f"{SENTENCEPIECE_FILE} is empty")
    try:
        return SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{SENTENCEPIECE_FILE} is not a SentencePiece model") from error


def _train(texts: Sequence[str], vocabulary_size: int) -> bytes:
    """The trained model; each character of the texts is a token, and there are no control tokens."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocabulary_size,
            model_type="unigram",
            normalization_rule_name="identity",  # decoding must give the text that was encoded
            character_coverage=1.0,
            max_sentence_length=max(len(text.encode()) for text in texts) + 10,  # longer texts are silently skipped
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain_training(str(error), vocabulary_size) from error
    return model.getvalue()


def _explain_training(message: str, vocabulary_size: int) -> ConfigError | CorpusError:
    size = f"tokens.vocabulary_size {vocabulary_size}: these texts"
    if limit := re.search(r"too high.*<= (\d+)", message):
        return ConfigError(f"{size} support at most {limit[1]} tokens; set it to {limit[1]} or less, or use more text")
    if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ConfigError(f"{size} need at least {needed[1]} tokens, one per character; set it to {needed[1]} or more")
    return CorpusError(f"SentencePiece training failed on these texts: {' '.join(message.split())}")
