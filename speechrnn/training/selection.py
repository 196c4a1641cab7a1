"""Which weights a run releases: the best validated ones, or means of weights, and the best bias of the blank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging

from speechrnn.errors import ConfigError
from speechrnn.training.checkpoints import KeepBest, average_weights
from speechrnn.training.config import CheckpointsConfig
from speechrnn.training.data import SpeechData
from speechrnn.training.module import SpeechModule
from speechrnn.training.validation import Validation
from speechrnn.types import BLANK_ID, Emission

log = logging.getLogger("speechrnn")


def choose_weights(
    config: CheckpointsConfig, data: SpeechData, trainer: pl.Trainer, module: SpeechModule, best: KeepBest
) -> dict[str, Any]:
    """Load the best weights, or means of weights where they are better in validation, into the module."""
    if not best.kept:
        raise ConfigError(
            "trainer: training ended before its first validation, so there is no model to choose; raise "
            "trainer.max_epochs, max_steps or max_time, or validate more often (trainer.check_val_every_n_epoch, "
            "limit_val_batches)"
        )
    weights = [best.load(entry) for entry in best.kept]
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


def shift_blank_bias(data: SpeechData, module: SpeechModule, chosen: dict[str, Any]) -> dict[str, Any]:
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
