"""One training run: corpus and configuration in, model folder out; and one that was stopped, taken up again."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechrnn.corpus.check import LeftOut
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder import ModelFolder, load_model, save_model
from speechrnn.processes import is_first_process
from speechrnn.training.config import Config
from speechrnn.training.config_file import load_config
from speechrnn.training.preflight import Preflight, prepare_run
from speechrnn.training.run import CHECKPOINTS, LAST, Run, make_output_folder, read_run, refuse_to_replace
from speechrnn.types import BLANK_ID

if TYPE_CHECKING:
    from speechrnn.training.checkpoints import KeepBest, SaveProgress
    from speechrnn.training.module import SpeechModule

logger = logging.getLogger("speechrnn")


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with.

    Attributes:
        model: The released model folder.
        output: The run's folder: model/, checkpoints/, logs/, run.json.
        valid_wer: Word error rate of the released weights on the validation set, a fraction.
        epoch: The epoch of the best validation, counted from 1.
        seconds: Time spent training and validating, in all parts of the run.
        num_parameters: Trained numbers.
        left_out: Utterances that could not be trained on, or not be read.
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
        overwrite: Replace a run in the output folder, finished or not; else that is refused.
        folders: Where else to look for manifests that are given by relative paths.

    Returns:
        Where the model lies and how good it is on validation data. Where several processes train together, only the
        first one returns; the others end here.

    Raises:
        ConfigError: A setting is wrong, or the output folder already holds a run.
        CorpusError: A manifest is wrong, or holds nothing that can be trained on.
        SpeechRNNError: Training cannot go on; what it says names the utterances.
    """
    if not isinstance(config, Config):
        folder = Path(config).resolve().parent
        folders = [folder, *folders]
        config = load_config(config, overrides)
        config = replace(config, output=config.output or str(Path("runs") / folder.name))
    if config.output is None:
        raise ConfigError("output: expected a folder to write to")
    run = Run(config, list(folders), dict(provenance or {}))
    if not overwrite and is_first_process():
        refuse_to_replace(run.output)
    make_output_folder(run.output)
    preflight = prepare_run(config, folders=[run.output, *folders])
    if is_first_process():
        for stale in (CHECKPOINTS, "logs", "faults"):
            shutil.rmtree(run.output / stale, ignore_errors=True)
        run.save()
    return _fit(run, preflight, checkpoint=None)


def resume(output: str | Path) -> TrainingResult:
    """Go on with a run that was stopped, killed or interrupted, as if it had not been.

    Args:
        output: The run's folder.

    Returns:
        As :func:`train` does; on a CPU, with as many threads as before, the weights are those of a run that was never
        stopped, to the last bit. A run that was finished stays as it is.

    Raises:
        ConfigError: No run was begun there, or its files are not whole.
        CorpusError: The corpus is gone.
    """
    output = Path(output)
    run = read_run(output)
    if run.is_finished and (output / "model").exists():
        logger.info("%s: this run is finished", output)
        return _describe_finished(output)
    preflight = prepare_run(run.config, folders=[output, *run.folders])
    return _fit(run, preflight, checkpoint=output / LAST if (output / LAST).exists() else None)


