"""One training run: corpus and configuration in, model folder out; and one that was stopped, resumed."""

from __future__ import annotations

import json
import logging
import shutil
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechrnn.corpus.check import LeftOut
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder import ModelFolder, load_model, save_model
from speechrnn.processes import count_cores, is_first_process
from speechrnn.training.config import Config
from speechrnn.training.config_file import load_config, make_trainer_options
from speechrnn.training.run import (
    CHECKPOINTS,
    LAST,
    Run,
    locked,
    make_output_folder,
    read_run,
    refuse_to_replace,
    visible_log,
)
from speechrnn.types import BLANK_ID, Emission

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger

    from speechrnn.training.checkpoints import KeepBest, SaveProgress
    from speechrnn.training.data import SpeechData
    from speechrnn.training.module import SpeechModule

log = logging.getLogger("speechrnn")


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

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


@visible_log()
def train(
    config: str | Path | Config,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | Iterable[Logger] | bool | None = None,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    folders: Sequence[Path] = (),
) -> TrainingResult:
    """Train a model and release it.

    Args:
        config: YAML file, or a configuration with ``output`` set.
        overrides: Settings that win over the file, such as ``{"encoder.hidden_size": 256}``.
        callbacks: Lightning callbacks, beside those of ``trainer.callbacks``. :func:`resume` needs them again.
        logger: Lightning loggers, beside CSV and TensorBoard and instead of ``trainer.logger``; False: no log at all.
        provenance: What the model card says of languages and corpora (licence, attribution, source).
        overwrite: Replace a run in the output folder, finished or not; else that is refused.
        folders: Where else to look for manifests that are given by relative paths.

    Returns:
        Where the model is and how good it is on validation data. Where several processes train together, only the first
        one returns; the others end here.

    Raises:
        ConfigError: A setting is wrong, or the output folder already holds a run.
        CorpusError: A manifest is wrong, or holds nothing that can be trained on.
        SpeechRNNError: Training cannot continue; the message names the utterances.
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
    with locked(run.output):
        data = _prepare(run)
        if is_first_process():
            for stale in (CHECKPOINTS, "logs", "faults"):
                shutil.rmtree(run.output / stale, ignore_errors=True)
            run.save()
        return _fit(run, data, callbacks, logger, checkpoint=None)


@visible_log()
def resume(
    output: str | Path,
    *,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | Iterable[Logger] | bool | None = None,
) -> TrainingResult:
    """Continue a run that was stopped, killed or interrupted, as if it had not been.

    Args:
        output: The run's folder.
        callbacks: As :func:`train` got them.
        logger: As :func:`train` got it.

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
        log.info("%s: this run is finished", output)
        return _describe_finished(output)
    with locked(output):
        checkpoint = output / LAST if (output / LAST).exists() else None
        return _fit(run, _prepare(run), callbacks, logger, checkpoint=checkpoint)


def _prepare(run: Run) -> SpeechData:
    """Run the preflight."""
    from speechrnn.training.data import SpeechData

    data = SpeechData(run.config, run.folders)
    data.setup()
    return data


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


def _fit(
    run: Run, data: SpeechData, callbacks: Sequence[pl.Callback], given: Any, *, checkpoint: Path | None
) -> TrainingResult:
    from speechrnn.training.checkpoints import KeepBest, SaveProgress
    from speechrnn.training.module import SpeechModule

    config, preflight = run.config, data.preflight
    assert preflight is not None
    module = SpeechModule(config, preflight.model, preflight.tokens, preflight.pronunciations)
    module.unreadable.corpus_size = len(preflight.train)
    progress = SaveProgress(run.output / LAST, config.checkpoints)
    best = KeepBest(run.output / CHECKPOINTS, config.checkpoints.best)
    resumed_after = _read_position(checkpoint, data)
    trainer = _make_trainer(run, [best, *callbacks, progress], given, resumed_after=resumed_after)
    log.info(
        "%s %s parameters on %s utterances (%.2f h), choosing on %s",
        "training" if checkpoint is None else "resuming with",
        f"{preflight.model.num_parameters:,}",
        f"{len(preflight.train):,}",
        sum(utterance.seconds for utterance in preflight.train) / 3600,
        f"{len(preflight.valid):,}",
    )
    _train(trainer, module, data, checkpoint)
    if trainer.global_rank != 0:
        raise SystemExit(0)
    return _release(run, data, trainer, module, best, progress)


