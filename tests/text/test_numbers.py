"""Digits become the words that a speaker of the language says."""

import sys

import pytest

from speechrnn.errors import ConfigError
from speechrnn.text.normalize import TextConfig, _load_speller, normalize_text


def normalize(text, language="en", **settings):
    return normalize_text(text, TextConfig(numbers="words", language=language, **settings))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("I have 2 cats", "en", "i have two cats"),
        ("1,234 people", "en", "one thousand two hundred and thirty four people"),
        ("3.50 or 1,000,000.5", "en", "three point five or one million point five"),
        ("the 2nd and the 21ST", "en", "the second and the twenty first"),
        ("agent 007, room 0", "en", "agent zero zero seven room zero"),
        ("mp3, 4x4", "en", "mp three four x four"),
        ("1, 2, 3", "en", "one two three"),
        ("12,34", "en", "twelve thirty four"),
        ("1234567890123456", "en", "one two three four five six seven eight nine zero one two three four five six"),
        ("٣ and ३", "en", "three and three"),
        ("no digits", "en", "no digits"),
        ("21 Äpfel, 1.234,5 Liter", "de", "einundzwanzig äpfel eintausendzweihundertvierunddreißig komma fünf liter"),
        ("1.000.000", "de", "eine million"),
        ("die 2nd Base", "de", "die zwei nd base"),
        ("80 €", "fr", "quatre vingts"),
        ("2 pães", "pt-BR", "dois pães"),
        ("21 раз", "ru", "двадцать один раз"),
        ("3.5", "eo", "tri kvin"),  # whose separators are not known here
    ],
)
def test_numbers_are_spelled_out(text, language, expected):
    assert normalize(text, language) == expected


def test_spelled_numbers_follow_the_other_rules_and_are_stable():
    assert normalize("21 Cats!", case="upper", punctuation="keep") == "TWENTY-ONE CATS!"
    assert normalize("2,001 cats", punctuation="keep") == "two thousand and one cats"
    assert normalize("1,001,234", punctuation="keep") == "one million one thousand two hundred and thirty-four"
    for text in ("1,234.5", "the 3rd", "007"):
        assert normalize(normalize(text)) == normalize(text)


def test_numbers_are_kept_by_default():
    assert normalize_text("21 cats", TextConfig()) == "21 cats"


def test_spelling_numbers_needs_a_known_language():
    with pytest.raises(ConfigError, match="needs the language, as in text.language: en"):
        TextConfig(numbers="words")
    with pytest.raises(ConfigError, match="text.language 'tlh': not supported by num2words"):
        normalize("5", "tlh")
    assert normalize("none", "tlh") == "none"


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    _load_speller.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'speechrnn\[numbers\]'"):
        normalize("5", "fi")
    _load_speller.cache_clear()
