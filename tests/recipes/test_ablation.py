"""The ablation: what it plans, what it computes from scores, and that it trains each trial once."""

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TONE_SETTINGS, make_tone_corpus
from safetensors import SafetensorError

from speechrnn.cli.main import main
from speechrnn.errors import ConfigError
from speechrnn.training.config_file import load_config

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "speechocean762"
specification = importlib.util.spec_from_file_location("ablation", FOLDER / "ablation.py")
ablation = importlib.util.module_from_spec(specification)
sys.modules["ablation"] = ablation  # dataclasses look their module up
specification.loader.exec_module(ablation)


def keep(scores, trial, speakers, *, seconds=100.0):
    scores.keep(trial, {"speakers": speakers, "wer": 0.25, "seconds": seconds})


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


def test_every_change_differs_from_the_baseline_in_one_setting(tmp_path):
    baseline, *others = ablation.plan(tmp_path, [0], None)
    plain = load_config(FOLDER / "config.yaml", baseline.settings)
    changed = [load_config(FOLDER / "config.yaml", trial.settings) for trial in others]
    assert all(config != plain for config in changed)
    assert len({str(config) for config in changed}) == len(changed)


def test_differences_are_over_the_seeds_that_both_have_and_their_intervals_over_speakers(tmp_path):
    trials = ablation.plan(tmp_path, [0, 1], ["GRU", "no dropout"])
    by_name = {(trial.change, trial.seed): trial for trial in trials}
    scores = ablation.Scores(tmp_path / "scores.json")
    speakers = [f"s{number:02d}" for number in range(12)]
    for seed in (0, 1):
        keep(scores, by_name["baseline", seed], dict.fromkeys(speakers, (5, 10)))
        # All speakers gain two characters of ten with one seed and one with the other: no variance between them.
        keep(scores, by_name["GRU", seed], dict.fromkeys(speakers, (3 + seed, 10)), seconds=150.0)
    # Half of them gain as much as the others lose: nothing can be said.
    gains = {speaker: (9 if number % 2 else 1, 10) for number, speaker in enumerate(speakers)}
    keep(scores, by_name["no dropout", 0], gains)
    baseline, first, second = ablation.compare(trials, ablation.Scores(scores.path))
    assert (baseline["change"], baseline["cer"], baseline["apart"]) == ("baseline", 0.5, [0.0, 0.0])
    assert (first["change"], first["time"]) == ("GRU", 1.5)
    assert first["apart"] == pytest.approx([-0.2, -0.1])
    width = 1.95996 * (2 * 12 + 12 + 1) ** 0.5 / 240  # the least that the paired interval has
    found = [first[name] for name in ("cer", "difference", "low", "high")]
    assert found == pytest.approx([0.35, -0.15, -0.15 - width, -0.15 + width], abs=1e-5)
    assert (second["change"], second["apart"]) == ("no dropout", [pytest.approx(0.0)])
    assert second["difference"] == pytest.approx(0.0)
    assert second["low"] < -0.1 < 0.1 < second["high"]
    table = ablation.describe([baseline, first, second])
    assert "| GRU | 35.0 | 25.0 | -15.0 | -20.0 to -10.0 | -20.0, -10.0 | × 1.50 |" in table
    assert "| baseline | 50.0 | 25.0 |  |  |  | × 1.00 |" in table


def run_here(command, **_):
    """The command in this process."""
    assert command[:3] == [sys.executable, "-m", "speechrnn.cli.main"]
    return SimpleNamespace(returncode=main(command[3:]))


