"""Formats are found by looking; each reader gives the same utterances, and names what is wrong with its files."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.readers import find_format, list_formats, read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError


@pytest.fixture
def put(tmp_path):
    """Writes a recording of so many seconds, and its folders."""

    def write(name: str, seconds: float = 1.0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, int(8000 * seconds)), 8000)
        return path

    return write


@pytest.fixture
def text(tmp_path):
    """Writes a text file."""

    def write(name: str, content: str, *, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(encoding))
        return path

    return write


# Tables.


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "deepspeech.csv",
            'wav_filename,wav_filesize,transcript\naudio/a.wav,16044,one two\naudio/b.wav,16044,"three, four"\n',
            [("audio/a", "one two", None), ("audio/b", "three, four", None)],
        ),
        (
            "commonvoice.tsv",
            'client_id\tpath\tsentence\tup_votes\nf1\ta.wav\tHe said "no".\t2\nf2\tb.wav\t"Yes", she said.\t2\n',
            [("a", 'He said "no".', "f1"), ("b", '"Yes", she said.', "f2")],
        ),
        (
            "speechbrain.csv",
            "ID,duration,wav,spk_id,wrd\nu1,1.0,{data_root}/audio/a.wav,s1,ONE\nu2,1.0,audio/b.wav,s2,TWO\n",
            [("u1", "ONE", "s1"), ("u2", "TWO", "s2")],
        ),
        (
            "metadata.csv",
            '\ufefffile_name,transcription\r\naudio/a.wav,Grüße\r\n\r\naudio/b.wav,"zwei, Teile"\r\n',
            [("audio/a", "Grüße", None), ("audio/b", "zwei, Teile", None)],
        ),
        (
            "metadata.jsonl",
            '{"file_name": "audio/a.wav", "text": "one", "speaker": 7}\n{"file_name": "audio/b.wav", "text": ""}\n',
            [("audio/a", "one", "7"), ("audio/b", "", None)],
        ),
        ("semicolons.csv", "path;sentence\naudio/a.wav;one, two\n", [("audio/a", "one, two", None)]),
    ],
)
def test_tables_of_every_origin_are_read(put, text, name, content, expected):
    for recording in ("audio/a.wav", "audio/b.wav", "clips/a.wav", "clips/b.wav"):
        put(recording)
    path = text(name, content)
    assert find_format(path).name == "table"
    entries = read_corpus(path)
    assert [(entry.id, entry.text, entry.speaker) for entry in entries] == expected
    assert {entry.seconds for entry in entries} == {1.0}
    assert [cut.id for cut in read_corpus(path)] == [name for name, _, _ in expected]


def test_pieces_of_recordings_are_cut_out_by_their_times(put, text):
    path = put("long.wav", 3.0)
    table = text("t.csv", "path,start,end,text\nlong.wav,0,1.5,one\nlong.wav,1.5,3,two\n")
    assert read_corpus(table) == [
        Utterance("long-0", path, "one", 0.0, 1.5), Utterance("long-1.5", path, "two", 1.5, 1.5),
    ]  # fmt: skip
    table = text("d.csv", "path,offset,duration,text\nlong.wav,1,0.5,one\n")
    [entry] = read_corpus(table)
    assert (entry.start, entry.seconds) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,words_said\na.wav,x\n", "expected a column of recordings .* found path, words_said"),
        ("sound,text\na.wav,x\n", "found sound, text"),
        ("path,text\n", "contains no utterance"),
        ("", "contains no utterance"),
        ("path,text\na.wav,one, two\n", "line 2: expected 2 values, found 3; a text with ',' in it needs quotes"),
        ("path,text\n,one\n", "line 2: column 'path' is empty"),
        ("path,text\na.wav,one\na.wav,two\n", "line 3: the id a is on line 2 already; list it once"),
        ("id,path,text\nx,a.wav,one\ny,a.wav,two\n", "line 3: the recording .*a.wav is on line 2 already"),
        ("path,text\n../far/a.wav,one\n", "line 2: ../far/a.wav leads out of the corpus's folder"),
        ("path,text\ngone.wav,one\n", "utterance gone: .*gone.wav"),
        ("path,start,end,text\na.wav,0.5,0.5,one\n", "line 2: ends at 0.5 s, where it begins"),
        ("path,start,end,text\na.wav,soon,1,one\n", "line 2: column 'start': expected seconds, found 'soon'"),
        ("path,start,end,text\na.wav,0.5,9,one\n", "listed to end at 9.00 s"),
        ("path,path,text\na.wav,b.wav,one\n", "two columns are called 'path'"),
    ],
)
def test_faults_of_a_table_are_reported(put, text, content, message):
    put("a.wav")
    table = text("t.csv", content)
    with pytest.raises(CorpusError, match=message) as refused:
        list(read_corpus(table))
    assert "t.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a.wav"}', "line 2: lacks 'text'"),
        ("[1]", "line 2: expected a JSON object"),
        ("{", "line 2: cannot be read as JSON"),
    ],
)
def test_faults_of_an_audiofolder_are_reported(put, text, line, message):
    put("a.wav")
    with pytest.raises(CorpusError, match=message):
        read_corpus(text("metadata.jsonl", '{"file_name": "a.wav", "text": "one"}\n' + line + "\n"))


def test_a_table_in_another_encoding_is_named(put, text):
    put("a.wav")
    with pytest.raises(CorpusError, match="t.csv: not UTF-8 at byte"):
        read_corpus(text("t.csv", "path,text\na.wav,Grüße\n", encoding="latin-1"))


def test_an_absolute_path_may_lead_out_of_the_corpus(put, text):
    path = put("far/a.wav")
    assert read_corpus(text("corpus/t.csv", f"path,text\n{path},one\n"))[0].audio_path == path


# STM.

STM = """;; a comment
talk 1 ann 0.00 1.25 <o,f0,female> so this is one
talk 1 bob 1.25 2.00 ignore_time_segment_in_scoring
talk 1 bob 2.00 3.00 <o,f0,male> and this two
"""


@pytest.mark.parametrize("folder", ["", "sph/"])
def test_stm_is_read_with_times_and_without_unscored_segments(put, text, tmp_path, folder):
    recording = put(f"{folder}talk.wav", 3.0)
    file = text("stm/talk.stm" if folder else "talk.stm", STM)
    expected = [
        Utterance("talk-00000000-00001250", recording, "so this is one", 0.0, 1.25, "ann"),
        Utterance("talk-00002000-00003000", recording, "and this two", 2.0, 1.0, "bob"),
    ]
    assert read_corpus(file) == expected
    assert find_format(tmp_path).name == "stm"
    assert read_corpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("talk 1 ann 0.0", "line 1: expected recording, channel, speaker, start, end and text"),
        ("talk 1 ann zero 1 one", "line 1: expected seconds, found zero and 1"),
        ("talk 1 ann 2 1 one", "line 1: begins at 2 s and ends at 1 s"),
        ("other 1 ann 0 1 one", "line 1: no recording other beside it"),
        ("talk 1 ann 2 9 one", "listed to end at 9.00 s"),
        (";; nothing", "contains no utterance"),
    ],
)
def test_faults_of_stm_are_reported(put, text, line, message):
    put("talk.wav", 3.0)
    with pytest.raises(CorpusError, match=message):
        read_corpus(text("talk.stm", line + "\n"))


# Texts beside recordings.


def test_texts_beside_recordings_are_read_and_folders_are_speakers(put, text, tmp_path):
    for name in ("ann/1.wav", "bob/x/1.flac", "2.ogg"):
        put(name)
    text("ann/1.txt", "\ufeffone\r\ntwo\r\n")
    text("bob/x/1.lab", "three")
    text("2.txt", "")
    assert find_format(tmp_path).name == "sidecar"
    found = [(entry.id, entry.text, entry.speaker) for entry in read_corpus(tmp_path)]
    assert found == [("2", "", None), ("ann/1", "one two", "ann"), ("bob/x/1", "three", "x")]


def test_a_recording_without_a_text_or_with_two_is_named(put, text, tmp_path):
    put("a.wav")
    put("b.wav")
    text("a.txt", "one")
    with pytest.raises(CorpusError, match=r"b.wav: no text beside it; expected b.txt or b.lab"):
        read_corpus(tmp_path)
    text("b.txt", "two")
    text("b.lab", "two")
    with pytest.raises(CorpusError, match=r"b.wav: two texts beside it, b.txt and b.lab; keep one"):
        read_corpus(tmp_path)


def test_two_recordings_of_one_name_are_named(put, text, tmp_path):
    put("a.wav")
    put("a.flac")
    text("a.txt", "one")
    with pytest.raises(CorpusError, match=r"a.wav: a.flac beside it has the same name; keep one of them"):
        read_corpus(tmp_path)


def test_a_circular_link_is_not_followed_endlessly(put, text, tmp_path):
    put("ann/a.wav")
    text("ann/a.txt", "one")
    os.symlink(tmp_path, tmp_path / "ann" / "again")
    assert [entry.id for entry in read_corpus(tmp_path)] == ["ann/a"]


# lhotse.


def make_lhotse(put, folder, *, count=2):
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

    recordings, supervisions = [], []
    for number in range(count):
        path = put(f"{folder}/r{number}.wav", 2.0)
        recordings.append(Recording.from_file(path, recording_id=f"r{number}"))
        for part in range(2):
            supervisions.append(
                SupervisionSegment(
                    id=f"s{number}{part}", recording_id=f"r{number}", start=float(part), duration=1.0,
                    text=f"text {number}{part}", speaker=f"spk{number}",
                )
            )  # fmt: skip
    return RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("kind", ["cuts", "manifests"])
def test_lhotse_manifests_are_read(put, tmp_path, kind, ending):
    from lhotse import CutSet

    recordings, supervisions = make_lhotse(put, "audio")
    if kind == "cuts":
        CutSet.from_manifests(recordings, supervisions).trim_to_supervisions().to_file(tmp_path / f"cuts{ending}")
    else:
        recordings.to_file(tmp_path / f"recordings{ending}")
        supervisions.to_file(tmp_path / f"supervisions{ending}")
    assert find_format(tmp_path).name == "lhotse"
    entries = read_corpus(tmp_path)
    assert [(e.text, e.start, e.seconds, e.speaker) for e in entries] == [
        ("text 00", 0.0, 1.0, "spk0"), ("text 01", 1.0, 1.0, "spk0"),
        ("text 10", 0.0, 1.0, "spk1"), ("text 11", 1.0, 1.0, "spk1"),
    ]  # fmt: skip
    assert len({entry.id for entry in entries}) == 4
    if kind == "cuts":
        assert read_corpus(tmp_path / f"cuts{ending}") == entries


def test_faults_of_lhotse_manifests_are_reported(put, text, tmp_path):
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write('{"type": "MonoCut"')
    with pytest.raises(CorpusError, match="lhotse cannot read its manifests"):
        read_corpus(tmp_path)
    (tmp_path / "cuts.jsonl.gz").unlink()
    recordings, supervisions = make_lhotse(put, "audio", count=1)
    recordings.to_file(tmp_path / "recordings.jsonl")
    supervisions.subset(first=1).to_file(tmp_path / "supervisions.jsonl")
    (tmp_path / "audio" / "r0.wav").unlink()
    with pytest.raises(CorpusError, match="r0.wav"):
        read_corpus(tmp_path)


# Looking.


def test_a_folder_that_fits_two_formats_needs_a_stated_format(put, text, tmp_path):
    put("a.wav")
    text("manifest.jsonl", json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": "nemo"}) + "\n")
    text("metadata.csv", "file_name,text\na.wav,table\n")
    with pytest.raises(CorpusError, match="could be nemo and table; choose one with --format"):
        read_corpus(tmp_path)
    assert [read_corpus(tmp_path, name)[0].text for name in ("nemo", "table")] == ["nemo", "table"]
    with pytest.raises(CorpusError, match="unknown format 'wav'; choose from nemo, kaldi"):
        read_corpus(tmp_path, "wav")


def test_missing_and_unknown_corpora_are_reported(tmp_path, text):
    with pytest.raises(CorpusError, match="no such file or folder"):
        read_corpus(tmp_path / "gone")
    with pytest.raises(CorpusError, match="no known format"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="no known format"):
        read_corpus(text("notes.md", "# notes"))


def test_every_format_has_a_name_and_a_description():
    formats = list_formats()
    assert list(formats) == ["nemo", "kaldi", "ljspeech", "librispeech", "table", "stm", "lhotse", "shar", "sidecar"]
    assert all(each.description for each in formats.values())


def test_the_format_of_real_corpora_is_detected():
    root = os.environ.get("SPEECHRNN_CORPORA")
    if not root:
        pytest.skip("SPEECHRNN_CORPORA is not set")
    expected = {
        "speechocean762/train": "kaldi",
        "librispeech": "librispeech",
        "ljspeech": "nemo",
        "german-kerstin": "table",
    }
    for name, format in expected.items():
        if (Path(root) / name).is_dir():
            assert find_format(Path(root) / name).name == format
    if (Path(root) / "german-kerstin").is_dir():
        entries = read_corpus(Path(root) / "german-kerstin")
        assert len(entries) == 1374
        assert sum(entry.seconds for entry in entries) / 3600 == pytest.approx(1.76, abs=0.05)
