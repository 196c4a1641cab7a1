"""Fine-tuning: a training run that starts from a model, with chosen settings, and error rates before and after it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.atomic_io import write_atomic, write_json
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.splits import hold_out, write_parts
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder import ModelFolder, add_results, find_folder, load_model, save_model
from speechrnn.training.config import Alphabet, Config
from speechrnn.training.config_file import load_config, to_arguments
from speechrnn.training.run import is_resumable, make_output_folder, read_run, refuse_to_replace, visible_log
from speechrnn.training.start import choose_settings, count_hours, describe_plan, take_settings
from speechrnn.training.train import TrainingResult, resume, train

if TYPE_CHECKING:
    from speechrnn.corpus.utterance import Utterance
    from speechrnn.evaluation.evaluate import Comparison, Evaluation
    from speechrnn.training.data import SpeechData

    Corpora = dict[str, Sequence[Utterance]]

logger = logging.getLogger("speechrnn")

OLD_SHARES = (0.25, 0.5, 0.75)
"""Shares of the old weights in the averages of old and new weights that are tried."""

VALID_EVERY = 10
REPORT = "finetuning"


@dataclass(frozen=True)
class FineTuning:
    """Result of fine-tuning.

    Attributes:
        training: The run; its ``model`` is the released model folder.
        sets: Error rates before and after, on ``valid`` and, if it was given, ``old``.
        old_share: Share of the old weights in the released ones; 0 unless an average is better on both sets.
    """

    training: TrainingResult
    sets: dict[str, Comparison]
    old_share: float = 0.0


@visible_log()
def finetune(
    model: str | Path,
    train: str | Path,
    valid: str | Path | None = None,
    *,
    output: str | Path,
    alphabet: Alphabet | None = None,
    replacements: Mapping[str, str] | None = None,
    freeze: str | int | None = None,
    replay: str | Path | None = None,
    old_valid: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overwrite: bool = False,
) -> FineTuning:
    """Fine-tune a model on a corpus. Repeating a call that was stopped resumes it.

    Args:
        model: The model to start from: a folder, or ``owner/name`` on the Hugging Face Hub.
        train: Training corpus, in any known format.
        valid: Validation corpus, which chooses checkpoints; None: a tenth of ``train`` is held out.
        output: The run's folder; the released model is its ``model``.
        alphabet: Handling of symbols that the model lacks (:class:`speechrnn.training.config.StartConfig`); None:
            chosen for the texts.
        replacements: For ``map``: the replacement of each symbol.
        freeze: Keep the weights of the subsampling and this many of the lowest recurrent layers, or of the ``encoder``
            (all but the output layer); None: of nothing.
        replay: Original-domain corpus, mixed into training to reduce forgetting.
        old_valid: Original-domain validation corpus: measures forgetting, and whether an average of old and new weights
            is better on both validation sets.
        overrides: Settings that take precedence over those that are chosen here.
        overwrite: Replace a run in the output folder.

    Raises:
        ModelError: There is no such model, or it is damaged.
        CorpusError: A corpus is wrong, too small, or shares no symbol with the model.
        ConfigError: A setting is wrong, or the output folder holds another run.
        SpeechRNNError: Training cannot continue.
    """
    from speechrnn.training.data import SpeechData

    folder = find_folder(model).resolve()
    base = load_model(folder)
    make_output_folder(Path(output))
    paths, corpora = _read_corpora(train, valid, replay, Path(output), overwrite=overwrite)
    settings = take_settings(base, folder, dict(replacements or {})) | paths
    settings |= {"output": str(output), "start.model": str(folder)}
    given = to_arguments(overrides) if isinstance(overrides, Mapping) else list(overrides)
    if freeze is not None:
        given += ["--start.layers", str(_count_moving_layers(base, freeze))]
    config = _configure(base, corpora["data.train"], settings, given, alphabet=alphabet)
    sets = {"valid": corpora["data.valid"]}
    if old_valid is not None:
        sets["old"] = read_corpus(old_valid)
    before = _evaluate_all(replace(base, text=config.text), sets)
    logger.info("before: %s", _describe_rates(before))
    data = SpeechData(config, corpora=corpora, base=base)
    result = _train(config, base, data, corpus=Path(train).name, overwrite=overwrite)
    return _compare(result, base, sets, before)


def _read_corpora(
    train: str | Path, valid: str | Path | None, replay: str | Path | None, output: Path, *, overwrite: bool
) -> tuple[dict[str, str], Corpora]:
    """Paths and utterances of the corpora by setting; without ``valid``, a tenth of ``train`` is held out."""
    given = {"data.train": train, "data.valid": valid, "start.replay": replay}
    paths = {name: str(Path(path).resolve()) for name, path in given.items() if path is not None}
    corpora: Corpora = {name: read_corpus(given[name] or "") for name in paths}
    if valid is None:
        parts = _split(corpora["data.train"], Path(train), output, overwrite=overwrite)
        corpora |= {f"data.{name}": part for name, part in parts.items()}
        paths |= {f"data.{name}": str((output / f"{name}.jsonl").resolve()) for name in parts}
    return paths, corpora


def _split(utterances: Sequence[Utterance], path: Path, output: Path, *, overwrite: bool) -> Corpora:
    """Hold out a part for validation; write a manifest of each part."""
    if len(utterances) < 2:
        raise CorpusError(f"{path}: one utterance cannot be split; give a validation corpus with --valid")
    train, valid = hold_out(utterances, every=VALID_EVERY, where=path)
    parts: Corpora = {"train": train, "valid": valid}
    if not all(_is_written(output / f"{name}.jsonl", part) for name, part in parts.items()):
        if not overwrite:
            refuse_to_replace(output)  # a run there was trained on other data, and may be resumed
        write_parts(output, parts)
    logger.info(
        "no validation set was given: %d of %d utterances are held out (%s); give one with --valid",
        len(valid), len(utterances), output / "valid.jsonl",
    )  # fmt: skip
    return parts


def _is_written(path: Path, utterances: Sequence[Utterance]) -> bool:
    try:
        return read_manifest(path) == list(utterances)
    except CorpusError:
        return False


def _count_moving_layers(base: ModelFolder, freeze: str | int) -> int:
    layers = base.acoustic.encoder.config.resolved_num_layers
    if freeze == "encoder":
        return 0
    if not str(freeze).isdecimal() or int(freeze) >= layers:
        raise ConfigError(f"--freeze {freeze}: expected encoder, or 0 to {layers - 1} of the model's {layers} layers")
    return layers - int(freeze)


def _train(config: Config, base: ModelFolder, data: SpeechData, *, corpus: str, overwrite: bool) -> TrainingResult:
    assert config.output is not None
    output = Path(config.output)
    is_finished = (output / "model").exists() and _is_same_run(output, config)
    if not overwrite and (is_finished or is_resumable(output, config)):
        return resume(output, data=data)
    languages = base.provenance.get("languages", [])
    provenance = {
        "languages": [config.text.language] if config.text.language else languages,
        "corpora": [*base.provenance.get("corpora", []), {"corpus": corpus}],
        "begun_from": {"languages": languages, "training": base.provenance.get("training", {})},
    }
    return train(config, provenance=provenance, overwrite=overwrite, data=data)


def _is_same_run(output: Path, config: Config) -> bool:
    try:
        kept = read_run(output).config
    except ConfigError:
        return False
    return replace(kept, output=None) == replace(config, output=None)


def _configure(
    base: ModelFolder,
    utterances: Sequence[Utterance],
    settings: dict[str, Any],
    given: Sequence[str],
    *,
    alphabet: Alphabet | None,
) -> Config:
    """The run's configuration: the model's settings, then those chosen for the recordings, then those given."""
    unset = {"trainer.max_epochs": -1}  # distinguishes the default from a request
    asked = load_config(None, [*to_arguments(settings | unset), *given])
    wanted: dict[str, Any] = {"kind": asked.tokens.kind, "epochs": asked.trainer.get("max_epochs")}
    chosen = choose_settings(base, utterances, text=asked.text, alphabet=alphabet, **wanted)
    config = load_config(None, [*to_arguments(settings | chosen), *given])
    logger.info("%.2f h: %s", count_hours(utterances), describe_plan(config))
    return config


def _evaluate_all(model: ModelFolder, corpora: Corpora) -> dict[str, Evaluation]:
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.recognition.recognizer import Recognizer

    recognizer = Recognizer(model)
    recognizer.calibrations.clear()  # calibration is fitted on these words below
    return {name: evaluate(recognizer, corpus) for name, corpus in corpora.items()}


def _describe_rates(evaluations: Mapping[str, Evaluation]) -> str:
    rates = {name: each.score for name, each in evaluations.items()}
    return "; ".join(f"{name}: WER {100 * rate.wer:.2f} %, CER {100 * rate.cer:.2f} %" for name, rate in rates.items())


def _compare(
    result: TrainingResult, old: ModelFolder, corpora: Corpora, before: Mapping[str, Evaluation]
) -> FineTuning:
    from speechrnn.evaluation.evaluate import compare

    tuned = load_model(result.model)
    after, share = _evaluate_all(tuned, corpora), tuned.provenance["training"].get("old_weights", 0.0)
    if "old" in corpora and not share:
        share, after = _try_means(tuned, old, corpora, after)
        if share:
            mean = mix_weights(tuned, old, share)
            provenance = {**tuned.provenance, "training": {**tuned.provenance["training"], "old_weights": share}}
            save_model(result.model, replace(mean, provenance=provenance))
    outcome = FineTuning(result, {name: compare(before[name], after[name]) for name in corpora}, share)
    _write_report(outcome, after)
    return outcome


def _try_means(
    tuned: ModelFolder, old: ModelFolder, corpora: Corpora, after: dict[str, Evaluation]
) -> tuple[float, dict[str, Evaluation]]:
    """The share of old weights with the fewest errors among those not worse on either set; 0 if there is none."""
    best, best_share = after, 0.0
    for share in OLD_SHARES:
        found = _evaluate_all(mix_weights(tuned, old, share), corpora)
        logger.info("with %.0f %% of the old weights: %s", 100 * share, _describe_rates(found))
        rates, best_rates = ([each[name].score.wer for name in corpora] for each in (found, best))
        is_no_worse = all(found[name].score.wer <= after[name].score.wer for name in corpora)
        if is_no_worse and sum(rates) < sum(best_rates):
            best, best_share = found, share
    return best_share, best


def _write_report(outcome: FineTuning, after: Mapping[str, Evaluation]) -> None:
    from speechrnn.evaluation.calibration import store_calibration

    output, compared = outcome.training.output, outcome.sets.items()
    report = {
        "training_seconds": outcome.training.seconds,
        "old_weights": outcome.old_share,
        "sets": {name: {**asdict(each), "verdict": each.verdict} for name, each in compared},
    }
    write_json(output / f"{REPORT}.json", report)
    write_atomic(output / f"{REPORT}.md", describe_finetuning(outcome) + "\n", error=ConfigError)
    sets = {name: evaluation.to_dict() for name, evaluation in after.items()}
    add_results(outcome.training.model, {"interval_method": after["valid"].score.interval_method, "sets": sets})
    if after["valid"].has_words:
        store_calibration(outcome.training.model, "greedy", after["valid"], corpus="validation set")


def describe_finetuning(outcome: FineTuning) -> str:
    """A table of the rates on every set before and after, and the path of the model."""
    names = {"valid": "your validation set", "old": "the old model's validation set"}
    lines = [
        "| set | utterances | words | WER % before | after | change, points (95 %) | CER % before | after | |",
        "|" + " --- |" * 9,
    ]
    for name, each in outcome.sets.items():
        change, low, high = (100 * value for value in (each.wer - each.wer_before, each.low, each.high))
        rates = [100 * rate for rate in (each.wer_before, each.wer, each.cer_before, each.cer)]
        lines.append(
            f"| {names[name]} | {each.utterances} | {each.words} | {rates[0]:.2f} | {rates[1]:.2f} | {change:+.2f} "
            f"({low:+.2f} to {high:+.2f}) | {rates[2]:.2f} | {rates[3]:.2f} | {each.verdict} |"
        )
    training = outcome.training
    share = f"{100 * outcome.old_share:.0f} %"
    mean = f" (average with {share} of the old weights, better on both sets)" if outcome.old_share else ""
    lines += [
        "",
        "These sets chose the checkpoint or the weights, so the rates after fine-tuning and their intervals are "
        "optimistic; for an unbiased rate, evaluate a test set that was used for nothing else.",
        "",
        f"Trained in {training.seconds:.0f} s; model: {training.model}{mean}",
    ]
    return "\n".join(lines)


def mix_weights(tuned: ModelFolder, old: ModelFolder, old_share: float) -> ModelFolder:
    """Average the weights of two models; outputs that the old one lacks are not changed.

    Source:
        M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    acoustic = copy.deepcopy(tuned.acoustic)
    weights, earlier = acoustic.state_dict(), old.acoustic.state_dict()
    row_of = {symbol: row for row, symbol in enumerate(old.tokens.symbols)}
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        if not name.startswith("head."):
            value.lerp_(earlier[name].to(value.device), old_share)
            continue
        for row, symbol in enumerate(tuned.tokens.symbols):
            if symbol in row_of:
                value[row] = value[row].lerp(earlier[name][row_of[symbol]].to(value.device), old_share)
    acoustic.load_state_dict(weights)
    return ModelFolder(acoustic, tuned.tokens, tuned.text, tuned.provenance)  # calibrations of neither apply
