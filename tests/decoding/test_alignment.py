"""Alignment against every path of small alphabets."""

import itertools

import numpy as np
import pytest
import torch

from speechrnn.decoding.alignment import _align, align_tokens
from speechrnn.errors import SpeechRNNError


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token != 0]


@pytest.mark.parametrize("tokens", [[1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_best_of_every_path(tokens, seed):
    log_probs = (3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))).log_softmax(-1).numpy()
    paths = [path for path in itertools.product(range(3), repeat=6) if collapse(path) == tokens]
    best = max(paths, key=lambda path: sum(float(log_probs[t, token]) for t, token in enumerate(path)))
    runs = [(token, list(run)) for token, run in itertools.groupby(range(6), key=lambda t: best[t]) if token != 0]
    assert align_tokens(log_probs, tokens) == [(run[0], run[-1]) for _, run in runs]


def test_zero_tokens_always_align_and_too_many_never():
    log_probs = np.log(np.full((2, 3), 1 / 3))
    assert align_tokens(log_probs, []) == []
    with pytest.raises(SpeechRNNError, match="2 tokens do not fit into 2 frames"):
        align_tokens(log_probs, [1, 1])
    with pytest.raises(SpeechRNNError, match="1 tokens do not fit into 0 frames"):
        align_tokens(log_probs[:0], [1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_named(value):
    log_probs = np.log(np.full((6, 3), 1 / 3))
    log_probs[4, 1] = value
    with pytest.raises(SpeechRNNError, match="align_tokens: frame 4: .* NaN or infinite"):
        align_tokens(log_probs, [1, 2])


def test_paths_of_probability_zero_are_not_aligned():
    with pytest.raises(SpeechRNNError, match="cannot be aligned"):
        align_tokens(np.array([[0.0, -np.inf]]), [1])


def make_spoken(tokens, *, seed, frames_each=3, vocabulary=6):
    """Log-probabilities of someone who says tokens clearly, with pauses of random length."""
    rng = np.random.default_rng(seed)
    path = []
    for token in tokens:
        path += [0] * int(rng.integers(1, 9)) + [token] * frames_each
    logits = rng.normal(0, 1, (len(path), vocabulary))
    logits[np.arange(len(path)), path] += 5.0
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("every", [1, 3, 16, 100, 10_000])
def test_the_path_does_not_depend_on_how_often_scores_are_kept(seed, every):
    """Against a table of all states and frames, with texts that fit well and badly."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 4, 60)
    log_probs = make_spoken(tokens[: 60 - 20 * (seed == 2)].tolist(), seed=seed)
    labels = np.zeros(121, dtype=int)
    labels[1::2] = tokens
    scores = np.full((len(log_probs), 121), -np.inf)
    scores[0, :2] = log_probs[0, labels[:2]]
    for frame in range(1, len(log_probs)):
        for state in range(121):
            may_skip = state > 2 and state % 2 and labels[state] != labels[state - 2]
            reached = scores[frame - 1, max(0, state - 2 if may_skip else state - 1) : state + 1]
            scores[frame, state] = reached.max() + log_probs[frame, labels[state]]
    spans = _align(log_probs, tokens, 0, every)
    path = np.zeros(len(log_probs), dtype=int)
    for token, (first, last) in zip(tokens, spans, strict=True):
        path[first : last + 1] = token
    assert collapse(path) == tokens.tolist()
    assert log_probs[np.arange(len(path)), path].sum() == pytest.approx(scores[-1, -2:].max(), abs=1e-9)


def test_a_text_of_any_excessive_length_is_refused():
    tokens = np.random.default_rng(7).integers(1, 6, 3000).tolist()
    with pytest.raises(SpeechRNNError, match="3000 tokens do not fit into"):
        align_tokens(make_spoken(tokens[:300], seed=7), tokens)
