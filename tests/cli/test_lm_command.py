"""``speechrnn lm``: what it writes, and one line for every slip."""

import io

import pytest

from speechrnn.cli.arguments import _parse_hotwords
from speechrnn.cli.main import main
from speechrnn.errors import ConfigError
from speechrnn.language.ngram import END, read_arpa


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Seven, three.\nseven THREE one\n\nIt's one!\n" * 5, encoding="utf-8")
    return path


def test_a_model_is_built_from_text_as_models_write_it(text, tmp_path, capsys):
    assert main(["lm", "build", str(text), "--order", "3", "-o", str(tmp_path / "lm.arpa")]) == 0
    model = read_arpa(tmp_path / "lm.arpa")
    assert model.order == 3
    assert set(model.vocabulary) == {"<s>", END, "<unk>", "seven", "three", "one", "it's"}
    assert model.log_prob("three", ["seven"]) > model.log_prob("one", ["seven"])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'lm.arpa'}: 7 1-grams, ")


def test_characters_several_files_and_standard_input(text, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("zero\n"))
    output = tmp_path / "lm.arpa.gz"
    assert main(["lm", "build", str(text), "-", "--tokens", "characters", "--case", "upper", "-o", str(output)]) == 0
    model = read_arpa(output)
    assert {"S", "<space>", "Z", "'"} <= set(model.vocabulary)
    assert model.log_prob("H", ["T"]) > model.log_prob("H", ["S"])


def test_pruning_and_a_smaller_vocabulary(text, tmp_path):
    output = str(tmp_path / "lm.arpa")
    assert main(["lm", "build", str(text), "--vocabulary", "2", "--prune", "0", "6", "-o", output]) == 0
    model = read_arpa(output)
    assert len(model.vocabulary) == 5
    assert ("seven", "three") in model.tables[1]
    assert ("three", "one") not in model.tables[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "gone.txt", "-o", "a.arpa"], "gone.txt: the text cannot be read"),
        (["build", "TEXT", "-o", "a.lm"], "expected a name that ends in .arpa"),
        (["build", "TEXT", "--order", "0", "-o", "a.arpa"], "order: expected 1 or more"),
        (["build", "TEXT", "--prune", "3", "-o", "a.arpa"], "none for unigrams"),
        (["build", "empty.txt", "-o", "a.arpa"], "expected sentences, found none"),
        (["build", "latin.txt", "-o", "a.arpa"], "latin.txt: not UTF-8 at byte"),
        (["build", "TEXT"], "--output"),
        (["tune"], "tune"),
    ],
)
def test_slips_end_with_one_line_and_exit_code_2(text, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes("Grüße\n".encode("latin-1"))
    assert main(["lm", *(str(text) if part == "TEXT" else part for part in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.arpa"))


def test_a_model_that_opens_at_once_is_written_by_its_ending(text, tmp_path):
    from speechrnn.language.compiled import read_language_model

    for name in ("lm.arpa", "lm.bin"):
        assert main(["lm", "build", str(text), "-o", str(tmp_path / name)]) == 0
    arpa, compiled = (read_language_model(tmp_path / name) for name in ("lm.arpa", "lm.bin"))
    assert compiled.score(["seven", "one"]) == pytest.approx(arpa.score(["seven", "one"]), abs=1e-4)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, {}),
        ("cuDNN:8, New York", {"cuDNN": 8.0, "New York": 6.0}),
        ("a:-1.5", {"a": -1.5}),
        ("a:b:2", {"a:b": 2.0}),
    ],
)
def test_hotwords_are_phrases_with_or_without_a_bonus(written, expected):
    assert _parse_hotwords(written) == expected


@pytest.mark.parametrize(
    ("written", "message"), [("a,,b", "with commas between"), ("a:much", "got 'much'"), ("", "as in")]
)
def test_hotwords_that_are_none_are_named(written, message):
    with pytest.raises(ConfigError, match=message):
        _parse_hotwords(written)
