"""Lines are read one at a time, and what is wrong with a file is said where it stands."""

import codecs

import pytest

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.table import read_table
from speechrnn.errors import CorpusError


def test_lines_end_at_line_feeds_alone_and_keep_their_numbers(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(codecs.BOM_UTF8 + "one\r\n\n \t\nz\u2028w\u0085ö\rlf\nlast".encode())
    assert list(read_lines(path, kind="file")) == [(1, "one\r"), (4, "z\u2028w\u0085ö\rlf"), (5, "last")]
    path.write_bytes(codecs.BOM_UTF8)
    assert list(read_lines(path, kind="file")) == []


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_the_position_of_an_invalid_byte_is_counted_from_the_start_of_the_file(tmp_path, mark):
    path = tmp_path / "x.txt"
    path.write_bytes(mark + "ö\n".encode() + b"ab\xe9\n")
    lines = read_lines(path, kind="manifest")
    assert next(lines) == (1, "ö")
    with pytest.raises(CorpusError, match=rf"x\.txt: not UTF-8 at byte {len(mark) + 5}; save the manifest as UTF-8"):
        next(lines)
    path.write_bytes(mark + b"ab\xe9\n")
    with pytest.raises(CorpusError, match=f"not UTF-8 at byte {len(mark) + 2};"):
        list(read_lines(path, kind="manifest"))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(CorpusError, match="no such table; check the path"):
        list(read_lines(tmp_path / "gone", kind="table"))
    with pytest.raises(CorpusError, match="the table cannot be read"):
        list(read_lines(tmp_path, kind="table"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_may_have_the_line_ends_of_any_system(tmp_path, end):
    path = tmp_path / "t.csv"
    path.write_bytes(f'path,text{end}a.wav,"one, two"{end}b.wav,three{end}'.encode())
    assert [(each.id, each.text) for each in read_table(path)] == [("a", "one, two"), ("b", "three")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_not_closed_makes_no_long_text(tmp_path, end):
    """Three rows became one utterance, and nothing was said."""
    path = tmp_path / "t.csv"
    path.write_bytes(f'path,text{end}a.wav,one{end}b.wav,"two{end}c.wav,three{end}d.wav,"four{end}'.encode())
    with pytest.raises(CorpusError, match=r"t\.csv line 3: a value continues on the next line; close the quote"):
        list(read_table(path))
