from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from speechrnn.errors import ConfigError
from speechrnn.text.normalize import (
    SCORING_VERSION,
    TextConfig,
    normalize_for_scoring,
    normalize_text,
    replace_letters,
)

# What is likely to break a normaliser, and what must survive one.
AWKWARD = (
    "aZßŉİςΣéK"  # letters whose case mappings grow or depend on neighbours
    "\u0301\u0308\u0323\u0345"  # combining marks
    "กิक्षी한글가三あーアة٣½²①ﬁ"  # other scripts, compatibility forms
    "'’‘ʼ`´′\"“«-–—−.,…!·・/&+€♪"
    " \t\r\n\u00a0\u3000\u200b\u200d\ufeff\u00ad\ufe0f\u0000\ud800"
)


def _random_texts(count: int, length: int) -> list[str]:
    rng = np.random.default_rng(7)
    return ["".join(rng.choice(list(AWKWARD), size=length)) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t  STOP", "don't stop"),
        ("\ufeffhello\r\nworld\r", "hello world"),
        ("zero\u200bwidth\u2060 soft\u00adhyphen", "zerowidth softhyphen"),
        ("twenty-one — or 22?", "twenty one or 22"),
        ("yes/no, and...so on", "yes no and so on"),
        ("“Quoted” ‘single’ «guillemets»", "quoted single guillemets"),
        ("rock 'n' roll, the dogs' bones, rock’n’roll", "rock n roll the dogs bones rock'n'roll"),
        ("l`eau, it´s, м’ята, мʼята", "l'eau it's м'ята м'ята"),
        ("col·lecció · nova", "col·lecció nova"),
        ("GRU\u0308SSE Stra\u00dfe", "grüsse straße"),
        ("हिन्दी में। ", "हिन्दी में"),
        ("今日は、三つ。", "今日は 三つ"),
        ("שָׁלוֹם צה״ל", "שָׁלוֹם צהל"),
        ("l\u1fefeau 葛\U000e0100", "l'eau 葛"),
        ("é♪\ufe0f 5 € *\u0308", "é 5"),
        ("...", ""),
        ("", ""),
    ],
)
def test_training_text_keeps_only_what_is_spoken(text: str, expected: str) -> None:
    assert normalize_text(text, TextConfig()) == unicodedata.normalize("NFC", expected)


def test_case_is_lowered_raised_or_kept() -> None:
    assert normalize_text("Größe Ab", TextConfig(case="upper")) == "GRÖSSE AB"
    assert normalize_text("Größe Ab", TextConfig(case="lower")) == "größe ab"
    assert normalize_text("Größe Ab", TextConfig(case="keep")) == "Größe Ab"


def test_apostrophes_within_words_are_kept_or_removed() -> None:
    assert normalize_text("Don’t, 'no'", TextConfig()) == "don't no"
    assert normalize_text("Don’t, 'no'", TextConfig(apostrophes="remove")) == "dont no"
    assert normalize_text("Don’t", TextConfig(apostrophes="remove", punctuation="keep", case="keep")) == "Dont"
    with pytest.raises(ConfigError, match="text.apostrophes: expected one of keep, remove, got 'split'"):
        TextConfig(apostrophes="split")  # type: ignore[arg-type]


def test_kept_punctuation_is_unified_but_not_removed() -> None:
    config = TextConfig(case="keep", punctuation="keep")
    assert normalize_text("\ufeff“Don’t,”\u200b she – said…\r\n", config) == '"Don\'t," she - said…'


@pytest.mark.parametrize("case", ["lower", "upper", "keep"])
@pytest.mark.parametrize("punctuation", ["remove", "keep"])
def test_normalising_again_changes_nothing(case: str, punctuation: str) -> None:
    config = TextConfig(case=case, punctuation=punctuation)  # type: ignore[arg-type]
    for text in _random_texts(1500, 12):
        once = normalize_text(text, config)
        assert normalize_text(once, config) == once
        assert unicodedata.is_normalized("NFC", once)


def test_scoring_again_changes_nothing_and_holds_no_punctuation() -> None:
    for text in _random_texts(1500, 12):
        once = normalize_for_scoring(text)
        assert normalize_for_scoring(once) == once
        assert all(unicodedata.category(character)[0] in "LMN" or character in "'· " for character in once)


def test_scoring_form_does_not_depend_on_the_unicode_form() -> None:
    for text in _random_texts(500, 12):
        clean = "".join(character for character in text if character not in "´`")
        assert normalize_for_scoring(unicodedata.normalize("NFD", clean)) == normalize_for_scoring(clean)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t  STOP!", "don't stop"),
        ("Straße STRASSE", "strasse strasse"),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ"),
        ("ﬁne ｗｉｄｅ ①", "fine wide 1"),
        ("twenty-one—two/three", "twenty one two three"),
        ("it´s", "it's"),
        ("3.14 U.S.", "3 14 u s"),
        ("GRU\u0308N", "grün"),
        ("[noise] <unk> 50 %", "noise unk 50"),
        ("हिन्दी, 한글", "हिन्दी 한글"),
    ],
)
def test_scoring_version_1_is_unchanged(text: str, expected: str) -> None:
    # An expectation that has to change here asks for a new SCORING_VERSION.
    assert SCORING_VERSION == "1"
    assert normalize_for_scoring(text) == expected


@pytest.mark.parametrize("setting", [{"case": "title"}, {"punctuation": "some"}])
def test_impossible_setting_is_refused_by_name(setting: dict[str, str]) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(ConfigError, match=rf"text\.{name}: expected one of .*, got '{value}'"):
        TextConfig(**setting)  # type: ignore[arg-type]


GERMAN = {"ä": "ae", "ß": "ss", "sch": "sh"}


@pytest.mark.parametrize(
    ("text", "expected"), [("Gr\u00e4\u00dflich", "graesslich"), ("A\u0308sche!", "aeshe"), ("SCHACH", "shach")]
)
def test_replacements_map_letters_that_a_model_lacks(text: str, expected: str) -> None:
    assert normalize_text(text, TextConfig(replacements=GERMAN)) == expected


def test_the_longest_replacement_comes_first() -> None:
    assert normalize_text("schach", TextConfig(replacements={"ch": "x", "sch": "y"})) == "yax"


@pytest.mark.parametrize("text", _random_texts(50, 30))
def test_replacing_again_changes_nothing(text: str) -> None:
    config = TextConfig(replacements={"ß": "ss", "é": "e", "一": ""})
    once = normalize_text(text, config)
    assert normalize_text(once, config) == once


def test_references_use_the_letters_of_the_model() -> None:
    assert replace_letters("Straße", TextConfig(replacements=GERMAN)) == "strasse"
    assert replace_letters("Straße", TextConfig()) == "Straße"


@pytest.mark.parametrize(
    ("replacements", "message"),
    [({"a": "aa"}, "'a' would be replaced again"), ({"": "b"}, "an empty text cannot")],
)
def test_circular_replacements_are_refused(replacements: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextConfig(replacements=replacements)
