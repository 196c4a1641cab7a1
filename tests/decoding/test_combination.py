import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from speechrnn.decoding.beam import BeamConfig, decode_beam
from speechrnn.decoding.combination import (
    _apply,
    _choose_apart,
    _compare,
    _recombine,
    combine_hypotheses,
    score_readings,
)
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError
from speechrnn.types import Hypothesis


def nothing(_):
    """No language model, but anything may be said."""
    return 0.0


def draw(frames, tokens=4, *, seed=0, rows=1):
    """Log-probabilities that are sure of little, (rows, frames, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames, tokens, generator=generator, dtype=torch.float64).mul(1.5).log_softmax(dim=2)


def collapse(path):
    return tuple(token for token, _ in itertools.groupby(path) if token)


def sum_over_paths(log_probs):
    """Probability of every text that some path says, by walking all paths."""
    probabilities = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        probability = math.exp(sum(float(log_probs[frame, token]) for frame, token in enumerate(path)))
        probabilities[collapse(path)] = probabilities.get(collapse(path), 0.0) + probability
    return probabilities


def say(path, tokens=4, *, sure=0.97):
    """Log-probabilities of a model that says a path of tokens, (1, T', V)."""
    probs = torch.full((1, len(path), tokens), (1 - sure) / (tokens - 1), dtype=torch.float64)
    for frame, token in enumerate(path):
        probs[0, frame, token] = sure
    return probs.log()


def combine(*log_probs, search=decode_greedy, **options):
    lengths = [torch.tensor([each.shape[1]] * each.shape[0]) for each in log_probs]
    found = [
        [best if isinstance(best, list) else [best] for best in search(each, valid)]
        for each, valid in zip(log_probs, lengths, strict=True)
    ]
    return combine_hypotheses(found, log_probs, lengths, **options)


def test_the_score_of_a_reading_is_the_sum_over_its_paths():
    log_probs = draw(5)[0]
    probabilities = sum_over_paths(log_probs)
    readings = list(probabilities)
    found = score_readings(log_probs, readings)
    assert len(readings) > 64  # more than are scored at once
    assert () in readings
    assert found == pytest.approx(np.log([probabilities[reading] for reading in readings]), abs=1e-9)
    assert score_readings(log_probs, [(1, 1, 1, 1)]).tolist() == [-math.inf]
    assert score_readings(log_probs[:0], [(), (1,)]).tolist() == [0.0, -math.inf]


@pytest.mark.parametrize("seed", range(12))
def test_the_text_with_the_highest_mean_log_probability_is_chosen(seed):
    # Of 3 models, with as many frames as they like; a beam this wide keeps every text that there is.
    emissions = [draw(frames, 3, seed=10 * seed + frames) for frames in (4, 4, 5)]
    by_hand = [sum_over_paths(each[0]) for each in emissions]
    everywhere = set(by_hand[0]) & set(by_hand[1]) & set(by_hand[2])
    mean = {text: sum(math.log(each[text]) for each in by_hand) / 3 for text in everywhere}
    config = BeamConfig(beam_size=200, token_threshold=1e9, nbest=200)
    [found] = combine(*emissions, search=lambda *emission: decode_beam(*emission, config), nbest=3)
    ranked = sorted(mean, key=lambda text: -mean[text])
    assert [tuple(each.tokens) for each in found] == ranked[:3]
    assert [each.acoustic_score for each in found] == pytest.approx([mean[text] for text in ranked[:3]], abs=1e-9)


def test_tokens_in_different_frames_are_not_lost_to_blanks():
    early, late = say([0, 1, 0, 0, 2, 0, 0, 0]), say([0, 0, 0, 1, 0, 0, 2, 0])
    mean = torch.logaddexp(early, late) - math.log(2)
    assert decode_greedy(mean, torch.tensor([8]))[0].tokens != [1, 2]
    [[best]] = combine(early, late)
    assert best.tokens == [1, 2]
    assert best.frames == [(1, 1), (4, 4)]  # the first model's
    assert best.confidences == pytest.approx([0.97, 0.97])


def test_the_best_reading_adopts_better_parts_of_others():
    # Each of three models has one wrong token with low confidence; the two others are confident there.
    paths = [[1, 0, 2, 0, 3, 0, 1], [1, 0, 2, 0, 3, 0, 1], [1, 0, 2, 0, 3, 0, 1]]
    models = [say(path) for path in paths]
    for model, (frame, token) in zip(models, [(0, 3), (2, 1), (4, 2)], strict=True):
        model[0, frame] = torch.full((4,), 0.1, dtype=torch.float64).log()
        model[0, frame, token], model[0, frame, paths[0][frame]] = math.log(0.45), math.log(0.35)
    alone = [decode_greedy(model, torch.tensor([7]))[0].tokens for model in models]
    assert [1, 2, 3, 1] not in alone
    [[chosen]] = combine(*models)
    assert chosen.tokens in alone
    [[recombined]] = combine(*models, score_language=nothing)
    assert recombined.tokens == [1, 2, 3, 1]
    assert recombined.acoustic_score > chosen.acoustic_score


@pytest.mark.parametrize("seed", range(8))
def test_recombining_never_ends_with_a_less_probable_reading(seed):
    emissions = [draw(12, 5, seed=100 * seed + number, rows=3) for number in range(3)]
    for [before], [after] in zip(combine(*emissions), combine(*emissions, score_language=nothing), strict=True):
        assert after.acoustic_score >= before.acoustic_score


@pytest.mark.parametrize("seed", range(20))
def test_all_changes_together_give_the_other_reading_and_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    one, other = (tuple(rng.integers(1, 4, rng.integers(0, 9)).tolist()) for _ in range(2))
    changes = _compare(one, other)
    assert _apply(one, changes) == other
    assert _choose_apart(changes) == changes
    assert _choose_apart([*changes, *changes]) == changes


def test_adjacent_changes_are_not_combined():
    changes = [(2, 4, (7,)), (4, 5, ()), (0, 2, (8,)), (3, 3, (9,)), (5, 5, (6,)), (0, 1, (5, 5))]
    assert _choose_apart(changes) == [(2, 4, (7,)), (5, 5, (6,)), (0, 1, (5, 5))]


def test_many_changes_need_few_rounds():
    wanted = tuple(range(1, 30))
    calls = []

    def score(readings):
        calls.append(len(readings))
        return np.array(
            [-sum(a != b for a, b in zip(reading, wanted, strict=True)) for reading in readings], dtype=float
        )

    spoiled = [tuple(0 if place % 4 == offset else token for place, token in enumerate(wanted)) for offset in (0, 2)]
    assert _recombine(spoiled[0], score([spoiled[0]])[0], spoiled, score) == (wanted, 0.0)
    assert len(calls) <= 4  # the reading, all changes, the good ones together, all changes again


def test_copies_of_one_model_give_its_own_hypotheses():
    emission = draw(20, 6, rows=4)
    lengths = torch.tensor([20, 13, 1, 7])
    found = [[best] for best in decode_greedy(emission, lengths)]
    combined = combine_hypotheses([found] * 3, [emission] * 3, [lengths] * 3, score_language=nothing)
    assert [best.tokens for [best] in combined] == [best.tokens for [best] in found]
    for length, row, [best] in zip(lengths.tolist(), emission, combined, strict=True):
        assert best.acoustic_score == pytest.approx(score_readings(row[:length], [tuple(best.tokens)])[0])


def test_readings_too_long_for_a_model_are_left_out():
    short, long = say([1, 2]), say([1, 0, 2, 0, 3])
    [found] = combine(short, long, nbest=2)
    assert [each.tokens for each in found] == [[1, 2]]
    # Where there is nothing else, the first model's stays.
    misled = [[[Hypothesis([3, 3], [(0, 0), (1, 1)], -7.0)]], [[Hypothesis([1, 2, 3], [], -1.0)]]]
    assert combine_hypotheses(misled, [short, long], [torch.tensor([2]), torch.tensor([5])]) == misled[0]
    nothing = [[[Hypothesis([], [], -math.inf)]]] * 2
    lengths = [torch.tensor([2]), torch.tensor([5])]
    assert combine_hypotheses(nothing, [short, long], lengths) == [[Hypothesis([], [], -math.inf)]]


def test_the_score_of_a_language_model_counts():
    emission, lengths = say([1, 0, 2], sure=0.5), torch.tensor([3])
    found = [[Hypothesis([1, 2], [], -1.0)], [Hypothesis([1, 3], [], -2.0, language_score=5.0)]]
    [[best, second]] = combine_hypotheses([[each] for each in found], [emission] * 2, [lengths] * 2, nbest=4)
    assert (best.tokens, best.language_score, second.tokens) == ([1, 3], 5.0, [1, 2])
    assert best.acoustic_score < second.acoustic_score


def test_the_score_of_a_language_model_counts_for_recombined_readings():
    # Each is confident in one half; in the other it prefers 4 slightly to 2.
    first, second = say([1, 0, 2, 0, 3, 0, 1, 0, 4], tokens=5), say([1, 0, 4, 0, 3, 0, 1, 0, 2], tokens=5)
    for model, frame in ((first, 8), (second, 2)):
        model[0, frame] = torch.tensor([0.01, 0.01, 0.45, 0.01, 0.52], dtype=torch.float64).log()
    lengths = [torch.tensor([9])] * 2
    found = [
        [[best] for best in decode_greedy(each, valid)] for each, valid in zip((first, second), lengths, strict=True)
    ]
    assert [hypotheses[0][0].tokens for hypotheses in found] == [[1, 2, 3, 1, 4], [1, 4, 3, 1, 2]]

    def like_few_fours(reading):
        return -2.0 * reading.count(4)

    found = [[[replace(best, language_score=-2.0)] for [best] in hypotheses] for hypotheses in found]
    [[best, *others]] = combine_hypotheses(found, [first, second], lengths, score_language=like_few_fours, nbest=3)
    assert (best.tokens, best.language_score) == ([1, 2, 3, 1, 2], 0.0)
    by_both = [score_readings(each[0], [(1, 2, 3, 1, 2)])[0] for each in (first, second)]
    assert best.acoustic_score == pytest.approx(np.mean(by_both))
    assert [other.language_score for other in others] == [-2.0, -2.0]


def test_confidences_are_the_mean_of_the_models():
    [[best]] = combine(say([1, 0, 2], sure=0.9), say([1, 2, 0], sure=0.5))
    assert (best.tokens, best.confidences) == ([1, 2], pytest.approx([0.7, 0.7]))


def test_models_with_other_tokens_are_refused():
    with pytest.raises(ConfigError, match="same number of models, and of tokens"):
        combine(say([1, 0], tokens=4), say([1, 0], tokens=5))
