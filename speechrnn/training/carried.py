"""Hidden states that are carried from an utterance to the one that follows it; their gradients are not.

Only the forward direction's state goes on; a backward direction comes from the other side.

Source:
    R. Williams and J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", Neural Computation, 1990 (truncated back-propagation through time).
"""

from __future__ import annotations

from torch import Tensor

from speechrnn.types import Batch


class CarriedStates:
    """States after the utterances of the batch before, without gradients, by the utterances' ids."""

    def __init__(self) -> None:
        self.after: dict[str, Tensor] = {}
        self._new: dict[str, Tensor] = {}

    def begin(self, batch: Batch, own: Tensor) -> Tensor:
        """What a batch starts from.

        Args:
            batch: B utterances; ``previous`` names what each follows.
            own: The state that the model starts from by itself, (L, P, D, B, H).

        Returns:
            The same, with the forward direction's state of those that follow an utterance of the batch before.
        """
        state = own.clone()
        for row, previous in enumerate(batch.previous):
            if previous in self.after:
                state[:, :, 0, row] = self.after[previous].to(state)
        return state

    def keep(self, batch: Batch, final: Tensor) -> None:
        """Note the states after a batch, (L, P, D, B or more, H): those of its first B rows.

        What follows an utterance whose state is not finite starts anew: one bad recording does not spoil the rest.
        """
        forward = final[:, :, 0, : len(batch.ids)].detach()
        is_finite = forward.isfinite().all(dim=3).all(dim=1).all(dim=0).tolist()
        for row, id in enumerate(batch.ids):
            if is_finite[row]:
                self._new[id] = forward[:, :, row].clone()

    def advance(self) -> None:
        """The batch is done: what follows follows it."""
        self.after, self._new = self._new, {}
