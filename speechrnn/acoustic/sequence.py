"""A recurrent stack with an output at every step of a sequence: the next values, or one of several symbols.

Letters: B batch, T steps, F features, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from speechrnn.acoustic.minimal import MINIMAL_GATES
from speechrnn.acoustic.recurrent import MOST_LAYERS, MOST_UNITS, Cell, RecurrentLayer, RecurrentStack
from speechrnn.acoustic.unrolled import CellWeights, UnrolledLayer, unroll_stack
from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded


@dataclass(frozen=True)
class SequenceConfig(Settings):
    """How a sequence model is built.

    Attributes:
        cell: ``tanh``, ``elementwise``, ``gru``, ``lstm``, ``mingru`` or ``minlstm``.
        hidden_size: Units of each layer.
        num_layers: Recurrent layers, unidirectional.
        dropout: Share of each layer's outputs set to zero in training.
        initial_state: ``zero``; ``learned``: one trained state; ``encoded``: the final state of a second stack of the
            same shape after a reference, an earlier segment of the same series.
        spectral_radius: Largest absolute eigenvalue to which the recurrent weights of each gate are scaled initially;
            None leaves them orthogonal (1). Not for ``mingru`` and ``minlstm``, which have none.
    """

    cell: Cell = "gru"
    hidden_size: int = bounded(64, 1, MOST_UNITS)
    num_layers: int = bounded(1, 1, MOST_LAYERS)
    dropout: float = bounded(0.0, 0, 1, open="high")
    initial_state: Literal["zero", "learned", "encoded"] = "zero"
    spectral_radius: float | None = bounded(None, 0, 1000, open="low")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spectral_radius is not None and self.cell in MINIMAL_GATES:
            raise ConfigError(f"spectral_radius: cell {self.cell} has no recurrent weights; leave it out")


class SequenceModel(nn.Module):
    """Maps sequences to outputs at every step.

    Args:
        config: The stack.
        input_size: F.
        output_size: O.
    """

    def __init__(self, config: SequenceConfig, input_size: int, output_size: int) -> None:
        super().__init__()
        self.config = config
        self.stack = self._build(input_size, "learned" if config.initial_state == "learned" else "zero")
        self.reference = self._build(input_size, "zero") if config.initial_state == "encoded" else None
        self.head = nn.Linear(config.hidden_size, output_size)
        if config.spectral_radius is not None:
            scale_spectral_radius(self.stack, config.spectral_radius)

    def _build(self, input_size: int, initial_state: Literal["zero", "learned"]) -> RecurrentStack:
        return RecurrentStack(
            self.config.cell,
            input_size,
            hidden_size=self.config.hidden_size,
            num_layers=self.config.num_layers,
            bidirectional=False,
            dropout=self.config.dropout,
            layer_norm=False,
            residual=False,
            initial_state=initial_state,
        )

    def encode(self, reference: Tensor | None, lengths: Tensor | None = None) -> Tensor | None:
        """The initial state, (L, P, 1, B, H), for a reference (B, T, F); None if the model does not encode one.

        Raises:
            ConfigError: The model encodes its initial state, and there is no reference.
        """
        if self.reference is None:
            return None
        if reference is None:
            raise ConfigError("initial_state encoded: expected a reference for each sequence")
        if lengths is None:
            lengths = torch.full((len(reference),), reference.shape[1])
        return self.reference(reference, lengths, return_state=True)[1]

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        reference: Tensor | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the outputs.

        Args:
            inputs: (B, T, F).
            lengths: Valid steps, (B,), int64.
            state: Initial state, (L, P, 1, B, H), such as an earlier call's; None for the model's own.
            reference: Earlier segments, (B, T, F), if the initial state is encoded.
            return_state: Also return the state after each sequence's last step.

        Returns:
            Outputs (B, T, O), undefined past a length, and the state or None.
        """
        state = self.encode(reference) if state is None else state
        hidden, final, _ = self.stack(inputs, lengths, state=state, return_state=return_state)
        return self.head(hidden), final

    def unroll(
        self, inputs: Tensor, lengths: Tensor, *, reference: Tensor | None = None
    ) -> tuple[list[UnrolledLayer], Tensor]:
        """Run step by step; returns the layers, and outputs (B, T, O)."""
        layers = unroll_stack(self.stack, inputs, lengths, state=self.encode(reference))
        return layers, self.head(layers[-1].outputs)


@torch.no_grad()
def scale_spectral_radius(stack: RecurrentStack, radius: float) -> None:
    """Scale the recurrent weights of each gate to this largest absolute eigenvalue."""
    for layer in stack.layers:
        assert isinstance(layer, RecurrentLayer)
        for direction in layer.directions:
            recurrent = CellWeights.of(direction).weight_recurrent
            if recurrent.ndim == 1:
                recurrent.mul_(radius / recurrent.abs().max())
                continue
            for gate in recurrent.split(layer.hidden_size):
                gate.mul_(radius / torch.linalg.eigvals(gate).abs().max())
