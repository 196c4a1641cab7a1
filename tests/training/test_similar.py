"""Which known letter a new one begins as."""

import pytest

from speechrnn.training.start import find_similar

ENGLISH = set("abcdefghijklmnopqrstuvwxyz' ")


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("ä", "a"),
        ("ß", "s"),
        ("é", "e"),
        ("ø", "o"),
        ("æ", "a"),
        ("œ", "o"),
        ("ł", "l"),
        ("ñ", "n"),
        ("Ä", "a"),
        ("K", "k"),
    ],
)
def test_a_letter_starts_near_its_base_letter(symbol, expected):
    assert find_similar(symbol, ENGLISH) == expected


@pytest.mark.parametrize("symbol", ["ж", "あ", "1", "-", "ŋ", "a"])
def test_a_letter_without_a_known_base_has_no_similar_one(symbol):
    assert find_similar(symbol, ENGLISH) is None


def test_letters_of_other_scripts_and_cases_have_base_letters():
    assert find_similar("ё", set("абвгдежз")) == "е"
    assert find_similar("É", {"é", "E"}) == "é"  # the same letter before the one without its mark
    assert find_similar("a", {"A"}) == "A"
