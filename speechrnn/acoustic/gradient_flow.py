"""Gradients through time per layer, and the recurrent weights that shape them.

The loss of an utterance is split into its steps: E_t is the gradient of the log-probabilities of encoder frame t, held
fixed, times these log-probabilities, so that the E_t add up to the whole gradient. ∂E_t/∂h_{t-k} is the error that
reaches the state k frames earlier, in the order in which a direction reads. If its norm falls with k, gradients vanish
and nothing is learned over that distance; if it grows, they explode.

Source:
    S. Hochreiter, diploma thesis, TU München 1991; Y. Bengio et al., "Learning long-term dependencies with gradient
    descent is difficult", 1994; R. Pascanu et al., "On the difficulty of training recurrent neural networks", ICML
    2013.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from speechrnn.acoustic.ctc import ctc_losses
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import Cell, RecurrentLayer, RecurrentStack
from speechrnn.acoustic.unrolled import CellWeights, UnrolledLayer, unroll_model
from speechrnn.errors import SpeechRNNError
from speechrnn.types import Batch, valid_mask

NOTHING = 0.01
"""Below this share of its maximum a gradient counts as vanished."""

_GROWTH = 10.0
_SHORT_SECONDS = 0.3  # about one syllable
_SATURATED = 0.95
_STEPS = 8
_LEAST_SHARE = 0.1
_DIRECTIONS = ("forward", "backward")

GATES: dict[Cell, tuple[str, ...]] = {
    "tanh": ("state",),
    "elementwise": ("state",),
    "gru": ("reset gate", "update gate", "new state"),
    "lstm": ("input gate", "forget gate", "new cell", "output gate"),
    "mingru": ("update gate",),
    "minlstm": ("input gate", "forget gate"),
}
"""Names of the blocks of a cell's weights that saturate, in the order of :mod:`speechrnn.acoustic.unrolled`."""


@dataclass(frozen=True)
class LagCurve:
    """Norm of a frame's error at the states before it.

    Attributes:
        layer: Recurrent layer, counted from 1.
        direction: ``forward``, or ``backward``, where "before" is later in time.
        norms: Mean norm of ∂E_t/∂h_{t-k} for k = 0, 1, …, (K + 1,); an LSTM's h is its hidden state and its cell. Only
            frames t ≥ k have such a state: their ratio to lag 0 is multiplied with the mean of all at lag 0.
        counts: Steps t in each mean, (K + 1,).
        seconds_per_frame: Time from one encoder frame to the next.
    """

    layer: int
    direction: str
    norms: Tensor
    counts: Tensor
    seconds_per_frame: float

    @property
    def half_life_frames(self) -> float:
        """Lag at which half of the maximum norm is left, in encoder frames; infinite if it is never reached."""
        peak = int(self.norms.argmax())
        below = (self.norms[peak:] <= self.norms[peak] / 2).nonzero()
        if not len(below) or not 0.0 < float(self.norms[peak]) < math.inf:
            return math.inf
        first = peak + int(below[0])
        above, under = (max(float(self.norms[lag]), 1e-300) for lag in (first - 1, first))
        return first - math.log(float(self.norms[peak]) / 2 / under) / math.log(above / under)

    @property
    def half_life_seconds(self) -> float:
        """Half-life in seconds."""
        return self.half_life_frames * self.seconds_per_frame

    @property
    def reach_frames(self) -> int:
        """Largest lag at which a hundredth of the maximum norm is left (:data:`NOTHING`), in encoder frames."""
        return int((self.norms >= NOTHING * self.norms.max()).nonzero()[-1])

    @property
    def growth(self) -> float:
        """Maximum norm over that at lag 0: above 1 if an error grows backwards."""
        return float(self.norms.max() / self.norms[0]) if float(self.norms[0]) else 1.0

    @property
    def is_exploding(self) -> bool:
        """Whether the error grows tenfold or more."""
        return not math.isfinite(self.growth) or self.growth >= _GROWTH

    @property
    def kind(self) -> Literal["exploding", "vanishing", "fading", "reaching"]:
        """``fading``: vanishes beyond its reach; ``vanishing``: if that is short; ``reaching``: nowhere."""
        if self.is_exploding:
            return "exploding"
        if self.reach_frames == len(self.norms) - 1:
            return "reaching"
        return "vanishing" if self.reach_frames * self.seconds_per_frame < _SHORT_SECONDS else "fading"

    def describe(self) -> str:
        """The curve in words, and what to change."""
        where = f"layer {self.layer}, {self.direction}"
        if self.kind == "exploding":
            return (
                f"{where}: an error grows {self.growth:.3g}-fold within {int(self.norms.argmax())} frames: gradients "
                "explode; clip them (trainer.gradient_clip_val 1.0), or use encoder.cell lstm or gru"
            )
        if self.kind == "reaching":
            return f"{where}: gradients reach over all measured lags, {self._span(self.reach_frames)}"
        advice = ": gradients vanish; use encoder.cell lstm or gru, or a larger encoder.subsampling_factor"
        hint = advice if self.kind == "vanishing" else ""
        return f"{where}: beyond {self._span(self.reach_frames)}, nothing is learned{hint}"

    def _span(self, frames: float) -> str:
        return f"{frames:.0f} frames, {frames * self.seconds_per_frame:.2f} s"


