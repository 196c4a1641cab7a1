import itertools
import json
import re

import pytest

from speechrnn.recognition.transcript import FORMATS, Segment, Transcript, Word, cut_cues


def make_transcript(words, *, seconds=10.0, audio="calls/my call.wav"):
    """One segment from (text, start, end) or (text, start, end, confidence)."""
    made = tuple(Word(*word) if len(word) == 4 else Word(*word, 0.5) for word in words)
    text = " ".join(word.text for word in made)
    segments = (Segment(made[0].start, made[-1].end, text, made),) if made else ()
    return Transcript(text, segments, seconds, audio=audio, language="en", model="runs/model")


def make_words(count, *, text="word", seconds=0.3, gap=0.1):
    return [(text, i * (seconds + gap), i * (seconds + gap) + seconds) for i in range(count)]


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


@pytest.mark.parametrize(
    "words", [make_words(200), make_words(60, text="incomprehensible"), make_words(30, seconds=1.0)]
)
def test_cues_are_readable_and_lose_nothing(words):
    cues = cut_cues(make_transcript(words))
    assert " ".join(" ".join(cue.lines) for cue in cues).split() == [word[0] for word in words]
    for cue in cues:
        assert len(cue.lines) <= 2
        assert max(map(len, cue.lines)) <= 42
        assert 0 < cue.end - cue.start <= 7.0
    for cue, following in itertools.pairwise(cues):
        assert cue.end <= following.start


def test_cues_are_as_long_as_they_may_be():
    # Two lines of eight four-letter words each (39 characters): sixteen words take 6.3 s.
    cues = cut_cues(make_transcript(make_words(17)))
    assert [[len(line.split()) for line in cue.lines] for cue in cues] == [[8, 8], [1]]
    # Seven seconds pass before the lines are full: words of 1 s, the seventh would end at 7.6 s.
    cues = cut_cues(make_transcript(make_words(7, seconds=1.0)))
    assert [sum(len(line.split()) for line in cue.lines) for cue in cues] == [6, 1]


def test_a_pause_parts_cues():
    cues = cut_cues(make_transcript([("one", 0.0, 0.5), ("two", 1.9, 2.2), ("three", 3.7, 4.0)]))
    assert [cue.lines for cue in cues] == [["one two"], ["three"]]


def test_a_word_longer_than_a_line_or_seven_seconds_stands_alone():
    long_word = "a" * 60
    cues = cut_cues(make_transcript([("one", 0.0, 0.5), (long_word, 0.6, 1.0), ("ooooh", 1.2, 9.0), ("two", 9.1, 9.2)]))
    assert [cue.lines for cue in cues] == [["one", long_word], ["ooooh"], ["two"]]


def test_a_cue_never_ends_where_it_starts():
    srt = make_transcript([("so", 1.0, 1.0)]).to_srt()
    assert re.search("00:00:01,000 --> 00:00:01,001", srt)
