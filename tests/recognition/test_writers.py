import json

import pytest

from speechrnn.recognition.transcript import FORMATS, Segment, Transcript, Word


def make_transcript(words, *, seconds=10.0, audio="calls/my call.wav"):
    """One segment from (text, start, end) or (text, start, end, confidence)."""
    made = tuple(Word(*word) if len(word) == 4 else Word(*word, 0.5) for word in words)
    text = " ".join(word.text for word in made)
    segments = (Segment(made[0].start, made[-1].end, text, made),) if made else ()
    return Transcript(text, segments, seconds, audio=audio, language="en", model="runs/model")


@pytest.fixture
def hello():
    return make_transcript([("hello", 0.31, 0.6204, 0.97531), ("world", 3661.5, 3662.0, 0.5)], seconds=3663.12345)


def test_txt(hello):
    assert hello.to_txt() == "hello world\n"


def test_json_schema_is_stable(hello):
    assert json.loads(hello.to_json()) == {
        "audio": "calls/my call.wav",
        "model": "runs/model",
        "language": "en",
        "seconds": 3663.123,
        "text": "hello world",
        "segments": [
            {
                "start": 0.31,
                "end": 3662.0,
                "text": "hello world",
                "words": [
                    {"text": "hello", "start": 0.31, "end": 0.62, "confidence": 0.9753},
                    {"text": "world", "start": 3661.5, "end": 3662.0, "confidence": 0.5},
                ],
            }
        ],
    }


def test_json_is_one_line_unless_indented(hello):
    assert hello.to_json().count("\n") == 1
    assert json.loads(hello.to_json(indent=2)) == json.loads(hello.to_json())
    assert hello.to_json(indent=2).count("\n") > 10


def test_srt(hello):
    assert hello.to_srt() == ("1\n00:00:00,310 --> 00:00:00,620\nhello\n\n2\n01:01:01,500 --> 01:01:02,000\nworld\n")


def test_vtt_escapes_mark_up():
    transcript = make_transcript([("<b>", 0.0, 0.5), ("R&D", 0.5, 1.0), ("-->", 1.0, 1.5)])
    assert transcript.to_vtt() == ("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n&lt;b&gt; R&amp;D --&gt;\n")


def test_tsv(hello):
    assert hello.to_tsv() == "start\tend\ttext\n310\t3662000\thello world\n"


def test_ctm(hello):
    assert hello.to_ctm() == "my_call 1 0.310 0.310 hello 0.9753\nmy_call 1 3661.500 0.500 world 0.5000\n"
    assert make_transcript([("a", 0.0, 1.0)], audio=None).to_ctm() == "recording 1 0.000 1.000 a 0.5000\n"


def test_empty_transcripts_are_valid_files():
    silent = make_transcript([])
    assert {name: write(silent) for name, write in FORMATS.items() if name != "json"} == {
        "txt": "\n",
        "srt": "",
        "vtt": "WEBVTT\n",
        "tsv": "start\tend\ttext\n",
        "ctm": "",
    }
    assert json.loads(silent.to_json())["segments"] == []


def test_every_method_writes_its_format(hello):
    for name, write in FORMATS.items():
        assert getattr(hello, f"to_{name}")() == write(hello)


@pytest.fixture
def call():
    """Two speakers, of whom the second interrupts the first."""
    segments = [
        Segment(0.5, 2.0, "good morning", (Word("good", 0.5, 1.0, 0.9), Word("morning", 1.0, 2.0, 0.8)), "Anna"),
        Segment(1.5, 1.8, "hi", (Word("hi", 1.5, 1.8, 0.7),), "Ben"),
        Segment(3.0, 3.5, "how", (Word("how", 3.0, 3.5, 0.6),), "Anna"),
        Segment(4.0, 4.5, "are", (Word("are", 4.0, 4.5, 0.5),), "Anna"),
    ]
    return Transcript("good morning hi how are", tuple(segments), 5.0, audio="call.wav", speakers=("Ben", "Anna"))


def test_speakers_are_in_every_format(call):
    assert call.to_txt() == "Anna: good morning\nBen: hi\nAnna: how are\n"
    assert call.to_srt().split("\n\n")[1] == "2\n00:00:01,500 --> 00:00:01,800\nBen: hi"
    assert call.to_vtt().split("\n\n")[2] == "00:00:01.500 --> 00:00:01.800\n<v Ben>hi"
    assert call.to_tsv().splitlines()[:3] == [
        "start\tend\ttext\tspeaker",
        "500\t2000\tgood morning\tAnna",
        "1500\t1800\thi\tBen",
    ]
    assert call.to_ctm().splitlines()[:2] == [
        "call A 1.500 0.300 hi 0.7000",
        "call B 0.500 0.500 good 0.9000",
    ]
    content = json.loads(call.to_json())
    assert content["speakers"] == ["Ben", "Anna"]
    assert content["segments"][1]["speaker"] == "Ben"
    assert content["segments"][1]["words"][0] == {
        **{"text": "hi", "start": 1.5, "end": 1.8, "confidence": 0.7, "speaker": "Ben"}
    }
    assert repr(call) == "<Transcript 'good morning hi how are', 5 words, 5.00 s, 2 speakers>"


def test_speakers_of_segments_alone_are_speakers_of_the_transcript(call):
    assert Transcript(call.text, call.segments, 5.0).speakers == ("Anna", "Ben")


def test_speakers_are_renamed(call):
    renamed = call.rename_speakers({"Anna": "Agent", "Carl": "nobody"})
    assert renamed.speakers == ("Ben", "Agent")
    assert renamed.to_txt() == "Agent: good morning\nBen: hi\nAgent: how are\n"


def test_a_hostile_name_breaks_no_format(call):
    hostile = call.rename_speakers({"Ben": "B\n\n00:00:09,000 --> 00:00:10,000\tx <i>&", "Anna": "A\tB"})
    assert len(hostile.to_txt().splitlines()) == 3
    assert {row.count("\t") for row in hostile.to_tsv().splitlines()} == {3}
    assert "\nB 00:00:09,000 --＞ 00:00:10,000 x ＜i＞&: hi\n" in hostile.to_srt()
    assert "\n<v B 00:00:09,000 --&gt; 00:00:10,000 x &lt;i&gt;&amp;>hi\n" in hostile.to_vtt()
