import json
import os
from pathlib import Path

import pytest

from speechrnn.corpus.manifest import read_manifest, write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

GOOD = {"audio_filepath": "a.wav", "duration": 1.5, "text": "seven"}


@pytest.fixture
def write(tmp_path):
    def write_lines(*lines: object) -> Path:
        path = tmp_path / "train.jsonl"
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")
        return path

    return write_lines


def test_paths_are_relative_to_the_folder_of_the_manifest(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"audio_filepath": "audio/x.wav", "duration": 2, "text": "one two", '
        '"id": "u1", "speaker": "ann", "offset": 3.5}\n'
    )
    expected = Utterance("u1", tmp_path / "audio" / "x.wav", "one two", seconds=2.0, start=3.5, speaker="ann")
    assert read_manifest(path) == [expected]


def test_paths_are_absolute_when_the_manifest_is_named_relatively(write, tmp_path, monkeypatch):
    write(GOOD)
    monkeypatch.chdir(tmp_path)
    assert read_manifest("train.jsonl")[0].audio_path == tmp_path / "a.wav"


def test_absolute_audio_paths_stay(write):
    assert read_manifest(write({**GOOD, "audio_filepath": "/far/a.wav"}))[0].audio_path == Path("/far/a.wav")


def test_byte_order_mark_crlf_and_blank_lines_change_nothing(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(GOOD), json.dumps({**GOOD, "audio_filepath": "b.wav", "text": "zwölf"}, ensure_ascii=False)]
    path.write_bytes(b"\xef\xbb\xbf" + f"\r\n{lines[0]}\r\n \r\n\r\n{lines[1]}".encode())
    assert [(entry.id, entry.text) for entry in read_manifest(path)] == [("a", "seven"), ("b", "zwölf")]


def test_unicode_line_separators_inside_a_text_do_not_break_the_line(write):
    text = "one\u2028two\u0085three"
    assert read_manifest(write(json.dumps({**GOOD, "text": text}, ensure_ascii=False)))[0].text == text


def test_null_means_absent_in_optional_fields_as_in_nemo(write):
    entry = read_manifest(write({**GOOD, "offset": None, "speaker": None, "id": None}))[0]
    assert (entry.id, entry.start, entry.speaker) == ("a", 0.0, None)


def test_whole_numbers_serve_as_speaker_and_id(write):
    entry = read_manifest(write({**GOOD, "speaker": 7, "id": 12}))[0]
    assert (entry.speaker, entry.id) == ("7", "12")


def test_empty_text_is_read(write):
    assert read_manifest(write({**GOOD, "text": ""}))[0].text == ""


def test_ids_come_from_stems_and_offsets(write):
    path = write(GOOD, {**GOOD, "offset": 0}, {**GOOD, "offset": 12.25}, {**GOOD, "audio_filepath": "b/c.d.flac"})
    assert [entry.id for entry in read_manifest(path)] == ["a", "a-0.0", "a-12.25", "c.d"]


def test_colliding_stems_take_their_paths_and_others_keep_their_stems(write):
    files = ["ann/1.wav", "bob/1.wav", "bob/2.wav"]
    path = write(*({**GOOD, "audio_filepath": file} for file in files))
    assert [entry.id for entry in read_manifest(path)] == ["ann/1.wav", "bob/1.wav", "2"]


