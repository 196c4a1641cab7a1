import math

import pytest
import torch

from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError
from speechrnn.types import Hypothesis


def make_log_probs(shape: tuple[int, int, int], *, seed: int, blank_bias: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    logits[..., 0] += blank_bias
    return logits.log_softmax(dim=-1)


def decode_slowly(log_probs: torch.Tensor, length: int, blank_id: int) -> Hypothesis:
    """Frame by frame, one utterance (T', V) at a time, in plain Python."""
    tokens, frames, confidences, score, previous = [], [], [], 0.0, blank_id
    for frame in range(length):
        row = log_probs[frame].tolist()
        token = row.index(max(row))
        score += row[token]
        if token != blank_id and token == previous:
            frames[-1] = (frames[-1][0], frame)
            confidences[-1] = max(confidences[-1], math.exp(row[token]))
        elif token != blank_id:
            tokens.append(token)
            frames.append((frame, frame))
            confidences.append(math.exp(row[token]))
        previous = token
    return Hypothesis(tokens, frames, score, confidences=confidences)


def assert_same(arrived: Hypothesis, expected: Hypothesis) -> None:
    assert arrived.tokens == expected.tokens
    assert arrived.frames == expected.frames
    assert arrived.acoustic_score == pytest.approx(expected.acoustic_score, abs=1e-4)
    assert arrived.confidences == pytest.approx(expected.confidences, abs=1e-6)
    assert arrived.language_score == 0.0


def test_hand_example():
    # Best tokens: blank a a blank a b b; a repeat counts only with a blank between.
    probabilities = torch.tensor(
        [
            [0.6, 0.3, 0.1],
            [0.2, 0.5, 0.3],
            [0.1, 0.8, 0.1],
            [0.7, 0.2, 0.1],
            [0.3, 0.4, 0.3],
            [0.1, 0.0, 0.9],
            [0.2, 0.2, 0.6],
        ]
    )
    [hypothesis] = decode_greedy(probabilities.log()[None], torch.tensor([7]))
    assert hypothesis.tokens == [1, 1, 2]
    assert hypothesis.frames == [(1, 2), (4, 4), (5, 6)]
    assert hypothesis.confidences == pytest.approx([0.8, 0.4, 0.9])
    best = [0.6, 0.5, 0.8, 0.7, 0.4, 0.9, 0.6]
    assert hypothesis.acoustic_score == pytest.approx(sum(math.log(p) for p in best), abs=1e-5)


@pytest.mark.parametrize("blank_id", [0, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_batch_equals_a_plain_loop_over_frames(seed, blank_id):
    lengths = [40, 0, 1, 17, 39, 40]
    log_probs = make_log_probs((6, 40, 5), seed=seed)
    hypotheses = decode_greedy(log_probs, torch.tensor(lengths), blank_id=blank_id)
    for row, length in enumerate(lengths):
        assert_same(hypotheses[row], decode_slowly(log_probs[row], length, blank_id))


def test_runs_do_not_join_across_utterances():
    # The last frame of the first and the first frame of the second utterance hold the same token.
    log_probs = torch.tensor([[[0.1, 0.9], [0.1, 0.9]], [[0.1, 0.9], [0.9, 0.1]]]).log()
    first, second = decode_greedy(log_probs, torch.tensor([2, 2]))
    assert (first.frames, second.frames) == ([(0, 1)], [(0, 0)])


def test_padding_does_not_change_the_hypothesis():
    log_probs = make_log_probs((1, 20, 5), seed=7)
    [alone] = decode_greedy(log_probs, torch.tensor([20]))
    for filling in (0.0, float("nan"), float("inf")):
        padded = torch.cat([log_probs, torch.full((1, 9, 5), filling)], dim=1)
        [hypothesis] = decode_greedy(padded, torch.tensor([20]))
        assert hypothesis == alone


def test_nothing_to_decode_gives_empty_hypotheses():
    empty = Hypothesis([], [], 0.0)
    assert decode_greedy(make_log_probs((2, 4, 3), seed=1), torch.tensor([0, 0])) == [empty, empty]
    assert decode_greedy(torch.zeros(2, 0, 3), torch.tensor([0, 0])) == [empty, empty]
    assert decode_greedy(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64)) == []


def test_all_blank_has_a_score_and_no_tokens():
    log_probs = torch.tensor([[[0.9, 0.1], [0.8, 0.2]]]).log()
    [hypothesis] = decode_greedy(log_probs, torch.tensor([2]))
    assert hypothesis.tokens == []
    assert hypothesis.acoustic_score == pytest.approx(math.log(0.72), abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "lengths", "blank_id", "names"),
    [
        ((4, 3), [4], 0, r"\(4, 3\)"),
        ((2, 4, 3), [4], 0, r"\(2, 4, 3\) and \(1,\)"),
        ((1, 4, 3), [5], 0, r"\[0, 4\].*got 5 to 5"),
        ((1, 4, 3), [-1], 0, r"got -1 to -1"),
        ((1, 4, 3), [4], 3, "blank_id 3: expected one of 3"),
    ],
)
def test_mismatched_inputs_are_refused(shape, lengths, blank_id, names):
    with pytest.raises(ConfigError, match=names):
        decode_greedy(torch.zeros(shape), torch.tensor(lengths), blank_id=blank_id)


@pytest.mark.gpu
def test_gpu_decoding_equals_cpu():
    log_probs = make_log_probs((8, 200, 30), seed=3)
    lengths = torch.tensor([200, 0, 1, 50, 199, 200, 7, 100])
    on_gpu = decode_greedy(log_probs.cuda(), lengths)
    for hypothesis, expected in zip(on_gpu, decode_greedy(log_probs, lengths), strict=True):
        assert_same(hypothesis, expected)
