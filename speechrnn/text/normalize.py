"""Text normalisation: of training transcripts as configured, of scored text as a numbered version defines it.

Except for numbers in words, nothing here depends on the language: categories come from the Unicode database.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any, Literal

from speechrnn.errors import ConfigError
from speechrnn.settings import Settings

Case = Literal["lower", "upper", "keep"]
Punctuation = Literal["remove", "keep"]
Apostrophes = Literal["keep", "remove"]
Numbers = Literal["keep", "words"]

SCORING_VERSION = "1"
"""Version of `normalize_for_scoring`. Only error rates of the same version are comparable."""

_UNIFIED = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2039\u203a\u02bc\u0060\u00b4\u05f3\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u05f4\uff02", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
    }
)
_SPACES = "\u00a0\u202f"
_POINT = frozenset(["en", "he", "ja", "ko", "th", "zh"])
_COMMA = frozenset(["cs", "da", "de", "es", "fi", "fr", "hu", "id", "it", "lt", "lv", "nl", "no", "pl", "pt", "ro"])
_COMMA |= frozenset(["ru", "sk", "sl", "sr", "sv", "tr", "uk"])
"""Languages that write 1,000.5, and those that write 1.000,5; in others separators are not interpreted."""
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_MOST_DIGITS = 15
# The middle dot joins letters in Catalan ("col·lecció").
_WORD_JOINERS = "'\u00b7"


@dataclass(frozen=True)
class TextConfig(Settings, section="text"):
    """How training transcripts are normalised. The Unicode form is always NFC.

    Attributes:
        case: Convert to ``lower`` or ``upper`` case, or ``keep`` it.
        punctuation: Whether punctuation and symbols are removed or kept.
        apostrophes: Whether apostrophes within words are kept ("don't") or removed ("dont").
        numbers: Keep digits, or write numbers as ``words`` of the language (needs num2words, extra ``numbers``).
        language: Language tag, such as ``en`` or ``pt-BR``; used for numbers only.
        replacements: Replacements of letters that a model does not write, as in ``{"ä": "ae"}``: for fine-tuning with
            the symbols of another language.
    """

    case: Case = "lower"
    punctuation: Punctuation = "remove"
    apostrophes: Apostrophes = "keep"
    numbers: Numbers = "keep"
    language: str | None = None
    replacements: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.numbers == "words" and not self.language:
            raise ConfigError("text.numbers words: needs the language, as in text.language: en")
        for old, new in self.replacements.items():
            again = next((other for other in self.replacements if other and other in new), None)
            if not old or again is not None:
                wrong = "an empty text cannot be replaced" if not old else f"{again!r} would be replaced again"
                raise ConfigError(f"text.replacements {old!r}: {new!r}: {wrong}; choose other letters")


def normalize_text(text: str, config: TextConfig) -> str:
    """Normalise a training transcript; normalising the result again changes nothing.

    The order is: numbers in words, case, replacements, punctuation.

    Always: Unicode NFC; byte order marks, zero-width, variation-selector and control characters removed; typographic
    apostrophes, quotation marks and dashes replaced by ' " and -; white space, line ends included, made single spaces.

    With `punctuation="remove"`, letters, combining marks and numbers of any script stay. An apostrophe or middle dot
    stays between two of them ("don't"). Quotation marks and other apostrophes are deleted; every other punctuation mark
    or symbol becomes a space, so that it does not join two words ("twenty-one", "yes/no").
    """
    text = unicodedata.normalize("NFC", text)
    if config.numbers == "words":
        text = spell_numbers(text, config.language or "")
    text = _unify(_change_case(text, config.case))
    text = _replace(text, config.replacements)
    if config.apostrophes == "remove":
        text = text.replace("'", "")
    if config.punctuation == "remove":
        text = _remove_punctuation(text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def replace_letters(text: str, config: TextConfig) -> str:
    """Apply a model's letter replacements, if it has any, to a reference."""
    return _replace(_change_case(text, config.case), config.replacements) if config.replacements else text


def normalize_for_scoring(text: str) -> str:
    """Normalise a reference or a hypothesis for scoring, version `SCORING_VERSION`; idempotent.

    Version 1: Unicode NFKC with full case folding; then punctuation, symbols and white space as `normalize_text` does
    with `punctuation="remove"`. Numbers, abbreviations and spelling variants are not rewritten.

    Any change of what this returns, for any text, needs a new version.

    Source:
        The Unicode Standard, section 3.13, D146: compatibility caseless matching.
    """
    # Unified before NFKC too, which converts a free-standing acute to a space and a combining mark.
    text = unicodedata.normalize("NFKC", _unify(text)).casefold()
    text = _remove_punctuation(_unify(unicodedata.normalize("NFKC", text)))
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _change_case(text: str, case: Case) -> str:
    if case == "keep":
        return text
    return text.lower() if case == "lower" else text.upper()


