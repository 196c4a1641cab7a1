"""Numbers in digits spelled out in the words of a language."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from speechrnn.errors import ConfigError

_SPACES = "\u00a0\u202f"
_POINT = frozenset(["en", "he", "ja", "ko", "th", "zh"])
_COMMA = frozenset(["cs", "da", "de", "es", "fi", "fr", "hu", "id", "it", "lt", "lv", "nl", "no", "pl", "pt", "ro"])
_COMMA |= frozenset(["ru", "sk", "sl", "sr", "sv", "tr", "uk"])
"""Languages that write 1,000.5, and those that write 1.000,5; in others separators are not interpreted."""
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_MOST_DIGITS = 15


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
    spell = _load(language.replace("-", "_"))
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
def _load(language: str) -> Callable[..., str]:
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
