from __future__ import annotations

import json
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.text.sentencepiece_tokens import SENTENCEPIECE_FILE, SentencePieceTokens
from speechrnn.text.token_files import build_tokens, load_tokens
from speechrnn.text.tokens import (
    BLANK_ID,
    TOKENS_FILE,
    CharacterTokens,
    Tokens,
    TokensConfig,
    WordTokens,
)

WORDS = ["seven", "three", "oh", "one", "grüße", "don't", "三つ", "हिन्दी", "wasser", "kitchen", "kitten", "light"]
KINDS = ["characters", "words", "sentencepiece"]


def _texts() -> list[str]:
    rng = np.random.default_rng(3)
    return [*WORDS, *(" ".join(rng.choice(WORDS, size=rng.integers(1, 8))) for _ in range(120))]


def _build(kind: str) -> Tokens:
    return build_tokens(TokensConfig(kind=kind, vocabulary_size=40), _texts())  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=KINDS)
def tokens(request: pytest.FixtureRequest) -> Tokens:
    return _build(request.param)


@pytest.fixture(scope="module")
def subwords() -> Tokens:
    return _build("sentencepiece")


def test_text_is_restored_from_its_ids(tokens: Tokens) -> None:
    for text in _texts():
        ids = tokens.encode(text)
        assert tokens.decode(ids) == text
        assert all(BLANK_ID < token < len(tokens) for token in ids)


def test_blank_is_first_and_counted(tokens: Tokens) -> None:
    assert tokens.symbols[BLANK_ID] == "<blank>"
    assert len(tokens) == len(tokens.symbols) == len(set(tokens.symbols))


def test_unicode_form_and_white_space_do_not_matter(tokens: Tokens) -> None:
    decomposed = unicodedata.normalize("NFD", "grüße  one\t\nseven ")
    assert tokens.encode(decomposed) == tokens.encode("grüße one seven")
    assert tokens.unknown(decomposed) == []


def test_empty_text_has_no_tokens(tokens: Tokens) -> None:
    assert tokens.encode(" \n") == []
    assert tokens.decode([]) == ""
    assert tokens.words([]) == []


def test_blanks_are_skipped(tokens: Tokens) -> None:
    ids = tokens.encode("three one")
    with_blanks = [symbol for token in ids for symbol in (BLANK_ID, token)]
    assert tokens.decode(with_blanks) == "three one"


def test_words_of_any_ids_are_those_of_the_decoded_text(tokens: Tokens) -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        ids = rng.integers(len(tokens), size=rng.integers(1, 15)).tolist()
        spans = tokens.words(ids)
        assert [word for word, _, _ in spans] == tokens.decode(ids).split()
        ends = [position for _, first, last in spans for position in (first, last)]
        assert ends == sorted(ends)
        for word, first, last in spans:
            assert tokens.decode(ids[first : last + 1]) == word


def test_words_of_characters_lie_between_spaces() -> None:
    tokens = CharacterTokens(["<blank>", " ", "a", "b"])
    assert tokens.words([1, 2, 3, 1, 1, 3, 0, 2, 1]) == [("ab", 1, 2), ("ba", 5, 7)]


def test_word_tokens_are_the_words() -> None:
    tokens = WordTokens(["<blank>", "no", "yes"])
    assert tokens.words([2, 2, 0, 1]) == [("yes", 0, 0), ("yes", 1, 1), ("no", 3, 3)]


def test_words_of_subwords_begin_at_the_word_start_sign(subwords: Tokens) -> None:
    ids = [subwords.symbols.index(symbol) for symbol in ("▁", "▁seven", "▁", "s", "e", "▁one", "<unk>", "▁")]
    assert subwords.words(ids) == [("seven", 1, 1), ("se", 3, 4), ("one", 5, 5)]


def test_words_may_start_inside_a_word(subwords: Tokens) -> None:
    assert subwords.words([subwords.symbols.index("s"), subwords.symbols.index("e")]) == [("se", 0, 1)]


@pytest.mark.parametrize("wrong", [-1, 1000])
def test_id_of_another_model_is_refused(tokens: Tokens, wrong: int) -> None:
    with pytest.raises(ModelError, match=f"token id {wrong}: expected 0 to {len(tokens) - 1}"):
        tokens.decode([1, wrong])


@pytest.mark.parametrize("kind", ["characters", "sentencepiece"])
def test_unknown_characters_are_named_with_their_code_points(kind: str) -> None:
    tokens = _build(kind)
    text = "seven Жaж seven"
    assert tokens.unknown(text) == ["Ж", "ж"]
    with pytest.raises(CorpusError, match=r"'seven Жaж seven'.*'Ж' \(U\+0416\), 'ж' \(U\+0436\); normalise") as caught:
        tokens.encode(text)
    assert "\n" not in str(caught.value)


def test_unknown_words_are_named() -> None:
    tokens = WordTokens.build(["yes no"])
    assert tokens.unknown("yes maybe never maybe") == ["maybe", "never"]
    with pytest.raises(CorpusError, match="no token for 'maybe', 'never';"):
        tokens.encode("yes maybe never maybe")


