"""Means of two models' weights."""

from __future__ import annotations

import copy

from speechrnn.model_folder import ModelFolder


def mix_weights(tuned: ModelFolder, old: ModelFolder, old_share: float) -> ModelFolder:
    """A model with the mean of two models' weights; outputs that the old one lacks stay as they are.

    Source:
        M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    acoustic = copy.deepcopy(tuned.acoustic)
    weights, earlier = acoustic.state_dict(), old.acoustic.state_dict()
    row_of = {symbol: row for row, symbol in enumerate(old.tokens.symbols)}
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        if not name.startswith("head."):
            value.lerp_(earlier[name].to(value.device), old_share)
            continue
        for row, symbol in enumerate(tuned.tokens.symbols):
            if symbol in row_of:
                value[row] = value[row].lerp(earlier[name][row_of[symbol]].to(value.device), old_share)
    acoustic.load_state_dict(weights)
    return ModelFolder(acoustic, tuned.tokens, tuned.text, tuned.provenance)
