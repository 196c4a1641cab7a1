"""Recordings of one's own, and an hour of German: splits by speakers, by order and by minutes."""

import json
from pathlib import Path

import pytest
from preparation import load, put_tone, read_parts

from speechrnn.errors import CorpusError

custom, german = load("custom"), load("german")


def make_corpus(folder: Path, count: int, *, speakers: int = 0, seconds: float = 0.1) -> Path:
    """A manifest; the recordings are all there, their names in order."""
    lines = []
    for number in range(count):
        name = f"{number:04d}"
        put_tone(folder / f"{name}.wav")
        entry = {"audio_filepath": f"{name}.wav", "duration": seconds, "text": f"number {number}", "id": name}
        lines.append(entry | ({"speaker": f"s{number % speakers:02d}"} if speakers else {}))
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "manifest.jsonl"


def test_few_speakers_are_split_by_order(tmp_path):
    custom.prepare(make_corpus(tmp_path / "mine", 25, speakers=3), tmp_path / "out", seed=0)
    parts = {name: [entry.id for entry in entries] for name, entries in read_parts(tmp_path / "out").items()}
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [21, 2, 2]
    assert [*parts["train"], *parts["valid"], *parts["test"]] == [f"{n:04d}" for n in range(25)]


def test_many_speakers_are_split_by_speaker(tmp_path):
    custom.prepare(make_corpus(tmp_path / "mine", 46, speakers=23), tmp_path / "out", seed=0)
    speakers = {name: {entry.speaker for entry in part} for name, part in read_parts(tmp_path / "out").items()}
    assert speakers["test"] == {"s09", "s19"}
    assert speakers["valid"] == {"s08", "s18"}
    assert len(speakers["train"]) == 19
    assert not speakers["train"] & (speakers["valid"] | speakers["test"])


def test_too_few_recordings_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="9 utterances are too few to split; 10 or more will do"):
        custom.prepare(make_corpus(tmp_path / "mine", 9), tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="no --source: pass the folder with your recordings"):
        custom.prepare(None, tmp_path / "out", seed=0)


def test_german_is_split_by_minutes_from_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(german, "TEST_MINUTES", 0.01)  # 6 recordings of a tenth of a second
    monkeypatch.setattr(german, "VALID_MINUTES", 0.005)  # 3
    source = make_corpus(tmp_path / "kerstin", 40)
    german.prepare(source, tmp_path / "out", seed=0, minutes=0.02)
    parts = {name: [int(entry.id) for entry in part] for name, part in read_parts(tmp_path / "out").items()}
    assert parts == {"train": list(range(12)), "valid": [31, 32, 33], "test": list(range(34, 40))}
    for minutes in (1.0, 0.0):
        with pytest.raises(CorpusError, match=f"prepare.minutes: {minutes:g}, but 0 minutes are left to train on"):
            german.prepare(source, tmp_path / "out", seed=0, minutes=minutes)
    with pytest.raises(CorpusError, match="no --source: pass a folder of German recordings"):
        german.prepare(None, tmp_path / "out", seed=0)


def test_german_test_sentences_are_not_in_training(tmp_path, monkeypatch):
    """Three of its test sentences stood among the training texts, but for case and punctuation."""
    monkeypatch.setattr(german, "TEST_MINUTES", 0.01)
    monkeypatch.setattr(german, "VALID_MINUTES", 0.005)
    source = make_corpus(tmp_path / "kerstin", 40)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    for number, text in {2: "Guten Tag!", 7: "guten tag", 36: "Guten Tag."}.items():
        lines[number]["text"] = text
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    german.prepare(source, tmp_path / "out", seed=0, minutes=0.02)
    parts = read_parts(tmp_path / "out")
    assert [int(each.id) for each in parts["train"]] == [number for number in range(14) if number not in (2, 7)]
    assert [int(each.id) for each in parts["test"]] == list(range(34, 40))