def test_many_unknown_characters_are_counted_instead_of_listed() -> None:
    tokens = CharacterTokens.build(["a"])
    with pytest.raises(CorpusError, match=r"\(U\+4E04\) and 15 more;"):
        tokens.encode("".join(chr(0x4E00 + number) for number in range(20)))


@pytest.mark.parametrize("text", ["<blank>", "<unk>", "▁", "seven▁one", "seven <unk> ▁"])
def test_special_tokens_in_a_text_are_unknown_characters(subwords: Tokens, text: str) -> None:
    for tokens in (subwords, _build("words")):
        assert tokens.unknown(text)
        with pytest.raises(CorpusError):
            tokens.encode(text)
    assert ("▁" in subwords.unknown(text)) == ("▁" in text)


def test_text_spelled_like_the_unknown_token_is_unknown_characters() -> None:
    tokens = SentencePieceTokens.build(["三つ 三"], vocabulary_size=4)
    assert tokens.unknown("<unk> 三") == ["<", ">", "k", "n", "u"]


def test_characters_and_words_are_sorted_for_any_order_of_texts() -> None:
    assert CharacterTokens.build(["b a", "", "ä"]).symbols == ["<blank>", " ", "a", "b", "ä"]
    assert WordTokens.build(["yes no", "", "maybe"]).symbols == ["<blank>", "maybe", "no", "yes"]
    for kind in (CharacterTokens, WordTokens):
        assert kind.build(_texts()).symbols == kind.build(reversed(_texts())).symbols


def test_same_texts_give_the_same_subwords(subwords: Tokens, tmp_path: Path) -> None:
    subwords.save(tmp_path / "a")
    _build("sentencepiece").save(tmp_path / "b")
    for name in (TOKENS_FILE, SENTENCEPIECE_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_requested_number_of_subwords_shortens_the_text(subwords: Tokens) -> None:
    assert len(subwords) == 40 + 1
    assert len(subwords.encode("seven kitchen")) < len("seven kitchen")


def test_a_long_transcript_is_used_for_learning_tokens() -> None:
    tokens = SentencePieceTokens.build(["ab " * 3000 + "xyz"], vocabulary_size=7)
    assert tokens.unknown("xyz") == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_to_make_tokens_from_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="all transcripts are empty"):
        build_tokens(TokensConfig(kind=kind), texts)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_refused_before_it_is_written(kind: str) -> None:
    with pytest.raises(CorpusError, match=r"U\+D800"):
        build_tokens(TokensConfig(kind=kind), ["ab", "c\ud800"])  # type: ignore[arg-type]


def test_word_spelled_like_the_blank_is_refused() -> None:
    with pytest.raises(CorpusError, match="<blank>"):
        WordTokens.build(["yes <blank>"])


@pytest.mark.parametrize("character", ["▁", "▅"])
def test_character_that_sentencepiece_reserves_is_refused(character: str) -> None:
    with pytest.raises(CorpusError, match=rf"U\+{ord(character):04X}"):
        SentencePieceTokens.build([f"abc {character}", "abc ab", "bc ca"], vocabulary_size=6)


@pytest.mark.parametrize(("size", "message"), [(5000, r"at most \d+ tokens; set it to"), (4, r"at least \d+ tokens")])
def test_a_vocabulary_too_large_for_the_texts_names_the_largest_possible(size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"tokens\.vocabulary_size {size}: .*{message}"):
        SentencePieceTokens.build(_texts(), vocabulary_size=size)


@pytest.mark.parametrize("setting", [{"kind": "phones"}, {"vocabulary_size": 0}])
def test_impossible_setting_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"tokens\.{next(iter(setting))}"):
        TokensConfig(**setting)  # type: ignore[arg-type]


def test_saved_tokens_are_loaded_unchanged(tokens: Tokens, tmp_path: Path) -> None:
    tokens.save(tmp_path / "new" / "model")
    loaded = load_tokens(tmp_path / "new" / "model")
    assert type(loaded) is type(tokens)
    assert loaded.symbols == tokens.symbols
    assert [loaded.encode(text) for text in _texts()] == [tokens.encode(text) for text in _texts()]
    assert not list((tmp_path / "new" / "model").glob(".*"))


def test_tokens_pass_to_a_worker_process(tokens: Tokens) -> None:
    assert pickle.loads(pickle.dumps(tokens)).encode("seven one") == tokens.encode("seven one")


