"""``speechrnn recipe``: what is printed and returned at each stage and fold, and one line for every slip."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import TONE_SETTINGS, make_tone_configuration

from speechrnn.cli.main import main

SETTINGS = [part for name, value in TONE_SETTINGS.items() for part in (f"--{name}", str(value))]
PREPARE = '''
"""Hands out the tones of SOURCE; a fold is a speaker that only the test set has."""

import json

LANGUAGE = "en"
SPEAKERS = ["s0", "s1", "s2"]


def folds(source):
    return SPEAKERS


def prepare(source, output, *, seed, fold=None):
    for name in ("train", "valid", "test"):
        lines = [json.loads(line) for line in (source / f"{name}.jsonl").read_text().splitlines()]
        for line in lines:
            line["audio_filepath"] = str(source / line["audio_filepath"])
        chosen = [line for line in lines if fold is None or (line["speaker"] == fold) == (name == "test")]
        (output / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in chosen))
'''
RESULT_KEYS = {
    "recipe", "seed", "parameters", "training_seconds", "cores", "device", "interval_method", "sets"
}  # fmt: skip
SET_KEYS = {"utterances", "words", "wer", "wer_low", "wer_high", "cer", "sentence_error_rate"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The published form of the tone language."""
    folder = tmp_path_factory.mktemp("published")
    make_tone_configuration(folder)
    return folder