def _read_position(checkpoint: Path | None, data: SpeechData) -> int | None:
    """The last logged step that a resumed run keeps; None for one that begins.

    Raises:
        ConfigError: The checkpoint cannot be read, or the corpus is no longer what it was.
    """
    from speechrnn.training.checkpoints import WholeCheckpointIO

    if checkpoint is None:
        return None
    kept = WholeCheckpointIO().load_checkpoint(checkpoint)
    position, output = kept.get("SpeechData"), checkpoint.parents[1]
    if position is None:
        raise ConfigError(
            f"{checkpoint}: an earlier version of speechrnn saved this progress; resume it with that version, or train "
            "anew with --overwrite"
        )
    if position["data"] != data.digest:
        raise ConfigError(
            f"{output}: training or validation data have changed since this run began (utterances, lengths or texts); "
            "restore them, or train anew with --overwrite"
        )
    log.info("epoch %d, %d batches of it are done", position["epoch"] + 1, position["batches_done"])
    return kept["global_step"] - 1


def _release(
    run: Run, data: SpeechData, trainer: pl.Trainer, module: SpeechModule, best: KeepBest, progress: SaveProgress
) -> TrainingResult:
    """Write the model folder from the weights that validation chose."""
    chosen, preflight = _choose_weights(run, data, trainer, module, best), data.preflight
    assert preflight is not None
    if run.config.checkpoints.shift_blank:
        chosen = _shift_blank(data, module, chosen)
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
    log.info("chose %s, validation WER %.2f %%, CER %.2f %%; model in %s", averaged, *rates, folder)
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
    """The configuration without absolute paths, which say more of the machine than a model needs to."""
    del configuration["output"]
    for section, name in (place.split(".") for place in _PLACES):
        value = configuration[section][name]
        if value is not None and Path(value).is_absolute():
            configuration[section][name] = Path(value).name
    return configuration


def _choose_weights(
    run: Run, data: SpeechData, trainer: pl.Trainer, module: SpeechModule, best: KeepBest
) -> dict[str, Any]:
    """Load the best weights, or means of weights where they are better in validation, into the module."""
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    from speechrnn.training.checkpoints import average_weights

    if not best.kept:
        raise ConfigError(
            "trainer: training ended before its first validation, so there is no model to choose; raise "
            "trainer.max_epochs, max_steps or max_time, or validate more often (trainer.check_val_every_n_epoch, "
            "limit_val_batches)"
        )
    weights = [best.load(entry) for entry in best.kept]
    chosen, chosen_weights = {**best.kept[0], "averaged": 0}, weights[0]
    means = []
    if run.config.checkpoints.average and len(weights) > 1:
        means.append((f"mean of the {len(weights)} best", average_weights(weights), {"averaged": len(weights)}))
    if any(isinstance(each, StochasticWeightAveraging) for each in trainer.callbacks):  # type: ignore[attr-defined]
        averaged = {name: value.clone() for name, value in module.model.state_dict().items()}
        means.append(("stochastic weight average", averaged, {"epoch": trainer.current_epoch}))
    for name, mean, entry in means:
        module.model.load_state_dict(mean)
        [found] = _validate(module, data)
        log.info(
            "%s: validation WER %.2f %%, loss %.3f; the best so far: %.2f %%, %.3f",
            name, 100 * found["wer"], found["loss"], 100 * chosen["wer"], chosen["loss"],
        )  # fmt: skip
        if found["rank"] < chosen["rank"]:
            chosen, chosen_weights = {**chosen, **found, **entry}, mean
    module.model.load_state_dict(chosen_weights)
    return chosen


