"""One training run: corpus and configuration in, model folder out."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.corpus.batches import pad
from speechrnn.corpus.check import LeftOut, Utterance, check_corpus, describe_cut, read_utterance
from speechrnn.corpus.readers import read_corpus
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder import ModelFolder, save_model
from speechrnn.text.normalize import normalize_text
from speechrnn.text.tokens import Tokens, build_tokens
from speechrnn.training.config import Config, load_config
from speechrnn.whole_files import write_json_lines

if TYPE_CHECKING:
    from lhotse import CutSet

logger = logging.getLogger("speechrnn")

_NAMED_AT_MOST = 10
_STATISTICS_BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class Preflight:
    """What stands before the first step.

    Attributes:
        model: The untrained acoustic model.
        tokens: What its outputs stand for.
        train: Utterances to train on.
        valid: Utterances to choose checkpoints on.
        left_out: Training utterances that cannot be trained on, with reasons.
    """

    model: AcousticModel
    tokens: Tokens
    train: list[Utterance]
    valid: list[Utterance]
    left_out: list[LeftOut]


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with.

    Attributes:
        model: The released model folder.
        output: The run's folder: model/, checkpoints/, logs/.
        valid_wer: Word error rate of the chosen checkpoint on the validation set, a fraction.
        epoch: The epoch that it was chosen from, counted from 1.
        seconds: Time spent training and validating.
        num_parameters: Trained numbers.
        left_out: Utterances that could not be trained on.
    """

    model: Path
    output: Path
    valid_wer: float
    epoch: int
    seconds: float
    num_parameters: int
    left_out: list[LeftOut]


def train(
    config: str | Path | Config,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    folders: Sequence[Path] = (),
) -> TrainingResult:
    """Train a model and release it.

    Args:
        config: YAML file, or a configuration with ``output`` set.
        overrides: Settings that win over the file, such as ``{"encoder.hidden_size": 256}``.
        provenance: What the model card shall say of languages and corpora (licence, attribution, source).
        overwrite: Replace a finished run in the output folder; else that is refused.
        folders: Where else to look for manifests that are given by relative paths.

    Returns:
        Where the model lies and how good it is on validation data.

    Raises:
        ConfigError: A setting is wrong, or the output folder already holds a run.
        CorpusError: A manifest is wrong, or holds nothing that can be trained on.
    """
    if not isinstance(config, Config):
        folder = Path(config).resolve().parent
        folders = [folder, *folders]
        config = load_config(config, overrides)
        config = replace(config, output=config.output or str(Path("runs") / folder.name))
    if config.output is None:
        raise ConfigError("output: expected a folder to write to")
    output = Path(config.output)
    if (output / "model").exists() and not overwrite:
        raise ConfigError(f"{output}: already holds a trained model; pass another --output, or --overwrite")
    make_output_folder(output)
    preflight = prepare_run(config, folders=[output, *folders])
    return _fit(config, preflight, output, dict(provenance or {}))


