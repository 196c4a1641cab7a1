"""A corpus written in every format comes back as it was."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.corpus.writers import WRITERS, find_writer
from speechrnn.errors import CorpusError

NAMES = {"nemo": "a.jsonl", "table": "a.csv", "kaldi": "kaldi", "lhotse": "a.jsonl.gz"}


@pytest.fixture
def entries(tmp_path):
    found = []
    for number, text in enumerate(['Grüße, "so"', "it's one; two", "", "drei|vier"]):
        path = tmp_path / "audio" / f"r{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 16000), 8000)
        found.append(Utterance(f"u{number}", path, text, seconds=2.0, speaker=f"s{number % 2}"))
    return found


def cut_up(entries):
    """Two utterances of each recording."""
    return [
        replace(entry, id=f"{entry.id}-{part}", start=float(part), seconds=1.0, text=f"{entry.text} {part}".strip())
        for entry in entries
        for part in range(2)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("has_speakers", [False, True])
def test_converting_there_and_back_keeps_every_utterance(tmp_path, entries, name, is_cut, has_speakers):
    entries = cut_up(entries) if is_cut else entries
    entries = entries if has_speakers else [replace(entry, speaker=None) for entry in entries]
    destination = tmp_path / "out" / NAMES[name]
    assert find_writer(destination) == name
    WRITERS[name](destination, entries)
    assert find_format(destination).name == name
    assert read_corpus(destination) == entries
    assert not [path for path in destination.parent.iterdir() if "part" in path.name]


def test_conversions_between_all_formats_keep_the_corpus(tmp_path, entries):
    source, read = entries, None
    for number, name in enumerate(("kaldi", "table", "lhotse", "nemo", "kaldi")):
        destination = tmp_path / f"{number}" / NAMES[name]
        WRITERS[name](destination, source)
        source = read = read_corpus(destination)
    assert read == entries


def test_tabs_and_line_breaks_are_written_where_the_format_allows_them(tmp_path, entries):
    entries = [replace(entries[0], text="one\ttwo\nthree")]
    with pytest.raises(CorpusError, match="'u0' has a tab or a line break in a value"):
        WRITERS["table"](tmp_path / "a.tsv", entries)
    with pytest.raises(CorpusError, match="'u0' has a line break in a value"):
        WRITERS["table"](tmp_path / "a.csv", entries)
    with pytest.raises(CorpusError, match="the text of 'u0' has a line break in it"):
        WRITERS["kaldi"](tmp_path / "kaldi", entries)
    tabbed = [replace(entries[0], id="u\t0", text="one\ttwo")]
    with pytest.raises(CorpusError, match=r"'u\\t0' has a tab"):
        WRITERS["table"](tmp_path / "a.tsv", tabbed)
    WRITERS["table"](tmp_path / "a.csv", tabbed)
    assert read_corpus(tmp_path / "a.csv") == tabbed
    WRITERS["table"](tmp_path / "b.tsv", [replace(entries[0], text='"quoted')])
    assert read_corpus(tmp_path / "b.tsv")[0].text == '"quoted'


@pytest.mark.parametrize("name", ["a\nb.wav", "a.wav ", "a|"])
def test_paths_that_a_kaldi_folder_cannot_hold_are_refused(tmp_path, entries, name):
    path = entries[0].audio_path.rename(tmp_path / name)
    with pytest.raises(CorpusError, match="has a line break or ends in a blank or |; rename the recording"):
        WRITERS["kaldi"](tmp_path / "kaldi", [replace(entries[0], audio_path=path)])


def test_ids_with_spaces_become_distinct_kaldi_ids(tmp_path, entries):
    WRITERS["kaldi"](
        tmp_path / "kaldi", [replace(entries[0], id="a b", speaker="Ann  Lee"), replace(entries[1], speaker=None)]
    )
    read = read_corpus(tmp_path / "kaldi")
    assert [(entry.id, entry.speaker) for entry in read] == [("a_b", "Ann_Lee"), ("u1", "u1")]
    with pytest.raises(CorpusError, match="two utterances would be called a_b"):
        WRITERS["kaldi"](tmp_path / "k2", [replace(entries[0], id="a b"), replace(entries[1], id="a_b")])


def test_kaldi_files_are_sorted_by_name(tmp_path, entries):
    WRITERS["kaldi"](tmp_path / "kaldi", cut_up(entries)[::-1])
    for name in ("wav.scp", "text", "segments", "utt2spk"):
        names = [line.split()[0] for line in (tmp_path / "kaldi" / name).read_text().splitlines()]
        assert names == sorted(names)


def test_the_writer_is_chosen_by_the_file_name(tmp_path):
    assert find_writer(tmp_path / "x.tsv") == "table"
    assert find_writer(tmp_path / "x.txt", "kaldi") == "kaldi"
    with pytest.raises(CorpusError, match="unknown ending"):
        find_writer(tmp_path / "x.txt")
    with pytest.raises(CorpusError, match="--to stm: unknown format"):
        find_writer(tmp_path / "x", "stm")