def _describe_finished(output: Path) -> TrainingResult:
    model = load_model(output / "model")
    kept = model.provenance["training"]
    left_out = [
        LeftOut(**json.loads(line)) for line in (output / "left_out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return TrainingResult(
        model=output / "model",
        output=output,
        valid_wer=kept["valid_wer"],
        epoch=kept["epoch"],
        seconds=kept["seconds"],
        num_parameters=model.acoustic.num_parameters,
        left_out=left_out,
    )


def _fit(run: Run, preflight: Preflight, *, checkpoint: Path | None) -> TrainingResult:
    from speechrnn.training.checkpoints import KeepBest, SaveProgress
    from speechrnn.training.module import SpeechModule

    config, folder = run.config, run.output / CHECKPOINTS
    module = SpeechModule(preflight.model, preflight.tokens, config, preflight.pronunciations)
    module.unreadable.corpus_size = len(preflight.train)
    progress = SaveProgress(run.output / LAST, config.checkpoints)
    best = KeepBest(folder, config.checkpoints.best)
    position = _read_position(checkpoint, preflight)
    trainer = _make_trainer(run, best, progress, resumed_after=position.get("logged_steps"))
    logger.info(
        "%s %s parameters on %s utterances (%.2f h), choosing on %s",
        "training" if checkpoint is None else "going on with",
        f"{preflight.model.num_parameters:,}",
        f"{len(preflight.train):,}",
        sum(utterance.seconds for utterance in preflight.train) / 3600,
        f"{len(preflight.valid):,}",
    )
    if position:
        logger.info("epoch %d, %d batches of it are done", position["epoch"] + 1, position["batches_done"])
    progress.data = preflight.describe_data()
    _train(trainer, module, config, preflight, checkpoint)
    if trainer.global_rank != 0:
        raise SystemExit(0)
    return _release(run, preflight, trainer, module, best, progress)


def _read_position(checkpoint: Path | None, preflight: Preflight) -> dict[str, Any]:
    """Where a run is to go on; nothing for one that begins.

    Raises:
        ConfigError: The checkpoint cannot be read, or the corpus is no longer what it was.
    """
    from speechrnn.training.checkpoints import WholeCheckpointIO

    if checkpoint is None:
        return {}
    position = WholeCheckpointIO().load_checkpoint(checkpoint)["position"]
    if position["data"] != preflight.describe_data():
        raise ConfigError(
            f"{checkpoint.parents[1]}: training or validation data have changed since this run began (utterances, "
            "lengths or texts); bring them back, or train anew with --overwrite"
        )
    return position


def _release(
    run: Run, preflight: Preflight, trainer: Any, module: SpeechModule, best: KeepBest, progress: SaveProgress
) -> TrainingResult:
    """Write the model folder from the weights that validation chose."""
    chosen = _choose_weights(run, preflight, module, best)
    if run.config.checkpoints.shift_blank:
        chosen = _shift_blank(run, preflight, module, chosen)
    training = {
        "seconds": round(progress.seconds, 1),
        "hours_of_speech": round(sum(utterance.seconds for utterance in preflight.train) / 3600, 3),
        "utterances": len(preflight.train),
        "utterances_left_out": len(preflight.left_out),
        "utterances_unreadable": len(module.unreadable.reasons),
        "epoch": chosen["epoch"],
        "averaged": chosen["averaged"],
        "blank_shift": chosen.get("blank_shift", 0.0),
        "seed": run.config.seed,
        "device": _describe_device(trainer),
        "processes": trainer.world_size,
        "valid_wer": round(chosen["wer"], 6),
    }
    configuration = _without_places(run.config.to_dict())
    provenance = {**run.provenance, "configuration": configuration, "training": training}
    model = ModelFolder(module.model.cpu().eval(), preflight.tokens, run.config.text, provenance)
    folder = run.output / "model"
    save_model(folder, model)
    replace(run, is_finished=True).save()
    (run.output / LAST).unlink(missing_ok=True)
    averaged = f"the mean of {chosen['averaged']} checkpoints" if chosen["averaged"] else f"epoch {chosen['epoch']}"
    rates = (100 * chosen["wer"], 100 * chosen["cer"])
    logger.info("chose %s, validation WER %.2f %%, CER %.2f %%; model in %s", averaged, *rates, folder)
    unreadable = [LeftOut(id, f"could not be read: {reason}") for id, reason in module.unreadable.reasons.items()]
    return TrainingResult(
        folder,
        run.output,
        chosen["wer"],
        chosen["epoch"],
        progress.seconds,
        module.model.num_parameters,
        [*preflight.left_out, *unreadable],
    )


_PLACES = ("data.train", "data.valid", "start.model", "start.replay", "ctc.lexicon", "tokens.lexicon")


def _without_places(configuration: dict[str, Any]) -> dict[str, Any]:
    """Where things lie on the machine that trained is nobody's business who gets the model: names are enough."""
    del configuration["output"]
    for section, name in (place.split(".") for place in _PLACES):
        value = configuration[section][name]
        if value is not None and Path(value).is_absolute():
            configuration[section][name] = Path(value).name
    return configuration


def _choose_weights(run: Run, preflight: Preflight, module: SpeechModule, best: KeepBest) -> dict[str, Any]:
    """Load the best weights into the module, or the mean of the best where validation likes it better."""
    from speechrnn.training.checkpoints import average_weights

    if not best.kept:
        raise ConfigError(
            "trainer: training ended before its first validation, so there is no model to choose; raise "
            "trainer.max_epochs, max_steps or max_time, or validate more often (trainer.check_val_every_n_epoch, "
            "limit_val_batches)"
        )
    weights = [best.load(entry) for entry in best.kept]
    chosen = {**best.kept[0], "averaged": 0}
    module.model.load_state_dict(weights[0])
    if run.config.checkpoints.average and len(weights) > 1:
        module.model.load_state_dict(average_weights(weights))
        mean = _validate(module, run.config, preflight)
        logger.info(
            "mean of the %d best: validation WER %.2f %%, loss %.3f; the best alone: %.2f %%, %.3f",
            len(weights), 100 * mean["wer"], mean["loss"], 100 * chosen["wer"], chosen["loss"],
        )  # fmt: skip
        if mean["rank"] < chosen["rank"]:
            return {**chosen, **mean, "averaged": len(weights)}
        module.model.load_state_dict(weights[0])
    return chosen


BLANK_SHIFTS = (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Nats by which the blank's bias is moved to see what validation thinks of it."""


def _shift_blank(run: Run, preflight: Preflight, module: SpeechModule, chosen: dict[str, Any]) -> dict[str, Any]:
    """Move the bias of the blank to where the validation set has the fewest word errors, at no cost in characters."""
    bias = module.model.head.projection.bias.detach()  # the same memory, without its history
    own, best, best_shift = float(bias[BLANK_ID]), chosen, 0.0
    for shift in BLANK_SHIFTS:
        bias[BLANK_ID] = own + shift
        found = _validate(module, run.config, preflight)
        # Where most words are wrong anyway, saying nothing of them would pass for better; and a lower loss alone, where
        # none is wrong, says no more than how sure it is of what it knows by heart.
        if found["wer"] < chosen["wer"] and found["cer"] <= chosen["cer"] and found["rank"] < best["rank"]:
            best, best_shift = {**chosen, **found}, shift
    bias[BLANK_ID] = own + best_shift
    logger.info(
        "the blank's bias moved by %+.2f nats: validation WER %.2f %%, CER %.2f %%, before %.2f and %.2f %%",
        best_shift, 100 * best["wer"], 100 * best["cer"], 100 * chosen["wer"], 100 * chosen["cer"],
    )  # fmt: skip
    return {**best, "blank_shift": best_shift}


def _validate(module: SpeechModule, config: Config, preflight: Preflight) -> dict[str, float]:
    """Rates of the module's present weights on the validation set."""
    device = next(module.parameters()).device
    module.eval()
    with torch.no_grad():
        for batch in _make_data(config, preflight).val_dataloader():
            module.validation_step(batch.to(device), 0)
    return module.validation.finish(None)


def _train(trainer: Any, module: SpeechModule, config: Config, preflight: Preflight, checkpoint: Path | None) -> None:
    """Train to the end."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from speechrnn.training.data import share_cores

    try:
        with share_cores(config.data), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(module, datamodule=_make_data(config, preflight), ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        if trainer.world_size == 1 or not _is_lost_process(error):
            raise
        raise SpeechRNNError(
            f"process {trainer.global_rank} of {trainer.world_size} has lost another one, which was killed or failed; "
            f"what it said last stands above; --resume {config.output} goes on"
        ) from error
    except SystemExit:
        # Lightning's own answer to an interruption is to end the process.
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None


def _is_lost_process(error: RuntimeError) -> bool:
    """Whether this is how gloo and NCCL say that another process is gone."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "process group")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error).lower() for word in words)


def _describe_device(trainer: Any) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _make_data(config: Config, preflight: Preflight) -> Any:
    from speechrnn.training.data import SpeechData

    return SpeechData(
        preflight.train,
        preflight.valid,
        config=replace(config.data, weights=preflight.weights),
        augment=config.augment,
        sample_rate=preflight.model.sample_rate,
        explain_infeasible=preflight.model.explain_infeasible,
        seed=config.seed,
        with_references=config.encoder.initial_state == "encoded",
        heard=preflight.heard,
    )


def _make_trainer(run: Run, best: KeepBest, progress: SaveProgress, *, resumed_after: int | None) -> Any:
    """Lightning's trainer with our callbacks and loggers."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from speechrnn.training.callbacks import BlankHint, LogLearningRate, Progress
    from speechrnn.training.checkpoints import WholeCheckpointIO
    from speechrnn.training.gradient_watch import GradientWatch
    from speechrnn.training.loggers import make_loggers
    from speechrnn.training.module import MONITOR

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = run.config
    watch = GradientWatch(config.gradients, clip=config.gradient_clip_val)
    callbacks: list[pl.Callback] = [Progress(), BlankHint(), LogLearningRate(), watch]
    if config.early_stopping_patience is not None:
        # After validation, not at the end of the epoch: then its count is part of what the next epoch's start saves.
        stopping = EarlyStopping(MONITOR, patience=config.early_stopping_patience, check_on_train_epoch_end=False)
        callbacks.append(stopping)
    ours = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")  # the module does these itself
    options = {name: value for name, value in config.trainer.items() if value is not None and name not in ours}
    options.setdefault("log_every_n_steps", 10)
    try:
        return pl.Trainer(
            **options,
            default_root_dir=run.output,
            logger=make_loggers(run.output, resumed_after=resumed_after),
            callbacks=[*callbacks, best, progress],
            plugins=[WholeCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
