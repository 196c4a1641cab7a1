"""Kaldi data folders: what the files say together, and every way in which they can disagree."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.audio.files import audio_info
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

WORDS = {"a1": "SEVEN THREE", "a2": "ZERO", "b1": "OH ONE"}
SPEAKERS = {"a1": "a", "a2": "a", "b1": "b"}


def write_table(path: Path, table: dict[str, str], *, separator: str = " ", end: str = "\n") -> None:
    path.write_bytes("".join(f"{name}{separator}{value}{end}" for name, value in table.items()).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings of 1, 1.5 and 2 s under WAVE, named from corpus/train as speechocean762 names them."""
    for number, name in enumerate(WORDS):
        path = tmp_path / "corpus" / "WAVE" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 8000 + 4000 * number), 8000)
    folder = tmp_path / "corpus" / "train"
    folder.mkdir()
    write_table(folder / "wav.scp", {name: f"WAVE/{name}.wav" for name in WORDS}, separator="\t")
    write_table(folder / "text", WORDS)
    write_table(folder / "utt2spk", SPEAKERS)
    return folder


def test_each_recording_is_an_utterance_with_its_words_and_speaker(folder):
    wave = folder.parent / "WAVE"
    assert read_corpus(folder, "kaldi") == [
        Utterance("a1", wave / "a1.wav", "SEVEN THREE", seconds=1.0, speaker="a"),
        Utterance("a2", wave / "a2.wav", "ZERO", seconds=1.5, speaker="a"),
        Utterance("b1", wave / "b1.wav", "OH ONE", seconds=2.0, speaker="b"),
    ]


def test_a_folder_with_wav_scp_is_opened_as_kaldi(folder):
    cuts = list(read_corpus(folder))
    assert [(cut.id, cut.seconds, cut.text) for cut in cuts] == [
        ("a1", 1.0, "SEVEN THREE"),
        ("a2", 1.5, "ZERO"),
        ("b1", 2.0, "OH ONE"),
    ]
    assert [cut.speaker for cut in cuts] == ["a", "a", "b"]


def test_windows_line_ends_a_byte_order_mark_blank_lines_and_wordless_utterances_are_read(folder):
    (folder / "text").write_bytes("\ufeffa1\tSEVEN  THREE \r\n\r\na2\r\nb1 ÖH ONE\r\n".encode())
    assert [(entry.id, entry.text) for entry in read_corpus(folder, "kaldi")] == [
        ("a1", "SEVEN  THREE"),
        ("a2", ""),
        ("b1", "ÖH ONE"),
    ]


def test_speakers_may_be_unknown(folder):
    (folder / "utt2spk").unlink()
    assert [entry.speaker for entry in read_corpus(folder, "kaldi")] == [None, None, None]


