"""Which weights a run releases: the best validated ones, or a mean of weights, and the best bias of the blank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from safetensors.torch import load_file, save

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError
from speechrnn.training.config import CheckpointsConfig
from speechrnn.training.data import SpeechData
from speechrnn.training.module import SpeechModule
from speechrnn.training.run import check_in_place
from speechrnn.training.validation import Validation
from speechrnn.types import BLANK_ID, Emission

logger = logging.getLogger("speechrnn")

BLANK_SHIFTS = (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Shifts of the blank's bias to compare on validation data, in nats."""


class KeepBest(pl.Callback):
    """Keeps the weights of the best validations, each as ``epoch-N-step-M.safetensors``.

    Args:
        folder: Folder to write to.
        best: How many to keep.
    """

    def __init__(self, folder: Path, best: int) -> None:
        self.folder = folder
        self.best = best
        self.kept: list[dict[str, Any]] = []
        self._validated: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy the validated weights: a callback that averages weights restores others after validation."""
        self._validated = {name: value.detach().cpu().clone() for name, value in pl_module.model.state_dict().items()}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep these weights if they are among the best."""
        if trainer.sanity_checking or pl_module.last_validation is None:
            return
        entry: dict[str, Any] = {
            "file": f"epoch-{trainer.current_epoch + 1}-step-{trainer.global_step}.safetensors",
            "epoch": trainer.current_epoch + 1,
            **pl_module.last_validation,
        }
        ranked = sorted([*self.kept, entry], key=lambda kept: kept["rank"])
        self.kept, dropped = ranked[: self.best], ranked[self.best :]
        if not trainer.is_global_zero:
            return
        if entry not in dropped:
            check_in_place(self.folder.parent)
            write_atomic(self.folder / entry["file"], save(self._validated))
        for old in dropped:
            with suppress(FileNotFoundError):
                (self.folder / old["file"]).unlink()

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: what is kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.kept = state_dict["kept"]


def average_weights(weights: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, summed in float64; integer tensors are those of the first."""
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in weights[0].items()
    }


def choose_weights(
    config: CheckpointsConfig, data: SpeechData, trainer: pl.Trainer, module: SpeechModule, best: KeepBest
) -> dict[str, Any]:
    """Load the best weights into the module, or a mean of weights if it validates better; return their rates.

    Raises:
        ConfigError: Training ended before the first validation.
    """
    if not best.kept:
        raise ConfigError(
            "trainer: training ended before its first validation, so there is no model to choose; raise "
            "trainer.max_epochs, max_steps or max_time, or validate more often (trainer.check_val_every_n_epoch, "
            "limit_val_batches)"
        )
    weights = [load_file(best.folder / entry["file"]) for entry in best.kept]
    chosen, chosen_weights = {**best.kept[0], "averaged": 0}, weights[0]
    means = []
    if config.average and len(weights) > 1:
        means.append((f"mean of the {len(weights)} best", average_weights(weights), {"averaged": len(weights)}))
    if any(isinstance(each, StochasticWeightAveraging) for each in trainer.callbacks):  # type: ignore[attr-defined]
        averaged = {name: value.clone() for name, value in module.model.state_dict().items()}
        means.append(("stochastic weight average", averaged, {"epoch": trainer.current_epoch}))
    for name, mean, entry in means:
        module.model.load_state_dict(mean)
        [found] = _validate(module, data)
        logger.info(
            "%s: validation WER %.2f %%, loss %.3f; the best so far: %.2f %%, %.3f",
            name, 100 * found["wer"], found["loss"], 100 * chosen["wer"], chosen["loss"],
        )  # fmt: skip
        if found["rank"] < chosen["rank"]:
            chosen, chosen_weights = {**chosen, **found, **entry}, mean
    module.model.load_state_dict(chosen_weights)
    return chosen


def shift_blank_bias(data: SpeechData, module: SpeechModule, chosen: dict[str, Any]) -> dict[str, Any]:
    """Shift the blank's bias to where validation has the fewest word errors, with no more character errors."""
    best, best_shift = chosen, 0.0
    for shift, found in zip(BLANK_SHIFTS, _validate(module, data, BLANK_SHIFTS), strict=True):
        # Where most words are wrong, a model that emits only blanks would rank better. A lower loss without fewer word
        # errors only measures confidence.
        if found["wer"] < chosen["wer"] and found["cer"] <= chosen["cer"] and found["rank"] < best["rank"]:
            best, best_shift = {**chosen, **found}, shift
    with torch.no_grad():
        module.model.head.projection.bias[BLANK_ID] += best_shift
    logger.info(
        "shifted the blank's bias by %+.2f nats: validation WER %.2f %%, CER %.2f %%, before %.2f and %.2f %%",
        best_shift, 100 * best["wer"], 100 * best["cer"], 100 * chosen["wer"], 100 * chosen["cer"],
    )  # fmt: skip
    return {**best, "blank_shift": best_shift}


def _validate(module: SpeechModule, data: SpeechData, shifts: Sequence[float] = (0.0,)) -> list[dict[str, float]]:
    """Rates of the present weights for each shift of the blank's bias, in one pass over the whole validation set."""
    device = next(module.parameters()).device
    module.eval()
    alone = SpeechData(data.config, preflight=data.preflight)  # without the Trainer: not one process's share
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
    """The emission of the same model with the blank's bias shifted, in nats."""
    if shift == 0.0:
        return emission
    moved = emission.log_probs.clone()
    moved[..., BLANK_ID] += shift
    return replace(emission, log_probs=moved.log_softmax(dim=-1))