def make_recipe(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.yaml").write_text("data: {train: train.jsonl, valid: valid.jsonl, test: {test: test.jsonl}}\n")
    return folder


def run_recipe(folder: Path, source: Path, output: Path, *arguments: object) -> int:
    """Run a recipe with one epoch of training."""
    common = ["--source", str(source), "--output", str(output), *SETTINGS, "--trainer.max_epochs", "1"]
    return main(["recipe", str(folder), *common, *map(str, arguments)])


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_recipe(tmp_path / "recipes" / "tones")


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def recipe(folder, source, output):
    return partial(run_recipe, folder, source, output)


@pytest.fixture(scope="module")
def finished_run(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert run_recipe(make_recipe(folder / "tones"), source, folder / "out") == 0
    return folder / "out"


@pytest.fixture
def finished(recipe, finished_run, output):
    """The recipe where it has run to its end."""
    shutil.copytree(finished_run, output)
    return recipe


def error_of(capsys) -> str:
    """What the error says: the last line of standard error, and the only one of its kind."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("speechrnn: error: ") == 1
    assert "Traceback" not in captured.err
    last = captured.err.splitlines()[-1]
    assert last.startswith("speechrnn: error: ")
    return last.removeprefix("speechrnn: error: ")


def spoil(folder: Path, name: str, **changes: object) -> None:
    """Have prepare.py give the first utterance of a set other values."""
    line = f"        if name == {name!r}:\n            lines[0].update({changes!r})\n"
    (folder / "prepare.py").write_text(PREPARE.replace("        chosen = ", f"{line}        chosen = "))


def stages_in(text: str) -> list[str]:
    """The stages that standard error says were run."""
    return [line.split()[1] for line in text.splitlines() if line.endswith(" …")]


def test_a_recipe_prints_its_table_and_the_paths_of_its_output(capsys, recipe, output):
    assert recipe("--seed", 3) == 0
    captured = capsys.readouterr()
    assert stages_in(captured.err) == ["prepare", "check", "train", "evaluate", "report"]
    assert all(line.startswith("speechrnn: ") for line in captured.err.splitlines())
    assert captured.out.startswith("# tones, seed 3\n")
    for name in ("model", "hypotheses.jsonl", "results.json", "logs"):
        assert str(output / name) in captured.out
        assert (output / name).exists()
    results = json.loads((output / "results.json").read_text())
    assert set(results) >= RESULT_KEYS
    assert set(results["sets"]) == {"valid", "test"}
    assert all(set(scores) >= SET_KEYS for scores in results["sets"].values())
    assert f"| test | 15 | {results['sets']['test']['words']} |" in captured.out


def test_a_second_call_does_nothing_and_prints_the_same(capsys, finished, finished_run, output):
    assert finished() == 0
    captured = capsys.readouterr()
    assert captured.out == (output / "report.md").read_text().replace(str(finished_run), str(output)) + "\n"
    assert stages_in(captured.err) == []
    assert captured.err.count("already done") == 5


def test_stages_stop_at_the_requested_stage_without_a_table(capsys, recipe, output):
    for stage, made in (("prepare", "train.jsonl"), ("check", "left_out.jsonl"), ("train", "model")):
        assert not (output / made).exists()
        assert recipe("--stage", stage) == 0
        captured = capsys.readouterr()
        assert (captured.out, stages_in(captured.err)) == ("", [stage])
        assert (output / made).exists()
    assert recipe("--stage", "evaluate") == 0
    assert capsys.readouterr().out.startswith("# tones, seed 0\n")
    assert not (output / "report.md").exists()


def test_a_stage_run_again_does_not_print_the_results_of_the_model_before(capsys, finished):
    assert finished("--stage", "train") == 0
    assert capsys.readouterr().out == ""


def test_check_reports_what_would_be_trained_on(capsys, recipe):
    assert recipe("--stage", "check") == 0
    assert (
        "60 training utterances (0.01 h), 15 for validation, 0 left out; 4 tokens: <blank> high low middle"
    ) in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["check", "train", None])
def test_utterances_left_out_are_named_and_exit_code_1(capsys, recipe, folder, output, stage):
    spoil(folder, "train", text="low " * 50)
    assert recipe("--stage", "prepare") == 0
    assert recipe(*(["--stage", stage] if stage else [])) == 1
    error = capsys.readouterr().err
    assert "speechrnn: warning: left out of training: train-0: 50 tokens with 49 repeats need at least 99" in error
    assert "1 of 60 utterances are left out of training" in error
    assert [json.loads(line)["id"] for line in (output / "left_out.jsonl").read_text().splitlines()] == ["train-0"]
    if stage is None:
        assert recipe() == 1  # nothing is done, and it is still so
        assert json.loads((output / "results.json").read_text())["utterances_left_out"] == 1


def test_a_test_recording_that_cannot_be_transcribed_is_exit_code_1(capsys, recipe, folder):
    spoil(folder, "test", duration=0.01)
    assert recipe() == 1
    assert "counts as not recognised: test-0: 0.01" in capsys.readouterr().err


def test_all_folds_end_with_one_table(capsys, recipe, output):
    assert recipe("--fold", "all") == 0
    out = capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {"fold-s0", "fold-s1", "fold-s2"}
    assert [line for line in out.splitlines() if line.startswith("# ")] == [
        f"# tones, s{number} left out, seed 0" for number in range(3)
    ]
    *_, header, _, first, second, third, mean = out.splitlines()
    assert header.startswith("| left out |")
    assert [row.split(" | ")[0] for row in (first, second, third, mean)] == ["| s0", "| s1", "| s2", "| mean"]
    for number in range(3):
        speakers = {
            json.loads(line)["speaker"]
            for name in ("train", "valid")
            for line in (output / f"fold-s{number}" / f"{name}.jsonl").read_text().splitlines()
        }
        assert f"s{number}" not in speakers


def test_one_fold_prints_only_its_table(capsys, recipe, output):
    assert recipe("--fold", "s1", "--stage", "prepare") == 0
    assert recipe("--fold", "s1") == 0
    out = capsys.readouterr().out
    assert out.startswith("# tones, s1 left out, seed 0\n")
    assert "| mean |" not in out


def test_folds_stop_at_a_stage_without_a_table(capsys, recipe, output):
    assert recipe("--fold", "all", "--stage", "prepare") == 0
    assert capsys.readouterr().out == ""
    assert len(list(output.glob("fold-*/train.jsonl"))) == 3


def test_the_default_output_is_runs_and_the_name_of_the_recipe(capsys, folder, source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["recipe", str(folder), "--source", str(source), *SETTINGS, "--stage", "prepare"]) == 0
    assert (tmp_path / "here" / "runs" / "tones" / "train.jsonl").is_file()


def test_settings_on_the_command_line_take_precedence_over_the_recipe(recipe, folder, output):
    with (folder / "config.yaml").open("a") as file:
        file.write("encoder: {cell: lstm}\nseed: 7\n")
    assert recipe("--stage", "train", "--encoder.hidden_size=12", "--seed", 9) == 0
    made = json.loads((output / "model" / "config.json").read_text())
    assert (made["encoder"]["cell"], made["encoder"]["hidden_size"]) == ("lstm", 12)
    assert (made["provenance"]["training"]["seed"], made["provenance"]["recipe"]) == (9, "tones")


def test_another_setting_does_not_replace_a_trained_model(capsys, finished, output):
    weights = (output / "model" / "model.safetensors").read_bytes()
    assert finished("--encoder.hidden_size", "12") == 2
    assert error_of(capsys) == (
        f"{output}: holds a run with other settings (encoder.hidden_size was 24, now 12); "
        "pass --output for another folder, or --stage train to train again here"
    )
    assert (output / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "fly"], "--stage fly: expected one of prepare, check, train, evaluate, report"),
        (["--stage"], "argument --stage: expected one argument"),
        (["--fold", "s9"], "--fold s9: expected one of s0, s1, s2, or all"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'; see speechrnn recipe --help"),
        (["--seed", "-1"], "seed: expected a whole number in [0, 4294967295], got -1"),
        (["--source", "/no/such"], "--source /no/such: no such folder; expected the downloaded dataset"),
        (["--encoder.hiden_size", "12"], "unknown setting encoder.hiden_size; did you mean encoder.hidden_size"),
        (["--encoder.cel", "gru"], "unknown setting encoder.cel; did you mean encoder.cell"),
        (["--sourc", "here"], "unknown setting sourc"),
        (["--encoder.cell", "transformer"], "encoder.cell"),
        (["--trainer.max_epochs", "some"], "trainer.max_epochs"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys, recipe, output, arguments, message):
    assert recipe(*arguments) == 2
    assert message in error_of(capsys)
    assert not (output / "train.jsonl").exists()


@pytest.mark.parametrize("missing", ["prepare.py", "config.yaml"])
def test_a_folder_without_a_recipe_is_one_line(capsys, recipe, folder, missing):
    (folder / missing).unlink()
    for arguments in ([], ["--fold", "all"]):
        assert recipe(*arguments) == 2
        assert error_of(capsys) == f"{folder}: has no {missing}; a recipe is a folder with prepare.py and config.yaml"


def test_a_missing_folder_argument_and_a_missing_folder_are_one_line(capsys):
    assert main(["recipe"]) == 2
    assert error_of(capsys) == "the following arguments are required: FOLDER; see speechrnn recipe --help"
    assert main(["recipe", "/no/such/recipe"]) == 2
    assert error_of(capsys).startswith("/no/such/recipe: has no prepare.py")


def test_a_fold_of_a_recipe_without_folds_is_refused(capsys, recipe, folder):
    (folder / "prepare.py").write_text(PREPARE.replace("def folds", "def no_folds"))
    for fold in ("all", "s1"):
        assert recipe("--fold", fold) == 2
        assert error_of(capsys) == f"{folder}: this recipe has no folds; remove --fold"


@pytest.mark.parametrize(
    ("text", "message"),
    [("encoder: {cel: gru}", "did you mean encoder.cell"), ("data: [1", "config.yaml line 1: cannot be read as YAML")],
)
def test_a_wrong_configuration_is_one_line(capsys, recipe, folder, text, message):
    (folder / "config.yaml").write_text(text)
    assert recipe() == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("'{low'", "train.jsonl line 1: cannot be read as JSON"),
        ("""'{"audio_filepath": "gone.wav", "duration": 1, "text": "low"}'""", "gone.wav: no such file"),
        ("''", "the manifest contains no utterance"),
    ],
)
def test_manifests_with_a_fault_are_one_line(capsys, recipe, folder, output, line, message):
    with (folder / "prepare.py").open("a") as file:
        file.write(f"    (output / 'train.jsonl').write_text({line} + chr(10))\n")
    assert recipe() == 2
    assert message in error_of(capsys)
    assert not (output / "model").exists()


def test_a_recipe_without_manifests_is_one_line(capsys, recipe, folder, output):
    (folder / "prepare.py").write_text("def prepare(source, output, *, seed, fold=None): ...")
    assert recipe() == 2
    assert error_of(capsys).startswith(f"data.train: no train.jsonl in {output}, {folder}, .;")


def test_a_corpus_without_usable_utterances_is_one_line(capsys, recipe, folder):
    (folder / "prepare.py").write_text(
        PREPARE.replace("        chosen = ", "            line['text'] = 'low ' * 99\n        chosen = ")
    )
    assert recipe() == 2
    assert "none of 60 utterances can be trained on; the first, train-0: 99 tokens" in error_of(capsys)


def test_an_output_folder_that_cannot_be_made_is_one_line(capsys, recipe, folder):
    for output in (folder / "prepare.py", folder / "prepare.py" / "inside"):
        assert recipe("--output", output) == 2
        assert error_of(capsys).startswith(f"output {output}: cannot make this folder (")


def test_an_unknown_fold_leaves_nothing_behind(capsys, recipe, output):
    assert recipe("--fold", "s9") == 2
    assert error_of(capsys) == "--fold s9: expected one of s0, s1, s2, or all"
    assert not output.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [("", "prepare.py: expected a function prepare, found none"), ("x =", "prepare.py line 1: not valid Python (")],
)
def test_an_invalid_prepare_is_one_line(capsys, recipe, folder, code, message):
    (folder / "prepare.py").write_text(code)
    assert recipe() == 2
    assert message in error_of(capsys)


def test_a_damaged_record_is_one_line(capsys, recipe, output):
    assert recipe("--stage", "prepare") == 0
    (output / "stages.json").write_text("{")
    capsys.readouterr()
    assert recipe() == 2
    assert f"{output / 'stages.json'}: cannot be read as JSON" in error_of(capsys)


def test_a_missing_test_set_is_found_before_training(capsys, recipe, folder, output):
    with (folder / "prepare.py").open("a") as file:
        file.write("    (output / 'test.jsonl').unlink()\n")
    assert recipe() == 2
    assert error_of(capsys) == f"data.test: no test.jsonl in {output}; prepare.py should write at least one"
    assert not (output / "model").exists()


def test_checking_a_finished_run_changes_nothing(capsys, finished):
    assert finished("--stage", "check") == 0
    capsys.readouterr()
    assert finished() == 0
    assert stages_in(capsys.readouterr().err) == []


@pytest.mark.parametrize("stage", ["prepare", "check"])
def test_rerunning_a_stage_does_not_allow_replacing_a_trained_model(capsys, finished, stage):
    assert finished("--stage", stage) == 0
    capsys.readouterr()
    assert finished("--encoder.hidden_size", "12") == 2
    assert "holds a run with other settings (encoder.hidden_size was 24, now 12)" in error_of(capsys)


def test_a_stage_after_a_new_preparation_is_run_again(capsys, finished):
    assert finished("--stage", "prepare") == 0
    capsys.readouterr()
    assert finished("--stage", "train") == 0
    assert stages_in(capsys.readouterr().err) == ["check", "train"]


def test_the_table_reports_what_was_left_out(capsys, recipe, folder, output):
    spoil(folder, "train", text="low " * 50)
    assert recipe() == 1
    assert f"1 utterances left out of training, see {output / 'left_out.jsonl'}." in capsys.readouterr().out


def test_help_explains_settings_stages_and_folds_and_shows_an_example(capsys):
    assert main(["recipe", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "usage: speechrnn recipe FOLDER [options] [--KEY VALUE …]" in out
    assert "--KEY VALUE overrides the recipe's config.yaml, as in --encoder.hidden_size 192" in out
    assert "prepare, check, train, evaluate or report" in out
    assert "all: each part in turn" in out
    assert "example: speechrnn recipe recipes/fsdd --source" in out
