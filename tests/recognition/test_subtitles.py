"""Subtitles, with pysubs2 as an independent reader."""

import html
import itertools
import math
import re

import numpy as np
import pysubs2
import pytest

from speechrnn.errors import ConfigError
from speechrnn.recognition.subtitles import SubtitleOptions, cut_cues, to_srt, to_vtt
from speechrnn.recognition.transcript import Segment, Word


def make_segments(words, speaker=None):
    """One segment from (text, start, end)."""
    made = tuple(Word(*word, 0.5) for word in words)
    return [Segment(made[0].start, made[-1].end, " ".join(word.text for word in made), made, speaker)]


def make_words(count, *, text="word", seconds=0.3, gap=0.1):
    return [(text, i * (seconds + gap), i * (seconds + gap) + seconds) for i in range(count)]


@pytest.mark.parametrize(
    "words", [make_words(200), make_words(60, text="incomprehensible"), make_words(30, seconds=1.0)]
)
def test_cues_are_readable_and_contain_every_word(words):
    cues = cut_cues(make_segments(words))
    assert " ".join(" ".join(cue.lines) for cue in cues).split() == [word[0] for word in words]
    for cue in cues:
        assert len(cue.lines) <= 2
        assert max(map(len, cue.lines)) <= 42
        assert 0 < cue.end - cue.start <= 7.0
    for cue, following in itertools.pairwise(cues):
        assert cue.end <= following.start


def test_cues_are_as_long_as_allowed():
    # Two lines of eight four-letter words each (39 characters): sixteen words take 6.3 s.
    cues = cut_cues(make_segments(make_words(17)))
    assert [[len(line.split()) for line in cue.lines] for cue in cues] == [[8, 8], [1]]
    # Seven seconds pass before the lines are full: words of 1 s, the seventh would end at 7.6 s.
    cues = cut_cues(make_segments(make_words(7, seconds=1.0)))
    assert [sum(len(line.split()) for line in cue.lines) for cue in cues] == [6, 1]


def test_a_pause_splits_cues():
    cues = cut_cues(make_segments([("one", 0.0, 0.5), ("two", 1.9, 2.2), ("three", 3.7, 4.0)]))
    assert [cue.lines for cue in cues] == [["one two"], ["three"]]


def test_a_word_longer_than_a_line_or_seven_seconds_stands_alone():
    long_word = "a" * 60
    cues = cut_cues(make_segments([("one", 0.0, 0.5), (long_word, 0.6, 1.0), ("ooooh", 1.2, 9.0), ("two", 9.1, 9.2)]))
    assert [cue.lines for cue in cues] == [["one", long_word], ["ooooh"], ["two"]]


def test_a_cue_never_ends_where_it_starts():
    srt = to_srt(make_segments([("so", 1.0, 1.0)]))
    assert re.search("00:00:01,000 --> 00:00:01,001", srt)


def make_random_segments(seed, *, speakers=(None,)):
    """Segments of each speaker with words of random lengths and pauses, in order of time."""
    rng = np.random.default_rng(seed)
    segments = []
    for speaker in speakers:
        time = 0.0
        for _ in range(rng.integers(1, 8)):
            words = []
            for _ in range(rng.integers(1, 30)):
                start = time + float(rng.exponential(0.1) if rng.random() < 0.9 else rng.exponential(2.0))
                time = start + float(rng.gamma(3.0, 0.1))
                words.append(("".join(rng.choice(list("abcdefgh"), rng.integers(1, 12))), start, time))
            segments += make_segments(words, speaker)
    return sorted(segments, key=lambda segment: segment.start)


def make_random_options(seed, **fixed):
    rng = np.random.default_rng(seed)
    drawn = {
        "max_line_width": int(rng.integers(5, 60)),
        "max_line_count": int(rng.integers(1, 4)),
        "max_words_per_line": [None, int(rng.integers(1, 12))][rng.integers(2)],
        "max_cue_seconds": float(rng.uniform(1.0, 10.0)),
        "min_cue_seconds": float(rng.uniform(0.0, 2.0)),
        "max_characters_per_second": [None, float(rng.uniform(5.0, 30.0))][rng.integers(2)],
        "min_gap_seconds": float(rng.uniform(0.0, 0.2)),
    }
    return SubtitleOptions(**{**drawn, **fixed})


@pytest.mark.parametrize("seed", range(20))
def test_random_transcripts_become_cues_in_order_within_limits_with_every_word_once(seed):
    segments, options = make_random_segments(seed), make_random_options(seed)
    cues = cut_cues(segments, options)
    words = [word for segment in segments for word in segment.words]
    assert [word for cue in cues for line in cue.words for word in line] == words
    for cue, following in itertools.pairwise([*cues, None]):
        inside = [word for line in cue.words for word in line]
        latest = math.inf if following is None else following.start
        assert cue.start == round(inside[0].start, 3)
        assert cue.end <= latest
        assert len(cue.lines) <= options.max_line_count
        assert all(len(line) <= options.max_line_width or " " not in line for line in cue.lines)
        assert len(inside) <= (options.max_words_per_line or math.inf)
        assert len(inside) == 1 or cue.end - cue.start <= options.max_cue_seconds + 0.0011
        asked = min(
            options.max_cue_seconds,
            max(options.min_cue_seconds, len(" ".join(cue.lines)) / (options.max_characters_per_second or math.inf)),
        )
        # It ends with its last word, but for what it was asked to be longer or shorter.
        end = max(inside[-1].end, min(cue.start + asked, latest - options.min_gap_seconds))
        gap_kept = max(latest - options.min_gap_seconds, (cue.start + end) / 2)
        assert cue.end == pytest.approx(min(end, gap_kept), abs=0.0011)


