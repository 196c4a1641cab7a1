"""Recipes: from a published dataset to a released model, in stages.

A recipe is a folder with ``prepare.py`` (published form → manifests), ``config.yaml`` (settings that differ from the
defaults) and optionally ``folds.yaml`` (settings that differ when a fold is left out). Stages: prepare → check → train
→ evaluate → report. ``stages.json`` in the output folder keeps a hash of each stage's inputs, so that a second call
runs only missing stages; stopped training is resumed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from speechrnn.atomic_io import read_json, write_atomic, write_json, write_json_lines
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.training.config import Config
from speechrnn.training.config_file import check_arguments, load_config
from speechrnn.training.run import LAST, is_resumable, make_output_folder

logger = logging.getLogger("speechrnn")

STAGES = ("prepare", "check", "train", "evaluate", "report")

_GIVEN = ("source", "output", "seed", "fold")


@dataclass(frozen=True)
class Recipe:
    """One run of a recipe.

    Attributes:
        folder: Folder of prepare.py and config.yaml.
        output: Output folder.
        source: The downloaded dataset; None to download it.
        config: The configuration, overrides applied.
        fold: Part of the data (such as a speaker) that is left out of training and tested on; None: the usual split.
    """

    folder: Path
    output: Path
    source: Path | None
    config: Config
    fold: str | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def open_recipe(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    fold: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Find a recipe and read its configuration.

    Args:
        folder: The recipe.
        source: The downloaded dataset; None to download it.
        output: Output folder; None: ``runs/`` and the recipe's name.
        seed: Random seed; None for the configuration's.
        fold: Part of the data to leave out of training and test on, if the recipe has folds.
        overrides: ``--KEY VALUE`` settings that take precedence over config.yaml and folds.yaml.

    Raises:
        ConfigError: The folder is not a recipe, the source does not exist, or a setting is wrong.
    """
    folder = Path(folder)
    for name in ("prepare.py", "config.yaml"):
        if not (folder / name).is_file():
            script = folder / f"{folder.resolve().name}.py"
            instead = f"; this one is a script, run python {script} --help" if script.is_file() else ""
            raise ConfigError(f"{folder}: has no {name}; a recipe is a folder with prepare.py and config.yaml{instead}")
    if source is not None and not Path(source).exists():
        raise ConfigError(f"--source {source}: no such folder; expected the downloaded dataset")
    settings = [*overrides, *(["--seed", str(seed)] if seed is not None else [])]
    if fold is not None and (folder / "folds.yaml").is_file():
        settings = ["--config", str(folder / "folds.yaml"), *settings]
    config = load_config(folder / "config.yaml", settings)
    target = Path(output or config.output or Path("runs") / folder.resolve().name)
    if fold is not None:
        target = target / f"fold-{fold}"
    return Recipe(folder.resolve(), target, Path(source) if source else None, replace(config, output=str(target)), fold)


def load_prepare(folder: Path) -> ModuleType:
    """Import a recipe's prepare.py under a unique name."""
    specification = importlib.util.spec_from_file_location(f"speechrnn_recipe_{folder.name}", folder / "prepare.py")
    assert specification is not None and specification.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{folder / 'prepare.py'} line {error.lineno}: not valid Python ({error.msg})") from error
    return module


def list_folds(folder: str | Path, source: str | Path | None) -> list[str]:
    """The folds of a recipe, such as the speakers to leave out in turn.

    Raises:
        ConfigError: The recipe has none.
    """
    module = load_prepare(Path(folder).resolve())
    if not hasattr(module, "folds"):
        raise ConfigError(f"{folder}: this recipe has no folds; remove --fold")
    return list(module.folds(Path(source) if source else None))


