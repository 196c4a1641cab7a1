"""What a survey finds: every kind of fault, put there on purpose, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.survey import ModelView, compare, propose_rule, survey_corpus
from speechrnn.text.tokens import CharacterTokens

TOKENS = CharacterTokens.build(["abcdefghijklmnopqrstuvwxyz '"])


def speak(seconds, *, rate=16000, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * rate))).astype(np.float32).clip(-1, 1)


@pytest.fixture
def corpus(tmp_path):
    """Thirty sound utterances; more are added by name."""
    lines = []

    def add(name, samples, text="one two three", *, rate=16000, speaker="s1", **more):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        lines.append(
            {
                "id": name,
                "audio_filepath": path.name,
                "duration": len(samples) / rate,
                "text": text,
                "speaker": speaker,
                **more,
            }
        )
        return path

    def write(name="train.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / name

    for number in range(30):
        add(f"good{number:02d}", speak(1.2 + 0.01 * number, seed=number), speaker=f"s{number % 3}")
    return add, write, lines


def by_kind(survey):
    found = {}
    for finding in survey.findings:
        found.setdefault(finding.kind, []).append(finding.id)
    return found


def test_a_corpus_without_faults_has_no_findings(corpus):
    _, write, _ = corpus
    survey = survey_corpus(write())
    assert survey.findings == []
    found = survey.to_dict()
    assert (found["utterances"], found["speakers"], found["left_out"]) == (30, 3, 0)
    assert found["seconds"] == pytest.approx(sum(1.2 + 0.01 * number for number in range(30)))
    assert found["sample_rates"] == {"16000": 30}
    assert found["band_limit_hz"] is None
    assert found["characters"]["e"] == 90
    assert len(survey.clean) == 30


def test_every_fault_is_found_without_false_alarms(corpus):
    add, write, lines = corpus
    add("silent", np.zeros(16000, np.float32))
    add("clipped", speak(1.2, seed=50, level=3.0))
    add("odd", speak(1.2, rate=8000, seed=51), rate=8000)
    add("long", speak(31.0, seed=52), "one two three " * 25)
    add("short", speak(0.15, seed=53), "oh")
    add("fast", speak(0.5, seed=54), "a text of another utterance that is much longer than its sound " * 2)
    add("blank", speak(1.2, seed=55), "")
    add("twin", speak(1.2, seed=0), "one two three")
    add("broken", speak(1.2, seed=56)).write_bytes(b"RIFF")
    add("nan", np.full(16000, np.nan, np.float32))
    lines.append({"id": "gone", "audio_filepath": "gone.wav", "duration": 1.0, "text": "one"})
    survey = survey_corpus(write())
    assert by_kind(survey) == {
        "unreadable": ["broken", "gone", "nan"],
        "silent": ["silent"],
        "clipped": ["clipped"],
        "odd sample rate": ["odd"],
        "long": ["long"],
        "short": ["short"],
        "duplicate": ["twin"],
        "speaking rate": ["fast"],
        "empty text": ["blank"],
    }
    assert set(survey.left_out) == {"broken", "gone", "nan", "blank"}
    assert not set(survey.left_out) & {entry.id for entry in survey.clean}
    details = {finding.id: finding.detail for finding in survey.findings}
    assert details["twin"] == "the same sound as good00, and the same text"
    assert "all samples are equal" in details["silent"]
    assert "8000 Hz" in details["odd"]
    assert "where" in details["fast"]


def make_view(texts):
    def explain(tokens, samples):
        return "too long a text" if len(tokens) > samples / 1600 else None

    return ModelView(lambda text: " ".join(text.replace("!", "").split()), TOKENS, 16000, explain)


def test_unknown_characters_and_unalignable_utterances_are_reported_with_a_proposal(corpus):
    add, write, _ = corpus
    add("capital", speak(3.0, seed=60), "One")
    add("accent", speak(3.0, seed=61), "café über")
    add("crowded", speak(1.2, seed=62), "one two three four")
    add("marks", speak(3.0, seed=63), "!!")
    survey = survey_corpus(write(), view=make_view)
    found = by_kind(survey)
    assert found["unknown characters"] == ["capital", "accent"]
    assert found["empty text"] == ["marks"]
    assert "crowded" in found["cannot be aligned"]
    assert survey.unknown["O"] == (1, "lower-case it (text.case)")
    assert survey.unknown["é"] == (1, "write e")
    assert survey.unknown["ü"] == (1, "write u")
    assert {"capital", "accent", "crowded", "marks"} <= set(survey.left_out)


@pytest.mark.parametrize(
    ("symbol", "proposal"),
    [
        ("Ä", "write a"),
        ("?", "leave it out"),
        ("7", "spell numbers out"),
        ("½", "spell numbers out"),
        ("ж", "give the model a token"),
        ("€", "leave it out"),
    ],
)
def test_a_rule_is_proposed_for_every_character(symbol, proposal):
    assert propose_rule(symbol, TOKENS).startswith(proposal)


def test_a_band_limit_is_reported_once_for_the_corpus(tmp_path):
    lines = []
    for number in range(5):
        rng = np.random.default_rng(number)
        spectrum = np.fft.rfft(rng.standard_normal(32000))
        spectrum[int(3400 / 8000 * len(spectrum)) :] = 0
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.fft.irfft(spectrum), 16000, subtype="FLOAT")
        lines.append({"audio_filepath": f"{number}.wav", "duration": 2.0, "text": "one"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    survey = survey_corpus(tmp_path / "a.jsonl")
    assert survey.band_limit_hz == pytest.approx(3400, abs=100)
    assert not [finding for finding in survey.findings if "band" in finding.kind]


def test_overlaps_of_training_and_test_are_reported(corpus, tmp_path):
    add, write, lines = corpus
    train = survey_corpus(write())
    lines.clear()
    add("other", speak(1.5, seed=99), "something else", speaker="s9")
    clean = survey_corpus(write("clean.jsonl"))
    assert compare(train, clean) == []
    add("again", speak(1.2, seed=0), "ONE two three", speaker="s1")
    leaks = compare(train, survey_corpus(write("test.jsonl")))
    assert [leak.split(" ")[0] for leak in leaks] == ["1", "1", "1"]
    assert "speakers are in both, such as s1" in leaks[0]
    assert "such as again" in leaks[1]
    assert "such as again's" in leaks[2]


def test_progress_is_reported(corpus):
    _, write, _ = corpus
    seen = []
    survey_corpus(write(), advance=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 30) for number in range(1, 31)]


def test_nothing_is_changed(corpus):
    _, write, _ = corpus
    path = write()
    before = {file: file.read_bytes() for file in Path(path.parent).iterdir()}
    survey_corpus(path)
    assert {file: file.read_bytes() for file in Path(path.parent).iterdir()} == before
