"""Fine-tuning: from a given model and recordings of one's own to a model that knows them, and what that cost.

A run is one of :func:`speechrnn.training.train.train` that begins from a model (``start`` in its configuration); this
module chooses its settings, compares the model before and after, and says both.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.atomic_io import write_atomic, write_json
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder import ModelFolder, add_results, find_folder, load_model, save_model
from speechrnn.text.normalize import TextConfig, normalize_text
from speechrnn.text.phone_tokens import LEXICON_FILE
from speechrnn.training.config import Alphabet, Config
from speechrnn.training.config_file import load_config, to_arguments
from speechrnn.training.run import is_resumable, make_output_folder, read_run, refuse_to_replace, visible_log
from speechrnn.training.start import propose_alphabet
from speechrnn.training.train import TrainingResult, resume, train

if TYPE_CHECKING:
    from speechrnn.corpus.utterance import Utterance
    from speechrnn.evaluation.comparison import Comparison
    from speechrnn.evaluation.evaluate import Evaluation

logger = logging.getLogger("speechrnn")

OLD_SHARES = (0.25, 0.5, 0.75)
"""How much of the old weights the means have that are tried between old and new ones."""

VALID_EVERY = 10
REPORT = "finetuning"


@dataclass(frozen=True)
class FineTuning:
    """What fine-tuning ended with.

    Attributes:
        training: The run; its ``model`` is the released model folder.
        sets: Error rates before and after, on ``valid`` and, where it was given, ``old``.
        old_share: Share of the old weights in the released ones; 0 unless a mean is better on both sets.
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
    """Make a model one's own. A call that was stopped goes on where it was when it is made again.

    Args:
        model: The model to begin from: a folder, or ``owner/name`` on the Hugging Face Hub.
        train: Recordings to learn from, a corpus in any known format.
        valid: Recordings to choose checkpoints on; None: a tenth of ``train``, which is then left out of it.
        output: The run's folder; the released model is ``model`` in it.
        alphabet: What becomes of symbols that the model lacks (:class:`speechrnn.training.config.StartConfig`); None:
            what suits the texts.
        replacements: For ``map``: what each of them is written as.
        freeze: Which part keeps its weights: the subsampling and this many of the lowest recurrent layers, or
            ``encoder`` (all but the output layer); None: nothing.
        replay: Corpus of what the model knew before, to be mixed into training, lest it be forgotten.
        old_valid: Corpus of what the model knew before, to see what it forgot, and whether the mean of old and new
            weights is better on both.
        overrides: Settings that win over those that are chosen here.
        overwrite: Replace what is in the output folder.

    Raises:
        ModelError: There is no such model, or it is damaged.
        CorpusError: A corpus is wrong, holds too little, or shares no symbol with the model.
        ConfigError: A setting is wrong, or the output folder holds another run.
        SpeechRNNError: Training cannot go on.
    """
    folder = find_folder(model).resolve()
    base = load_model(folder)
    make_output_folder(Path(output))
    paths = _split_if_needed(Path(train), None if valid is None else Path(valid), Path(output), overwrite=overwrite)
    settings = take_settings(base, folder, dict(replacements or {}))
    settings |= {f"data.{name}": str(path) for name, path in paths.items()}
    settings |= {"output": str(output), "start.model": str(folder), **_take_replay(replay)}
    given = to_arguments(overrides) if isinstance(overrides, Mapping) else list(overrides)
    if freeze is not None:
        given += ["--start.layers", str(_count_moving_layers(base, freeze))]
    config = _configure(base, settings, given, alphabet=alphabet)
    corpora = {"valid": paths["valid"]} | ({} if old_valid is None else {"old": Path(old_valid)})
    # Before training, so that a corpus which cannot be read is not found out hours later.
    before = _evaluate_all(replace(base, text=config.text), corpora)
    logger.info("before: %s", _describe_rates(before))
    result = _train(config, base, corpus=Path(train).name, overwrite=overwrite)
    return _compare(result, load_model(folder), corpora, before)


