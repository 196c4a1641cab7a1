"""Watch the gradients of a run: norms by layer, explosion, how far back in time they reach."""

from __future__ import annotations

import logging
import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from speechrnn.acoustic.gradient_flow import (
    LagCurve,
    RecurrentWeights,
    Saturation,
    measure_lag_curves,
    measure_recurrent_weights,
    measure_saturation,
)
from speechrnn.acoustic.unrolled import unroll_model
from speechrnn.corpus.batches import BatchRequest
from speechrnn.errors import SpeechRNNError
from speechrnn.inspection.pictures import draw_lag_curves, has_matplotlib, to_pixels
from speechrnn.training.config import GradientsConfig
from speechrnn.training.loggers import tolerated
from speechrnn.training.module import SpeechModule
from speechrnn.types import Batch

logger = logging.getLogger("speechrnn")

_EXPLODED = 1e3
_UTTERANCES_AT_ONCE = 8
_STEPS = 4  # of each utterance: enough for 32 utterances


class GradientWatch(pl.Callback):
    """Logs the unclipped gradient norm of each layer, and every N steps how far back in time gradients reach.

    All loggers get ``gradients/norm/LAYER``, ``gradients/half_life_seconds/layer_1_forward``,
    ``gradients/reach_seconds/…`` and for each gate ``recurrent/spectral_radius/…``,
    ``recurrent/largest_singular_value/…`` and ``recurrent/saturated_share/…``. TensorBoard also gets a histogram of the
    log norms for each epoch and, with matplotlib, the lag curves as an image.

    Args:
        config: How often to measure, and over how many utterances.
    """

    def __init__(self, config: GradientsConfig) -> None:
        self._config = config
        self._norms: dict[str, list[Tensor]] = {}
        self._totals: list[Tensor] = []
        self._groups: dict[str, list[torch.nn.Parameter]] = {}
        self._kinds: dict[tuple[int, str], str] = {}
        self._batches: list[Batch] | None = None
        self._measured_at = -1

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Measure each layer's norm: before clipping, and after fp16's loss scale is divided out."""
        if not self._groups:
            self._groups = group_by_layer(pl_module)
        found = {name: [p.grad for p in group if p.grad is not None] for name, group in self._groups.items()}
        norms = {name: torch.nn.utils.get_total_norm(each).detach() for name, each in found.items() if each}
        for name, norm in norms.items():
            self._norms.setdefault(name, []).append(norm)  # read at the end of the epoch: reading makes a GPU wait
            pl_module.log(f"gradients/norm/{name}", norm, on_step=True, on_epoch=False)
        self._totals.append(torch.stack(list(norms.values())).norm())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Measure how far back gradients reach, every N steps."""
        every, step = self._config.every_steps, trainer.global_step
        if not every or step % every or step == self._measured_at or not trainer.is_global_zero:
            return
        self._measured_at = step
        try:
            curves = measure_lag_curves(pl_module.model, self._read_batches(trainer, pl_module), steps=_STEPS)
        except SpeechRNNError as error:
            logger.info("step %d: %s", step, error)
            return
        values = {}
        for curve in curves:
            place = f"layer_{curve.layer}_{curve.direction}"
            values[f"gradients/half_life_seconds/{place}"] = curve.half_life_seconds
            values[f"gradients/reach_seconds/{place}"] = curve.reach_frames * curve.seconds_per_frame
        values |= self._describe_gates(trainer, pl_module)
        for log in trainer.loggers:
            log.log_metrics(values, step)
        self._draw(trainer, curves, step)
        for curve in curves:
            where = (curve.layer, curve.direction)
            if self._kinds.get(where, "reaching") != curve.kind:
                logger.info("step %s: %s", f"{step:,}", curve.describe())
            self._kinds[where] = curve.kind

    def _describe_gates(self, trainer: pl.Trainer, module: SpeechModule) -> dict[str, float]:
        """Spectral radius, singular value and saturated share of each gate."""
        batch = self._read_batches(trainer, module)[0]
        was_training = module.model.training
        module.model.eval()
        with torch.no_grad():
            layers, _, _ = unroll_model(module.model, batch)
        module.model.train(was_training)
        values = {}
        for weights in measure_recurrent_weights(module.model.encoder.stack):
            values[f"recurrent/spectral_radius/{_name_gate(weights)}"] = weights.spectral_radius
            values[f"recurrent/largest_singular_value/{_name_gate(weights)}"] = float(weights.singular_values[0])
        for units in measure_saturation(layers):
            values[f"recurrent/saturated_share/{_name_gate(units)}"] = units.low + units.high
        return values

    def _read_batches(self, trainer: pl.Trainer, module: SpeechModule) -> list[Batch]:
        """The same validation utterances each time, spread evenly by duration."""
        if self._batches is None:
            dataset = trainer.datamodule.valid_set  # type: ignore[attr-defined]
            order = sorted(range(len(dataset.utterances)), key=lambda number: dataset.utterances[number].seconds)
            spread = np.linspace(0, len(order) - 1, min(self._config.utterances, len(order))).round().astype(int)
            members = [order[number] for number in spread]
            self._batches = [
                dataset[BatchRequest(0, 0, members[first : first + _UTTERANCES_AT_ONCE])]
                for first in range(0, len(members), _UTTERANCES_AT_ONCE)
            ]
        return [batch.to(module.device) for batch in self._batches if batch.ids]

    def _draw(self, trainer: pl.Trainer, curves: Sequence[LagCurve], step: int) -> None:
        boards = _find_boards(trainer)
        if not boards or not has_matplotlib():
            return
        pixels = to_pixels(draw_lag_curves(curves, title=f"gradients through time, step {step:,}"))
        for log in boards:
            with tolerated(log):
                log.experiment.add_image("gradients/through_time", pixels, step, dataformats="HWC")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's distribution of norms, and warn when they explode."""
        for name, norms in self._norms.items():
            finite = [math.log10(norm) for norm in torch.stack(norms).tolist() if 0.0 < norm < math.inf]
            for log in _find_boards(trainer) if finite else ():
                with tolerated(log):
                    title = f"gradients/log10_norm/{name}"
                    log.experiment.add_histogram(title, Tensor(finite), trainer.global_step)
        if trainer.is_global_zero and self._totals:
            self._report_explosions(trainer, torch.stack(self._totals).tolist())
        self._norms, self._totals = {}, []

    def _report_explosions(self, trainer: pl.Trainer, norms: Sequence[float]) -> None:
        finite = [norm for norm in norms if math.isfinite(norm)]
        largest = max(finite, default=0.0)
        if not trainer.gradient_clip_val and (largest > _EXPLODED or len(finite) < len(norms)):
            logger.warning(
                "epoch %d: gradients explode and nothing clips them: largest norm %.3g, median %.3g, not finite in %d "
                "of %d steps; set trainer.gradient_clip_val to 1.0, or use encoder.cell lstm or gru",
                trainer.current_epoch + 1, largest, statistics.median(finite or [math.inf]),
                len(norms) - len(finite), len(norms),
            )  # fmt: skip


def _name_gate(gate: RecurrentWeights | Saturation) -> str:
    return f"layer_{gate.layer}_{gate.direction}/{gate.gate.replace(' ', '_')}"


def group_by_layer(module: SpeechModule) -> dict[str, list[torch.nn.Parameter]]:
    """Group a model's parameters: ``subsampling``, ``layer_1`` …, ``other`` and ``head``."""
    groups: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in module.model.named_parameters():
        layer = re.match(r"encoder\.stack\.(?:layers|norms)\.(\d+)\.", name)
        other = re.match(r"(?:encoder\.)?(subsampling|head)\.", name)
        where = f"layer_{int(layer[1]) + 1}" if layer else other[1] if other else "other"
        groups.setdefault(where, []).append(parameter)
    return groups


def _find_boards(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [log for log in trainer.loggers if isinstance(log, TensorBoardLogger) and trainer.is_global_zero]