@pytest.mark.parametrize("seed", range(5))
def test_by_default_a_cue_ends_with_its_last_word(seed):
    cues = cut_cues(make_random_segments(seed))
    assert [cue.end for cue in cues] == [round(cue.words[-1][-1].end, 3) for cue in cues]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_pysubs2_reads_the_same_times_and_texts(seed, form):
    segments, options = make_random_segments(seed), make_random_options(seed)
    written = (to_srt if form == "srt" else to_vtt)(segments, options)
    cues = cut_cues(segments, options, is_labelled=form == "srt")
    read = pysubs2.SSAFile.from_string(written, format_=form)
    assert [(each.start, each.end, each.text) for each in read] == [
        (round(1000 * cue.start), round(1000 * cue.end), r"\N".join(cue.lines)) for cue in cues
    ]


def test_cues_of_one_speaker_never_overlap_those_of_two_may():
    segments = make_random_segments(3, speakers=("Anna", "Ben"))
    cues = cut_cues(segments, SubtitleOptions(min_cue_seconds=3.0))
    assert [cue.start for cue in cues] == sorted(cue.start for cue in cues)
    for name in ("Anna", "Ben"):
        for cue, following in itertools.pairwise(cue for cue in cues if cue.speaker == name):
            assert cue.end <= following.start
    assert any(cue.end > following.start for cue, following in itertools.pairwise(cues))


def test_a_name_takes_room_in_srt_only():
    segments = make_segments([("one", 0.0, 0.4), ("two", 0.5, 0.9)], "Anna")
    options = SubtitleOptions(max_line_width=10)
    assert to_srt(segments, options) == "1\n00:00:00,000 --> 00:00:00,900\nAnna: one\ntwo\n"
    assert to_vtt(segments, options) == "WEBVTT\n\n00:00:00.000 --> 00:00:00.900\n<v Anna>one two\n"


def test_highlighted_words_are_underlined_one_by_one_and_none_in_pauses():
    segments = make_segments([("one", 0.0, 0.4), ("two", 0.5, 0.9), ("three", 0.9, 1.2)])
    options = SubtitleOptions(highlight_words=True, max_line_width=8)
    read = pysubs2.SSAFile.from_string(to_srt(segments, options), format_="srt")
    assert [(each.start, each.end, each.text) for each in read] == [
        (0, 400, r"{\u1}one{\u0} two\Nthree"),
        (400, 500, r"one two\Nthree"),
        (500, 900, r"one {\u1}two{\u0}\Nthree"),
        (900, 1200, r"one two\N{\u1}three{\u0}"),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_highlighted_cues_follow_each_other_and_underline_every_word_once(seed):
    segments = make_random_segments(seed)
    options = make_random_options(seed, highlight_words=True, min_gap_seconds=0.0)
    read = list(pysubs2.SSAFile.from_string(to_vtt(segments, options), format_="vtt"))
    assert all(one.start < one.end <= other.start for one, other in itertools.pairwise(read))
    marked = [re.findall(r"\{\\u1\}(\w+)\{\\u0\}", each.text) for each in read]
    assert all(len(words) <= 1 for words in marked)
    assert [word for words in marked for word in words] == [w.text for each in segments for w in each.words]


def test_word_timestamps_stand_in_webvtt_cues():
    segments = make_segments([("one", 0.0, 0.4), ("two", 0.5, 0.9), ("three", 0.9, 1.2)])
    options = SubtitleOptions(word_timestamps=True)
    assert to_vtt(segments, options).splitlines()[-1] == "one <00:00:00.500>two <00:00:00.900>three"
    assert to_srt(segments, options) == to_srt(segments)


HOSTILE = [
    "a\n\n9\n00:00:07,000",
    "-->",
    "00:00:08,000\r\nb",
    "<i>x</i>",
    r"{\an8}",
    "&amp;",
    "\x00\x1b[31m\u2028z",
    "\x07",
]


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_hostile_words_stay_text_of_their_cue(form):
    segments = make_segments([(text, float(i), i + 0.9) for i, text in enumerate(HOSTILE)])
    # Two words a cue: pysubs2 takes any line with two times, without an arrow too, for the beginning of a cue.
    options = SubtitleOptions(max_words_per_line=2, max_line_width=1000)
    written = (to_srt if form == "srt" else to_vtt)(segments, options)
    read = list(pysubs2.SSAFile.from_string(written, format_=form, keep_html_tags=True))
    assert [(each.start, each.end) for each in read] == [(0, 1900), (2000, 3900), (4000, 5900), (6000, 6900)]
    texts = [html.unescape(each.text) if form == "vtt" else each.text for each in read]
    expected = ["a 9 00:00:07,000 -->", "00:00:08,000 b <i>x</i>", r"{\an8} &amp;", "[31m z"]
    if form == "srt":
        expected = [text.translate(str.maketrans("<>{}", "＜＞｛｝")) for text in expected]
    assert texts == expected
    assert len(re.findall("-->", written)) == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028]", written)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_line_width": 0}, r"max_line_width: expected a whole number in \[1, 10000\], got 0"),
        ({"max_characters_per_second": 0.0}, "max_characters_per_second: expected a number in"),
        ({"min_cue_seconds": math.nan}, "min_cue_seconds: expected a number in"),
        ({"highlight_words": "yes"}, "highlight_words: expected true or false, got 'yes'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SubtitleOptions(**options)
