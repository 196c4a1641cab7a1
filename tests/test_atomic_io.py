"""A file is written whole or not at all, and the old one survives a failure."""

import json

import pytest

from speechrnn.atomic_io import open_atomic, write_atomic, write_json, write_json_lines
from speechrnn.errors import CorpusError, SpeechRNNError


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_atomic(tmp_path / "a" / "b.txt", "ä\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä\n".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failure_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    write_atomic(tmp_path / "old.txt", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(CorpusError, match="old.txt: cannot be written .No space left on device"):
        write_atomic(tmp_path / "old.txt", "new", error=CorpusError)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_place_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpeechRNNError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below.txt", "x")


def test_json_reads_back(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": [1, None]}
    write_json_lines(tmp_path / "a.jsonl", [{"n": 1}, {"n": 2}])
    assert [json.loads(line)["n"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [1, 2]


def test_what_breaks_off_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_atomic(tmp_path / "a.txt", "old")

    def break_off():
        with open_atomic(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyError("whatever")

    with pytest.raises(KeyError):
        break_off()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