def _replace(text: str, replacements: Mapping[str, str]) -> str:
    """Make all replacements in one pass, the longest first."""
    if not replacements:
        return text
    longest_first = sorted(replacements, key=len, reverse=True)
    pattern = "|".join(re.escape(old) for old in longest_first)
    return re.sub(pattern, lambda found: replacements[found[0]], unicodedata.normalize("NFC", text))


def _unify(text: str) -> str:
    return "".join(character for character in text.translate(_UNIFIED) if not _is_invisible(character))


@cache
def _is_invisible(character: str) -> bool:
    """Whether it is a control or format character, a lone surrogate or a variation selector."""
    if character.isspace():
        return False
    is_selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return is_selector or character == "\u034f" or unicodedata.category(character) in ("Cc", "Cf", "Cs")


@cache
def _kind(character: str) -> str:
    """First letter of the Unicode category: L letter, M mark, N number, others."""
    return unicodedata.category(character)[0]


def _remove_punctuation(text: str) -> str:
    kept: list[str] = []
    for character, following in zip(text, f"{text} "[1:], strict=True):
        kind = _kind(character)
        is_after_word = bool(kept) and _kind(kept[-1]) in "LMN"
        is_joiner = character in _WORD_JOINERS and is_after_word and _kind(following) in "LN"
        # A mark is removed with its base.
        if kind in "LN" or is_joiner or (kind == "M" and is_after_word):
            kept.append(character)
        elif kind != "M" and character not in "'\"":
            kept.append(" ")
    return "".join(kept)


def spell_numbers(text: str, language: str) -> str:
    """Write numbers, in digits of any script, as words.

    ``1,234.5`` is read as the language writes it (``1.234,5`` in German), English ordinals (``2nd``) too. Numbers that
    begin with a zero or have more than 15 digits are read digit by digit. Spaces separate a number from adjacent
    letters.

    Raises:
        ConfigError: num2words is not installed, or does not know the language.
    """
    if not any(character.isdecimal() for character in text):
        return text
    spell = _load_speller(language.replace("-", "_"))
    main = language.replace("_", "-").split("-")[0].lower()
    if main == "en":
        text = _ORDINAL.sub(lambda match: _ordinal(match[1], match[0], spell), text)
    if main in _POINT | _COMMA:
        group, point = (",", ".") if main in _POINT else (".", ",")
        grouped = rf"\d{{1,3}}(?:[{group}{_SPACES}]\d{{3}})+(?:[{point}]\d+)?(?!\d)"
        text = re.sub(rf"{grouped}|\d+[{point}]\d+", lambda match: _spell_written(match[0], group, point, spell), text)
    return _DIGITS.sub(lambda match: f" {_spell_digits(match[0], spell)} ", text)


def _ordinal(digits: str, written: str, spell: Callable[..., str]) -> str:
    return written if len(digits) > _MOST_DIGITS else f" {spell(int(digits), to='ordinal')} "


def _spell_written(written: str, group: str, point: str, spell: Callable[..., str]) -> str:
    plain = re.sub(f"[{group}{_SPACES}]", "", written).replace(point, ".")
    if sum(character.isdecimal() for character in plain) > _MOST_DIGITS:
        return written
    return f" {spell(Decimal(plain) if '.' in plain else int(plain))} "


def _spell_digits(digits: str, spell: Callable[..., str]) -> str:
    if len(digits) > _MOST_DIGITS or (len(digits) > 1 and int(digits[0]) == 0):
        return " ".join(spell(int(digit)) for digit in digits)
    return spell(int(digits))


@cache
def _load_speller(language: str) -> Callable[..., str]:
    try:
        from num2words import num2words
    except ImportError as error:
        raise ConfigError("text.numbers words: needs num2words: pip install 'speechrnn[numbers]'") from error

    def spell(number: int | Decimal, **options: Any) -> str:
        return num2words(number, lang=language, **options).replace(",", "")

    try:
        spell(1)
    except NotImplementedError as error:
        raise ConfigError(
            f"text.language {language!r}: not supported by num2words; write numbers as words in the transcripts"
        ) from error
    return spell
