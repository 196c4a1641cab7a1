"""Validation of a network that overflows for one utterance: decoders refuse NaN, but the run must go on."""

import math

import torch

from speechrnn.text.tokens import CharacterTokens
from speechrnn.training.validation import Validation
from speechrnn.types import Batch, Emission


def test_an_utterance_with_nan_log_probs_counts_as_not_recognised():
    tokens = CharacterTokens.build(["ab"])
    log_probs = torch.full((2, 3, len(tokens)), -9.0)
    log_probs[:, :, tokens.encode("a")[0]] = -0.01
    log_probs[1, 1] = math.nan
    batch = Batch(
        waveforms=torch.zeros(2, 4),
        waveform_lengths=torch.tensor([4, 4]),
        targets=torch.tensor([tokens.encode("a"), tokens.encode("a")]),
        target_lengths=torch.tensor([1, 1]),
        ids=["one", "two"],
        texts=["a", "a"],
    )
    validation = Validation()
    validation.add(Emission(log_probs, torch.tensor([3, 3])), batch, tokens)
    metrics = validation.finish(None)
    assert metrics["wer"] == 0.5
    assert math.isfinite(metrics["loss"])
