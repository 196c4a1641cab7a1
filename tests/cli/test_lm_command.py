"""``speechrnn lm``: what it writes, and one line for every slip."""

import io
from dataclasses import replace

import pytest
from ngram_tables import list_known

from speechrnn.cli.arguments import _parse_hotwords
from speechrnn.cli.main import main
from speechrnn.decoding.fusion import find_unit
from speechrnn.errors import ConfigError
from speechrnn.language.arpa import read_arpa
from speechrnn.language.compiled import read_language_model
from speechrnn.language.ngram import END
from speechrnn.model_folder import save_model
from speechrnn.text.normalize import TextConfig
from speechrnn.text.sentencepiece_tokens import SentencePieceTokens


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Seven, three.\nseven THREE one\n\nIt's one!\n" * 5, encoding="utf-8")
    return path


def test_a_language_model_is_built_from_normalised_text(text, tmp_path, capsys):
    assert main(["lm", "build", str(text), "--order", "3", "-o", str(tmp_path / "lm.arpa")]) == 0
    model = read_arpa(tmp_path / "lm.arpa")
    assert model.order == 3
    assert set(model.words) == {"<s>", END, "<unk>", "seven", "three", "one", "it's"}
    assert model.log_prob("three", ["seven"]) > model.log_prob("one", ["seven"])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'lm.arpa'}: 7 1-grams, ")


def test_characters_several_files_and_standard_input(text, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("zero\n"))
    output = tmp_path / "lm.arpa.gz"
    assert main(["lm", "build", str(text), "-", "--tokens", "characters", "--case", "upper", "-o", str(output)]) == 0
    model = read_arpa(output)
    assert {"S", "<space>", "Z", "'"} <= set(model.words)
    assert model.log_prob("H", ["T"]) > model.log_prob("H", ["S"])


def test_pruning_and_a_smaller_vocabulary(text, tmp_path):
    output = str(tmp_path / "lm.arpa")
    assert main(["lm", "build", str(text), "--vocabulary", "2", "--prune", "0", "6", "-o", output]) == 0
    model = read_arpa(output)
    assert len(model.words) == 5
    assert ("seven", "three") in list_known(model, 2)
    assert ("three", "one") not in list_known(model, 2)


def test_text_is_tokenised_and_normalised_as_by_a_model(make_tiny_model, text, tmp_path, capsys):
    tokens = SentencePieceTokens.build(["SEVEN THREE", "SEVEN THREE ONE", "ITS ONE"] * 5, vocabulary_size=13)
    model = replace(make_tiny_model(tokens=tokens), text=TextConfig(case="upper", apostrophes="remove"))
    save_model(tmp_path / "model", model)
    output = tmp_path / "tokens.bin"
    assert main(["lm", "build", str(text), "--tokens", "model", "-m", str(tmp_path / "model"), "-o", str(output)]) == 0
    built = read_language_model(output)
    assert find_unit(built, tokens.symbols) == "tokens"
    assert set(built.words) - {"<s>", END, "<unk>"} == {
        tokens.symbols[token] for line in ("SEVEN THREE", "SEVEN THREE ONE", "ITS ONE") for token in tokens.encode(line)
    }
    capsys.readouterr()

    (tmp_path / "other.txt").write_text("seven\nq3\nseven one\n")
    arguments = ["lm", "build", str(tmp_path / "other.txt"), "--tokens", "model", "-m", str(tmp_path / "model")]
    assert main([*arguments, "-o", str(output)]) == 1
    assert "1 lines left out: the model has no token for them; the first: 'Q3' (no '3')" in (capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["build", "TEXT", "--tokens", "model", "-o", "a.arpa"],
            "--tokens model: needs the model, with -m MODEL",
        ),
        (["build", "TEXT", "-m", "gone", "-o", "a.arpa"], "gone"),
        (["build", "/dev/zero", "-o", "a.arpa"], "/dev/zero: expected one sentence per line, found a line above"),
        (["build", "gone.txt", "-o", "a.arpa"], "gone.txt: the text cannot be read"),
        (["build", "TEXT", "-o", "a.lm"], "expected a name with .arpa"),
        (["build", "TEXT", "--order", "0", "-o", "a.arpa"], "order: expected 1 or more"),
        (["build", "TEXT", "--prune", "3", "-o", "a.arpa"], "none for unigrams"),
        (["build", "empty.txt", "-o", "a.arpa"], "expected sentences, found none"),
        (["build", "latin.txt", "-o", "a.arpa"], "latin.txt: not UTF-8 at byte"),
        (["build", "TEXT"], "--output"),
        (["tune"], "--language-model"),
        (["mix"], "lm mix: expected one of the commands lm build, lm tune"),
    ],
)
def test_errors_end_with_one_line_and_exit_code_2(text, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes("Grüße\n".encode("latin-1"))
    assert main(["lm", *(str(text) if part == "TEXT" else part for part in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.arpa"))


def test_the_binary_format_is_chosen_by_the_file_name(text, tmp_path):
    from speechrnn.decoding.kernels import query

    def ask(model):
        """The natural log of the probability of seven, and then of one."""
        state, log_probs = model.begin_state, []
        for word in ("seven", "one"):
            log_prob, state = query(model.arrays, len(model.words), state, model.word_ids[word])
            log_probs.append(log_prob)
        return log_probs

    for name in ("lm.arpa", "lm.bin"):
        assert main(["lm", "build", str(text), "-o", str(tmp_path / name)]) == 0
    arpa, compiled = (read_language_model(tmp_path / name) for name in ("lm.arpa", "lm.bin"))
    assert ask(compiled) == pytest.approx(ask(arpa), abs=1e-4)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("cuDNN:8, New York", {"cuDNN": 8.0, "New York": 6.0}),
        ("a:-1.5", {"a": -1.5}),
        ("a:b:2", {"a:b": 2.0}),
    ],
)
def test_hotwords_are_phrases_with_or_without_a_bonus(written, expected):
    assert _parse_hotwords(written) == expected


@pytest.mark.parametrize(
    ("written", "message"), [("a,,b", "separated by commas"), ("a:much", "got 'much'"), ("", "as in")]
)
def test_invalid_hotwords_are_named(written, message):
    with pytest.raises(ConfigError, match=message):
        _parse_hotwords(written)