class LagSums:
    """Sums of the norms of errors by lag, over layers unrolled for any number of batches."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], Tensor] = {}

    def follow(
        self,
        layers: Sequence[UnrolledLayer],
        own_losses: Tensor,
        lengths: Tensor,
        steps: Iterable[Tensor],
        *,
        is_final: bool = False,
    ) -> None:
        """Add the errors of some steps at every state before them.

        Args:
            layers: A stack after its forward pass.
            own_losses: E_t, (B, T), computed from the layers' outputs.
            lengths: Valid frames of the layers, (B,), int64, on the same device.
            steps: One t of each sequence, (B,) each.
            is_final: Whether the errors are those of the final states, (B, 1), of each direction's last step.
        """
        places = [(number, side) for number, layer in enumerate(layers) for side in range(len(layer.directions))]
        states = [layers[number].directions[side].states[1:] for number, side in places]
        flat = [state for group in states for state in group]
        for step in steps:
            error = own_losses.gather(1, step[:, None]).sum()
            gradients = torch.autograd.grad(error, flat, retain_graph=True, allow_unused=True, materialize_grads=True)
            for number, place in enumerate(places):
                size = len(states[number])
                group = torch.stack(gradients[number * size : (number + 1) * size], dim=2).detach()  # (P, B, T, H)
                norms = group.double().pow(2).sum(dim=(0, 3)).sqrt()  # (B, T), in the direction's order
                at = step if place[1] == 0 else lengths - 1 - step
                at = lengths - 1 if is_final else at
                lag = at[:, None] - torch.arange(size, device=norms.device)
                by_lag = torch.zeros_like(norms).scatter_add(1, lag.clamp(min=0), norms * (lag >= 0))
                self._count(place, by_lag, torch.arange(size, device=norms.device) <= at[:, None])

    def _count(self, place: tuple[int, int], norms: Tensor, is_there: Tensor) -> None:
        """Add norms at each lag, (B, K + 1), and those at lag 0 of the same steps."""
        at_start = norms[:, :1] * is_there
        found = torch.stack([part.sum(dim=0) for part in (norms, at_start, is_there.to(norms))])
        known = self._sums.get(place, found[:, :0])
        size = max(known.shape[1], found.shape[1])
        known, found = (nn.functional.pad(part, (0, size - part.shape[1])) for part in (known, found))
        self._sums[place] = known + found

    def finish(self, *, seconds_per_frame: float) -> list[LagCurve]:
        """The mean curves, one per layer and direction, up to the lag for which a tenth of the steps have states."""
        curves = []
        for (layer, side), (norms, at_start, counts) in sorted(self._sums.items()):
            means = (norms / at_start * at_start[0] / counts[0]).nan_to_num(nan=0.0, posinf=math.inf)
            is_measured = counts >= _LEAST_SHARE * counts[0]
            curve = (means[is_measured], counts[is_measured], seconds_per_frame)
            curves.append(LagCurve(layer + 1, _DIRECTIONS[side], *curve))
        return curves


def measure_lag_curves(model: AcousticModel, batches: Iterable[Batch], *, steps: int = _STEPS) -> list[LagCurve]:
    """Measure the reach of errors back in time, per layer and direction.

    Args:
        model: Any model; measured in evaluation mode, its gradients are not changed.
        batches: Utterances with their texts, on the model's device.
        steps: Number of frames t per utterance, evenly spaced, whose error is followed.

    Returns:
        One curve per layer and direction, up to the lag for which a tenth of the steps have states.

    Raises:
        SpeechRNNError: There is no utterance that CTC can align.
    """
    sums = LagSums()
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            batch = _keep_feasible(model, batch)
            if not batch.ids:
                continue
            layers, log_probs, lengths = unroll_model(model, batch)
            losses = ctc_losses(log_probs, batch.targets, lengths=lengths, target_lengths=batch.target_lengths)
            (errors,) = torch.autograd.grad(losses.sum(), log_probs, retain_graph=True)
            own_losses = (errors.detach() * log_probs).sum(dim=-1)  # (B, T'): E_t
            is_final = model.encoder.config.output == "final_state"
            lengths = lengths.to(losses.device)
            spread = [((part + 0.5) / steps * lengths).long() for part in range(1 if is_final else steps)]
            layer_lengths = layers[0].directions[0].lengths.to(losses.device)
            sums.follow(layers, own_losses, layer_lengths, spread, is_final=is_final)
    finally:
        model.train(was_training)
    curves = sums.finish(seconds_per_frame=model.seconds_per_step)
    if not curves:
        raise SpeechRNNError("gradients through time: no utterance has enough frames for its text; use others")
    return curves


def _keep_feasible(model: AcousticModel, batch: Batch) -> Batch:
    kept = [
        number
        for number, (samples, size) in enumerate(zip(batch.waveform_lengths, batch.target_lengths, strict=True))
        if model.count_frames(int(samples)) > 0
        and model.explain_infeasible(batch.targets[number, : int(size)].tolist(), int(samples)) is None
    ]
    names = ("waveforms", "waveform_lengths", "targets", "target_lengths")
    return replace(batch, **{name: getattr(batch, name)[kept] for name in names}, ids=[batch.ids[i] for i in kept])


@dataclass(frozen=True)
class RecurrentWeights:
    """Spectrum of the recurrent weights of one gate.

    Attributes:
        layer: Recurrent layer, counted from 1.
        direction: ``forward`` or ``backward``.
        gate: Block of the cell's weights (:data:`GATES`).
        spectral_radius: Largest absolute eigenvalue.
        singular_values: In descending order, (H,).
    """

    layer: int
    direction: str
    gate: str
    spectral_radius: float
    singular_values: Tensor


def measure_recurrent_weights(stack: RecurrentStack) -> list[RecurrentWeights]:
    """Spectral radius and singular values of each gate of each layer and direction; none for minGRU and minLSTM."""
    found = []
    for number, layer in enumerate(stack.layers, start=1):
        assert isinstance(layer, RecurrentLayer)
        for name, direction in zip(_DIRECTIONS, layer.directions, strict=False):
            recurrent = CellWeights.of(direction).weight_recurrent.detach().double().cpu()
            if not len(recurrent):
                continue
            blocks = [torch.diag(recurrent)] if recurrent.ndim == 1 else recurrent.chunk(len(GATES[layer.cell]))
            for gate, block in zip(GATES[layer.cell], blocks, strict=True):
                radius = float(torch.linalg.eigvals(block).abs().max())
                found.append(RecurrentWeights(number, name, gate, radius, torch.linalg.svdvals(block)))
    return found


@dataclass(frozen=True)
class Saturation:
    """Share of saturated units of a cell, which pass no error.

    Attributes:
        layer: Recurrent layer, counted from 1.
        direction: ``forward`` or ``backward``.
        gate: Quantity of the cell (:data:`GATES`).
        low: Share of units and frames below -0.95; of a gate below 0.05 (closed).
        high: Share above 0.95 (open).
    """

    layer: int
    direction: str
    gate: str
    low: float
    high: float


def measure_saturation(layers: list[UnrolledLayer]) -> list[Saturation]:
    """Saturated units of each layer, direction and gate, over all valid frames."""
    found = []
    for number, layer in enumerate(layers, start=1):
        for name, direction in zip(_DIRECTIONS, layer.directions, strict=False):
            is_valid = valid_mask(direction.inputs, direction.lengths).T  # (T', B)
            for place, gate in enumerate(GATES[direction.cell]):
                values = torch.stack([saved[place].detach() for saved in direction.saved])[is_valid]
                floor = 1 - _SATURATED if gate.endswith("gate") else -_SATURATED
                low, high = (float(part.double().mean()) for part in (values < floor, values > _SATURATED))
                found.append(Saturation(number, name, gate, low, high))
    return found
