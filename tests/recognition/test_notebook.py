import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from speechrnn.recognition import notebook
from speechrnn.recognition.transcript import Segment, Transcript, Word


class Reader(HTMLParser):
    """Checks that every element is closed, and collects cells of the table and sources of audio."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.audio, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "audio":
            self.audio.append(dict(attributes)["src"])
        if tag == "td":
            self.cells.append("")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


def read(transcript):
    reader = Reader()
    reader.feed(transcript._repr_html_())
    assert not reader.open
    return reader


def make_transcript(words, *, audio=None, speaker=None):
    made = tuple(Word(*word) for word in words)
    text = " ".join(word.text for word in made)
    return Transcript(text, (Segment(made[0].start, made[-1].end, text, made, speaker),), 10.0, audio=audio)


def test_a_table_of_words_with_times_and_shades():
    transcript = make_transcript([("one", 0.5, 1.0, 1.0), ("two", 1.5, 2.0, 0.2)])
    assert read(transcript).cells == ["0.50", "1.00", "one", "1.00", "1.50", "2.00", "two", "0.20"]
    shades = re.findall(r"rgba\(230, 140, 0, ([\d.]+)\)", transcript._repr_html_())
    assert shades == ["0.00", "0.00", "0.60", "0.60"]
    assert read(make_transcript([("one", 0.5, 1.0, 1.0)], speaker="Ann")).cells == [
        "0.50",
        "1.00",
        "Ann",
        "one",
        "1.00",
    ]
    assert not read(Transcript("", (), 1.0)).cells


def test_text_and_names_are_escaped():
    hostile = "<script>alert(1)</script>&\"'"
    transcript = make_transcript([(hostile, 0.0, 1.0, 0.5)], audio=f"a/{hostile}.wav", speaker=hostile)
    reader = read(transcript)
    assert not reader.tags & {"script", "audio"}
    assert reader.cells.count(hostile) == 2


def test_a_small_recording_is_embedded(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(800), 8000)
    [source] = read(make_transcript([("one", 0.0, 0.1, 0.5)], audio=str(path))).audio
    kind, _, content = source.partition(";base64,")
    assert (kind, base64.b64decode(content)) == ("data:audio/flac", path.read_bytes())
    monkeypatch.setattr(notebook, "MOST_BYTES", path.stat().st_size - 1)
    assert not read(make_transcript([("one", 0.0, 0.1, 0.5)], audio=str(path))).audio


@pytest.mark.parametrize("audio", [None, "gone.wav", "nul\0l.wav", "/dev/zero", "text.txt"])
def test_what_is_no_recording_is_not_embedded(audio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("not a recording")
    assert not read(make_transcript([("one", 0.0, 0.1, 0.5)], audio=audio)).audio


def test_a_long_table_is_cut(monkeypatch):
    monkeypatch.setattr(notebook, "MOST_WORDS", 3)
    page = make_transcript([("one", i, i + 0.5, 0.5) for i in range(5)])._repr_html_()
    assert page.count(">one<") == 3
    assert "2 more words are not shown." in page
