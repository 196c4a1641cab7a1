"""Corpora may use one name for different people: a speaker is a name within a corpus."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.channel import NoiseConfig
from speechrnn.corpus.batches import BatchRequest
from speechrnn.corpus.splits import hold_out_speakers
from speechrnn.corpus.survey import compare, survey_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.evaluation import evaluate
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.training.data import UtteranceDataset


@pytest.fixture
def utterances(tmp_path):
    """Two recordings each of ``s`` in two corpora: one corpus holds 500 Hz alone, the other 2000 Hz."""
    made = []
    for corpus, hertz in (("a", 500), ("b", 2000)):
        for number in range(2):
            path = tmp_path / f"{corpus}{number}.wav"
            soundfile.write(path, 0.1 * np.sin(2 * np.pi * hertz * (np.arange(8000) + number) / 8000), 8000)
            made.append(Utterance(f"{corpus}{number}", path, "one", seconds=1.0, speaker="s", corpus=corpus))
    return made


def loudest(samples) -> int:
    return int(np.abs(np.fft.rfft(np.asarray(samples)[:4000])).argmax()) * 2


def make_dataset(utterances, **options):
    return UtteranceDataset(
        utterances, sample_rate=8000, explain_infeasible=lambda tokens, samples: None, seed=0, **options
    )


def test_earlier_speech_of_a_speaker_comes_from_the_same_corpus(utterances):
    dataset = make_dataset(utterances, augment=None, with_references=True)
    for epoch in range(6):
        batch = dataset[BatchRequest(epoch, 0, [0, 1, 2, 3])]
        assert batch.reference_lengths.tolist() == [8000] * 4
        assert [loudest(each) for each in batch.references] == [500, 500, 2000, 2000]


def test_noise_by_a_speaker_of_the_same_name_in_another_corpus_is_noise(utterances):
    noise = NoiseConfig(probability=1.0, snr_db=(0.0, 0.0), kinds=("babble",), voices=(1, 1))
    dataset = make_dataset(utterances, augment=AugmentConfig(speed=(1.0,), noise=noise))
    [samples] = dataset[BatchRequest(0, 0, [0])].waveforms
    power = np.abs(np.fft.rfft(samples.numpy()[:8000])) ** 2
    assert power[2000] == pytest.approx(power.sum() / 2, rel=0.05)


def test_a_survey_counts_and_compares_speakers_by_corpus(utterances, tmp_path):
    def write(name: str, corpora) -> Path:
        lines = [
            {"audio_filepath": str(each.audio_path), "duration": 1.0, "text": f"{name} {each.id}", "speaker": "s"}
            | ({"corpus": corpora[each.corpus]} if corpora[each.corpus] else {})
            for each in utterances
            if each.corpus in corpora
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / f"{name}.jsonl"

    both = survey_corpus(write("both", {"a": "a", "b": "b"}))
    assert both.to_dict()["speakers"] == 2
    one, other = survey_corpus(write("one", {"a": "a"})), survey_corpus(write("other", {"b": "b"}))
    unnamed = survey_corpus(write("unnamed", {"b": None}))
    assert not [leak for leak in compare(one, other) if "speakers are in both" in leak]
    for train, test in ((one, both), (both, one), (one, unnamed), (unnamed, one)):
        assert "1 speakers are in both, such as s" in compare(train, test)


def test_held_out_speakers_are_those_of_one_corpus(utterances):
    kept, held_out = hold_out_speakers(utterances, every=2, where="here")
    assert [each.id for each in kept] == ["a0", "a1"]
    assert [each.id for each in held_out] == ["b0", "b1"]


def test_scores_are_grouped_by_speaker_and_corpus(utterances, tmp_path, make_tiny_model, monkeypatch):
    lines = [
        {"audio_filepath": str(each.audio_path), "duration": 1.0, "text": "one", "speaker": "s", "corpus": each.corpus}
        for each in [*utterances, replace(utterances[0], corpus="c")]
    ]
    lines[-1] |= {"id": "last", "offset": 0.5, "duration": 0.5}
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = []
    true = evaluate.score

    def score(references, hypotheses, *, speakers):
        groups.append(speakers)
        return true(references, hypotheses, speakers=speakers)

    monkeypatch.setattr(evaluate, "score", score)
    found = evaluate.evaluate(Recognizer(make_tiny_model()), tmp_path / "corpus.jsonl")
    for speakers in groups:
        assert len(set(speakers)) == 3
        assert speakers[0] == speakers[1] != speakers[2] == speakers[3]
    assert len({each.speaker_key for each in found.utterances}) == 3