def _count_moving_layers(base: ModelFolder, freeze: str | int) -> int:
    layers = base.acoustic.encoder.config.resolved_num_layers
    if freeze == "encoder":
        return 0
    if not str(freeze).isdecimal() or int(freeze) >= layers:
        raise ConfigError(f"--freeze {freeze}: expected encoder, or 0 to {layers - 1} of the model's {layers} layers")
    return layers - int(freeze)


def _take_replay(replay: str | Path | None) -> dict[str, str]:
    """The setting for what is to be replayed, which must be there."""
    if replay is None:
        return {}
    if not Path(replay).exists():
        raise CorpusError(f"{replay}: there is no such file or folder to replay; check the path")
    return {"start.replay": str(Path(replay).resolve())}


def _train(config: Config, base: ModelFolder, *, corpus: str, overwrite: bool) -> TrainingResult:
    assert config.output is not None
    output = Path(config.output)
    is_finished = (output / "model").exists() and _is_same_run(output, config)
    if not overwrite and (is_finished or is_resumable(output, config)):
        return resume(output)
    languages = base.provenance.get("languages", [])
    provenance = {
        "languages": [config.text.language] if config.text.language else languages,
        "corpora": [*base.provenance.get("corpora", []), {"corpus": corpus}],
        "begun_from": {"languages": languages, "training": base.provenance.get("training", {})},
    }
    return train(config, provenance=provenance, overwrite=overwrite)


def _is_same_run(output: Path, config: Config) -> bool:
    try:
        kept = read_run(output).config
    except ConfigError:
        return False
    return replace(kept, output=None) == replace(config, output=None)


def _split_if_needed(train_path: Path, valid_path: Path | None, output: Path, *, overwrite: bool) -> dict[str, Path]:
    """Paths of training and validation data; where the latter is not given, manifests of two parts of the former."""
    if valid_path is not None:
        return {"train": train_path.resolve(), "valid": valid_path.resolve()}
    from speechrnn.corpus.readers import read_corpus
    from speechrnn.corpus.splits import hold_out, write_parts

    utterances = read_corpus(train_path)
    if len(utterances) < 2:
        raise CorpusError(f"{train_path}: one utterance cannot be split; give another corpus to choose on with --valid")
    kept, held_out = hold_out(utterances, every=VALID_EVERY, where=train_path)
    parts = {"train": kept, "valid": held_out}
    if not all(_is_written(output / f"{name}.jsonl", part) for name, part in parts.items()):
        if not overwrite:
            refuse_to_replace(output)  # a run there has learned from something else, and may yet go on
        write_parts(output, parts)
    logger.info(
        "no validation set was given: %d of %d utterances are held out (%s); give one with --valid",
        len(held_out), len(utterances), output / "valid.jsonl",
    )  # fmt: skip
    return {name: (output / f"{name}.jsonl").resolve() for name in parts}


def _is_written(path: Path, utterances: Sequence[Utterance]) -> bool:
    from speechrnn.corpus.manifest import read_manifest

    try:
        return read_manifest(path) == list(utterances)
    except CorpusError:
        return False


def take_settings(base: ModelFolder, folder: Path, replacements: dict[str, str]) -> dict[str, Any]:
    """Settings that a model brings with it: what it hears and writes, and how it was trained."""
    earlier = base.provenance.get("configuration", {})
    lexicon = str(folder / LEXICON_FILE) if base.tokens.kind == "phones" else None
    return {
        "front_end": asdict(base.acoustic.front_end.config),
        "encoder": asdict(base.acoustic.encoder.config),
        "text": asdict(replace(base.text, replacements={**base.text.replacements, **replacements})),
        "tokens": {**earlier.get("tokens", {}), "kind": base.tokens.kind, "alphabet": None, "lexicon": lexicon},
        # Two masked copies of everything double the time, which buys more as epochs while so little was heard.
        "ctc": {**earlier.get("ctc", {}), "lexicon": None, "consistency": 0.0},
        "augment": earlier.get("augment", {}),
    }


