"""The scripts that measure speaker adaptation: the initial state of a speaker, and fine-tuning on ten clips."""

import runpy
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import make_tone_corpus
from preparation import RECIPES, load

from speechrnn.corpus.manifest import read_manifest, write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError
from speechrnn.model_folder import save_model
from speechrnn.text.scores import ErrorCounts
from speechrnn.text.tokens import CharacterTokens

speakers = load("speechocean762", "speakers")
ten_clips = load("fsdd", "ten_clips")


def make_entry(tmp_path, id, speaker, seconds):
    return Utterance(id=id, audio_path=tmp_path / f"{id}.wav", seconds=seconds, text="a", speaker=speaker)


def test_adaptation_recordings_are_not_scored_and_speakers_with_too_few_are_left_out(tmp_path):
    spoken = {"anna": [4.0, 4.0, 4.0, 4.0], "bert": [4.0, 4.0], "carl": [9.0], "dora": [4.0, 7.0, 1.0]}
    entries = [
        make_entry(tmp_path, f"{name}-{number}", name, seconds)
        for name, lengths in spoken.items()
        for number, seconds in enumerate(lengths)
    ]
    found = speakers.split_speakers(entries, 8.0)
    ids = {name: [[entry.id for entry in part] for part in parts] for name, parts in found.items()}
    assert ids == {
        "anna": [["anna-0", "anna-1"], ["anna-2", "anna-3"]],
        "dora": [["dora-0", "dora-1"], ["dora-2"]],
    }


def test_in_the_control_every_speaker_gets_the_state_of_another():
    names = ["a", "b", "c"]
    wrong = speakers.next_speakers(names)
    assert sorted(wrong.values()) == names
    assert all(name != other for name, other in wrong.items())


@pytest.mark.usefixtures("one_thread")
def test_each_network_is_compared_with_its_own_initial_state(make_tiny_model, tmp_path):
    entries = read_manifest(make_tone_corpus(tmp_path / "tones.jsonl", 12, seed=3))
    found = speakers.split_speakers(entries, 2.0)
    assert len(found) > 1
    models = {}
    for kind in ("zero", "encoded"):
        tokens = CharacterTokens.build(["low middle high"])
        save_model(tmp_path / kind, make_tiny_model(tokens=tokens, initial_state=kind))
        models[kind] = str(tmp_path / kind)
    rows = speakers.measure(models, found, steps=2, readings={"zero": speakers.READINGS})
    assert [(network, way) for network, way, _, _ in rows] == [
        ("zero", "zeros"),
        ("zero", "adapted, 2 steps, with texts"),
        ("zero", "adapted, 2 steps, with texts, a wrong speaker's"),
        ("zero", "adapted, 2 steps, own readings"),
        ("zero", "adapted, 2 steps, own readings, a wrong speaker's"),
        ("encoded", "no reference"),
        ("encoded", "encoded"),
        ("encoded", "encoded, a wrong speaker's"),
    ]
    scored = sum(len(rest) for _, rest in found.values())
    assert all(len(errors) == scored for _, _, errors, _ in rows)
    own = {network: errors for network, _, errors, before in rows if before is None}
    assert all(before is own[network] for network, _, _, before in rows if before is not None)
    lines = speakers.describe(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2].endswith("|  |")  # a network against itself: nothing


def test_a_difference_is_in_points_of_wer():
    worse = [(f"s{number}", ErrorCounts(substitutions=2, length=4), ErrorCounts(length=9)) for number in range(20)]
    better = [(name, ErrorCounts(substitutions=1, length=4), characters) for name, _, characters in worse]
    table = speakers.describe([("zero", "zeros", worse, None), ("zero", "adapted", better, worse)])
    assert "| zero | adapted | 25.00 | 0.00 | -25.00 (-36.23 to -13.77) |" in table  # 20 words of 80 and one more