def make_output_folder(output: Path) -> None:
    """Make a run's folder, before anything that takes time.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output {output}: no folder can be made there ({error.strerror}); choose another") from error


def prepare_run(config: Config, *, folders: Sequence[Path]) -> Preflight:
    """Read the corpora, build tokens and model, and sort out what CTC cannot align.

    Args:
        config: The run's configuration.
        folders: Where relative manifest paths are looked for, in this order.
    """
    import lightning.pytorch as pl

    train_cuts, valid_cuts = (
        read_corpus(_find(getattr(config.data, name), f"data.{name}", folders)) for name in ("train", "valid")
    )
    normalize = partial(normalize_text, config=config.text)
    tokens = build_tokens(config.tokens, [normalize(cut.supervisions[0].text or "") for cut in train_cuts])
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = AcousticModel(config.front_end, config.encoder, len(tokens), blank_bias=config.ctc.blank_bias)
    usable, left_out = check_corpus(
        train_cuts,
        tokens=tokens,
        normalize=normalize,
        sample_rate=model.sample_rate,
        explain_infeasible=model.explain_infeasible,
    )
    _report_left_out(left_out, total=len(usable) + len(left_out))
    if config.output is not None:
        write_json_lines(Path(config.output) / "left_out.jsonl", (vars(item) for item in left_out))
    if not usable:
        raise CorpusError(
            f"{config.data.train}: none of {len(left_out)} utterances can be trained on; "
            f"the first, {left_out[0].id}: {left_out[0].reason}"
        )
    valid = _describe_valid(valid_cuts, tokens, normalize, model)
    if not valid:
        raise CorpusError(
            f"{config.data.valid}: no utterance is as long as one frame; nothing to choose checkpoints on"
        )
    if config.front_end.normalization == "corpus":
        _fit_statistics(model, usable)
    return Preflight(model, tokens, usable, valid, left_out)


def _find(name: str | None, setting: str, folders: Sequence[Path]) -> Path:
    if name is None:
        raise ConfigError(f"{setting}: expected a manifest (.jsonl), got nothing")
    candidates = [Path(name)] if Path(name).is_absolute() else [*(f / name for f in folders), Path(name)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise CorpusError(
        f"{setting}: no {name} in {', '.join(str(c.parent) for c in candidates)}; run the recipe's "
        "prepare stage, or set the path"
    )


def _report_left_out(left_out: Sequence[LeftOut], *, total: int) -> None:
    for item in left_out[:_NAMED_AT_MOST]:
        logger.warning("left out of training: %s: %s", item.id, item.reason)
    if len(left_out) > _NAMED_AT_MOST:
        logger.warning("… and %d more; all are listed in left_out.jsonl", len(left_out) - _NAMED_AT_MOST)
    if left_out:
        logger.warning("%d of %d utterances are left out of training", len(left_out), total)


def _describe_valid(
    cuts: CutSet, tokens: Tokens, normalize: Callable[[str], str], model: AcousticModel
) -> list[Utterance]:
    """Every utterance that makes a frame: what cannot be trained on must still be scored."""
    valid = []
    for cut in cuts:
        utterance, reason = describe_cut(cut, tokens=tokens, normalize=normalize, sample_rate=model.sample_rate)
        reason = reason or model.explain_infeasible(utterance.tokens, utterance.num_samples)
        if model.count_frames(utterance.num_samples) == 0:
            logger.warning("left out of validation: %s: shorter than one frame", utterance.id)
            continue
        if reason:
            logger.warning("validation utterance %s counts in the WER, not in the loss: %s", utterance.id, reason)
        valid.append(utterance)
    return valid


def _fit_statistics(model: AcousticModel, utterances: Sequence[Utterance]) -> None:
    """Measure mean and deviation of every feature over the training set and keep them in the model."""
    utterances = sorted(utterances, key=lambda utterance: utterance.seconds)
    size = max(1, int(_STATISTICS_BATCH_SECONDS / utterances[-1].seconds))
    accumulator = StatisticsAccumulator(model.front_end)
    for start in range(0, len(utterances), size):
        part = utterances[start : start + size]
        accumulator.add(*pad([torch.from_numpy(read_utterance(u, sample_rate=model.sample_rate)) for u in part]))
    model.front_end.set_statistics(*accumulator.finish())


def _fit(config: Config, preflight: Preflight, output: Path, provenance: dict[str, Any]) -> TrainingResult:
    from speechrnn.training.module import SpeechModule

    for stale in ("checkpoints", "logs"):
        shutil.rmtree(output / stale, ignore_errors=True)
    module = SpeechModule(
        preflight.model, preflight.tokens, optimizer=config.optimizer, ctc=config.ctc, augment=config.augment
    )
    trainer, best = _make_trainer(config, output)
    hours = sum(utterance.seconds for utterance in preflight.train) / 3600
    logger.info(
        "training %s parameters on %s utterances (%.2f h), choosing on %s",
        f"{preflight.model.num_parameters:,}",
        f"{len(preflight.train):,}",
        hours,
        f"{len(preflight.valid):,}",
    )
    seconds = _run(trainer, module, config, preflight)
    checkpoint = _load_best(best)
    module.load_state_dict(checkpoint["state_dict"])
    wer = float(best.best_model_score)
    run = {
        "seconds": round(seconds, 1),
        "hours_of_speech": round(hours, 3),
        "utterances": len(preflight.train),
        "utterances_left_out": len(preflight.left_out),
        "epoch": checkpoint["epoch"] + 1,
        "seed": config.seed,
        "device": _describe_device(trainer),
        "valid_wer": round(wer, 6),
    }
    # Where it was written to is nobody's business who gets the model.
    configuration = {name: value for name, value in config.to_dict().items() if name != "output"}
    provenance = {**provenance, "configuration": configuration, "training": run}
    model = ModelFolder(module.model.cpu().eval(), preflight.tokens, config.text, provenance)
    save_model(output / "model", model)
    logger.info(
        "chose epoch %d, validation WER %.2f %%; model in %s", checkpoint["epoch"] + 1, 100 * wer, output / "model"
    )
    return TrainingResult(
        output / "model", output, wer, checkpoint["epoch"] + 1, seconds, module.model.num_parameters, preflight.left_out
    )


def _load_best(best: Any) -> dict[str, Any]:
    """The checkpoint that validation chose."""
    if not best.best_model_path:
        raise ConfigError(
            "trainer: training ended before its first validation, so there is no model to choose; raise "
            "trainer.max_epochs, max_steps or max_time, or validate more often (trainer.check_val_every_n_epoch, "
            "limit_val_batches)"
        )
    return torch.load(best.best_model_path, map_location="cpu", weights_only=True)


def _run(trainer: Any, module: Any, config: Config, preflight: Preflight) -> float:
    """Train; return the seconds that it took."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from speechrnn.training.data import share_cores

    started = time.perf_counter()
    try:
        with share_cores(config.data), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(module, datamodule=_make_data(config, preflight))
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    except SystemExit:
        # Lightning's own answer to an interruption is to end the process.
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    return time.perf_counter() - started


def _describe_device(trainer: Any) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _make_data(config: Config, preflight: Preflight) -> Any:
    from speechrnn.training.data import SpeechData

    return SpeechData(
        preflight.train,
        preflight.valid,
        config=config.data,
        augment=config.augment,
        sample_rate=preflight.model.sample_rate,
        explain_infeasible=preflight.model.explain_infeasible,
        seed=config.seed,
    )


def _make_trainer(config: Config, output: Path) -> tuple[Any, Any]:
    """Lightning's trainer with our callbacks and loggers, and the callback that keeps the best checkpoint."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from speechrnn.training.callbacks import BlankHint, LogLearningRate, Progress
    from speechrnn.training.module import MONITOR

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    best = ModelCheckpoint(
        output / "checkpoints", "best", monitor=MONITOR, save_last=True, enable_version_counter=False
    )
    callbacks: list[pl.Callback] = [Progress(), BlankHint(), LogLearningRate(), best]
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(MONITOR, patience=config.early_stopping_patience))
    options = {name: value for name, value in config.trainer.items() if value is not None}
    if options.get("gradient_clip_val") == 0:
        options.pop("gradient_clip_val")
    options.setdefault("log_every_n_steps", 10)
    try:
        trainer = pl.Trainer(
            **options,
            default_root_dir=output,
            logger=[CSVLogger(output, "logs", "csv"), TensorBoardLogger(output, "logs", "tensorboard")],
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    return trainer, best
