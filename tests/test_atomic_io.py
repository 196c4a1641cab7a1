"""Writes are atomic; text, JSON and YAML files of users are read within limits."""

import json
import os

import pytest

from speechrnn.atomic_io import (
    open_atomic,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    write_atomic,
    write_json,
    write_json_lines,
)
from speechrnn.errors import ConfigError, CorpusError, SpeechRNNError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 10)
)


pytestmark = pytest.mark.timeout(10)


def test_text_loses_its_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfna\xc3\xafve\r\n")
    assert read_text(tmp_path / "a.txt") == "naïve\r\n"


def test_files_that_are_not_regular_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        ("/dev/zero", "/dev/zero: is not a regular file; expected an alphabet"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path, "is a folder"),
        (tmp_path / "gone", "no such file"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        ("a\0b", "cannot be read"),
        (tmp_path / "pipe" / "below", "cannot be read"),
    ]:
        with pytest.raises(CorpusError) as caught:
            read_bytes(path, error=CorpusError, expected="an alphabet")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_size_limit_holds_to_the_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 1024)
    assert len(read_text(tmp_path / "a.txt", largest=1024)) == 1024
    with pytest.raises(SpeechRNNError, match=r"a.txt: more than .* MiB; expected a text file$"):
        read_text(tmp_path / "a.txt", largest=1023)


def test_a_line_that_is_not_utf_8_is_reported(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\xff\n")
    with pytest.raises(SpeechRNNError, match=r"a.txt line 2: not UTF-8 \(byte 0xff\)"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 1_000_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("{", "cannot be read as JSON"),
        ('{"a": 1, "b": {"c": 2, "c": 3}}', "key 'c' is given twice"),
        ("9" * 5000, "cannot be read as JSON"),
    ],
)
def test_malicious_json_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_json(tmp_path / "a.json", error=ConfigError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "more than 100,000 values, counting each use of an alias"),
        (MERGE_BOMB, "more than 100,000 values"),
        ("a: &a [*a]", "nested too deeply or recursively"),
        ("a: &a {b: *a}", "nested too deeply or recursively"),
        ("[" * 500_000, "nested too deeply"),
        ("[1, " * 200_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        ("".join(" " * level + "a:\n" for level in range(1000)), "nested too deeply"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml line 3: a is given twice"),
        ("a:\n  b: 1\n  b: 1\n", "a.yaml line 3: b is given twice"),
        ("{[1]: 2}", "a.yaml line 1: expected a name before the colon"),
        ("{a: 1", "a.yaml line 1: cannot be read as YAML (expected ',' or '}'"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("a: \x07", "cannot be read as YAML"),
        ("a: " + "9" * 5000, "cannot be read as YAML"),
        ("a: *b", "cannot be read as YAML (found undefined alias"),
        ("a" * 2_000_000, "more than 1 MiB"),
    ],
)
def test_malicious_yaml_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ordinary_documents_are_read():
    text = "{a: 1e-3, b: 2020-01-01, c: [1, 2.5, 12e03, .inf, -.5], d: 'x', e: , f: true, g: 32-true, h: 00:01:00:00}"
    values = {"a": 1e-3, "b": "2020-01-01", "c": [1, 2.5, 12e3, float("inf"), -0.5], "d": "x", "e": None, "f": True}
    assert parse_yaml(text, where="here") == {**values, "g": "32-true", "h": "00:01:00:00"}
    assert parse_yaml("a: &a {k: 1}\nb: {<<: *a, z: 2}\nc: *a", where="here")["b"] == {"k": 1, "z": 2}
    assert parse_yaml("# nothing\n", where="here") is None
    assert parse_json('{"a": [1, null]}', where="here") == {"a": [1, None]}


def test_64_levels_are_read_and_65_are_not():
    assert parse_yaml("[" * 63 + "]" * 63, where="here")
    with pytest.raises(ConfigError, match="at most 64 levels"):
        parse_yaml("[" * 65 + "]" * 65, where="here")


def test_folders_are_made_and_no_temporary_files_remain(tmp_path):
    write_atomic(tmp_path / "a" / "b.txt", "ä\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä\n".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failure_leaves_only_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "old.txt", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(CorpusError, match="old.txt: cannot be written .No space left on device"):
        write_atomic(tmp_path / "old.txt", "new", error=CorpusError)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_impossible_path_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpeechRNNError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below.txt", "x")


def test_written_json_is_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": [1, None]}
    write_json_lines(tmp_path / "a.jsonl", [{"n": 1}, {"n": 2}])
    assert [json.loads(line)["n"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [1, 2]


def test_an_interrupted_write_leaves_only_the_old_file(tmp_path):
    write_atomic(tmp_path / "a.txt", "old")

    def break_off():
        with open_atomic(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyError("whatever")

    with pytest.raises(KeyError):
        break_off()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
