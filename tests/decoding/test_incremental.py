"""Decoding in pieces against decoding of the whole."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from speechrnn.decoding.fusion import Fusion
from speechrnn.decoding.grammar import Grammar
from speechrnn.decoding.incremental import GrowingArray
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.recognition.decoders import Decoder, DecodingConfig

SPELLINGS = [(False, ""), (True, ""), (False, "a"), (False, "b"), (False, "c")]
VOCABULARY = len(SPELLINGS)


def make_log_probs(frames, *, seed=0):
    """Runs of one to four frames of a likely token, half of them blanks, as CTC networks give them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(frames, VOCABULARY))
    at = 0
    while at < frames:
        size = int(rng.integers(1, 5))
        logits[at : at + size, int(rng.choice([0, 0, 0, 1, 2, 3, 4]))] += rng.uniform(1, 6)
        at += size
    return torch.from_numpy(logits).log_softmax(-1).float()


def make_decoder(kind):
    if kind == "greedy":
        return Decoder(DecodingConfig())
    if kind == "grammar":
        words = Grammar.of_words([[2, 3], [4], [3, 3, 2]], separator=1)
        return Decoder(DecodingConfig(decoder="lexicon", words=["ab", "c", "bba"], beam_size=8), words)
    fusion = None
    if kind == "fusion":
        language = build_ngram([list("abc"), ["ab", "c", "ab"], ["bb", "a"]], order=2)
        fusion = Fusion(SPELLINGS, CompiledNgram.of(language), hotwords={"ab c": 3.0})
    return Decoder(DecodingConfig(decoder="beam", beam_size=8, nbest=3), fusion=fusion)


def cut(rows, seed):
    rng = np.random.default_rng(seed)
    at = 0
    while at < len(rows):
        size = int(rng.choice([0, 1, 2, 7, 30]))
        yield rows[at : at + size]
        at += size


KINDS = ("greedy", "beam", "fusion", "grammar")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_give_the_hypotheses_of_the_whole(kind, seed):
    log_probs, decoder = make_log_probs(120, seed=seed), make_decoder(kind)
    [expected] = decoder.decode(log_probs[None], torch.tensor([len(log_probs)]))
    search = decoder.start(VOCABULARY)
    for piece in cut(log_probs.numpy(), seed):
        search.feed(piece)
    found = search.finish()
    assert len(found) == len(expected) >= 1
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.tokens, ours.frames) == (theirs.tokens, theirs.frames)
        assert ours.confidences == pytest.approx(theirs.confidences)
        assert ours.acoustic_score == pytest.approx(theirs.acoustic_score)
        assert ours.language_score == pytest.approx(theirs.language_score)
    assert len(expected[0].tokens) > 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_certain_tokens_remain_and_settled_ones_are_left_out(kind, seed):
    log_probs, decoder, rng = make_log_probs(150, seed=seed), make_decoder(kind), np.random.default_rng(seed)
    watched, settling = decoder.start(VOCABULARY), decoder.start(VOCABULARY)
    certain, settled = [], []
    for piece in cut(log_probs.numpy(), seed):
        for search in (watched, settling):
            search.feed(piece)
        whole, stable, count = watched.best()
        assert whole.tokens[: len(certain)] == certain
        assert all(last < first for (_, last), (first, _) in pairwise(whole.frames))
        assert all(first <= last < len(watched.rows) for first, last in whole.frames)
        assert len(certain) <= count <= stable <= len(whole.tokens)
        certain = whole.tokens[:count]
        assert kind != "greedy" or stable == count == max(0, len(whole.tokens) - 1)
        tail, rest_stable, rest = settling.best()
        assert settled + tail.tokens == whole.tokens
        assert (rest_stable, rest) == (stable - len(settled), count - len(settled))
        assert [len(each) for each in (tail.frames, tail.confidences)] == [len(tail.tokens)] * 2
        taken = int(rng.integers(0, rest + 1))
        settling.settle(taken)
        settled += tail.tokens[:taken]
    assert len(settled) > 3
    assert settling.finish()[0].tokens == watched.finish()[0].tokens


def test_a_search_of_nothing_has_an_empty_hypothesis():
    for kind in KINDS:
        search = make_decoder(kind).start(VOCABULARY)
        search.feed(np.zeros((0, VOCABULARY), np.float32))
        assert search.best()[0].tokens == []
        assert [each.tokens for each in search.finish()] == [[]]


def test_hypotheses_so_far_are_aligned_again_only_where_they_changed():
    search = make_decoder("beam").start(VOCABULARY)
    search.feed(make_log_probs(60).numpy())
    before, *_ = search.best()
    blank = np.full((1000, VOCABULARY), -12.0, np.float32)
    blank[:, 0] = -4e-5
    search.feed(blank)
    assert search.best()[0] is before


def test_stable_tokens_shrink_only_if_the_best_prefix_changes():
    search = make_decoder("beam").start(VOCABULARY)
    before, ahead = [], 0
    for row in make_log_probs(300, seed=7).numpy():
        search.feed(row[None])
        best, stable, certain = search.best()
        assert stable >= len(before) or best.tokens[: len(before)] != before
        before, ahead = best.tokens[:stable], max(ahead, stable - certain)
    assert len(before) > 30
    assert ahead > 3


def test_a_token_is_stable_after_ten_frames_in_the_best_prefix():
    search = make_decoder("beam").start(VOCABULARY)
    rows = np.log(np.full((14, VOCABULARY), 0.01, np.float32))
    rows[:, 0] = np.log(0.96)
    rows[2] = np.log([0.4, 0.01, 0.57, 0.01, 0.01])  # uncertain for ever
    counts = []
    for row in rows:
        search.feed(row[None])
        counts.append(search.best()[1:])
    assert counts == [(0, 0)] * 12 + [(1, 0)] * 2


def test_growing_array_holds_all_rows_and_drops_their_memory():
    array, rows = GrowingArray(2), np.arange(2000, dtype=np.float32).reshape(1000, 2)
    for at in range(0, 1000, 7):
        array.append(rows[at : at + 7])
    assert np.array_equal(array.values, rows)
    array.drop(990)
    assert np.array_equal(array.values, rows[990:])
    assert array.values.base.nbytes == rows[990:].nbytes
