"""``speechrnn lm``: what it writes, and one line for every slip."""

import io

import pytest

from speechrnn.cli.main import main
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
        (["build", "TEXT", "-o", "a.bin"], "expected a name that ends in .arpa"),
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