def test_a_stem_gives_way_to_an_explicit_id(write):
    path = write({**GOOD, "audio_filepath": "x/a.wav"}, {**GOOD, "audio_filepath": "b.wav", "id": "a"})
    assert [entry.id for entry in read_manifest(path)] == ["x/a.wav", "a"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json}", "cannot be read as JSON"),
        ("[" * 100_000, "nested too deeply for JSON"),
        ('{"audio_filepath": "a.wav", "text": "x", "duration": ' + "1" * 5000 + "}", "cannot be read as JSON"),
        ('{"audio_filepath": "a.wav", "text": "x", "duration": ' + "1" * 400 + "}", "finite and above zero"),
        ([1, 2], "expected a JSON object"),
        ({"duration": 1, "text": ""}, "lacks 'audio_filepath'"),
        ({"audio_filepath": "a.wav"}, "lacks 'duration' and 'text'"),
        ({"audio_filepath": "a.wav", "text": "", "offset": 1}, "offset without a duration"),
        ({**GOOD, "audio_filepath": ""}, "'audio_filepath' is empty"),
        ({**GOOD, "audio_filepath": 3}, "'audio_filepath' must be a string, found a number"),
        ({**GOOD, "duration": "1.5"}, "'duration' must be a number of seconds, found a string"),
        ({**GOOD, "duration": True}, "'duration' must be a number of seconds, found true or false"),
        ({**GOOD, "duration": None}, "'duration' must be a number of seconds, found null"),
        ({**GOOD, "duration": float("nan")}, "found nan"),
        ({**GOOD, "duration": float("inf")}, "found inf"),
        ({**GOOD, "duration": 0}, "found 0.0"),
        ({**GOOD, "duration": -1}, "found -1.0"),
        ({**GOOD, "offset": -0.5}, "'offset' must be finite and not below zero"),
        ({**GOOD, "text": ["seven"]}, "'text' must be a string, found a list"),
        ({**GOOD, "text": None}, "'text' must be a string, found null"),
        ({**GOOD, "text": "\ud800"}, "surrogate"),
        ({**GOOD, "speaker": 1.5}, "'speaker' must be a string, found a number"),
        ({**GOOD, "id": ""}, "'id' is empty"),
    ],
)
def test_a_wrong_line_is_reported_with_its_fault(write, line, complaint):
    path = write({**GOOD, "audio_filepath": "first.wav"}, "", line)
    with pytest.raises(CorpusError, match=r"^train\.jsonl line 3: ") as caught:
        read_manifest(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repeated_id_names_both_lines(write):
    path = write({**GOOD, "id": "u"}, {**GOOD, "id": "v"}, {**GOOD, "id": "u"})
    with pytest.raises(CorpusError, match=r"train\.jsonl line 3: the id 'u' was used on line 1"):
        read_manifest(path)


def test_the_same_segment_of_a_file_twice_is_a_repeated_id(write):
    with pytest.raises(CorpusError, match=r"line 2: the id 'a\.wav' was used on line 1"):
        read_manifest(write(GOOD, GOOD))


def test_missing_file_folder_empty_file_and_other_encodings_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n \n")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "zwölf"}'.encode("latin-1"))
    for name, complaint in [
        ("none.jsonl", "no such manifest"),
        ("", "is a folder"),
        ("empty.jsonl", "contains no utterance"),
        ("latin.jsonl", "not UTF-8 at byte 12"),
    ]:
        with pytest.raises(CorpusError, match=complaint):
            read_manifest(tmp_path / name)


def test_a_written_manifest_is_read_back(tmp_path):
    entries = [
        Utterance("a b", tmp_path / "audio" / "ä.wav", 'say "zwölf"\u2028now', seconds=0.1 + 0.2, speaker="ann"),
        Utterance("c", Path("/far/away.wav"), "", seconds=1e-3, start=7.125, corpus="far"),
    ]
    write_manifest(tmp_path / "out.jsonl", entries)
    assert read_manifest(tmp_path / "out.jsonl") == entries


def test_a_written_folder_can_be_moved(tmp_path):
    write_manifest(
        tmp_path / "old" / "out.jsonl", [Utterance("a", tmp_path / "old" / "audio" / "a.wav", "x", seconds=1.0)]
    )
    assert json.loads((tmp_path / "old" / "out.jsonl").read_text())["audio_filepath"] == "audio/a.wav"
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "out.jsonl")[0].audio_path == tmp_path / "new" / "audio" / "a.wav"


def test_writing_relative_paths_from_another_folder_keeps_pointing_at_the_recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_manifest("lists/out.jsonl", [Utterance("a", Path("wavs/a.wav"), "x", seconds=1.0)])
    assert read_manifest("lists/out.jsonl")[0].audio_path == tmp_path / "wavs" / "a.wav"


def test_a_failed_write_leaves_only_the_old_manifest(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    write_manifest(path, [Utterance("old", tmp_path / "a.wav", "x", seconds=1.0)])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CorpusError, match="No space left on device"):
        write_manifest(path, [Utterance("new", tmp_path / "a.wav", "x", seconds=1.0)])
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert read_manifest(path)[0].id == "old"


def test_repeated_ids_are_not_written(tmp_path):
    entry = Utterance("a", tmp_path / "a.wav", "x", seconds=1.0)
    with pytest.raises(CorpusError, match="'a' occurs more than once"):
        write_manifest(tmp_path / "out.jsonl", [entry, entry])
    assert not (tmp_path / "out.jsonl").exists()
