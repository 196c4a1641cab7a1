"""Scores of a model on a corpus: every utterance counted, worst first, failures named."""

import json
import shutil

import numpy as np
import pytest
import soundfile

import speechrnn
from speechrnn.atomic_io import write_json_lines
from speechrnn.corpus.readers import read_corpus
from speechrnn.errors import CorpusError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.evaluation.report import describe_errors, describe_score


@pytest.fixture(scope="module")
def recognizer(tone_run):
    return speechrnn.load(tone_run.model)


@pytest.fixture
def corpus(tone_run, tmp_path):
    """A copy of the test set to spoil: (manifest, its lines)."""
    shutil.copytree(tone_run.folder / "test", tmp_path / "test")
    lines = [json.loads(line) for line in (tone_run.folder / "test.jsonl").read_text().splitlines()]
    return tmp_path / "test.jsonl", lines


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_perfect_model_scores_zero_only_after_normalisation(recognizer, tone_run):
    evaluation = evaluate(recognizer, tone_run.folder / "test.jsonl")
    assert evaluation.score.wer == 0.0
    assert "binomial" in evaluation.score.interval_method
    assert evaluation.raw.sentence_error_rate == 1.0  # "Low." as written is not "low"
    assert evaluation.score.utterances == len(evaluation.utterances) == 15
    assert describe_errors(evaluation.utterances) == []
    assert "WER 0.00 %" in describe_score("test", evaluation.score)


def test_errors_are_counted_and_listed_first(recognizer, corpus):
    path, lines = corpus
    text = lines[4]["text"]
    lines[4]["text"] = text + " low low low"
    words = sum(len(line["text"].split()) for line in lines)
    evaluation = evaluate(recognizer, write_lines(path, lines))
    assert evaluation.utterances[0].id == "test-4"
    assert evaluation.utterances[0].errors == 3
    assert evaluation.score.wer == pytest.approx(3 / words)
    assert evaluation.score.sentence_error_rate == pytest.approx(1 / 15)
    assert describe_errors(evaluation.utterances)[0].count("-low") == 3


def test_a_recording_too_short_counts_as_deleted_and_is_named(recognizer, corpus):
    path, lines = corpus
    soundfile.write(path.parent / "click.wav", np.full(50, 0.1), 8000)
    lines.append({"audio_filepath": "click.wav", "duration": 50 / 8000, "text": "low high"})
    evaluation = evaluate(recognizer, write_lines(path, lines))
    worst = evaluation.utterances[0]
    assert (worst.id, worst.errors, worst.hypothesis) == ("click", 2, "")
    assert worst.problem.startswith("click: 0.0063 s is too short")
    assert evaluation.to_dict()["failed"] == 1
    assert evaluation.score.utterances == 16


def test_results_do_not_depend_on_the_batch(recognizer, tone_run):
    texts = []
    for batch_seconds in (0.1, 500.0):
        evaluation = evaluate(recognizer, tone_run.folder / "test.jsonl", batch_seconds=batch_seconds)
        texts.append({utterance.id: utterance.hypothesis for utterance in evaluation.utterances})
    assert texts[0] == texts[1]


def test_utterances_are_never_cut(recognizer, corpus, monkeypatch):
    """Whether a recording is cut depends on its length and on an installed extra; scores must not."""
    path, [line, *_] = corpus
    samples, rate = soundfile.read(path.parent / line["audio_filepath"])
    repeats = int(31 * rate / len(samples)) + 1
    soundfile.write(path.parent / "long.wav", np.tile(samples, repeats), rate)
    seconds = repeats * len(samples) / rate
    monkeypatch.setattr("speechrnn.recognition.longform.cut_recording", lambda *args, **options: pytest.fail("cut"))
    evaluation = evaluate(recognizer, write_lines(path, [{**line, "audio_filepath": "long.wav", "duration": seconds}]))
    assert evaluation.score.utterances == 1


def test_a_segment_of_a_recording_is_scored_alone(recognizer, corpus):
    path, lines = corpus
    waves = [soundfile.read(path.parent / line["audio_filepath"])[0] for line in lines[:2]]
    soundfile.write(path.parent / "both.wav", np.concatenate(waves), 8000)
    second = {**lines[1], "audio_filepath": "both.wav", "offset": len(waves[0]) / 8000}
    evaluation = evaluate(recognizer, write_lines(path, [second]))
    assert evaluation.score.wer == 0.0


def test_a_corpus_without_a_reference_word_is_refused(recognizer, corpus):
    path, lines = corpus
    write_lines(path, [{**line, "text": "…"} for line in lines])
    with pytest.raises(CorpusError, match="no utterance has a word in its reference"):
        evaluate(recognizer, path)


def test_rows_are_written_completely(recognizer, tone_run, tmp_path):
    evaluation = evaluate(recognizer, tone_run.folder / "test.jsonl")
    target = tmp_path / "deep" / "hypotheses.jsonl"
    write_json_lines(target, (utterance.to_dict() for utterance in evaluation.utterances))
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert {row["id"] for row in rows} == {f"test-{number}" for number in range(15)}
    assert set(rows[0]) == {
        "id", "audio", "speaker", "corpus", "seconds", "reference", "hypothesis", "wer", "cer", "errors", "confidence",
        "problem",
    }  # fmt: skip
    assert [path.name for path in target.parent.iterdir()] == ["hypotheses.jsonl"]


def test_a_corpus_in_memory_is_scored_like_its_path(recognizer, tone_run):
    path = tone_run.folder / "test.jsonl"
    assert evaluate(recognizer, read_corpus(path)) == evaluate(recognizer, path)
