"""Build tokens for training transcripts; read those of a model folder."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from speechrnn.atomic_io import read_bytes, read_json, read_text
from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.settings import shorten
from speechrnn.text.phone_tokens import LEXICON_FILE, PhoneTokens, read_pronunciations
from speechrnn.text.sentencepiece_tokens import SENTENCEPIECE_FILE, SentencePieceTokens
from speechrnn.text.tokens import (
    BLANK,
    TOKENS_FILE,
    CharacterTokens,
    Kind,
    Tokens,
    TokensConfig,
    WordTokens,
)


def build_tokens(config: TokensConfig, texts: Iterable[str], *, normalize: Callable[[str], str] = str) -> Tokens:
    """Build the tokens of training transcripts, deterministically.

    Args:
        config: Kind and number of tokens.
        texts: Normalised training transcripts; for characters and words their order does not matter.
        normalize: The model's text normalisation, for the words of a lexicon.

    Raises:
        CorpusError: There is no usable text, or a lexicon cannot be read.
        ConfigError: The texts do not support the vocabulary size, or the alphabet cannot be read.
    """
    if config.alphabet is not None:
        return CharacterTokens([BLANK, *read_alphabet(config.alphabet)])
    if config.lexicon is not None:
        return PhoneTokens.build(texts, read_pronunciations(config.lexicon), normalize=normalize)
    if config.kind == "sentencepiece":
        return SentencePieceTokens.build(texts, vocabulary_size=config.vocabulary_size)
    return CharacterTokens.build(texts) if config.kind == "characters" else WordTokens.build(texts)


def read_alphabet(path: str | Path) -> list[str]:
    """Read an ``alphabet.txt``.

    Args:
        path: One character per line, in UTF-8; lines that begin with ``#`` are comments, ``\\#`` stands for the
            character, and a line with a single blank for the space between words.

    Returns:
        The characters in Unicode NFC, in the file's order, without the CTC blank.

    Raises:
        ConfigError: The file cannot be read, is empty, or a line holds several characters or a repeated one.

    Source:
        The comments in alphabet.txt of DeepSpeech 0.9.
    """
    text = read_text(path, error=ConfigError, expected="an alphabet, one character per line (tokens.alphabet)")
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
        raise ConfigError(f"tokens.alphabet {path}: {repeated[0]!r} is repeated; remove one of them")
    if not symbols:
        raise ConfigError(f"tokens.alphabet {path}: has no characters; expected one per line")
    return symbols


def load_tokens(folder: str | Path) -> Tokens:
    """Read the tokens that `save` wrote into a model folder.

    Raises:
        ModelError: A file is missing or damaged, the blank is not at 0, or a symbol is repeated.
    """
    path = Path(folder) / TOKENS_FILE
    wanted = 'expected {"kind": …, "symbols": […]}; restore the file or export the model again'
    data = read_json(path, error=ModelError, expected="the symbols of a model")
    if not isinstance(data, dict) or data.get("kind") not in get_args(Kind):
        raise ModelError(f"{path}: no kind among {', '.join(get_args(Kind))}, {wanted}")
    kind, symbols = data["kind"], data.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ModelError(f"{path}: no list of symbols, {wanted}")
    try:
        if kind == "sentencepiece":
            model = read_bytes(Path(folder) / SENTENCEPIECE_FILE, error=ModelError, expected="the SentencePiece model")
            tokens: Tokens = SentencePieceTokens(model)
        elif kind == "phones":
            tokens = PhoneTokens(symbols, read_pronunciations(Path(folder) / LEXICON_FILE))
        else:
            tokens = CharacterTokens(symbols) if kind == "characters" else WordTokens(symbols)
    except (ModelError, CorpusError) as error:
        reason = str(error).removeprefix(f"{path.parent}/")
        raise ModelError(f"{path.parent}: {reason}; restore the file or export the model again") from error
    if tokens.symbols != symbols:
        raise ModelError(f"{path}: its symbols differ from {SENTENCEPIECE_FILE}; restore both from the same model")
    return tokens


def pack_tokens(tokens: Tokens) -> dict[str, bytes]:
    """The files that `save` writes, by name: tokens as plain data, for checkpoints."""
    with TemporaryDirectory() as folder:
        tokens.save(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def unpack_tokens(files: Mapping[str, bytes]) -> Tokens:
    """The tokens that `pack_tokens` packed."""
    with TemporaryDirectory() as folder:
        for name in files:
            (Path(folder) / name).write_bytes(files[name])
        return load_tokens(folder)
