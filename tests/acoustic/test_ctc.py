"""CTC loss against the sum over every alignment, and its limits."""

import itertools
import math

import pytest
import torch

from speechrnn.acoustic.ctc import (
    CTCConfig,
    CTCHead,
    compute_blank_rate,
    consistency_losses,
    count_frames_needed,
    ctc_loss,
    ctc_losses,
    explain_infeasible,
)
from speechrnn.errors import ConfigError


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token != 0]


def sum_over_alignments(log_probs, target):
    """Minus log of the probability of all paths that collapse to the target, (T', V)."""
    frames, vocabulary = log_probs.shape
    total = sum(
        math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
        for path in itertools.product(range(vocabulary), repeat=frames)
        if collapse(path) == target
    )
    return -math.log(total)


@pytest.mark.parametrize("target", [[], [1], [1, 2], [2, 2], [1, 2, 1]])
def test_loss_is_summed_over_every_alignment(target):
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    losses = ctc_losses(
        log_probs[None],
        torch.tensor([target], dtype=torch.int64).reshape(1, -1),
        lengths=torch.tensor([5]),
        target_lengths=torch.tensor([len(target)]),
    )
    assert losses.item() == pytest.approx(sum_over_alignments(log_probs, target), abs=1e-5)


def test_loss_is_averaged_over_utterances_and_not_divided_by_length():
    log_probs = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    targets = torch.tensor([[1, 2, 1], [2, 0, 0]])
    loss = ctc_loss(log_probs, targets, lengths=torch.tensor([6, 4]), target_lengths=torch.tensor([3, 1]))
    by_hand = (sum_over_alignments(log_probs[0], [1, 2, 1]) + sum_over_alignments(log_probs[1, :4], [2])) / 2
    assert loss.item() == pytest.approx(by_hand, abs=1e-5)


def test_loss_gradient_equals_finite_differences():
    logits = torch.randn(1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: ctc_loss(
            x.log_softmax(-1), torch.tensor([[1, 2]]), lengths=torch.tensor([4]), target_lengths=torch.tensor([2])
        ),
        (logits,),
    )


@pytest.mark.parametrize("target", [[1], [1, 1], [1, 2, 1], [2, 2, 2], [1, 1, 2, 2]])
def test_an_utterance_is_feasible_exactly_if_its_loss_is_finite(target):
    needed = count_frames_needed(target)
    for frames in range(1, needed + 2):
        log_probs = torch.zeros(1, frames, 3).log_softmax(-1)
        loss = ctc_losses(
            log_probs,
            torch.tensor([target]),
            lengths=torch.tensor([frames]),
            target_lengths=torch.tensor([len(target)]),
        )
        assert bool(torch.isfinite(loss)) == (frames >= needed) == (explain_infeasible(target, frames) is None)


def test_infeasible_reason_counts_tokens_repeats_and_frames():
    reason = explain_infeasible([1, 1, 2], 3)
    assert reason.startswith("3 tokens with 1 repeats need at least 4 encoder frames, this model makes 3")


def test_head_returns_float32_log_probabilities_under_autocast():
    head = CTCHead(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs = head(torch.randn(2, 5, 4))
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 5))


def test_only_the_blank_has_an_initial_bias():
    torch.manual_seed(0)
    plain = CTCHead(4, 3)
    torch.manual_seed(0)
    biased = CTCHead(4, 3, blank_bias=3.0)
    assert biased.projection.bias[0] == 3.0
    torch.testing.assert_close(biased.projection.bias[1:], plain.projection.bias[1:])
    with pytest.raises(ConfigError, match=r"ctc\.blank_bias"):
        CTCConfig(blank_bias=float("nan"))


def test_blank_rate_counts_only_valid_frames():
    log_probs = torch.full((2, 4, 2), -5.0)
    log_probs[0, :3, 0] = 0.0  # three blanks
    log_probs[0, 3, 1] = 0.0
    log_probs[1, 0, 1] = 0.0
    log_probs[1, 1:, 0] = 0.0  # past the length
    assert compute_blank_rate(log_probs, torch.tensor([4, 1])).item() == pytest.approx(3 / 5)


def test_consistency_is_the_divergence_of_each_pass_from_the_other_summed_over_valid_frames():
    log_probs = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    lengths = torch.tensor([6, 2, 6, 2])
    expected = [
        sum(float((log_probs[o, t].exp() * (log_probs[o, t] - log_probs[b, t])).sum()) for t in range(lengths[b]))
        for b, o in enumerate([2, 3, 0, 1])
    ]
    torch.testing.assert_close(consistency_losses(log_probs, lengths), torch.tensor(expected))
    equal = torch.cat([log_probs[:2], log_probs[:2]])
    assert consistency_losses(equal, lengths).abs().max() < 1e-6


def test_consistency_does_not_propagate_into_the_other_pass():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(4), requires_grad=True)
    log_probs = logits.log_softmax(-1)
    consistency_losses(log_probs, torch.tensor([3, 3]))[0].backward()
    probabilities = log_probs.detach().exp()
    torch.testing.assert_close(logits.grad[0], probabilities[0] - probabilities[1])  # of cross entropy with row 1
    assert (logits.grad[1] == 0).all()


@pytest.mark.parametrize("name", ["consistency", "consistency_warmup_steps"])
def test_negative_weights_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        CTCConfig(**{name: -1})
