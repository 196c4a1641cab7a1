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
from speechrnn.processes import is_first_process, locked
from speechrnn.training.config import Config
from speechrnn.training.config_file import load_config
from speechrnn.training.run import (
    CHECKPOINTS,
    LAST,
    Run,
    make_output_folder,
    read_run,
    refuse_to_replace,
    visible_log,
)

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger

    from speechrnn.training.checkpoints import SaveProgress
    from speechrnn.training.data import SpeechData
    from speechrnn.training.module import SpeechModule
    from speechrnn.training.selection import KeepBest

log = logging.getLogger("speechrnn")

_BUSY = "another process trains there; wait, or choose another output"


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        model: The released model folder.
        output: The run's folder: model/, checkpoints/, logs/, run.json.
        valid_wer: Word error rate of the released weights on the validation set, a fraction.
        epoch: The epoch of the best validation, counted from 1.
        seconds: Time spent training and validating, in all parts of the run.
        num_parameters: Number of trained parameters.
        left_out: Utterances that could not be read or trained on.
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
    data: SpeechData | None = None,
) -> TrainingResult:
    """Train a model and release it.

    Args:
        config: YAML file, or a configuration with ``output`` set.
        overrides: Settings that take precedence over the file, such as ``{"encoder.hidden_size": 256}``.
        callbacks: Lightning callbacks, beside those of ``trainer.callbacks``. :func:`resume` needs them again.
        logger: Lightning loggers, beside CSV and TensorBoard, which replace ``trainer.logger``; False: no logger.
        provenance: Languages and corpora for the model card (licence, attribution, source).
        overwrite: Replace a run in the output folder.
        folders: Where else to look for manifests that are given by relative paths.
        data: The configuration's data, if they are read already.

    Returns:
        The model folder and its error rate on validation data. Of several processes only the first returns; the others
        exit.

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
    with locked(run.output, _BUSY):
        data = _prepare(run, data)
        found = replace(config.data, batch_seconds=data.config.data.batch_seconds)  # if it was auto
        run = replace(run, config=replace(config, data=found))
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
    data: SpeechData | None = None,
) -> TrainingResult:
    """Continue a run that was stopped, killed or interrupted.

    On a CPU, with as many threads as before, the weights are bit for bit those of a run that was not stopped.

    Args:
        output: The run's folder.
        callbacks: As passed to :func:`train`.
        logger: As passed to :func:`train`.
        data: As passed to :func:`train`.

    Returns:
        As :func:`train` does. A finished run stays as it is.

    Raises:
        ConfigError: The folder holds no run, or its files are damaged.
        CorpusError: The corpus is missing.
    """
    output = Path(output)
    run = read_run(output)
    if run.is_finished and (output / "model").exists():
        log.info("%s: this run is finished", output)
        return _describe_finished(output)
    with locked(output, _BUSY):
        checkpoint = output / LAST if (output / LAST).exists() else None
        return _fit(run, _prepare(run, data), callbacks, logger, checkpoint=checkpoint)


def _prepare(run: Run, data: SpeechData | None) -> SpeechData:
    from speechrnn.training.data import SpeechData

    data = data or SpeechData(run.config, run.folders)
    data.setup()
    return data


def _describe_finished(output: Path) -> TrainingResult:
    model = load_model(output / "model")
    kept = model.provenance["training"]
    lines = (output / "left_out.jsonl").read_text(encoding="utf-8").splitlines()
    return TrainingResult(
        model=output / "model",
        output=output,
        valid_wer=kept["valid_wer"],
        epoch=kept["epoch"],
        seconds=kept["seconds"],
        num_parameters=model.acoustic.num_parameters,
        left_out=[LeftOut(**json.loads(line)) for line in lines],
    )


def _fit(
    run: Run, data: SpeechData, callbacks: Sequence[pl.Callback], given: Any, *, checkpoint: Path | None
) -> TrainingResult:
    from speechrnn.training.checkpoints import SaveProgress
    from speechrnn.training.module import SpeechModule
    from speechrnn.training.selection import KeepBest
    from speechrnn.training.trainer import make_trainer

    config, preflight = run.config, data.preflight
    assert preflight is not None
    module = SpeechModule(config, preflight.model, preflight.tokens, preflight.pronunciations)
    module.unreadable.corpus_size = len(preflight.train)
    progress = SaveProgress(run.output / LAST, config.checkpoints)
    best = KeepBest(run.output / CHECKPOINTS, config.checkpoints.best)
    trainer = make_trainer(
        config, run.output, [best, *callbacks, progress], given, resumed_after=_read_position(checkpoint, data)
    )
    log.info(
        "%s: %s parameters, %s training utterances (%.2f h), %s validation utterances",
        "training" if checkpoint is None else "resuming",
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
    """The last logged step that a resumed run keeps; None for a new run.

    Raises:
        ConfigError: The checkpoint cannot be read, or the corpus has changed.
    """
    from speechrnn.training.checkpoints import WholeCheckpointIO, convert_checkpoint

    if checkpoint is None:
        return None
    kept = WholeCheckpointIO().load_checkpoint(checkpoint)
    if "position" in kept:
        WholeCheckpointIO().save_checkpoint(convert_checkpoint(kept), checkpoint)
        log.info("%s: converted from an earlier version of speechrnn", checkpoint)
    position, output = kept["SpeechData"], checkpoint.parents[1]
    if position["data"] != data.fingerprint:
        raise ConfigError(
            f"{output}: training or validation data have changed since this run began (utterances, lengths or texts); "
            "restore them, or train again with --overwrite"
        )
    log.info("continuing in epoch %d, after batch %d", position["epoch"] + 1, position["batches_done"])
    return kept["global_step"] - 1


def _release(
    run: Run, data: SpeechData, trainer: pl.Trainer, module: SpeechModule, best: KeepBest, progress: SaveProgress
) -> TrainingResult:
    """Release the weights that validation chose."""
    from speechrnn.training.selection import choose_weights, shift_blank_bias

    chosen, preflight = choose_weights(run.config.checkpoints, data, trainer, module, best), data.preflight
    assert preflight is not None
    if run.config.checkpoints.shift_blank:
        chosen = shift_blank_bias(data, module, chosen)
    device = trainer.strategy.root_device
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
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": trainer.world_size,
        "valid_wer": round(chosen["wer"], 6),
    }
    provenance = {**run.provenance, "configuration": _without_places(run.config), "training": training}
    folder = run.output / "model"
    save_model(folder, ModelFolder(module.model.cpu().eval(), preflight.tokens, run.config.text, provenance))
    replace(run, is_finished=True).save()
    (run.output / LAST).unlink(missing_ok=True)
    averaged = f"the mean of {chosen['averaged']} checkpoints" if chosen["averaged"] else f"epoch {chosen['epoch']}"
    rates = (100 * chosen["wer"], 100 * chosen["cer"])
    log.info("chose %s, validation WER %.2f %%, CER %.2f %%; model in %s", averaged, *rates, folder)
    unreadable = [LeftOut(id, f"could not be read: {reason}") for id, reason in module.unreadable.reasons.items()]
    return TrainingResult(
        model=folder,
        output=run.output,
        valid_wer=chosen["wer"],
        epoch=chosen["epoch"],
        seconds=progress.seconds,
        num_parameters=module.model.num_parameters,
        left_out=[*preflight.left_out, *unreadable],
    )


_PLACES = ("data.train", "data.valid", "start.model", "start.replay", "ctc.lexicon", "tokens.lexicon")


def _without_places(config: Config) -> dict[str, Any]:
    """A configuration as plain values, without absolute paths: they describe the machine, not the model."""
    configuration = config.to_dict()
    del configuration["output"]
    for section, name in (place.split(".") for place in _PLACES):
        value = configuration[section][name]
        if value is not None and Path(value).is_absolute():
            configuration[section][name] = Path(value).name
    return configuration


def _train(trainer: pl.Trainer, module: SpeechModule, data: SpeechData, checkpoint: Path | None) -> None:
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
                f"failed (see its last message above); continue with --resume {data.config.output} "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith("lightning."):  # Lightning refuses a setting
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        raise


def _is_lost_process(error: Exception) -> bool:
    """Whether gloo or NCCL reports that another process is gone."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "process group")
    is_message = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return isinstance(error, torch.distributed.DistError) or is_message