def run_recipe(recipe: Recipe, *, stage: str | None = None) -> dict[str, Any]:
    """Run the missing stages.

    Args:
        recipe: The recipe.
        stage: Stop after this stage, and run it again even if it is done; None runs all missing ones.

    Returns:
        Content of results.json, if it exists.

    Raises:
        ConfigError: The output folder holds a run with other settings, or the stage is unknown.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"--stage {stage}: expected one of {', '.join(STAGES)}")
    record = _read_json(recipe.output / "stages.json")
    keys = _make_keys(recipe)
    _refuse_other_settings(recipe, record, keys, stage)
    if recipe.fold is not None and not record:
        known = list_folds(recipe.folder, recipe.source)
        if recipe.fold not in known:
            raise ConfigError(f"--fold {recipe.fold}: expected one of {', '.join(known)}, or all")
    make_output_folder(recipe.output)
    for name, run in zip(STAGES, (_prepare, _check, _train, _evaluate, _report), strict=True):
        if _is_done(record.get(name), keys[name]) and name != stage:
            logger.info("%s: already done", name)
        else:
            logger.info("%s …", name)
            run(recipe)
            record = _keep_valid(record, name)
            record[name] = {"key": keys[name], "settings": _settings(recipe)}
            write_json(recipe.output / "stages.json", record)
        if name == stage:
            break
    return _read_json(recipe.output / "results.json")


def _is_done(entry: dict[str, Any] | None, key: str) -> bool:
    return entry is not None and entry["key"] == key and not entry.get("stale")


def _keep_valid(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Records of the stages that are still valid after a stage ran again; a check invalidates none.

    A trained model stays recorded as stale, so that other settings do not replace it unasked.
    """
    if name == "check":
        return record
    kept = {stage: record[stage] for stage in STAGES[: STAGES.index(name)] if stage in record}
    if name == "prepare" and "train" in record:
        kept["train"] = {**record["train"], "stale": True}
    return kept


