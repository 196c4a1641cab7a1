"""Encodes earlier speech of a speaker as the initial state of a recurrent stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechrnn.types import mask_padding, move

_WIDTH, _CODE = 128, 64
_LEAST_VARIANCE = 1e-5


class ReferenceEncoder(nn.Module):
    """Feature frames of a reference to an initial state.

    Two layers per frame, mean and standard deviation over time, a code of 64 numbers, and a linear map to the state of
    every layer, part and direction. The initial output is zero; without a reference the code is zero.

    Args:
        feature_size: Features per frame.
        state_shape: (L, P, D, H).

    Source:
        D. Snyder et al., "X-vectors: Robust DNN embeddings for speaker recognition", ICASSP 2018 (pooling of
        statistics).
    """

    def __init__(self, feature_size: int, state_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.state_shape = state_shape
        self.frames = nn.Sequential(nn.Linear(feature_size, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        self.code = nn.Linear(2 * _WIDTH, _CODE)
        layers, parts, directions, hidden = state_shape
        self.state = nn.Linear(_CODE, layers * parts * directions * hidden)
        nn.init.zeros_(self.state.weight)
        nn.init.zeros_(self.state.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Encode references.

        Args:
            features: (B, T, F), ignored past a length.
            lengths: Valid frames, (B,), int64; 0 without a reference.

        Returns:
            Initial states, (L, P, D, B, H).
        """
        code = features.new_zeros(len(lengths), _CODE)
        if features.shape[1]:
            count = move(lengths, features.device)[:, None]
            hidden = self.frames(mask_padding(features, lengths))
            hidden = mask_padding(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), lengths)
            total = count.clamp(min=1)
            mean = hidden.sum(dim=1) / total
            variance = (mask_padding(hidden - mean[:, None], lengths) ** 2).sum(dim=1) / total
            deviation = (variance + _LEAST_VARIANCE).sqrt()
            code = torch.tanh(self.code(torch.cat([mean, deviation], dim=-1))).masked_fill(count == 0, 0.0)
        layers, parts, directions, hidden_size = self.state_shape
        states = self.state(code).view(-1, layers, parts, directions, hidden_size)
        return states.permute(1, 2, 3, 0, 4)
