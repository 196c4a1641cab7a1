"""Parts by speakers, and the folders and manifests of parts."""

from dataclasses import replace

import pytest

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.splits import find_parts, hold_out, hold_out_speakers, take_minutes, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError


@pytest.fixture
def entries(tmp_path):
    """Three utterances of each of 20 speakers, the speakers taking turns."""
    return [Utterance(f"u{n}", tmp_path / f"{n}.wav", "x", seconds=1.0, speaker=f"s{n % 20:02d}") for n in range(60)]


def test_every_nth_speaker_is_held_out_with_all_utterances(entries):
    stay, held = hold_out_speakers(entries[::-1], every=10, where="x")
    assert [entry.speaker for entry in held] == ["s19", "s09"] * 3
    assert [*stay, *held] != entries
    assert sorted([*stay, *held], key=lambda entry: int(entry.id[1:])) == entries


def test_too_few_speakers_are_not_split(entries):
    with pytest.raises(CorpusError, match="here: 20 speakers are too few to split; at least 21 are needed"):
        hold_out_speakers(entries, every=21, where="here")


def test_speakers_are_held_out_if_enough_are_known_and_otherwise_the_end(entries):
    assert hold_out(entries, every=10, where="x") == hold_out_speakers(entries, every=10, where="x")
    assert hold_out(entries, every=21, where="x") == (entries[:58], entries[58:])
    unknown = [*entries[:59], replace(entries[59], speaker=None)]
    assert hold_out(unknown, every=10, where="x") == (unknown[:54], unknown[54:])
    assert hold_out(unknown[:2], every=10, where="x") == (unknown[:1], unknown[1:2])
    with pytest.raises(CorpusError, match="here: 1 utterance cannot be split"):
        hold_out(unknown[:1], every=10, where="here")


def test_minutes_are_taken_until_they_are_reached(entries):
    """Each lasts a second."""
    assert take_minutes(entries, 0.5) == entries[:30]
    assert take_minutes(entries, 0.51) == entries[:31]
    assert take_minutes(entries, 5.0) == entries
    assert take_minutes(reversed(entries), 0.05) == entries[:-4:-1]
    assert take_minutes(entries, 0.0) == []


def test_parts_are_written_together_or_not_at_all(entries, tmp_path):
    with pytest.raises(CorpusError, match="no utterance is left for test"):
        write_parts(tmp_path / "out", {"train": entries, "test": []})
    assert not (tmp_path / "out").exists()
    write_parts(tmp_path / "out", {"train": entries[:50], "test": entries[50:]})
    assert [entry.id for entry in read_manifest(tmp_path / "out" / "test.jsonl")] == [f"u{n}" for n in range(50, 60)]


def test_parts_are_found_in_the_source_or_in_the_archives_folder(tmp_path):
    (tmp_path / "Corpus" / "a").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    found = find_parts(tmp_path, ["a", "b"], names=("Corpus",), fetch="fetch it")
    assert found == [tmp_path / "Corpus" / "a", tmp_path / "b"]
    with pytest.raises(CorpusError, match="no c in it; fetch it"):
        find_parts(tmp_path, ["a", "c"], names=("Corpus",), fetch="fetch it")
    with pytest.raises(CorpusError, match="no --source: fetch it"):
        find_parts(None, ["a"], fetch="fetch it")
    with pytest.raises(CorpusError, match=r"expected a list of parts, got 'a'; write \[a\]"):
        find_parts(tmp_path, "a", fetch="fetch it")