def test_segments_are_parts_of_recordings(folder):
    write_table(folder / "segments", {"a1": "b1 0.25 0.75", "a2": "b1 1 -1", "b1": "a1 0 1"})
    assert [(e.id, e.audio_path.stem, e.start, e.seconds) for e in read_corpus(folder, "kaldi")] == [
        ("a1", "b1", 0.25, 0.5),
        ("a2", "b1", 1.0, 1.0),
        ("b1", "a1", 0.0, 1.0),
    ]
    assert [(cut.start, cut.seconds) for cut in read_corpus(folder)] == [(0.25, 0.5), (1.0, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize("where", ["train", "corpus", "above", "working directory", "absolute"])
def test_paths_start_where_the_first_recording_is_found(folder, tmp_path, monkeypatch, where):
    starts = {"train": folder, "corpus": folder.parent, "above": tmp_path}
    start = starts.get(where, tmp_path / "elsewhere")
    for name in WORDS:
        (folder.parent / "WAVE" / f"{name}.wav").rename(start / f"{name}.wav") if start.is_dir() else None
    if where not in starts:
        (folder.parent / "WAVE").rename(start)
        monkeypatch.chdir(start)
    prefix = f"{start}/" if where == "absolute" else ""
    write_table(folder / "wav.scp", {name: f"{prefix}{name}.wav" for name in WORDS})
    assert [entry.audio_path for entry in read_corpus(folder, "kaldi")] == [start / f"{name}.wav" for name in WORDS]


@pytest.mark.parametrize("command", ["sph2pipe -f wav x.sph |", "| cat x.wav"])
def test_a_command_is_never_run(folder, tmp_path, command):
    write_table(folder / "wav.scp", {"a1": f"touch {tmp_path}/run; {command}", "a2": command, "b1": "b1.wav"})
    with pytest.raises(CorpusError, match=r"is a command .* commands are not run; write its output to files"):
        read_corpus(folder, "kaldi")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("text", None, "text: no such file; check the path"),
        ("text", b"\n\n", "text: contains no line"),
        ("text", b"a1 S\xe9VEN\n", "text: not UTF-8 at byte 4; save the file as UTF-8"),
        ("text", b"a1 X\na2 Y\na1 Z\n", "text line 3: a1 is listed on an earlier line; use each name once"),
        ("wav.scp", b"a1\n", "wav.scp line 1: nothing follows a1"),
        ("wav.scp", b"a1 WAVE/gone.wav\n", "wav.scp: no file WAVE/gone.wav in "),
        ("text", b"a1 X\n", ": text lacks a2, b1, which wav.scp has; add them or remove them"),
        (
            "text",
            b"a1 X\na2 X\nb1 X\nc1 X\nc2 X\nc3 X\nc4 X\n",
            ": wav.scp lacks c1, c2, c3 and 1 more, which text has",
        ),
        ("utt2spk", b"a1 a\na2 a\n", ": utt2spk lacks b1, which text has"),
        ("utt2spk", b"a1 a\na2 a\nb1 b\nc1 c\n", ": text lacks c1, which utt2spk has"),
        (
            "segments",
            b"a1 b1 0\n",
            "segments: a1: expected a recording and times in seconds, start before end; found b1 0",
        ),
        ("segments", b"a1 b1 zero 1\n", "segments: a1: expected a recording and times in seconds"),
        ("segments", b"a1 c1 0 1\n", "segments: a1 is part of c1, which wav.scp does not have"),
        (
            "segments",
            b"a1 b1 1 1\na2 a2 0 1\nb1 b1 0 1\n",
            "segments: a1: expected a recording and times in seconds, start before end; found b1 1 1",
        ),
    ],
)
def test_faults_are_reported_in_one_line(folder, file, content, expected):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read_corpus(folder, "kaldi")
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_recording_is_named(folder):
    (folder.parent / "WAVE" / "b1.wav").write_bytes(b"RIFF")
    with pytest.raises(CorpusError, match=f"^{folder}: utterance b1: "):
        read_corpus(folder, "kaldi")


def test_a_segment_past_its_recordings_end_is_refused_before_training(folder):
    write_table(folder / "segments", {"a1": "b1 0.25 0.75", "a2": "b1 1 2.5", "b1": "a1 0 1"})
    with pytest.raises(CorpusError, match=r"utterance a2: listed to end at 2.50 s, but .*b1.wav ends at 2.00 s"):
        read_corpus(folder)


def test_a_recordings_header_is_read_once_however_many_segments_it_has(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        "speechrnn.corpus.readers.recordings.audio_info", lambda path: read.append(path) or audio_info(path)
    )
    write_table(folder / "segments", {"a1": "b1 0 0.5", "a2": "b1 0.5 1", "b1": "b1 1 2"})
    assert len(read_corpus(folder)) == 3
    assert [path.stem for path in read] == ["b1"]
    entries = read_corpus(folder, "kaldi")
    write_manifest(folder / "manifest.jsonl", entries)
    read.clear()
    assert len(read_corpus(folder, "nemo")) == 3
    assert [path.stem for path in read] == ["b1"]
