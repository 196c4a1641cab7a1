"""Alignment against every path of small alphabets."""

import itertools

import numpy as np
import pytest
import torch

from speechrnn.decoding.alignment import align_tokens
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


def test_no_tokens_align_with_anything_and_too_many_with_nothing():
    log_probs = np.log(np.full((2, 3), 1 / 3))
    assert align_tokens(log_probs, []) == []
    with pytest.raises(SpeechRNNError, match="2 tokens do not fit into 2 frames"):
        align_tokens(log_probs, [1, 1])
    with pytest.raises(SpeechRNNError, match="1 tokens do not fit into 0 frames"):
        align_tokens(log_probs[:0], [1])


def test_what_has_no_probability_is_not_aligned():
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
def test_a_window_that_follows_the_path_finds_the_same(seed):
    tokens = np.random.default_rng(seed).integers(1, 6, 300).tolist()
    log_probs = make_spoken(tokens, seed=seed)
    whole = align_tokens(log_probs, tokens, window=10_000)
    assert align_tokens(log_probs, tokens, window=60) == whole
    assert align_tokens(log_probs, tokens, window=2 * 300 + 1) == whole


def test_a_text_that_goes_on_after_the_recording_says_how_far_it_came():
    tokens = np.random.default_rng(7).integers(1, 6, 300).tolist()
    log_probs = make_spoken(tokens[:200], seed=7)
    with pytest.raises(SpeechRNNError, match=r"about the first (19\d|20\d) of them are said"):
        align_tokens(log_probs, tokens, window=80)
