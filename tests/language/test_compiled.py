"""Compiled n-gram models say what the models say, from memory and from a file."""

import gzip
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from ngram_tables import Known, make_ngram

from speechrnn.decoding.kernels import query
from speechrnn.errors import ModelError
from speechrnn.language.arpa import write_arpa
from speechrnn.language.compiled import EMPTY_STATE, CompiledNgram, read_language_model, write_compiled
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.language.ngram import BEGIN, END

WORDS = ["one", "two", "three", "four", "five", "oh", "point"]


def make_text(count=300, *, seed=0):
    rng = random.Random(seed)
    return [
        [WORDS[min(len(WORDS) - 1, int(rng.expovariate(0.5)))] for _ in range(rng.randint(1, 7))] for _ in range(count)
    ]


def score(compiled, words, *, has_begin=True, has_end=True):
    """The natural log of a sentence's probability, asked word by word as the search asks."""
    state = compiled.begin_state if has_begin else EMPTY_STATE
    total = 0.0
    for word in [*words, *([END] if has_end else [])]:
        word_id = compiled.word_ids.get(word, compiled.unknown)
        log_prob, state = query(compiled.arrays, len(compiled.words), state, word_id)
        total += log_prob
    return total


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("prune", [(), (0, 1, 2)])
@pytest.mark.parametrize("has_begin", [True, False])
def test_sentences_have_the_scores_of_the_model(order, prune, has_begin):
    model = build_ngram(make_text(), order=order, prune=prune)
    compiled = CompiledNgram.of(model)
    for sentence in [*make_text(50, seed=1), [], ["never", "heard", "one"], ["one", "never", "two", "oh", "oh"]]:
        for has_end in (True, False):
            expected = model.score(sentence, has_begin=has_begin, has_end=has_end)
            found = score(compiled, sentence, has_begin=has_begin, has_end=has_end)
            assert found == pytest.approx(expected, abs=1e-4)


def test_pruned_contexts_are_backed_off():
    unigrams = {(word,): Known(math.log(0.25), -0.1) for word in ("a", "b", END, BEGIN)}
    model = make_ngram([unigrams, {("a", "b"): Known(-0.5, -0.2)}, {("b", "a", "b"): Known(-0.3)}])  # no (b, a)
    compiled = CompiledNgram.of(model)
    for sentence in (["a", "b"], ["b", "a", "b"], ["b", "a", "b", "a", "b"], ["a", "a", "b", "b"]):
        assert score(compiled, sentence) == pytest.approx(model.score(sentence), abs=1e-5)


def test_an_unknown_word_is_impossible_in_a_model_without_unk():
    model = CompiledNgram.of(make_ngram([{("a",): Known(-0.7), (END,): Known(-0.7)}]))
    assert score(model, ["b"]) == -math.inf
    assert model.unknown == -1


def test_a_file_comes_back_as_it_was_written(tmp_path):
    text = [[*sentence, "Straße"] for sentence in make_text()]
    compiled = CompiledNgram.of(build_ngram(text, order=3))
    write_compiled(tmp_path / "lm.bin", compiled)
    read = read_language_model(tmp_path / "lm.bin")
    assert (read.words, read.order, read.begin_state) == (compiled.words, 3, compiled.begin_state)
    for one, other in zip(read.arrays, compiled.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert read.digest == compiled.digest
    assert score(read, ["one", "two"]) == score(compiled, ["one", "two"])
    other = CompiledNgram.of(build_ngram(text[1:], order=3))
    assert other.digest != compiled.digest
    assert not list(tmp_path.glob("*part*"))


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "anything"])
def test_arpa_files_are_opened_too(tmp_path, name):
    model = build_ngram(make_text(), order=3)
    write_arpa(tmp_path / name, model)
    read = read_language_model(tmp_path / name)
    assert score(read, ["one", "oh"]) == pytest.approx(model.score(["one", "oh"]), abs=1e-4)


def test_broken_files_are_named(tmp_path):
    write_compiled(tmp_path / "lm.bin", CompiledNgram.of(build_ngram(make_text(), order=2)))
    content = (tmp_path / "lm.bin").read_bytes()
    for spoilt in (content[:-10], content[:40], content + b"x", content.replace(b"begin_state", b"began_state")):
        (tmp_path / "bad.bin").write_bytes(spoilt)
        with pytest.raises(ModelError, match=r"bad.bin: a damaged language model .*build it again"):
            read_language_model(tmp_path / "bad.bin")
    with pytest.raises(ModelError, match="there is no such language model"):
        read_language_model(tmp_path / "gone.bin")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ModelError, match="no ARPA file"):
        read_language_model(tmp_path / "text")


