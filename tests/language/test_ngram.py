"""N-gram models: probabilities that add up to one, formulas by hand, files that come back, KenLM as a witness."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from ngram_tables import Known, list_known, make_ngram

from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.language.arpa import read_arpa, write_arpa
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.language.ngram import BEGIN, END, UNKNOWN

WORDS = ["one", "two", "three", "four", "five", "oh", "point"]


def make_text(count=300, *, seed=0):
    rng = random.Random(seed)
    return [
        [WORDS[min(len(WORDS) - 1, int(rng.expovariate(0.5)))] for _ in range(rng.randint(1, 7))] for _ in range(count)
    ]


def total(model, context):
    """Of all that may follow a context: words, the end, the unknown."""
    return sum(math.exp(model.log_prob(word, context)) for word in model.words if word != BEGIN)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("prune", [(), (0, 1, 2)])
def test_probabilities_after_every_context_add_up_to_one(order, prune):
    model = build_ngram(make_text(), order=order, prune=prune)
    assert model.order == order
    contexts = [(), ("one",), (BEGIN,), ("oh", "oh"), (BEGIN, "two"), ("five", "point", "three"), ("never", "heard")]
    for context in contexts:
        assert total(model, context) == pytest.approx(1.0, abs=1e-9)


def test_probabilities_follow_the_modified_kneser_ney_formulas():
    """Two sentences; discounts are those of a text that is too small to tell (0.5, 1, 1.5)."""
    model = build_ngram([["a", "b"], ["a", "c"]], order=2)
    # Different words before: a after <s>, b and c after a, the end after b and c; 5 in all, and 4 words with <unk>.
    rest = (0.5 + 0.5 + 0.5 + 1.0) / 5
    unigram = {"a": 0.5 / 5 + rest / 5, "b": 0.5 / 5 + rest / 5, END: 1 / 5 + rest / 5, UNKNOWN: rest / 5}
    for word, probability in unigram.items():
        assert model.log_prob(word) == pytest.approx(math.log(probability))
    gamma = (0.5 + 0.5) / 2  # after a: b once, c once
    assert model.log_prob("b", ["a"]) == pytest.approx(math.log(0.5 / 2 + gamma * unigram["b"]))
    assert model.log_prob("a", ["a"]) == pytest.approx(math.log(gamma * unigram["a"]))
    assert model.log_prob("a", [BEGIN]) == pytest.approx(math.log(1 / 2 + 1.0 / 2 * unigram["a"]))


def estimate_in_words(text, order, limits):
    """The same estimate by its formulas, with tables of words; log-probabilities of what is kept."""
    raw = [Counter() for _ in range(order)]
    for sentence in text:
        padded = (BEGIN, *sentence, END)
        for length in range(1, order + 1):
            raw[length - 1].update(padded[first : first + length] for first in range(len(padded) - length + 1))
    adjusted = [dict(raw[-1])]
    for place in range(order - 2, -1, -1):
        before = Counter(longer[1:] for longer in raw[place + 1])
        adjusted.insert(0, {ngram: n if ngram[0] == BEGIN else before[ngram] for ngram, n in raw[place].items()})
    probabilities = {}
    for length, table in enumerate(adjusted, start=1):
        often = Counter(table.values())
        y = often[1] / (often[1] + 2 * often[2])
        d = [0, 1 - 2 * y * often[2] / often[1], 2 - 3 * y * often[3] / often[2], 3 - 4 * y * often[4] / often[3]]
        contexts = {}
        for ngram, n in table.items():
            if ngram != (BEGIN,):
                contexts.setdefault(ngram[:-1], {})[ngram[-1]] = n
        for context, after in contexts.items():
            kept = {word: n for word, n in after.items() if raw[length - 1][*context, word] > limits[length - 1]}
            total = sum(after.values())
            rest = sum(min(d[min(n, 3)], n) if word in kept else n for word, n in after.items()) / total
            everything = [*after, UNKNOWN] if length == 1 else list(after)
            for word in everything:
                shorter = rest / len(everything) if length == 1 else rest * probabilities[*context[1:], word]
                own = max(after[word] - d[min(after[word], 3)], 0) / total if word in kept else 0.0
                probabilities[*context, word] = own + shorter
    return {
        ngram: math.log(probability)
        for ngram, probability in probabilities.items()
        if ngram == (UNKNOWN,) or raw[len(ngram) - 1][ngram] > limits[len(ngram) - 1]
    }


@pytest.mark.parametrize(("order", "limits"), [(1, [0]), (2, [0, 0]), (3, [0, 0, 0]), (4, [0, 0, 1, 2])])
def test_the_arrays_give_the_probabilities_of_the_formulas(order, limits):
    text = [[f"w{int(word)}" for word in line] for line in np.random.default_rng(0).zipf(1.5, (300, 6)).clip(0, 60)]
    model = build_ngram(text, order=order, prune=limits)
    expected = estimate_in_words(text, order, limits)
    found = {
        ngram: known.log_prob for length in range(1, order + 1) for ngram, known in list_known(model, length).items()
    }
    del found[BEGIN,]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_word_with_many_contexts_is_more_probable_than_one_with_a_single_frequent_context():
    text = [["san", "francisco"]] * 30 + [[word, "tea"] for word in WORDS for _ in range(3)]
    model = build_ngram(text, order=2)
    assert model.log_prob("tea", ["never"]) > model.log_prob("francisco", ["never"])
    assert model.log_prob("francisco", ["san"]) > math.log(0.8)


def test_longer_contexts_help_on_similar_text():
    rng = random.Random(0)
    text = [
        [word for _ in range(4) for word in rng.choice((["one", "two", "three"], ["three", "four", "one"]))]
        for _ in range(300)
    ]
    held_out = text[250:]
    scores = [sum(build_ngram(text[:250], order=order).score(each) for each in held_out) for order in (1, 2, 3)]
    assert scores[0] < scores[1] < scores[2]


def test_the_probability_of_a_sentence_is_the_product_of_its_words():
    model = build_ngram(make_text(), order=3)
    words = ["one", "two", "oh"]
    expected = (
        model.log_prob("one", [BEGIN])
        + model.log_prob("two", [BEGIN, "one"])
        + model.log_prob("oh", ["one", "two"])
        + model.log_prob(END, ["two", "oh"])
    )
    assert model.score(words) == pytest.approx(expected)
    assert model.score(words, has_end=False) == pytest.approx(expected - model.log_prob(END, ["two", "oh"]))
    inner = model.log_prob("one") + model.log_prob("two", ["one"]) + model.log_prob("oh", ["one", "two"])
    assert model.score(words, has_begin=False, has_end=False) == pytest.approx(inner)


def test_rare_words_become_unknown_where_the_vocabulary_is_cut():
    model = build_ngram(make_text(), order=2, most_words=3)
    assert len(model.words) == 3 + 3
    assert model.log_prob("point", ["one"]) == model.log_prob(UNKNOWN, ["one"])
    assert total(model, ["one"]) == pytest.approx(1.0)


def test_pruning_leaves_rare_n_grams_out_and_keeps_unigrams():
    text = make_text()
    whole, pruned = build_ngram(text, order=3), build_ngram(text, order=3, prune=(0, 1, 3))
    assert pruned.sizes[0] == whole.sizes[0]
    assert 0 < pruned.sizes[2] < whole.sizes[2]
    counts = {}
    for sentence in text:
        padded = [BEGIN, *sentence, END]
        for ngram in zip(padded, padded[1:], padded[2:], strict=False):
            counts[ngram] = counts.get(ngram, 0) + 1
    assert set(list_known(pruned, 3)) == {ngram for ngram, count in counts.items() if count > 3}


@pytest.mark.parametrize("name", ["a.arpa", "a.arpa.gz"])
def test_an_arpa_file_comes_back_as_it_was_written(tmp_path, name):
    model = build_ngram(make_text(), order=3)
    write_arpa(tmp_path / name, model)
    read = read_arpa(tmp_path / name)
    assert [list(list_known(read, order)) for order in (1, 2, 3)] == [
        list(list_known(model, order)) for order in (1, 2, 3)
    ]
    for context in itertools.product(WORDS, repeat=2):
        for word in (*WORDS, END):
            assert read.log_prob(word, context) == pytest.approx(model.log_prob(word, context), abs=1e-5)


def test_an_arpa_file_of_another_program_is_read(tmp_path):
    text = (
        "a comment\n\n\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.3\n-0.5\t</s>\n"
        "-0.7\tone\t-0.2\n\n\\2-grams:\n-0.1\t<s> one\n-0.4\tone </s>\n\n\\end\\\n"
    )
    (tmp_path / "a.arpa").write_text(text)
    model = read_arpa(tmp_path / "a.arpa")
    assert model.score(["one"]) / math.log(10) == pytest.approx(-0.5)
    assert model.score(["one", "one"]) / math.log(10) == pytest.approx(-0.1 + (-0.2 - 0.7) - 0.4)
    assert model.score(["two"]) / math.log(10) == pytest.approx((-0.3 - 1.0) + -0.5)
    assert model.log_prob(BEGIN) == -math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"\\data\\ is missing"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a\n", r"\\end\\ is missing"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 a\n\n\\end\\\n", r"states {1: 2} n-grams and has {1: 1}"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a b c\n\n\\end\\\n", "line 5: expected a logarithm, 1 words"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\nx a\n\n\\end\\\n", "line 5: expected numbers"),
        (
            "\\data\\\nngram 1=1\n\n\\1-grams:\n1 a\n\n\\end\\\n",
            "line 5: expected the logarithm of a probability .* got 1",
        ),
        (
            "\\data\\\nngram 1=1\n\n\\1-grams:\nnan a\n\n\\end\\\n",
            "line 5: expected the logarithm of a probability .* got nan",
        ),
        (
            "\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a inf\n\n\\end\\\n",
            "line 5: expected the logarithm of a back-off weight, got inf",
        ),
        ("\\data\\\nngram 1=²\n\n\\1-grams:\n-1 a\n\n\\end\\\n", "line 2: expected ngram ORDER=COUNT"),
        ("\\data\\\nngram 1=1\n\n\\2-grams:\n-1 a b\n\n\\end\\\n", r"line 4: expected \\1-grams:, got \\2-grams:"),
        ("\\data\\\nngram one=1\n", "line 2: expected ngram ORDER=COUNT"),
        ("\\data\\\n\n\\end\\\n", "expected unigrams, found none"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 a\n-1 a\n\n\\end\\\n", "line 6: a is among the 1-grams twice"),
        (
            "\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\n-1 a\n\n\\2-grams:\n-1 a b\n\n\\end\\\n",
            "line 9: b is not among the 1-grams",
        ),
        (
            "\\data\\\nngram 1=1\nngram 2=2\n\n\\1-grams:\n-1 a\n\n\\2-grams:\n-1 a a\n-1 a a\n\n\\end\\\n",
            "the n-gram 'a a' occurs twice",
        ),
    ],
)
def test_faults_of_an_arpa_file_are_named(tmp_path, text, message):
    (tmp_path / "a.arpa").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_arpa(tmp_path / "a.arpa")


def test_a_missing_file_and_a_binary_one_are_named(tmp_path):
    with pytest.raises(ModelError, match="there is no such language model"):
        read_arpa(tmp_path / "gone.arpa")
    (tmp_path / "b.arpa").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ModelError, match="cannot be read as an ARPA file"):
        read_arpa(tmp_path / "b.arpa")
    (tmp_path / "b.arpa.gz").write_bytes(b"not compressed")
    with pytest.raises(ModelError, match="cannot be read as an ARPA file"):
        read_arpa(tmp_path / "b.arpa.gz")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": 0}, ConfigError, "order: expected 1 or more"),
        ({"prune": (1,)}, ConfigError, "none for unigrams"),
        ({"prune": (0, 2, 1)}, ConfigError, "thresholds from 0 upwards"),
        ({"most_words": 0}, ConfigError, "most_words"),
    ],
)
def test_impossible_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        build_ngram(make_text(), **options)


def test_unusable_training_texts_are_refused():
    with pytest.raises(CorpusError, match="expected sentences, found none"):
        build_ngram([[], []])
    with pytest.raises(CorpusError, match="a sentence contains </s>"):
        build_ngram([["one", END]])


def test_a_model_without_unk_gives_unknown_words_probability_zero():
    model = make_ngram([{(END,): Known(math.log(0.5)), ("a",): Known(math.log(0.5))}])
    assert model.log_prob("b") == -math.inf


def test_kenlm_gives_the_same_scores_for_the_same_file(tmp_path):
    decoder = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="flashlight-text is not installed")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary", reason="flashlight-text is not installed")
    model = build_ngram(make_text(), order=3)
    write_arpa(tmp_path / "a.arpa", model)
    words = dictionary.Dictionary([*WORDS, UNKNOWN])
    kenlm = decoder.KenLM(str(tmp_path / "a.arpa"), words)
    for sentence in make_text(30, seed=1):
        state, score = kenlm.start(False), 0.0
        for word in sentence:
            state, part = kenlm.score(state, words.get_index(word))
            score += part
        score += kenlm.finish(state)[1]
        assert model.score(sentence) / math.log(10) == pytest.approx(score, abs=1e-4)