def _settings(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.config.to_dict()
    settings.pop("output")
    return settings


def _make_keys(recipe: Recipe) -> dict[str, str]:
    """For each stage a hash of everything that its result depends on, earlier stages included."""
    source = str(recipe.source.resolve()) if recipe.source else None
    prepare = (recipe.folder / "prepare.py").read_bytes()
    options = [recipe.config.prepare] if recipe.config.prepare else []
    key = _hash(recipe.name, hashlib.sha256(prepare).hexdigest(), source, recipe.fold, recipe.config.seed, *options)
    keys = {"prepare": key}
    for name in STAGES[1:]:
        keys[name] = key = _hash(key, name, _settings(recipe))
    return keys


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _refuse_other_settings(recipe: Recipe, record: dict[str, Any], keys: dict[str, str], stage: str | None) -> None:
    """Never replace a trained model because settings differ, unless training is requested."""
    trained = record.get("train")
    if trained is None or trained["key"] == keys["train"] or stage in ("prepare", "train"):
        return
    changes = _describe_changes(trained["settings"], _settings(recipe)) or ["the data or prepare.py"]
    raise ConfigError(
        f"{recipe.output}: holds a run with other settings ({'; '.join(changes[:3])}); "
        "pass --output for another folder, or --stage train to train again here"
    )


def _describe_changes(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _describe_changes(old.get(key), new.get(key), f"{name}.{key}")]
    return [] if json.dumps(old) == json.dumps(new) else [f"{name[1:]} was {old}, now {new}"]


def _prepare(recipe: Recipe) -> None:
    module = load_prepare(recipe.folder)
    if not hasattr(module, "prepare"):
        raise ConfigError(f"{recipe.folder / 'prepare.py'}: expected a function prepare, found none")
    settings = dict(recipe.config.prepare)
    known = [name for name in inspect.signature(module.prepare).parameters if name not in _GIVEN]
    for name in settings:
        if name not in known:
            names = ", ".join(known) or "none"
            raise ConfigError(f"prepare.{name}: {recipe.folder / 'prepare.py'} has no such setting; it has {names}")
    check_arguments(module.prepare, settings, where="prepare", skip=set(_GIVEN))
    if recipe.fold is not None:
        settings["fold"] = recipe.fold
    module.prepare(recipe.source, recipe.output, seed=recipe.config.seed, **settings)


def _check(recipe: Recipe) -> None:
    from speechrnn.training.preflight import prepare_run

    preflight = prepare_run(recipe.config, folders=[recipe.output, recipe.folder])
    wanted, tests = recipe.config.data.test, _find_tests(recipe)
    if wanted and not tests:
        names = " or ".join(wanted.values())
        raise CorpusError(f"data.test: no {names} in {recipe.output}; prepare.py should write at least one")
    for name in sorted(wanted.keys() - tests.keys()):
        logger.warning("data.test.%s: prepare.py did not write it, so it is not scored", name)
    logger.info(
        "%s training utterances (%.2f h), %s for validation, %d left out; %d tokens: %s",
        f"{len(preflight.train):,}",
        sum(utterance.seconds for utterance in preflight.train) / 3600,
        f"{len(preflight.valid):,}",
        len(preflight.left_out),
        len(preflight.tokens),
        " ".join(preflight.tokens.symbols[:60]),
    )


def _find_tests(recipe: Recipe) -> dict[str, str]:
    """The test sets that were prepared; a source may lack some of a recipe's corpora."""
    return {name: path for name, path in recipe.config.data.test.items() if (recipe.output / path).exists()}


def _train(recipe: Recipe) -> None:
    from speechrnn.training.train import resume, train

    if is_resumable(recipe.output, recipe.config):
        resume(recipe.output)
        return
    if (recipe.output / LAST).exists():
        logger.warning("%s: replacing an unfinished run with other settings", recipe.output)
    module = load_prepare(recipe.folder)
    corpora = [*getattr(module, "ATTRIBUTION", []), *(getattr(module, "FOLD_ATTRIBUTION", []) if recipe.fold else [])]
    language = getattr(module, "LANGUAGE", recipe.config.text.language)
    provenance = {"recipe": recipe.name, "languages": [language] if language else [], "corpora": corpora}
    train(recipe.config, provenance=provenance, overwrite=True, folders=[recipe.folder])


def _evaluate(recipe: Recipe) -> None:
    from speechrnn.evaluation.calibration import store_calibration
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.evaluation.tables import NO_SPEAKER_STATS
    from speechrnn.recognition.recognizer import load

    is_on_cpu = recipe.config.trainer.get("accelerator") == "cpu"
    recognizer = load(recipe.output / "model", device="cpu" if is_on_cpu else "auto")
    sets = {"valid": recipe.config.data.valid, **_find_tests(recipe)}
    scores, alone, rows = {}, {}, []
    recognizer.calibrations.clear()  # of an earlier training
    for name, manifest in sets.items():
        assert manifest is not None
        evaluation = evaluate(recognizer, recipe.output / manifest, batch_seconds=recipe.config.data.budget_seconds)
        if name == "valid" and evaluation.has_words:
            calibration = store_calibration(recipe.output / "model", "greedy", evaluation, corpus=str(manifest))
            recognizer.calibrations["greedy"] = calibration
        scores[name] = evaluation.to_dict()
        if recognizer.uses_speaker_stats:
            by_itself = evaluate(recognizer, recipe.output / manifest, use_speaker_stats=False)
            alone[name + NO_SPEAKER_STATS] = by_itself.to_dict()
        rows += [{"set": name, **utterance.to_dict()} for utterance in evaluation.utterances]
    write_json_lines(recipe.output / "hypotheses.jsonl", rows)
    write_json(recipe.output / "results.json", _make_results(recipe, recognizer, scores | alone))


def _make_results(recipe: Recipe, recognizer: Any, scores: dict[str, Any]) -> dict[str, Any]:
    from speechrnn.processes import count_cores

    earlier = _read_json(recipe.output / "results.json")
    training = recognizer.provenance["training"]
    tested = list(scores)[min(1, len(scores) - 1)]  # the first test set, if there is one
    return {
        "recipe": recipe.name,
        "fold": recipe.fold,
        "seed": recipe.config.seed,
        "parameters": recognizer.num_parameters,
        "training_seconds": training["seconds"],
        "cores": count_cores(),
        "device": training.get("device", "cpu"),
        "interval_method": scores[tested]["interval_method"],
        "test_scorings": earlier.get("test_scorings", 0) + 1,
        "utterances_left_out": training["utterances_left_out"],
        "sets": scores,
    }


def _report(recipe: Recipe) -> None:
    """Write the results to the model's card, and report.md."""
    from speechrnn.evaluation.tables import describe_results
    from speechrnn.model_folder import add_results

    results = _read_json(recipe.output / "results.json")
    add_results(recipe.output / "model", results)
    write_atomic(recipe.output / "report.md", describe_results(results, recipe.output) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, error=ConfigError, expected="the JSON file of a stage") if path.is_file() else {}