def test_a_damaged_compressed_arpa_file_is_named(tmp_path):
    write_arpa(tmp_path / "lm.arpa.gz", build_ngram(make_text(), order=2))
    content = bytearray(gzip.compress(bytes(range(256)) * 20))
    content[30:60] = bytes(30)
    (tmp_path / "bad.arpa.gz").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad.arpa.gz: cannot be read as an ARPA file"):
        read_language_model(tmp_path / "bad.arpa.gz")


# Run in a process of its own: what is not noticed may crash it. Prints how many files were refused and read.
FUZZ = """
import sys
import numpy as np
from speechrnn.decoding.kernels import query
from speechrnn.errors import ModelError
from speechrnn.language.compiled import read_language_model

folder, magic, count = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
content = open(f"{folder}/lm.bin", "rb").read().replace(b"n-gram 2", magic, 1)
first = content.index(b"]]}") + 3
original = read_language_model(f"{folder}/lm.bin")
rng = np.random.default_rng(0)
extreme = [np.array(v, t).tobytes() for t, v in (("<i4", -2), ("<i4", 2**31 - 1), ("<i4", -(2**31)), ("<f4", np.nan),
    ("<f4", np.inf), ("<f4", 5.0), ("<i8", 2**62), ("<i8", -2), ("<i4", 3))]
refused = read = 0
for number in range(count):
    damaged = bytearray(content)
    start = rng.integers(20 if number % 8 == 0 else first, len(content) - 70)
    if number % 2:
        start -= (start - len(content)) % 8
        new = extreme[rng.integers(len(extreme))]
    else:
        new = rng.bytes(rng.choice([1, 4, 64]))
    damaged[start : start + len(new)] = new
    open(f"{folder}/bad.bin", "wb").write(damaged)
    try:
        model = read_language_model(f"{folder}/bad.bin")
    except ModelError:
        refused += 1
        continue
    read += 1
    if magic.endswith(b"2"):
        assert model.words == original.words
        assert all((a == b).all() for a, b in zip(model.arrays, original.arrays))
    for state in range(len(model.backoffs)):
        for word in range(len(model.words)):
            log_prob, after = query(model.arrays, len(model.words), state, word)
            assert not np.isnan(log_prob) and 0 <= after < len(model.backoffs)
print(refused, read)
"""


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_files_are_refused_or_read_safely(tmp_path, version):
    """Of version 1, which has no digest, what is within its range passes; no index leads out of an array."""
    write_compiled(tmp_path / "lm.bin", CompiledNgram.of(build_ngram(make_text(40), order=3)))
    arguments = [sys.executable, "-c", FUZZ, tmp_path, f"n-gram {version}", "150"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    refused, read = map(int, result.stdout.split())
    assert refused + read == 150
    if version == 2:
        assert read <= 8  # padding between two arrays, and unchanged bytes


def test_a_file_of_version_1_without_a_digest_is_read(tmp_path):
    compiled = CompiledNgram.of(build_ngram(make_text(), order=3))
    write_compiled(tmp_path / "lm.bin", compiled)
    digest = f'"digest": "{compiled.digest}", '.encode()
    content = (tmp_path / "lm.bin").read_bytes().replace(b"n-gram 2", b"n-gram 1", 1)
    assert digest in content
    content = content.replace(digest, b" " * len(digest))
    (tmp_path / "old.bin").write_bytes(content)
    assert score(read_language_model(tmp_path / "old.bin"), ["one", "two"]) == score(compiled, ["one", "two"])


def test_one_changed_probability_is_noticed(tmp_path):
    compiled = CompiledNgram.of(build_ngram(make_text(), order=2))
    write_compiled(tmp_path / "lm.bin", compiled)
    content = (tmp_path / "lm.bin").read_bytes()
    at = content.index(compiled.log_probs.tobytes()) + 4 * 3
    (tmp_path / "bad.bin").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ModelError, match=r"bad.bin: a damaged language model \(the content has the digest"):
        read_language_model(tmp_path / "bad.bin")
