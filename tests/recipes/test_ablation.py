"""The ablation: what it plans, what it computes from scores, and that it trains each trial once."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from conftest import TONE_SETTINGS, make_tone_corpus

from speechrnn.errors import ConfigError
from speechrnn.training.config_file import load_config

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "speechocean762"
specification = importlib.util.spec_from_file_location("ablation", FOLDER / "ablation.py")
ablation = importlib.util.module_from_spec(specification)
sys.modules["ablation"] = ablation  # dataclasses look their module up
specification.loader.exec_module(ablation)


def put_scores(trial, rows, *, seconds=100.0):
    trial.folder.mkdir(parents=True)
    kept = {"utterances": rows, "wer": 0.25, "seconds": seconds, "epoch": 1}
    trial.scores.write_text(json.dumps(kept), encoding="utf-8")


def test_the_plan_has_the_baseline_first_and_every_change_with_every_seed(tmp_path):
    trials = ablation.plan(tmp_path, [0, 1], None)
    assert (trials[0].change, trials[0].seed) == ("baseline", 0)
    names = [trial.change for trial in trials if trial.seed == 0]
    assert len(names) > 15
    assert [trial.change for trial in trials if trial.seed == 1] == names
    assert len({trial.folder for trial in trials}) == len(trials)
    with pytest.raises(ConfigError, match=r"--only magic: ablation.yaml has baseline, "):
        ablation.plan(tmp_path, [0], ["magic"])
    assert [trial.change for trial in ablation.plan(tmp_path, [3], ["GRU"])] == ["baseline", "GRU"]


def test_every_change_is_a_setting_that_differs_from_the_baselines(tmp_path):
    baseline, *others = ablation.plan(tmp_path, [0], None)
    plain = load_config(FOLDER / "config.yaml", baseline.settings)
    changed = [load_config(FOLDER / "config.yaml", trial.settings) for trial in others]
    assert all(config != plain for config in changed)
    assert len({str(config) for config in changed}) == len(changed)


def test_differences_are_over_the_seeds_that_both_have_and_their_intervals_over_speakers(tmp_path):
    trials = ablation.plan(tmp_path, [0, 1], ["GRU", "no dropout"])
    by_name = {(trial.change, trial.seed): trial for trial in trials}
    speakers = [f"s{number:02d}" for number in range(12)]
    for seed in (0, 1):
        put_scores(by_name["baseline", seed], [(speaker, 5, 10) for speaker in speakers])
        # Everybody gains two characters of ten with one seed and one with the other: no doubt, whoever is drawn.
        put_scores(by_name["GRU", seed], [(speaker, 3 + seed, 10) for speaker in speakers], seconds=150.0)
    # Half of them gain as much as the others lose: nothing can be said.
    rows = [(speaker, 9 if number % 2 else 1, 10) for number, speaker in enumerate(speakers)]
    put_scores(by_name["no dropout", 0], rows)
    baseline, first, second = ablation.compare(trials)
    assert (baseline["change"], baseline["cer"], baseline["seeds"]) == ("baseline", 0.5, 2)
    assert (first["change"], first["seeds"], first["time"]) == ("GRU", 2, 1.5)
    assert [first[name] for name in ("cer", "difference", "low", "high")] == pytest.approx([0.35, -0.15, -0.15, -0.15])
    assert (second["change"], second["seeds"]) == ("no dropout", 1)
    assert second["difference"] == pytest.approx(0.0)
    assert second["low"] < -0.1 < 0.1 < second["high"]
    table = ablation.describe([baseline, first, second])
    assert "| GRU | 35.0 | 25.0 | -15.0 | -15.0 to -15.0 | × 1.50 | 2 |" in table
    assert "| baseline | 50.0 | 25.0 |  |  | × 1.00 | 2 |" in table


def test_a_trial_is_trained_scored_and_not_done_again(tmp_path):
    for seed, name in enumerate(("train", "valid")):
        make_tone_corpus(tmp_path / "data" / f"{name}.jsonl", 12, seed=seed)
    settings = {**TONE_SETTINGS, "trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1}
    settings |= {"augment.speed": [1.0], "tokens.kind": "characters", "ctc.intermediate_layers": []}
    settings |= {"ctc.lexicon": None, "ctc.consistency": 0.0}
    trial = ablation.Trial("a change", 0, settings, tmp_path / "a-change" / "seed-0")
    assert ablation.run(trial, tmp_path / "data", "cpu") is None
    scores = json.loads(trial.scores.read_text())
    assert sorted({speaker for speaker, _, _ in scores["utterances"]}) == ["s0", "s1", "s2"]
    assert len(scores["utterances"]) == 12
    assert scores["seconds"] > 0
    written = trial.scores.stat().st_mtime_ns
    assert ablation.run(trial, tmp_path / "data", "cpu") is None
    assert trial.scores.stat().st_mtime_ns == written


def test_a_trial_that_fails_says_where_to_look(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho what went wrong: $* >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    trial = ablation.Trial("a change", 0, {"encoder.cell": "magic"}, tmp_path / "run")
    problem = ablation.run(trial, tmp_path / "data", "cpu")
    assert problem == f"a change, seed 0: failed, see {tmp_path / 'run' / 'log.txt'}"
    told = (tmp_path / "run" / "log.txt").read_text()
    assert told.startswith("what went wrong: ")
    assert "encoder.cell" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--source", "gone"],
            "error: --source gone: no such folder; pass the folder that the dataset's download made",
        ),
        (["--source", ".", "--only", "magic"], "error: --only magic: ablation.yaml has baseline, consistency 0.2, "),
    ],
)
def test_a_slip_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--output", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as caught:
        ablation.main()
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(complaint)
