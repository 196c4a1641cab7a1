"""A pronunciation lexicon: first pronunciations, without ARPAbet's stress; a wrong line is named."""

import pytest

from speechrnn.errors import CorpusError
from speechrnn.text.phone_tokens import read_pronunciations


def test_the_first_pronunciation_counts_and_stress_does_not(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(";;; words\nABOUT\tAH0 B AW1 T\nA  AH0\nA  EY0\n\nneun  n OY1 n 2 AA3 a0\n", encoding="utf-8")
    assert read_pronunciations(path) == {
        "ABOUT": ["AH", "B", "AW", "T"],
        "A": ["AH"],
        "neun": ["n", "OY", "n", "2", "AA3", "a0"],  # what is no vowel of ARPAbet stays as it is
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A AH\nABOUT\n", r"lexicon.txt line 2: 'ABOUT' has no phones; expected WORD PHONE"),
        (";;; nothing\n\n", "no words in the lexicon"),
        ("A" * 10**6, r"lexicon.txt line 1: 'AAA.*… has no phones"),
        (None, "no such file; expected a lexicon, a word and its phones per line"),
    ],
)
def test_a_wrong_lexicon_is_one_line(tmp_path, content, message):
    path = tmp_path / "lexicon.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_pronunciations(path)
