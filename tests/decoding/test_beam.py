"""Prefix beam search against the sum over all alignments, and piece by piece against the whole."""

import itertools
import math

import numpy as np
import pytest
import torch

from speechrnn.decoding.beam import BeamConfig, BeamSearch, decode_beam, make_hypothesis
from speechrnn.decoding.grammar import Grammar
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError

WIDE = BeamConfig(beam_size=2000, token_threshold=1e9, nbest=2000)


def make_log_probs(frames, vocabulary, *, seed=0, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(frames, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)


def collapse(path, blank=0):
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def enumerate_all(log_probs, blank=0):
    """The log-probability of every token sequence, over all of its paths."""
    frames, vocabulary = log_probs.shape
    totals = {}
    for path in itertools.product(range(vocabulary), repeat=frames):
        score = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        key = collapse(path, blank)
        totals[key] = np.logaddexp(totals.get(key, -math.inf), score)
    return totals


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(("frames", "vocabulary"), [(1, 3), (4, 3), (6, 3), (5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_has_every_sequence_with_its_probability(frames, vocabulary, seed, blank):
    log_probs = make_log_probs(frames, vocabulary, seed=seed)
    expected = enumerate_all(log_probs, blank)
    search = BeamSearch(vocabulary, WIDE, blank)
    search.feed(log_probs.numpy())
    found = {tuple(tokens): score for tokens, score in best(search, 5000)}
    assert set(found) == set(expected)
    for key, score in expected.items():
        assert found[key] == pytest.approx(score, abs=1e-9)
    assert sum(math.exp(score) for score in found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("beam_size", [1, 2, 8])
def test_a_narrow_beam_has_no_duplicates_and_no_excess_probability(beam_size):
    log_probs = make_log_probs(6, 4, seed=5)
    expected = enumerate_all(log_probs)
    search = BeamSearch(4, BeamConfig(beam_size=beam_size, nbest=beam_size))
    for row in log_probs.numpy():
        search.feed(row[None])
        prefixes = [tuple(tokens) for tokens, _ in best(search, beam_size)]
        assert len(set(prefixes)) == len(prefixes) <= beam_size
    for tokens, score in best(search, beam_size):
        assert score <= expected[tuple(tokens)] + 1e-9


def test_a_prefix_that_returns_to_the_beam_is_the_same_prefix():
    """Narrow beams over long random input drop and regain prefixes all the time; none may stand there twice."""
    log_probs = make_log_probs(300, 5, seed=7, sharpness=0.7).numpy()
    search = BeamSearch(5, BeamConfig(beam_size=6, nbest=6))
    for start in range(0, 300, 10):
        search.feed(log_probs[start : start + 10])
        prefixes = [tuple(tokens) for tokens, _ in best(search, 6)]
        assert len(set(prefixes)) == len(prefixes)


def test_no_prefix_occurs_twice_in_narrow_beams():
    for seed in range(150):
        log_probs = make_log_probs(40, 3, seed=seed, sharpness=1.5).numpy()
        search = BeamSearch(3, BeamConfig(beam_size=3, nbest=3))
        for row in log_probs:
            search.feed(row[None])
            prefixes = [tuple(tokens) for tokens, _ in best(search, 3)]
            assert len(set(prefixes)) == len(prefixes), seed


def test_a_blank_lies_between_two_equal_tokens():
    log_probs = torch.tensor([[0.05, 0.9, 0.05], [0.1, 0.8, 0.1], [0.05, 0.9, 0.05]]).log().numpy()
    hypothesis = make_hypothesis(log_probs, [1, 1], 0.0, 0)
    assert hypothesis.frames == [(0, 0), (2, 2)]
    assert make_hypothesis(log_probs, [1], 0.0, 0).frames == [(0, 2)]


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_decoding_in_pieces_gives_the_hypotheses_of_the_whole(piece):
    log_probs = make_log_probs(200, 12, seed=1, sharpness=2.0).numpy()
    config = BeamConfig(beam_size=12, nbest=5)
    whole, pieces = BeamSearch(12, config), BeamSearch(12, config)
    whole.feed(log_probs)
    for start in range(0, 200, piece):
        pieces.feed(log_probs[start : start + piece])
    assert best(pieces) == best(whole)
    assert pieces.frames == whole.frames == 200


def test_prefixes_outside_the_beam_survive_a_larger_table():
    """Frame by frame the table is made anew as prefixes are added, at once it is made for all frames beforehand.

    A prefix that left the beam, and whose longer prefixes are still in it, may come back: it must be the same one.
    """
    config = BeamConfig(beam_size=8, nbest=8)
    tables = 0
    for seed in range(40):
        log_probs = make_log_probs(100, 3, seed=seed, sharpness=2.0).numpy()
        at_once, by_frame = BeamSearch(3, config), BeamSearch(3, config)
        at_once.feed(log_probs)
        sizes = set()
        for row in log_probs:
            by_frame.feed(row[None])
            sizes.add(len(by_frame._table))
        tables += len(sizes)
        assert best(by_frame) == best(at_once), seed
    assert tables >= 100  # it was made anew in the middle of a search, more than once


def test_the_sum_over_paths_can_beat_the_best_path():
    """Greedy says nothing, for the blank is the best single path; the sum over a's paths is greater."""
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    [greedy] = decode_greedy(log_probs[None], torch.tensor([2]))
    [[best]] = decode_beam(log_probs[None], torch.tensor([2]))
    assert greedy.tokens == []
    assert best.tokens == [1]
    assert best.acoustic_score == pytest.approx(math.log(0.4 * 0.4 + 2 * 0.4 * 0.6))


def test_peaky_log_probs_are_decoded_as_by_greedy_search():
    rng = np.random.default_rng(0)
    path = np.repeat(rng.integers(0, 6, 40), rng.integers(1, 4, 40))
    log_probs = torch.full((len(path), 6), -20.0)
    log_probs[torch.arange(len(path)), torch.from_numpy(path)] = 0.0
    log_probs = log_probs.log_softmax(-1)[None]
    [greedy] = decode_greedy(log_probs, torch.tensor([len(path)]))
    [[best]] = decode_beam(log_probs, torch.tensor([len(path)]))
    assert (best.tokens, best.frames) == (greedy.tokens, greedy.frames)
    assert best.confidences == pytest.approx(greedy.confidences)


def test_neighbours_and_padding_change_nothing():
    rows = [make_log_probs(frames, 7, seed=frames, sharpness=2.0) for frames in (30, 5, 0, 17)]
    batch = torch.randn(4, 30, 7, dtype=torch.float64)
    for row, values in zip(batch, rows, strict=True):
        row[: len(values)] = values
    config = BeamConfig(nbest=3)
    together = decode_beam(batch, torch.tensor([30, 5, 0, 17]), config)
    for hypotheses, values in zip(together, rows, strict=True):
        assert hypotheses == decode_beam(values[None], torch.tensor([len(values)]), config)[0]
    assert together[2][0].tokens == []
    assert together[2][0].acoustic_score == 0.0


def test_token_frames_are_those_of_the_best_path():
    log_probs = make_log_probs(6, 3, seed=11, sharpness=3.0)
    for hypothesis in decode_beam(log_probs[None], torch.tensor([6]), BeamConfig(nbest=4))[0]:
        paths = [path for path in itertools.product(range(3), repeat=6) if collapse(path) == tuple(hypothesis.tokens)]
        best = max(paths, key=lambda path: sum(float(log_probs[t, token]) for t, token in enumerate(path)))
        runs = [
            [t for t, _ in run] for token, run in itertools.groupby(enumerate(best), key=lambda pair: pair[1]) if token
        ]
        assert hypothesis.frames == [(run[0], run[-1]) for run in runs]


def test_pruned_tokens_are_not_tried():
    log_probs = torch.tensor([[0.2, 0.7, 0.1]]).log().numpy()
    every, some, one = (
        BeamSearch(3, BeamConfig(token_threshold=threshold, most_tokens=most, nbest=9))
        for threshold, most in ((99.0, 9), (1.5, 9), (99.0, 1))
    )
    for search in (every, some, one):
        search.feed(log_probs)
    assert [tokens for tokens, _ in best(every)] == [[1], [], [2]]
    assert [tokens for tokens, _ in best(some)] == [[1], []]
    assert [tokens for tokens, _ in best(one)] == [[1], []]


def test_a_token_is_tried_in_the_frames_where_it_is_probable_only():
    log_probs = torch.tensor([[[0.5, 0.5], [0.999, 0.001]]], dtype=torch.float64).log()
    [hypotheses] = decode_beam(log_probs, torch.tensor([2]), BeamConfig(token_threshold=5.0, nbest=2))
    found = {tuple(each.tokens): math.exp(each.acoustic_score) for each in hypotheses}
    # The second frame repeats the token, or is blank after it; it begins none.
    assert found == {(1,): pytest.approx(0.5), (): pytest.approx(0.4995)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("decode", [decode_beam, decode_greedy])
def test_log_probs_that_are_not_finite_are_refused_by_row_and_frame(decode, value):
    log_probs = make_log_probs(30, 4)[None].repeat(3, 1, 1)
    lengths = torch.tensor([30, 20, 25])
    log_probs[1, 20:] = value  # padding
    expected = decode(log_probs, lengths)
    assert expected[1] == decode(log_probs[1:2, :20], lengths[1:2])[0]
    log_probs[2, 7] = value
    with pytest.raises(ConfigError, match=f"{decode.__name__}: row 2 of the batch, frame 7: .* NaN or infinite"):
        decode(log_probs, lengths)


def test_a_token_of_probability_zero_is_accepted():
    log_probs = make_log_probs(5, 3)[None]
    log_probs[0, :, 2] = -math.inf
    assert all(2 not in best.tokens for best in decode_beam(log_probs, torch.tensor([5]), BeamConfig(nbest=9))[0])


def test_a_stream_of_frames_that_are_not_finite_is_refused():
    with pytest.raises(ConfigError, match="beam search: frame 1: .* NaN"):
        BeamSearch(3).feed(np.array([[-1.0, -1.0, -1.0], [-1.0, math.nan, -1.0]]))


@pytest.mark.parametrize("settings", [{"beam_size": 0}, {"nbest": 0}, {"most_tokens": 0}, {"token_threshold": 0.0}])
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BeamConfig(**settings)


def test_wrong_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"expected log_probs \(B, T', V\)"):
        decode_beam(torch.zeros(3, 4), torch.tensor([3]))
    with pytest.raises(ConfigError, match="blank_id 9: expected one of 4 tokens"):
        decode_beam(torch.zeros(1, 3, 4), torch.tensor([3]), blank_id=9)
    with pytest.raises(ConfigError, match="lengths must be in"):
        decode_beam(torch.zeros(1, 3, 4), torch.tensor([5]))
    with pytest.raises(ConfigError, match=r"expected \(T', 4\), got \(2, 3\)"):
        BeamSearch(4).feed(np.zeros((2, 3)))


def best(search, count=None):
    """Prefixes and their whole scores."""
    return [(tokens, acoustic + language) for tokens, acoustic, language in search.ranked(count)]


def allowed_total(log_probs, sentences):
    totals = enumerate_all(log_probs)
    return {tuple(sentence): totals[tuple(sentence)] for sentence in sentences if tuple(sentence) in totals}


@pytest.mark.parametrize("seed", range(4))
def test_a_grammar_allows_its_sentences_with_their_probabilities_only(seed):
    log_probs = make_log_probs(6, 4, seed=seed)
    sentences = [[1, 2], [1, 2, 3], [3, 3], [2]]
    search = BeamSearch(4, WIDE, grammar=Grammar.of_sentences(sentences))
    search.feed(log_probs.numpy())
    found = {tuple(tokens): score for tokens, score in best(search, 100)}
    assert found == pytest.approx(allowed_total(log_probs, sentences))


@pytest.mark.parametrize("separator", [None, 3])
def test_any_sequence_of_allowed_words_is_found(separator):
    log_probs = make_log_probs(7, 4, seed=2)
    words = [(1,), (2, 1)]
    search = BeamSearch(4, WIDE, grammar=Grammar.of_words(words, separator=separator))
    search.feed(log_probs.numpy())
    expected = set()
    for count in range(1, 8):
        for chosen in itertools.product(words, repeat=count):
            joined = chosen[0]
            for word in chosen[1:]:
                joined = (*joined, *(() if separator is None else (separator,)), *word)
            expected.add(joined)
    found = {tuple(tokens): score for tokens, score in best(search, 5000)}
    assert found == pytest.approx(allowed_total(log_probs, expected))


def test_frames_that_no_sentence_fits_give_no_hypothesis():
    log_probs = make_log_probs(2, 4)
    assert decode_beam(log_probs[None], torch.tensor([2]), grammar=Grammar.of_sentences([[1, 2, 3]])) == [[]]
    [[best]] = decode_beam(log_probs[None], torch.tensor([2]), grammar=Grammar.of_sentences([[1, 2]]))
    assert best.tokens == [1, 2]


def test_a_grammar_in_pieces_equals_the_whole():
    log_probs = make_log_probs(60, 6, seed=3, sharpness=2.0).numpy()
    grammar = Grammar.of_words([(1, 2), (3,), (4, 5, 1)])
    whole, pieces = (BeamSearch(6, BeamConfig(nbest=4), grammar=grammar) for _ in range(2))
    whole.feed(log_probs)
    for start in range(0, 60, 7):
        pieces.feed(log_probs[start : start + 7])
    assert best(pieces) == best(whole)
    assert best(whole)


def test_empty_grammars_are_refused():
    for build in (Grammar.of_sentences, Grammar.of_words):
        with pytest.raises(ConfigError, match="found none"):
            build([])
