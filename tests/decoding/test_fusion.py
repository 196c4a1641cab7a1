"""Language models and hotwords in the beam search, against every sequence scored by itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from ngram_tables import Known, list_known, make_ngram

from speechrnn.decoding.beam import BeamConfig, BeamSearch, decode_beam
from speechrnn.decoding.fusion import SPACE, Fusion, FusionConfig, find_unit
from speechrnn.decoding.grammar import Grammar
from speechrnn.errors import ConfigError
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.language.ngram import END

WIDE = BeamConfig(beam_size=3000, token_threshold=1e9, nbest=3000)
SYMBOLS = ["<blank>", " ", "a", "b", "c"]
SPELLINGS = [(False, ""), (True, ""), (False, "a"), (False, "b"), (False, "c")]
PIECES = ["<blank>", "\u2581a", "b", "\u2581ba", "\u2581"]
PIECE_SPELLINGS = [(False, ""), (True, "a"), (False, "b"), (True, "ba"), (True, "")]


def make_log_probs(frames, vocabulary, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, vocabulary, generator=generator, dtype=torch.float64).log_softmax(-1)


def make_model(sentences, order=2):
    return build_ngram([sentence.split() for sentence in sentences], order=order)


def spell(tokens, spellings):
    """The words that tokens write."""
    words = [""]
    for token in tokens:
        begins, letters = spellings[token]
        if begins:
            words.append("")
        words[-1] += letters
    return [word for word in words if word]


def enumerate_all(log_probs):
    totals = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        key = tuple(token for token, _ in itertools.groupby(path) if token != 0)
        score = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        totals[key] = np.logaddexp(totals.get(key, -math.inf), score)
    return totals


def search_all(log_probs, fusion, **options):
    search = BeamSearch(log_probs.shape[1], WIDE, fusion=fusion, **options)
    search.feed(log_probs.numpy())
    found = {tuple(tokens): (acoustic, language) for tokens, acoustic, language in search.ranked()}
    for tokens in list(found)[::9]:  # a whole sequence at once is worth as much as bit by bit
        assert fusion is None or fusion.score(tokens) == pytest.approx(found[tokens][1], abs=1e-6)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("symbols", "spellings"), [(SYMBOLS, SPELLINGS), (PIECES, PIECE_SPELLINGS)])
def test_words_are_scored_as_the_language_model_scores_them(seed, order, symbols, spellings):
    model = make_model(["a b", "ab a", "b b a", "ba ab", "ba a b a", "cba a"], order)  # c and cb are no words
    config = FusionConfig(language_weight=0.7, word_bonus=0.4, unknown_cost=3.0)
    log_probs = make_log_probs(5, 5, seed=seed)
    found = search_all(log_probs, Fusion(spellings, CompiledNgram.of(model), config, symbols=symbols))
    expected = enumerate_all(log_probs)
    assert set(found) == set(expected)
    for tokens, acoustic in expected.items():
        words = spell(tokens, spellings)
        unknown = sum((word,) not in list_known(model, 1) for word in words)
        language = 0.7 * model.score(words) + 0.4 * len(words) - 3.0 * unknown
        assert found[tokens][0] == pytest.approx(acoustic, abs=1e-9)
        assert found[tokens][1] == pytest.approx(language, abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_prefix_that_re_enters_a_narrow_beam_has_the_right_score(seed):
    model = make_model(["a b", "ab a", "b b a", "ba ab"])
    config = FusionConfig(language_weight=0.9, word_bonus=0.8, unknown_cost=1.5)
    fusion = Fusion(SPELLINGS, CompiledNgram.of(model), config, hotwords={"ba": 1.0}, symbols=SYMBOLS)
    log_probs = make_log_probs(40, 5, seed=seed).numpy()
    search = BeamSearch(5, BeamConfig(beam_size=4, nbest=4), fusion=fusion)
    for row in log_probs:
        search.feed(row[None])
        for tokens, _, language in search.ranked():
            words = spell(tokens, SPELLINGS)
            unknown = sum((word,) not in list_known(model, 1) for word in words)
            expected = 0.9 * model.score(words) + 0.8 * len(words) - 1.5 * unknown + words.count("ba")
            assert language == pytest.approx(expected, abs=1e-3)


def test_characters_are_scored_one_by_one():
    text = ["a b", "ab a", "b b a", "cab"]
    model = build_ngram([["<space>" if c == " " else c for c in line] for line in text], order=3)
    log_probs = make_log_probs(5, 5, seed=4)
    found = search_all(log_probs, Fusion(SPELLINGS, CompiledNgram.of(model), FusionConfig(0.6, 0.3), symbols=SYMBOLS))
    for tokens, (_, language) in found.items():
        written = list(" ".join(spell(tokens, SPELLINGS)))
        # A space at the end is written once it stands there; one before the first word is not.
        if tokens and tokens[-1] == 1 and written:
            written.append(" ")
        units = ["<space>" if letter == " " else letter for letter in written]
        bonus = 0.3 * len(units)
        assert language == pytest.approx(0.6 * model.score(units) + bonus, abs=1e-4), tokens


def write(tokens):
    """The units of a prefix: a space once it stands behind a word, none before the first."""
    units = []
    for token in tokens:
        if token != 1:
            units.append(SYMBOLS[token])
        elif units and units[-1] != SPACE:
            units.append(SPACE)
    return units


def search_plainly(log_probs, beam_size, worth):
    """The same search with dictionaries; of each prefix the paths ending in a blank and those ending in a token."""
    beam = {(): (0.0, -math.inf)}
    for row in log_probs:
        grown = {}
        for prefix, (blank, token) in beam.items():
            total = np.logaddexp(blank, token)
            old = grown.get(prefix, (-math.inf, -math.inf))
            again = token + row[prefix[-1]] if prefix else -math.inf
            grown[prefix] = (np.logaddexp(old[0], total + row[0]), np.logaddexp(old[1], again))
            for letter in range(1, len(row)):
                longer = (*prefix, letter)
                score = (blank if prefix[-1:] == (letter,) else total) + row[letter]
                old = grown.get(longer, (-math.inf, -math.inf))
                grown[longer] = (old[0], np.logaddexp(old[1], score))
        order = sorted(grown, key=lambda prefix: -(np.logaddexp(*grown[prefix]) + worth(prefix)))
        beam = {prefix: grown[prefix] for prefix in order[:beam_size]}
    return {prefix: np.logaddexp(*scores) for prefix, scores in beam.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beam_size", [2, 5])
def test_a_narrow_beam_keeps_what_a_plain_search_keeps(seed, beam_size):
    text = ["a b", "ab a", "b b a", "cab", "bac a"]
    model = build_ngram([[SPACE if c == " " else c for c in line] for line in text], order=3)
    fusion = Fusion(SPELLINGS, CompiledNgram.of(model), FusionConfig(1.5, 1.2), symbols=SYMBOLS)
    log_probs = make_log_probs(30, 5, seed=seed).numpy()

    def worth(prefix):
        return 1.5 * model.score(write(prefix), has_end=False) + 1.2 * len(write(prefix))

    expected = search_plainly(log_probs, beam_size, worth)
    search = BeamSearch(5, BeamConfig(beam_size=beam_size, nbest=beam_size, token_threshold=1e9), fusion=fusion)
    search.feed(log_probs)
    found = {tuple(tokens): acoustic for tokens, acoustic, _ in search.ranked()}
    assert set(found) == set(expected)
    for prefix, score in expected.items():
        assert found[prefix] == pytest.approx(score, abs=1e-6)


def test_word_tokens_are_scored_one_by_one():
    model = build_ngram([["\u2581a", "b", "\u2581ba"], ["\u2581ba", "b"], ["\u2581a"]], order=2)
    compiled = CompiledNgram.of(model)
    assert find_unit(compiled, PIECES) == "tokens"
    log_probs = make_log_probs(4, 5, seed=6)
    found = search_all(log_probs, Fusion(PIECE_SPELLINGS, compiled, FusionConfig(0.5, 0.2), symbols=PIECES))
    for tokens, (_, language) in found.items():
        expected = 0.5 * model.score([PIECES[token] for token in tokens]) + 0.2 * len(tokens)
        assert language == pytest.approx(expected, abs=1e-4)


def count_phrase(words, phrase):
    wanted = phrase.split()
    return sum(words[i : i + len(wanted)] == wanted for i in range(len(words)))


@pytest.mark.parametrize("seed", range(2))
def test_only_whole_hotwords_earn_their_bonus(seed):
    hotwords = {"ab": 2.0, "a b": 3.0, "b": -1.5, "ba": 0.7}
    log_probs = make_log_probs(6, 4, seed=seed)
    found = search_all(log_probs, Fusion(SPELLINGS[:4], hotwords=hotwords))
    assert any(count_phrase(spell(tokens, SPELLINGS), "a b") for tokens in found)
    for tokens, (_, language) in found.items():
        words = spell(tokens, SPELLINGS)
        expected = sum(bonus * count_phrase(words, phrase) for phrase, bonus in hotwords.items())
        assert language == pytest.approx(expected, abs=1e-9), words


def test_hotwords_and_language_model_add_up():
    model = make_model(["a b", "ab a", "b b a"])
    log_probs = make_log_probs(5, 5, seed=2)
    compiled = CompiledNgram.of(model)
    alone = search_all(log_probs, Fusion(SPELLINGS, compiled, symbols=SYMBOLS))
    both = search_all(log_probs, Fusion(SPELLINGS, compiled, hotwords={"c": 4.0}, symbols=SYMBOLS))
    for tokens, (_, language) in alone.items():
        earned = 4.0 * count_phrase(spell(tokens, SPELLINGS), "c")
        assert both[tokens][1] == pytest.approx(language + earned, abs=1e-6)


def test_an_incomplete_hotword_gets_a_part_of_its_bonus():
    """Else a narrow beam would lose it on the way."""
    search = BeamSearch(5, BeamConfig(beam_size=2), fusion=Fusion(SPELLINGS, hotwords={"abc": 9.0}))
    row = np.log(
        np.array([[0.02, 0.02, 0.3, 0.02, 0.64], [0.02, 0.02, 0.02, 0.3, 0.64], [0.02, 0.02, 0.02, 0.02, 0.92]])
    )
    search.feed(row)
    assert search.ranked(1)[0][0] == [2, 3, 4]


def test_a_language_model_changes_the_text_and_a_weight_of_zero_does_not():
    log_probs = torch.log(torch.tensor([[[0.05, 0.05, 0.44, 0.46, 0.0]]]).clamp(min=1e-9))
    lengths = torch.tensor([1])
    model = make_model(["a"] * 9 + ["b"])

    def decode(weight):
        fusion = Fusion(SPELLINGS, CompiledNgram.of(model), FusionConfig(weight, 0.0, 0.0), symbols=SYMBOLS)
        [[best]] = decode_beam(log_probs, lengths, fusion=fusion)
        return SYMBOLS[best.tokens[0]], best.language_score

    assert decode(0.0) == ("b", 0.0)
    text, score = decode(1.0)
    assert text == "a"
    assert score == pytest.approx(model.score(["a"]), abs=1e-6)


def test_a_stream_in_pieces_gives_the_result_of_the_whole():
    log_probs = make_log_probs(40, 5, seed=9).numpy()
    fusion = Fusion(SPELLINGS, CompiledNgram.of(make_model(["a b", "ab a"])), hotwords={"ca": 2.0}, symbols=SYMBOLS)
    whole, pieces = (BeamSearch(5, BeamConfig(beam_size=6, nbest=6), fusion=fusion) for _ in range(2))
    whole.feed(log_probs)
    for start in range(0, 40, 7):
        pieces.feed(log_probs[start : start + 7])
    assert pieces.ranked() == whole.ranked()


def test_a_closed_vocabulary_works_with_a_language_model():
    grammar = Grammar.of_sentences([[2], [3]])
    model = CompiledNgram.of(make_model(["a"] * 9 + ["b"]))
    log_probs = make_log_probs(3, 5, seed=1)
    found = search_all(log_probs, Fusion(SPELLINGS, model, symbols=SYMBOLS), grammar=grammar)
    assert set(found) == {(2,), (3,)}
    assert found[2,][1] > found[3,][1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bonus", [-2.0, 0.0, 3.0])
def test_skipped_candidates_would_not_have_been_in_the_beam(seed, bonus):
    """The same with a bound on what fusion may add that is never reached, so that all of them are looked at."""
    log_probs = make_log_probs(30, len(SPELLINGS), seed=seed)
    hotwords = {"ab": 4.0, "c a": 2.5, "b": -3.0}
    fusion = Fusion(
        SPELLINGS, CompiledNgram.of(make_model(["ab c", "a b ab", "c"])), FusionConfig(0.5, bonus), hotwords=hotwords
    )
    patient = fusion.with_config(fusion.config)
    patient.weights[3] = 1e9
    for beam_size in (1, 3, 8):
        config = BeamConfig(beam_size=beam_size, nbest=beam_size)
        ranked = []
        for each in (fusion, patient):
            search = BeamSearch(len(SPELLINGS), config, fusion=each)
            search.feed(log_probs)
            ranked.append(search.ranked())
        assert ranked[0] == ranked[1]


def test_an_unfinished_sentence_is_cut_to_its_longest_allowed_prefix():
    """Said: ab, and the beginning of cc, which nothing follows; a beam of one has no whole sentence left."""
    path = [2, 0, 3, 1, 4]  # a, blank, b, space, c
    log_probs = np.full((len(path), len(SPELLINGS)), math.log(0.02))
    log_probs[range(len(path)), path] = math.log(0.92)
    words = Grammar.of_words([[2, 3], [4, 4]], separator=1)
    search = BeamSearch(len(SPELLINGS), BeamConfig(beam_size=1), grammar=words)
    search.feed(log_probs)
    assert [tokens for tokens, *_ in search.ranked()] == [[2, 3]]
    search = BeamSearch(len(SPELLINGS), BeamConfig(beam_size=1), grammar=Grammar.of_sentences([[2, 3, 1, 4, 4]]))
    search.feed(log_probs)
    assert search.ranked() == []


def test_the_unit_of_a_language_model_is_detected():
    assert find_unit(CompiledNgram.of(make_model(["a b"])), SYMBOLS) == "words"
    assert find_unit(CompiledNgram.of(make_model(["a <space> b"])), SYMBOLS) == "characters"
    assert find_unit(CompiledNgram.of(make_model(["\u2581zz"])), PIECES) == "words"  # another model's pieces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hotwords": {"cuDNN": 8.0}}, r"hotword 'cuDNN': the model cannot write 'D', 'N', 'u'; .*\(abc\)"),
        ({"hotwords": {" ": 1.0}}, "one of them is empty"),
        ({"hotwords": {"a": math.nan}}, "expected a bonus in nats, such as 8, got nan"),
        ({"model": ["ZZ TOP"]}, "no word that the acoustic model can write; normalise both texts in the same way"),
        ({"model": ["Z <space> Y"]}, "no character that the acoustic model can write"),
    ],
)
def test_a_language_model_that_does_not_fit_the_tokens_is_refused(arguments, message):
    if "model" in arguments:
        arguments = {"model": CompiledNgram.of(make_model(arguments["model"]))}
    with pytest.raises(ConfigError, match=message):
        Fusion(SPELLINGS, symbols=SYMBOLS, **arguments)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_unknown_units_are_impossible_with_a_weight_and_free_without(weight):
    """A model of characters without ``<unk>`` and without c."""
    model = make_ngram([{(symbol,): Known(math.log(0.2)) for symbol in ("a", "b", SPACE, END)}])
    log_probs = make_log_probs(4, 5, seed=3)
    found = search_all(log_probs, Fusion(SPELLINGS, CompiledNgram.of(model), FusionConfig(weight, 0.0)))
    everything = enumerate_all(log_probs)
    assert set(found) == {tokens for tokens in everything if weight == 0.0 or 4 not in tokens}
    assert all(math.isfinite(language) for _, language in found.values())


def test_settings_and_sizes_are_checked():
    with pytest.raises(ConfigError, match=r"language_weight: expected a number in \[0, 1000\], got -1"):
        FusionConfig(language_weight=-1)
    with pytest.raises(ConfigError, match=r"word_bonus: expected a number of nats in \[-1000, 1000\], got nan"):
        FusionConfig(word_bonus=math.nan)
    with pytest.raises(ConfigError, match="made for 5 tokens, not 7"):
        BeamSearch(7, fusion=Fusion(SPELLINGS))
    assert END in make_model(["a"]).words
