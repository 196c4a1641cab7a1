"""A recipe's stages: done once, resumed, redone on demand, refused when the settings differ."""

import json
import re
from pathlib import Path

import pytest
from conftest import TONE_SETTINGS

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.evaluation.evaluate import evaluate as real_evaluate
from speechrnn.evaluation.tables import NO_SPEAKER_STATS, describe_folds, describe_results
from speechrnn.model_folder import load_model
from speechrnn.recipe import STAGES, list_folds, open_recipe, run_recipe
from speechrnn.training.train import train as real_train

PREPARE = '''
"""Writes manifests of tones."""

ATTRIBUTION = [{"corpus": "Tones", "license": "CC0-1.0", "source": "a generator", "attribution": "nobody"}]
FOLD_ATTRIBUTION = [{"corpus": "More", "license": "CC0-1.0", "source": "a generator", "attribution": "nobody"}]
LANGUAGE = "en"


def folds(source):
    return ["first", "second"]


def prepare(source, output, *, seed, fold=None):
    from conftest import make_tone_corpus

    (output / "prepared").write_text(f"{seed} {fold}")
    for number, (name, count) in enumerate({"train": 60, "valid": 10, "test": 12}.items()):
        make_tone_corpus(output / f"{name}.jsonl", count, seed=10 * seed + number, speakers=12)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "tones"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.yaml").write_text("data: {train: train.jsonl, valid: valid.jsonl, test: {test: test.jsonl}}\n")
    return folder


OVERRIDES = [part for name, value in TONE_SETTINGS.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts trainings."""
    calls: list[str] = []

    def count(config, **options):
        calls.append(config.output)
        return real_train(config, **options)

    monkeypatch.setattr("speechrnn.training.train.train", count)
    return calls


def open_tones(folder: Path, **options):
    overrides = [*OVERRIDES, *options.pop("overrides", [])]
    return open_recipe(folder, output=folder.parent / "out", overrides=overrides, **options)


def test_a_recipe_runs_all_stages_once(folder, trained):
    recipe = open_tones(folder, seed=1)
    results = run_recipe(recipe)
    assert results["recipe"] == "tones"
    assert results["seed"] == 1
    assert results["device"] == "cpu"
    assert results["parameters"] > 1000
    assert results["training_seconds"] > 0
    assert results["cores"] >= 1
    assert results["interval_method"] == results["sets"]["test"]["interval_method"]
    assert set(results["sets"]) == {"valid", "test"}
    test = results["sets"]["test"]
    assert test["utterances"] == 12
    assert test["wer"] == 0.0
    assert test["wer_low"] == 0.0 < test["wer_high"] < 0.3
    assert test["raw"]["sentence_error_rate"] == 1.0  # "Low high." as written is not "low high"
    assert results["test_scorings"] == 1
    rows = [json.loads(line) for line in (recipe.output / "hypotheses.jsonl").read_text().splitlines()]
    assert sum(row["set"] == "test" for row in rows) == 12
    card = (recipe.output / "model" / "README.md").read_text()
    assert "Tones" in card
    assert "CC0-1.0" in card
    assert "WER" in card
    again = run_recipe(recipe)
    assert again == results
    assert len(trained) == 1


def test_a_stage_run_again_invalidates_later_stages(folder, trained):
    recipe = open_tones(folder, overrides=["--trainer.max_epochs", "1"])
    run_recipe(recipe, stage="check")
    assert not (recipe.output / "model").exists()
    run_recipe(recipe)
    run_recipe(recipe, stage="train")
    assert len(trained) == 2
    assert set(json.loads((recipe.output / "stages.json").read_text())) == set(STAGES[:3])
    assert run_recipe(recipe)["test_scorings"] == 2
    assert "2 times" in (recipe.output / "report.md").read_text()


def test_a_missing_test_set_is_named_and_skipped(folder, caplog):
    (folder / "config.yaml").write_text(
        "data: {train: train.jsonl, valid: valid.jsonl, test: {other: other.jsonl, test: test.jsonl}}\n"
    )
    results = run_recipe(open_tones(folder, overrides=["--trainer.max_epochs", "1"]))
    assert "data.test.other: prepare.py did not write it, so it is not scored" in caplog.text
    assert set(results["sets"]) == {"valid", "test"}
    assert results["interval_method"] == results["sets"]["test"]["interval_method"]


def test_a_recipe_without_test_sets_is_an_error_before_training(folder, trained):
    (folder / "config.yaml").write_text(
        "data: {train: train.jsonl, valid: valid.jsonl, test: {a: a.jsonl, b: b.jsonl}}\n"
    )
    with pytest.raises(
        CorpusError, match=r"data.test: no a.jsonl or b.jsonl in .*prepare.py should write at least one"
    ):
        run_recipe(open_tones(folder))
    assert trained == []


def test_other_settings_never_replace_a_trained_model(folder, trained):
    short = ["--trainer.max_epochs", "1"]
    run_recipe(open_tones(folder, overrides=short), stage="train")
    other = open_tones(folder, overrides=[*short, "--encoder.hidden_size", "12"])
    with pytest.raises(ConfigError, match=r"other settings \(encoder.hidden_size was 24, now 12\); pass --output"):
        run_recipe(other)
    run_recipe(other, stage="train")
    assert len(trained) == 2


def test_folds_are_prepared_apart(folder):
    assert list_folds(folder, None) == ["first", "second"]
    recipe = open_tones(folder, fold="second", seed=3)
    run_recipe(recipe, stage="prepare")
    assert (folder.parent / "out" / "fold-second" / "prepared").read_text() == "3 second"
    with pytest.raises(ConfigError, match="--fold third: expected one of first, second, or all"):
        run_recipe(open_tones(folder, fold="third"), stage="prepare")


def test_settings_of_folds_apply_only_to_folds_and_yield_to_the_command_line(folder):
    (folder / "folds.yaml").write_text(
        "optimizer: {weight_decay: 0.5}\nctc: {consistency: 0.3}\ncheckpoints: {best: 4}\n"
    )
    official = open_tones(folder).config
    fold = open_tones(folder, fold="first", overrides=["--ctc.consistency", "0.1"]).config
    assert (official.optimizer.weight_decay, official.ctc.consistency, official.checkpoints.best) == (0.01, 0.0, 1)
    assert (fold.optimizer.weight_decay, fold.ctc.consistency, fold.checkpoints.best) == (0.5, 0.1, 4)
    assert fold.data == official.data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ctc: {consistancy: 0.3}", "unknown setting ctc.consistancy; did you mean ctc.consistency?"),
        ("ctc: {consistency: much}", "ctc.consistency: expected a number in [0, 100], got much"),
        ("ctc: [", "line 1: cannot be read as YAML"),
        ("- ctc", "expected settings, as in encoder: {cell: gru}, got ['ctc']"),
    ],
)
def test_an_error_in_the_settings_of_folds_names_their_file(folder, content, message):
    (folder / "folds.yaml").write_text(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(folder / 'folds.yaml'))}.*{re.escape(message)}"):
        open_tones(folder, fold="first")


def test_old_names_of_settings_are_read_in_the_settings_of_folds(folder):
    (folder / "folds.yaml").write_text("augment: {remains: {probability: 0.5}}")
    assert open_tones(folder, fold="first").config.augment.word_fragments.probability == 0.5


@pytest.mark.parametrize(("fold", "corpora"), [(None, ["Tones"]), ("first", ["Tones", "More"])])
def test_the_card_of_a_fold_names_corpora_that_only_folds_use(folder, fold, corpora):
    recipe = open_tones(folder, fold=fold, overrides=["--trainer.max_epochs", "1"])
    run_recipe(recipe, stage="train")
    provenance = load_model(recipe.output / "model").provenance
    assert [corpus["corpus"] for corpus in provenance["corpora"]] == corpora


def test_fold_table_averages_exact_utterances():
    scores = {"utterances": 4, "wer": 0.25, "wer_low": 0.1, "wer_high": 0.4}
    results = {
        name: {"sets": {"test": {**scores, "sentence_error_rate": wrong}}} for name, wrong in (("a", 0.1), ("b", 0.3))
    }
    assert describe_folds(results).splitlines()[-1] == "| mean | | 80.0 | | |"
    for name, wrong in (("a", 0.2), ("b", 0.5)):
        results[name]["sets"]["test" + NO_SPEAKER_STATS] = {**scores, "sentence_error_rate": wrong}
    heading, rule, first, _, mean = describe_folds(results).splitlines()
    assert first == "| a | 4 | 90.0 | 25.0 | 10.0–40.0 | 80.0 |"
    assert mean == "| mean | | 80.0 | | | 65.0 |"
    assert heading.count("|") == rule.count("|") == mean.count("|")


def test_a_model_that_normalises_by_speaker_is_scored_with_and_without_speaker_statistics(folder, monkeypatch):
    calls = []

    def evaluate(recognizer, corpus, **options):
        calls.append((corpus.name, options.get("use_speaker_stats", True)))
        return real_evaluate(recognizer, corpus, **options)

    monkeypatch.setattr("speechrnn.evaluation.evaluate.evaluate", evaluate)
    recipe = open_tones(folder, overrides=["--front_end.normalization", "speaker", "--trainer.max_epochs", "1"])
    results = run_recipe(recipe)
    assert list(results["sets"]) == ["valid", "test", "valid" + NO_SPEAKER_STATS, "test" + NO_SPEAKER_STATS]
    assert results["sets"]["test" + NO_SPEAKER_STATS]["utterances"] == 12
    rows = [json.loads(line) for line in (recipe.output / "hypotheses.jsonl").read_text().splitlines()]
    assert len(rows) == 10 + 12
    assert calls == [(f"{name}.jsonl", used) for name in ("valid", "test") for used in (True, False)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "nowhere"}, "--source nowhere: no such folder"),
        ({"overrides": ["--encoder.cel", "gru"]}, "did you mean encoder.cell"),
    ],
)
def test_errors_are_raised_before_anything_is_written(folder, options, words):
    with pytest.raises(ConfigError, match=words):
        open_tones(folder, **options)
    assert not (folder.parent / "out").exists()


KINDS = """
from collections.abc import Sequence
from pathlib import Path


def prepare(
    source: Path | None, output: Path, *, seed: int,
    name, minutes: float | None = None, rows: int = 3, parts: Sequence[str] = (),
):
    (output / "rows").write_text(f"{minutes} {rows} {name} {parts}")
"""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--prepare.rows", "abc"], "prepare.rows: expected a whole number, got 'abc'"),
        (["--prepare.rows", "2.5"], "prepare.rows: expected a whole number, got 2.5"),
        (["--prepare.rows", "true"], "prepare.rows: expected a whole number, got True"),
        (["--prepare.rows", "null"], "prepare.rows: expected a whole number, got None"),
        (["--prepare.parts", "abc"], r"prepare.parts: expected a list such as \[a, b\], got 'abc'"),
        (["--prepare.minutes", "[3]"], r"prepare.minutes: expected a number or null, got \[3\]"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused(folder, options, complaint):
    (folder / "prepare.py").write_text(KINDS)
    with pytest.raises(ConfigError, match=complaint):
        run_recipe(open_tones(folder, overrides=["--prepare.name", "a", *options]), stage="prepare")


def test_a_missing_required_setting_is_named(folder):
    (folder / "prepare.py").write_text(KINDS)
    with pytest.raises(ConfigError, match="prepare.name: required; add --prepare.name VALUE"):
        run_recipe(open_tones(folder), stage="prepare")


@pytest.mark.parametrize("minutes", ["3", "null"])
@pytest.mark.parametrize("source", [KINDS, KINDS.replace("rows: int", 'rows: "Unknown"')])
def test_settings_of_the_right_type_are_passed_on(folder, source, minutes):
    (folder / "prepare.py").write_text(source)
    options = ["--prepare.minutes", minutes, "--prepare.rows", "7", "--prepare.name", "5", "--prepare.parts", "[a]"]
    recipe = open_tones(folder, overrides=options)
    run_recipe(recipe, stage="prepare")
    assert (recipe.output / "rows").read_text() == f"{minutes} 7 5 ['a']".replace("null", "None")


def test_a_folder_without_a_recipe_and_an_unknown_stage_are_refused(folder, tmp_path):
    memory = Path(__file__).parents[1] / "recipes" / "memory"
    with pytest.raises(ConfigError, match=r"has no prepare.py; .* a script, run python .*memory/memory.py --help"):
        open_recipe(memory)
    with pytest.raises(ConfigError, match="has no prepare.py"):
        open_recipe(tmp_path)
    with pytest.raises(ConfigError, match="--stage fly: expected one of prepare, check, train, evaluate, report"):
        run_recipe(open_tones(folder), stage="fly")
    (folder / "prepare.py").write_text("def prepare(source, output, *, seed, fold=None): ...")
    with pytest.raises(ConfigError, match="no folds"):
        list_folds(folder, None)


def test_the_table_names_every_set_and_place(folder):
    recipe = open_tones(folder)
    scores = {"utterances": 3, "words": 9, "wer": 0.5, "wer_low": 0.25, "wer_high": 0.75, "cer": 0.125,
              "sentence_error_rate": 1.0}  # fmt: skip
    results = {"recipe": "tones", "fold": None, "seed": 0, "test_scorings": 1, "interval_method": "by hand",
               "parameters": 1234, "training_seconds": 9.6, "cores": 2, "device": "cpu",
               "sets": {"test": scores}}  # fmt: skip
    table = describe_results(results, recipe.output)
    assert "| test | 3 | 9 | 50.00 | 25.00–75.00 | 12.50 | 100.00 |" in table
    assert "1,234 parameters, trained in 10 s on 2 cores (cpu)" in table
    assert "Test sets scored once" in table


def test_a_recipe_killed_in_training_is_resumed(folder, monkeypatch):
    from speechrnn.training.module import SpeechModule

    original, steps = SpeechModule.training_step, []

    def stop(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == 10:
            raise RuntimeError("killed")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpeechModule, "training_step", stop)
    options = {"overrides": ["--checkpoints.every_minutes", "0", "--trainer.max_epochs", "2"]}
    with pytest.raises(RuntimeError, match="killed"):
        run_recipe(open_tones(folder, **options))
    assert "train" not in json.loads((folder.parent / "out" / "stages.json").read_text())
    assert run_recipe(open_tones(folder, **options))["sets"]["test"]["utterances"] == 12
    per_epoch = len(steps[: steps.index(0, 1)])
    assert per_epoch < 10  # it was killed in the second epoch
    assert len(steps) == 2 * per_epoch + 1  # only the step that was not done is done again