def test_tokens_file_is_readable(tmp_path: Path) -> None:
    CharacterTokens.build(["ü a"]).save(tmp_path)
    text = (tmp_path / TOKENS_FILE).read_text(encoding="utf-8")
    assert json.loads(text) == {"kind": "characters", "symbols": ["<blank>", " ", "a", "ü"]}
    assert "ü" in text


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    CharacterTokens.build(["ü a"]).save(tmp_path)
    path = tmp_path / TOKENS_FILE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokens(tmp_path).symbols == ["<blank>", " ", "a", "ü"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "tokens.json: cannot be read as JSON"),
        (b'{"kind": "characters", "symb', "tokens.json: cannot be read as JSON"),
        (b'{"kind": "characters", "symbols": ["<blank>", "\xff"]}', "tokens.json line 1: not UTF-8"),
        (b"[" * 100_000, "tokens.json: nested too deeply"),
        (b'{"kind": "words", "kind": "words", "symbols": ["<blank>", "a"]}', "key 'kind' is given twice"),
        (b'{"kind": "words", "symbols": ["<blank>", "' + b"a b" * 10**6 + b'"]}', "'a ba b.*…: not a valid symbol"),
        (b'{"kind": "words", "symbols": ["<blank>", "a\\u001b[31m"]}', r"'a\\x1b\[31m': not a valid symbol"),
        (
            b'{"kind": "characters", "symbols": ["<blank>", "\\u009b"]}',
            "not a valid symbol",
        ),
        (b'["<blank>", "a"]', "no kind"),
        (b'{"symbols": ["<blank>", "a"]}', "no kind"),
        (b'{"kind": "sounds", "symbols": ["<blank>", "a"]}', "no kind"),
        (b'{"kind": "phones", "symbols": ["<blank>", "a"]}', "lexicon.txt: no such file"),
        (b'{"kind": ["words"], "symbols": ["<blank>", "a"]}', "no kind"),
        (b'{"kind": "words"}', "no list of symbols"),
        (b'{"kind": "words", "symbols": ["<blank>", 1]}', "no list of symbols"),
        (b'{"kind": "words", "symbols": []}', "symbol 0: expected <blank>, got no symbols"),
        (b'{"kind": "words", "symbols": ["a", "<blank>"]}', r"symbol 0: expected <blank>, got 'a' \(U\+0061\)"),
        (b'{"kind": "words", "symbols": ["<blank>"]}', "no symbol except the blank"),
        (
            b'{"kind": "words", "symbols": ["<blank>", "a", "b", "a"]}',
            r"repeated symbols: 'a' \(U\+0061\); exp",
        ),
        (b'{"kind": "words", "symbols": ["<blank>", "a", "<blank>"]}', "repeated symbols: '<blank>'"),
        (b'{"kind": "words", "symbols": ["<blank>", "a b"]}', "'a b': not a valid symbol"),
        (b'{"kind": "words", "symbols": ["<blank>", ""]}', "'': not a valid symbol"),
        (b'{"kind": "characters", "symbols": ["<blank>", "ab"]}', "'ab': not a valid symbol"),
        (b'{"kind": "characters", "symbols": ["<blank>", "\\t"]}', r"\(U\+0009\): not a valid symbol"),
        (
            b'{"kind": "characters", "symbols": ["<blank>", "u\xcc\x88"]}',
            "not a valid symbol",
        ),
    ],
)
def test_damaged_tokens_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / TOKENS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_tokens(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_missing_file_is_named(subwords: Tokens, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokens\.json: no such file"):
        load_tokens(tmp_path)
    with pytest.raises(ModelError, match=r"tokens\.json: no such file"):
        load_tokens(tmp_path / "nowhere")
    subwords.save(tmp_path)
    (tmp_path / SENTENCEPIECE_FILE).unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.model: no such file"):
        load_tokens(tmp_path)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokens(tmp_path / "model")
    with pytest.raises(ModelError, match="cannot be written"):
        CharacterTokens.build(["a"]).save(tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 3, 200, -5])
def test_truncated_sentencepiece_model_is_refused(subwords: Tokens, tmp_path: Path, keep: int) -> None:
    subwords.save(tmp_path)
    path = tmp_path / SENTENCEPIECE_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tokenizer\.model is"):
        load_tokens(tmp_path)


def test_sentencepiece_model_of_other_tokens_is_refused(subwords: Tokens, tmp_path: Path) -> None:
    subwords.save(tmp_path)
    SentencePieceTokens.build(["other words here"], vocabulary_size=11).save(tmp_path / "other")
    (tmp_path / "other" / SENTENCEPIECE_FILE).replace(tmp_path / SENTENCEPIECE_FILE)
    with pytest.raises(ModelError, match="its symbols differ from"):
        load_tokens(tmp_path)


def test_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CharacterTokens.build(["a"]).save(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ModelError, match="No space left"):
        CharacterTokens.build(["b"]).save(tmp_path)
    assert load_tokens(tmp_path).symbols == ["<blank>", "a"]
    assert [path.name for path in tmp_path.iterdir()] == [TOKENS_FILE]


def test_characters_need_neither_sentencepiece_nor_scoring_libraries() -> None:
    code = (
        "import sys; from speechrnn.text import normalize, scores, tokens; tokens.CharacterTokens.build(['a']);"
        "sys.exit(bool({'sentencepiece', 'rapidfuzz', 'jiwer', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