def test_a_finished_trial_is_not_repeated(tmp_path, monkeypatch):
    for seed, name in enumerate(("train", "valid")):
        make_tone_corpus(tmp_path / "data" / f"{name}.jsonl", 12, seed=seed)
    settings = {**TONE_SETTINGS, "trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1}
    settings |= {"augment.speed": [1.0], "tokens.kind": "characters", "ctc.intermediate_layers": []}
    settings |= {"ctc.lexicon": None, "ctc.consistency": 0.0, "checkpoints.average": False}
    trial = ablation.Trial("a change", 0, settings, tmp_path / "a-change" / "seed-0")
    scores = ablation.Scores(tmp_path / "scores.json")
    monkeypatch.setattr(ablation.subprocess, "run", run_here)
    assert ablation.run(trial, tmp_path / "data", "cpu", scores) is None
    [row] = json.loads(scores.path.read_text())
    assert (row["change"], row["seed"], row["settings"]) == ("a change", 0, settings)
    assert list(row["speakers"]) == ["s0", "s1", "s2"]
    texts = [json.loads(line) for line in (tmp_path / "data" / "valid.jsonl").read_text().splitlines()]
    letters = sum(len(each["text"].rstrip(".")) for each in texts if each["speaker"] == "s1")
    assert row["speakers"]["s1"][1] == letters
    assert row["seconds"] > 0
    later = trial.folder / "checkpoints" / "epoch-2-step-99.safetensors"
    later.write_bytes(b"not weights")
    with pytest.raises(SafetensorError):
        ablation.score(trial, tmp_path / "data", "cpu")  # of the last epoch
    monkeypatch.setattr(ablation, "score", lambda *_: pytest.fail("done again"))
    shutil.rmtree(trial.folder)  # as on another machine: the scores are enough
    assert ablation.run(trial, tmp_path / "data", "cpu", ablation.Scores(scores.path)) is None
    other = dataclasses.replace(trial, settings={**settings, "seed": 5})
    assert ablation.Scores(scores.path).find(other) is None


def test_a_result_is_reused_only_with_the_same_settings(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/commands\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(ablation, "score", lambda *_: {"speakers": {}, "wer": 0.0, "seconds": 1.0})
    trial = ablation.Trial("a change", 0, {"encoder.cell": "gru"}, tmp_path / "trial")
    other = dataclasses.replace(trial, settings={"encoder.cell": "lstm"})

    def run(which):
        (tmp_path / "commands").write_text("")
        scores = ablation.Scores(tmp_path / "none.json")
        assert ablation.run(which, tmp_path / "data", "cpu", scores) is None
        scores.path.unlink()
        return (tmp_path / "commands").read_text()

    assert "--encoder.cell=gru" in run(trial)
    (trial.folder / "model").mkdir()
    assert run(trial) == ""  # trained before, and not scored
    assert "--encoder.cell=lstm" in run(other)
    assert "--encoder.cell=gru" in run(trial)
    (trial.folder / "checkpoints").mkdir()
    (trial.folder / ablation.LAST).touch()
    assert f"--resume {trial.folder}" in run(trial)
    assert "--encoder.cell=lstm" in run(other)


def test_the_last_epochs_weights_are_scored(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("epoch-2-step-99", "epoch-10-step-495", "epoch-9-step-446"):
        (tmp_path / "checkpoints" / f"{name}.safetensors").touch()
    assert ablation.find_last_weights(tmp_path).stem == "epoch-10-step-495"
    trained = ablation.plan(tmp_path, [0], ["GRU"])[0].settings
    assert (trained["checkpoints.best"], trained["checkpoints.average"]) == (trained["trainer.max_epochs"], False)


def test_a_failed_trial_names_its_log(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho what went wrong: $* >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    trial = ablation.Trial("a change", 0, {"encoder.cell": "magic"}, tmp_path / "run")
    problem = ablation.run(trial, tmp_path / "data", "cpu", ablation.Scores(tmp_path / "scores.json"))
    assert problem == f"a change, seed 0: failed, see {tmp_path / 'run' / 'log.txt'}"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.startswith("what went wrong: ")
    assert "encoder.cell" in log


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--source", "gone"],
            "error: --source gone: no such folder; expected the downloaded dataset",
        ),
        (["--source", ".", "--only", "magic"], "error: --only magic: ablation.yaml has baseline, consistency 0.2, "),
        (
            ["--source", ".", "--scores", str(FOLDER / "ablation.yaml")],
            f"error: --scores {FOLDER / 'ablation.yaml'}: not ",
        ),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--output", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as caught:
        ablation.main()
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(complaint)