def test_ten_clips_have_each_digit_once_and_the_others_are_tested(tmp_path):
    entries = [make_entry(tmp_path, f"{d}_theo_{n}", "theo", 0.5) for d in range(10) for n in (4, 5, 15, 50)]
    ten, rest = ten_clips.split(entries, 5)
    assert [entry.id for entry in ten] == [f"{digit}_theo_5" for digit in range(10)]
    assert len(rest) == 30
    assert not {entry.id for entry in ten} & {entry.id for entry in rest}
    with pytest.raises(ConfigError, match="--clip 77: no clip has this number"):
        ten_clips.split(entries, 77)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("speechocean762/speakers", ["gone.jsonl", "--zero", "m", "--output", "o"], "gone.jsonl: no such manifest"),
        ("speechocean762/speakers", ["gone.jsonl", "--adapt", "all", "--output", "o"], "invalid choice: 'all'"),
        ("fsdd/ten_clips", ["--folds", "gone", "--output", "o"], "gone: no fold-SPEAKER/model"),
        ("fsdd/ten_clips", ["--folds", "one", "gone", "--output", "o"], "gone: no fold-theo/model"),
        ("fsdd/ten_clips", ["--folds", "gone", "--output", "o", "--set", "{"], "{: expected JSON such as"),
        ("fsdd/ten_clips", ["--folds", "gone", "--output", "o", "--set", "3"], "3: expected JSON such as"),
    ],
)
def test_an_error_is_one_line(tmp_path, monkeypatch, capsys, script, arguments, message):
    path = str(RECIPES / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one" / "fold-theo" / "model").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(path, run_name="__main__")
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_the_means_of_ten_clips_are_over_speakers():
    rows = [
        {"speaker": "a", "clips": 490, "before": 80.0, "stats": 82.5, "after": 90.0, "closed": 91.0, "seconds": 70.0},
        {"speaker": "b", "clips": 10, "before": 90.0, "stats": 91.5, "after": 100.0, "closed": 100.0, "seconds": 70.0},
    ]
    assert "| mean | | 85.0 | 87.0 | 95.0 | 95.5 | |" in ten_clips.describe(rows)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_fold_is_scored_before_and_after_fine_tuning_and_with_a_closed_vocabulary(tmp_path, monkeypatch, seeds):
    folds = [tmp_path / f"seed-{seed}" / "fold-theo" for seed in seeds]
    digits = [("five", 5, 5), ("five", 5, 6), ("eight", 8, 5), ("eight", 8, 6)]
    clips = [replace(make_entry(tmp_path, f"{digit}_theo_{n}", "theo", 0.5), text=text) for text, digit, n in digits]
    for fold in folds:
        fold.mkdir(parents=True)
        write_manifest(fold / "test.jsonl", clips)
    (tmp_path / "out").mkdir()
    old, new = [fold / "model" for fold in folds], [fold / "tuned" for fold in folds]
    errors = {("old", True, None): 0.4, ("old", False, None): 0.3, ("new", False, None): 0.2}

    def score(model, path, *, use_speaker_stats=True, speaker=None, sentences=None):
        assert (speaker is None) == (not use_speaker_stats)
        rate = 0.1 if sentences == ["eight", "five"] else errors[model.name, not use_speaker_stats, sentences]
        return SimpleNamespace(score=SimpleNamespace(sentence_error_rate=rate), utterances=read_manifest(path))

    def tune(model, train, valid, *, output, replay, overrides):
        assert train == valid == tmp_path / "out" / "ten.jsonl"
        assert replay == model.parent / "train.jsonl"
        outputs.append(output)
        taken.update(overrides)
        return SimpleNamespace(training=SimpleNamespace(model=model.parent / "tuned", seconds=70.0))

    taken, outputs = {}, []
    monkeypatch.setattr(ten_clips, "finetune", tune)
    monkeypatch.setattr(
        ten_clips,
        "load",
        lambda names: SimpleNamespace(name={str(old): "old", str(new): "new"}[str(names)], estimate_speaker=len),
    )
    monkeypatch.setattr(ten_clips, "evaluate", score)
    row = ten_clips.run(folds, tmp_path / "out", clip=5, overrides={"trainer.max_epochs": 3, "seed": 7})
    assert [row[name] for name in ("speaker", "clips", "seconds")] == ["theo", 2, 70.0 * len(seeds)]
    assert [row[name] for name in ("before", "stats", "after", "closed")] == pytest.approx([60, 70, 80, 90])
    assert taken == {**ten_clips.SETTINGS, "trainer.max_epochs": 3, "seed": 7}  # overrides take precedence
    assert len(set(outputs)) == len(seeds)