def _configure(
    base: ModelFolder, settings: dict[str, Any], given: Sequence[str], *, alphabet: Alphabet | None
) -> Config:
    """The run's configuration: what the model brings, what suits the recordings, and above both what was asked for."""
    from speechrnn.corpus.readers import read_corpus

    nobodys = {"trainer.max_epochs": -1}  # lest the default of a training from nothing pass for what was asked for
    asked = load_config(None, [*to_arguments(settings | nobodys), *given])
    utterances = read_corpus(settings["data.train"])
    chosen = choose_settings(
        base,
        utterances,
        text=asked.text,
        alphabet=alphabet,
        kind=asked.tokens.kind,
        epochs=asked.trainer.get("max_epochs"),
    )
    config = load_config(None, [*to_arguments(settings | chosen), *given])
    logger.info("%.2f h: %s", _count_hours(utterances), describe_plan(config))
    return config


def choose_settings(
    base: ModelFolder,
    utterances: Sequence[Utterance],
    *,
    text: TextConfig,
    alphabet: Alphabet | None,
    kind: str | None = None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """Settings that suit a model and so much speech; what becomes of its alphabet is said in a line.

    Args:
        base: The model.
        utterances: What to learn from.
        text: How its texts are normalised.
        alphabet: What becomes of symbols that the model lacks; None: what suits the texts.
        kind: What the fine-tuned model is to write, such as ``words``; None: what the model writes.
        epochs: How many were asked for; None (or no number that could be one): what suits the recordings.

    Raises:
        ConfigError: What is to be mapped is not said, or is said where nothing is mapped.
    """
    new = {old: text.replacements[old] for old in text.replacements if old not in base.text.replacements}
    if (alphabet == "map") != bool(new):
        raise ConfigError("--alphabet map and --map go together: say what each letter becomes, as in --map 'ä=ae ß=ss'")
    for old, written in new.items():
        logger.info("map: %s is written %s", old, written)
    texts = [normalize_text(each.text, text) for each in utterances]
    proposed, why = propose_alphabet(base.tokens, texts, kind=kind)
    chosen = alphabet or proposed
    logger.info("alphabet: %s (%s)", chosen, why if proposed == chosen else f"asked for; proposed: {proposed}, {why}")
    is_new = chosen in ("extend", "replace") and proposed != "keep"
    training = _choose_training(_count_hours(utterances), epochs, new=chosen if is_new else None)
    return {"start.alphabet": chosen, **training}


def _count_hours(utterances: Sequence[Utterance]) -> float:
    return sum(each.seconds for each in utterances) / 3600


def _choose_training(hours: float, epochs: int | None, *, new: Alphabet | None) -> dict[str, Any]:
    """How long, how fast and in what batches, for so many hours, or for the epochs that were asked for.

    ``new`` is how symbols that the model lacks come to it; None where there are none.
    """
    if not isinstance(epochs, int) or epochs < 1:
        epochs = min(200, max(10, round(30.0 / max(hours, 1e-3))))
    return {
        "data.batch_seconds": round(min(32.0, max(4.0, 360.0 * hours)), 1),
        "trainer.max_epochs": epochs,
        "trainer.gradient_clip_val": 5.0,
        # Another language moves far: at 5e-4 it learned no faster than from nothing (recipes/german/RESULTS.md).
        "optimizer.learning_rate": 5e-4 if new is None else 3e-3,
        "optimizer.warmup_share": 0.1,
        # Twice the epochs took a fifth of the errors away (recipes/fsdd/RESULTS.md).
        "checkpoints.best": max(3, round(0.15 * epochs)),
        "checkpoints.average": True,
        "checkpoints.shift_blank": True,
        # Letters that begin as similar ones do, and have a few epochs in all, gain nothing from one of their own
        # (recipes/german/RESULTS.md); an output layer that begins from nothing has it.
        "start.head_epochs": 0 if new is None else max(int(new == "replace"), epochs // 20),
        "start.layer_decay": 0.9 if new is None else 1.0,
    }


def describe_plan(config: Config) -> str:
    """What moves, for how long and how fast, in a line."""
    start = config.start
    if start.layers is None:
        moving = ["everything moves"]
    elif start.layers == 0:
        moving = ["the output layer alone moves"]
    else:
        moving = [f"the output layer and {start.layers} below it move"]
    if start.head_epochs and start.layers != 0:
        first = "first epoch" if start.head_epochs == 1 else f"first {start.head_epochs} epochs"
        moving.append(f"the output layer alone in the {first}")
    if start.unfreeze_every:
        moving.append(f"one layer more after every {start.unfreeze_every}")
    if start.layer_decay < 1.0:
        moving.append(f"each layer {start.layer_decay:g} times as fast as the one above it")
    if start.replay:
        moving.append(f"{100 * start.replay_share:.0f} % of what is heard is replayed")
    return (
        f"{config.trainer['max_epochs']} epochs in batches of {config.data.batch_seconds:g} s, learning rate "
        f"{config.optimizer.learning_rate:g}; {', '.join(moving)}"
    )


# What it gained, and what it forgot.


def _evaluate_all(model: ModelFolder, corpora: Mapping[str, Path]) -> dict[str, Evaluation]:
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.recognition.recognizer import Recognizer

    recognizer = Recognizer(model)
    recognizer.calibrations.clear()  # the words are calibrated anew
    return {name: evaluate(recognizer, corpus) for name, corpus in corpora.items()}


def _describe_rates(evaluations: Mapping[str, Evaluation]) -> str:
    rates = {name: each.score for name, each in evaluations.items()}
    return "; ".join(f"{name}: WER {100 * rate.wer:.2f} %, CER {100 * rate.cer:.2f} %" for name, rate in rates.items())


def _compare(
    result: TrainingResult, old: ModelFolder, corpora: Mapping[str, Path], before: Mapping[str, Evaluation]
) -> FineTuning:
    from speechrnn.evaluation.comparison import compare

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
    tuned: ModelFolder, old: ModelFolder, corpora: Mapping[str, Path], after: dict[str, Evaluation]
) -> tuple[float, dict[str, Evaluation]]:
    """The share of old weights with the fewest errors among those that are no worse on either set; 0 for none."""
    best, best_share = after, 0.0
    for share in OLD_SHARES:
        found = _evaluate_all(mix_weights(tuned, old, share), corpora)
        logger.info("with %.0f %% of the old weights: %s", 100 * share, _describe_rates(found))
        helps_both = all(found[name].score.wer <= after[name].score.wer for name in corpora)
        if helps_both and _add_rates(found) < _add_rates(best):
            best, best_share = found, share
    return best_share, best


def _add_rates(evaluations: Mapping[str, Evaluation]) -> float:
    return sum(each.score.wer for each in evaluations.values())


def _write_report(outcome: FineTuning, after: Mapping[str, Evaluation]) -> None:
    from speechrnn.evaluation.report import store_calibration

    output = outcome.training.output
    write_json(
        output / f"{REPORT}.json",
        {
            "training_seconds": outcome.training.seconds,
            "old_weights": outcome.old_share,
            "sets": {name: {**asdict(each), "verdict": each.verdict} for name, each in outcome.sets.items()},
        },
    )
    write_atomic(output / f"{REPORT}.md", describe_finetuning(outcome) + "\n", error=ConfigError)
    sets = {name: evaluation.to_dict() for name, evaluation in after.items()}
    add_results(outcome.training.model, {"interval_method": after["valid"].score.interval_method, "sets": sets})
    if after["valid"].has_words:
        store_calibration(outcome.training.model, "greedy", after["valid"], corpus="validation set")


def describe_finetuning(outcome: FineTuning) -> str:
    """A table of every set's rates before and after, and where the model lies."""
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
    mean = (
        f"; {100 * outcome.old_share:.0f} % of the old weights are in it, better on both" if outcome.old_share else ""
    )
    lines += [
        "",
        "These sets chose the checkpoint or the weights, so the rates after fine-tuning and their intervals are "
        "optimistic; for an unbiased rate, evaluate a test set that was used for nothing else.",
        "",
        f"Trained in {training.seconds:.0f} s; model: {training.model}{mean}",
    ]
    return "\n".join(lines)


def mix_weights(tuned: ModelFolder, old: ModelFolder, old_share: float) -> ModelFolder:
    """A model with the mean of two models' weights; outputs that the old one lacks stay as they are.

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
    return replace(tuned, acoustic=acoustic)