BLANK_SHIFTS = (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Nats by which the blank's bias is moved, to compare on validation data."""


def _shift_blank(data: SpeechData, module: SpeechModule, chosen: dict[str, Any]) -> dict[str, Any]:
    """Move the blank's bias to where the validation set has the fewest word errors, with no more character errors."""
    best, best_shift = chosen, 0.0
    for shift, found in zip(BLANK_SHIFTS, _validate(module, data, BLANK_SHIFTS), strict=True):
        # Where most words are wrong, emitting nothing would pass for better. A lower loss alone, without fewer word
        # errors, only measures how confident the network is.
        if found["wer"] < chosen["wer"] and found["cer"] <= chosen["cer"] and found["rank"] < best["rank"]:
            best, best_shift = {**chosen, **found}, shift
    with torch.no_grad():
        module.model.head.projection.bias[BLANK_ID] += best_shift
    log.info(
        "the blank's bias moved by %+.2f nats: validation WER %.2f %%, CER %.2f %%, before %.2f and %.2f %%",
        best_shift, 100 * best["wer"], 100 * best["cer"], 100 * chosen["wer"], 100 * chosen["cer"],
    )  # fmt: skip
    return {**best, "blank_shift": best_shift}


def _validate(module: SpeechModule, data: SpeechData, shifts: Sequence[float] = (0.0,)) -> list[dict[str, float]]:
    """Rates of the module's present weights on the validation set, for each shift of the blank's bias, in one pass."""
    from speechrnn.training.data import SpeechData
    from speechrnn.training.validation import Validation

    device = next(module.parameters()).device
    module.eval()
    alone = SpeechData(
        data.config, preflight=data.preflight
    )  # without the Trainer: one process validates the whole set
    alone.setup()
    validations = [Validation(module.named) for _ in shifts]
    with torch.no_grad():
        for batch in alone.val_dataloader():
            emissions = module.emit(batch.to(device))
            for shift, validation in zip(shifts, validations, strict=True):
                for id, text, reason in batch.failed:
                    validation.fail(id, text, reason)
                for part, emission in emissions:
                    validation.add(shift_blank(emission, shift), part, module.tokens)
    return [validation.finish(None) for validation in validations]


def shift_blank(emission: Emission, shift: float) -> Emission:
    """What a model emits after its blank's bias is moved by so many nats."""
    if shift == 0.0:
        return emission
    moved = emission.log_probs.clone()
    moved[..., BLANK_ID] += shift
    return replace(emission, log_probs=moved.log_softmax(dim=-1))


def _train(trainer: pl.Trainer, module: SpeechModule, data: SpeechData, checkpoint: Path | None) -> None:
    """Train to the end."""
    from speechrnn.training.data import share_cores

    try:
        with share_cores(data.config.data), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SpeechRNNError:
        raise
    except SystemExit:
        # Lightning ends the process when it is interrupted.
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    except Exception as error:
        if trainer.world_size > 1 and _is_lost_process(error):
            raise SpeechRNNError(
                f"process {trainer.global_rank} of {trainer.world_size} has lost another one, which was killed or "
                f"failed; its last message stands above; --resume {data.config.output} continues"
            ) from error
        if _is_raised_by_lightning(error):
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        raise


def _is_lost_process(error: Exception) -> bool:
    """Whether gloo or NCCL reports that another process is gone."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "process group")
    is_message = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return isinstance(error, torch.distributed.DistError) or is_message


def _is_raised_by_lightning(error: Exception) -> bool:
    """Whether Lightning itself raised it: then a setting does not suit it."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("lightning.")


def _describe_device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _make_trainer(run: Run, callbacks: Sequence[pl.Callback], given: Any, *, resumed_after: int | None) -> pl.Trainer:
    """Lightning's Trainer with our callbacks and loggers beside the user's."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping
    from lightning.pytorch.plugins.io import CheckpointIO

    from speechrnn.training.callbacks import BlankHint, LogLearningRate, Progress
    from speechrnn.training.checkpoints import WholeCheckpointIO
    from speechrnn.training.gradient_watch import GradientWatch
    from speechrnn.training.loggers import make_loggers
    from speechrnn.training.module import MONITOR

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = run.config
    options = make_trainer_options(config.trainer)
    _check_devices(options)
    # The best weights are copied before a callback of the user's puts others back: callbacks keep their order.
    ours: list[pl.Callback] = [Progress(), BlankHint(), LogLearningRate(), GradientWatch(config.gradients)]
    if config.early_stopping_patience is not None:
        # After validation, not at the end of the epoch: then its count is part of what the epoch's end saves.
        stopping = EarlyStopping(MONITOR, patience=config.early_stopping_patience, check_on_train_epoch_end=False)
        ours.append(stopping)
    plugins = _as_list(options.pop("plugins", None))
    if not any(isinstance(each, CheckpointIO) for each in plugins):
        plugins.append(WholeCheckpointIO())
    listed = _as_list(options.pop("callbacks", None))
    logs = options.pop("logger", None)
    defaults = {
        "log_every_n_steps": 10,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    try:
        return pl.Trainer(
            **{**defaults, **options},
            default_root_dir=run.output,
            logger=make_loggers(run.output, logs if given is None else given, resumed_after=resumed_after),
            callbacks=[*ours, callbacks[0], *listed, *callbacks[1:]],
            plugins=plugins,
            use_distributed_sampler=False,
        )
    except SpeechRNNError:
        raise
    except Exception as error:  # whatever Lightning and the libraries below it raise
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _check_devices(options: Mapping[str, Any]) -> None:
    """Refuse more processes than cores on a CPU, before Lightning starts them."""
    accelerator, devices = str(options.get("accelerator", "auto")), str(options.get("devices", 1))
    if accelerator != "cpu" and (accelerator != "auto" or torch.cuda.is_available()):
        return
    if devices == "-1":
        raise ConfigError("trainer.devices: -1 means all GPUs, and torch finds none; give a number of processes")
    cores = max(2, count_cores())
    if devices.isdigit() and int(devices) > cores:
        raise ConfigError(f"trainer.devices: {devices} processes, but torch finds no GPU and {cores} cores; lower it")
