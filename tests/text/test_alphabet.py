"""alphabet.txt of DeepSpeech and Coqui STT as a token list."""

import pytest

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.text.token_files import build_tokens, read_alphabet
from speechrnn.text.tokens import TokensConfig

PUBLISHED = "# Each line is a label.\n# A # is written \\#.\n \na\nb\n\\#\n'\ne\u0301\n# The last line.\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_comments_escapes_and_the_space_are_understood(tmp_path, ending):
    path = tmp_path / "alphabet.txt"
    path.write_bytes(("\ufeff" + PUBLISHED.replace("\n", ending)).encode())
    assert read_alphabet(path) == [" ", "a", "b", "#", "'", "é"]


def test_a_model_has_exactly_these_characters(tmp_path):
    path = tmp_path / "alphabet.txt"
    path.write_text(PUBLISHED, encoding="utf-8")
    tokens = build_tokens(TokensConfig(alphabet=str(path)), ["a c"])
    assert tokens.symbols == ["<blank>", " ", "a", "b", "#", "'", "é"]
    assert tokens.decode(tokens.encode("ab é")) == "ab é"
    with pytest.raises(CorpusError, match="'c'"):
        tokens.encode("a c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nab\n", "line 2: expected one character, got 'ab'"),
        ("a\nb\na\n", "'a' is repeated"),
        ("# nothing\n", "has no characters"),
    ],
)
def test_an_invalid_alphabet_is_named(tmp_path, text, message):
    path = tmp_path / "alphabet.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_alphabet(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="gone.txt: no such file; expected an alphabet"):
        read_alphabet(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes("ü\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.txt line 1: not UTF-8 \(byte 0xfc\)"):
        read_alphabet(tmp_path / "latin.txt")


@pytest.mark.timeout(10)
def test_a_device_and_an_extremely_long_line_are_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="/dev/zero: is not a regular file; expected an alphabet"):
        build_tokens(TokensConfig(alphabet="/dev/zero"), ["a"])
    (tmp_path / "long.txt").write_text("x" * 10_000_000)
    with pytest.raises(ConfigError, match="long.txt line 1: expected one character, got 'xxx") as caught:
        read_alphabet(tmp_path / "long.txt")
    assert len(str(caught.value)) < 500


def test_only_characters_have_an_alphabet():
    with pytest.raises(ConfigError, match="requires tokens.kind characters, got words"):
        TokensConfig(kind="words", alphabet="alphabet.txt")
