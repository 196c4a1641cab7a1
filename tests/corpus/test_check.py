"""The preflight: what can be trained on, why the rest cannot, and lengths that are those of what will be read."""

import numpy as np
import pytest
import soundfile

from speechrnn.acoustic.ctc import explain_infeasible
from speechrnn.corpus.check import LeftOut, check_corpus, encode_utterance
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.text.tokens import CharacterTokens, WordTokens

TOKENS = CharacterTokens.build(["abc d"])


@pytest.fixture
def corpus(tmp_path):
    """Makes a corpus of (id, samples, text), or of entries over recordings that are there."""

    def make(*utterances: tuple[str, int, str] | Utterance, sample_rate: int = 8000):
        entries = []
        for utterance in utterances:
            if isinstance(utterance, Utterance):
                entries.append(utterance)
                continue
            name, samples, text = utterance
            path = tmp_path / f"{name}.wav"
            soundfile.write(path, np.random.default_rng(samples).normal(0, 0.1, samples), sample_rate)
            entries.append(Utterance(name, path, text, seconds=samples / sample_rate, speaker="f1"))
        write_manifest(tmp_path / "corpus.jsonl", entries)
        return read_corpus(tmp_path / "corpus.jsonl")

    return make


def check(cuts, *, tokens=TOKENS, normalize=str, sample_rate=8000, samples_a_frame=100):
    return check_corpus(
        cuts,
        tokens=tokens,
        normalize=normalize,
        sample_rate=sample_rate,
        explain_infeasible=lambda ids, samples: explain_infeasible(ids, samples // samples_a_frame),
    )


def test_an_utterance_is_usable_from_its_last_needed_frame_on(corpus):
    usable, left_out = check(corpus(("short", 499, "abbc"), ("exact", 500, "abbc"), ("without-repeats", 499, "abcd")))
    assert [utterance.id for utterance in usable] == ["exact", "without-repeats"]
    [item] = left_out
    assert item.id == "short"
    assert item.reason.startswith("4 tokens with 1 repeats need at least 5 encoder frames, this model makes 4;")


def test_every_utterance_is_either_usable_or_left_out_with_a_reason_in_the_corpus_order(corpus):
    cuts = corpus(
        ("u1", 800, "ab"), ("u2", 800, ""), ("u3", 50, "a"), ("u4", 800, "d"), ("u5", 800, "a€"), ("u6", 800, "  ")
    )
    usable, left_out = check(cuts, normalize=str.strip)
    assert [utterance.id for utterance in usable] == ["u1", "u4"]
    assert [item.id for item in left_out] == ["u2", "u3", "u5", "u6"]
    reasons = {item.id: item.reason for item in left_out}
    assert reasons["u2"] == reasons["u6"] == "its transcript is empty"
    assert "this model makes 0" in reasons["u3"]
    assert all("\n" not in reason for reason in reasons.values())


def test_characters_that_the_model_lacks_are_named(corpus):
    [item] = check(corpus(("u", 800, "a€b")))[1]
    assert item == LeftOut("u", item.reason)
    assert item.reason.startswith("transcript 'a€b': the model has no token for '€' (U+20AC)")


def test_the_text_is_normalised_before_it_is_checked(corpus):
    cuts = corpus(("u", 800, "A-B!"), ("v", 800, "!!"))
    usable, left_out = check(cuts, normalize=lambda text: text.lower().replace("-", " ").replace("!", ""))
    assert (usable[0].text, list(usable[0].tokens)) == ("a b", TOKENS.encode("a b"))
    assert left_out == [LeftOut("v", "its transcript is empty")]


def test_an_empty_corpus_is_neither_usable_nor_left_out():
    assert check([]) == ([], [])


def test_a_checked_utterance_has_everything_for_training(corpus, tmp_path):
    [cut] = corpus(("u", 800, "one two"))
    utterance, reason = encode_utterance(cut, tokens=WordTokens.build(["one two"]), normalize=str)
    assert reason is None
    assert (utterance.id, utterance.audio_path) == ("u", tmp_path / "u.wav")
    assert (utterance.start, utterance.seconds, utterance.count_samples(16000)) == (0.0, 0.1, 1600)
    assert (utterance.text, list(utterance.tokens), utterance.speaker) == ("one two", [1, 2], "f1")


def test_an_utterance_with_an_unknown_character_is_still_described(corpus):
    [cut] = corpus(("u", 800, "a€"))
    utterance, reason = encode_utterance(cut, tokens=TOKENS, normalize=str)
    assert reason is not None
    assert (utterance.text, list(utterance.tokens), utterance.count_samples(8000)) == ("a€", [], 800)


@pytest.mark.parametrize("from_rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("to_rate", [8000, 16000])
def test_counted_samples_equal_read_samples(corpus, from_rate, to_rate):
    for cut in corpus(*((f"u{samples}", samples, "a") for samples in (1237, 1238, 1241, 1250)), sample_rate=from_rate):
        utterance, _ = encode_utterance(cut, tokens=TOKENS, normalize=str)
        assert len(read_utterance(utterance, sample_rate=to_rate).samples) == utterance.count_samples(to_rate)


@pytest.mark.parametrize("from_rate", [8000, 22050])
def test_counted_samples_of_segments_equal_read_samples(corpus, tmp_path, from_rate):
    total = 4001
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, total), from_rate)
    starts = [0.0, 0.5, 100.25, 100.5, 1000.5, 4000.25]
    lengths = [0.25, 1.0, 100.5, 101.5, 3000.75, 4000.0]
    segments = [
        Utterance(f"{start}+{length}", tmp_path / "long.wav", "a", seconds=length / from_rate, start=start / from_rate)
        for start in starts
        for length in [*lengths, total - start]
        if start + length <= total
    ]
    assert len(segments) > 20
    for cut in corpus(*segments):
        for to_rate in (from_rate, 16000):
            utterance, _ = encode_utterance(cut, tokens=TOKENS, normalize=str)
            assert len(read_utterance(utterance, sample_rate=to_rate).samples) == utterance.count_samples(to_rate)


def test_a_segment_equals_that_part_of_the_recording(corpus, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.linspace(-0.5, 0.5, 8000), 8000, subtype="FLOAT")
    whole, _ = soundfile.read(tmp_path / "long.wav", dtype="float32")
    [cut] = corpus(Utterance("u", tmp_path / "long.wav", "a", seconds=0.25, start=0.5))
    utterance, _ = encode_utterance(cut, tokens=TOKENS, normalize=str)
    read = read_utterance(utterance, sample_rate=8000).samples
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, whole[4000:6000])


def test_channels_are_mixed(corpus, tmp_path):
    left, right = np.full(800, 0.25), np.full(800, -0.5)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    [cut] = corpus(Utterance("u", tmp_path / "stereo.wav", "a", seconds=0.1))
    utterance, _ = encode_utterance(cut, tokens=TOKENS, normalize=str)
    np.testing.assert_array_equal(read_utterance(utterance, sample_rate=8000).samples, np.full(800, -0.125, np.float32))
    assert utterance.count_samples(8000) == 800


def test_reading_for_training_does_not_warn_about_silence(corpus, tmp_path, caplog):
    soundfile.write(tmp_path / "silent.wav", np.zeros(800), 8000)
    [cut] = corpus(Utterance("u", tmp_path / "silent.wav", "a", seconds=0.1))
    utterance, _ = encode_utterance(cut, tokens=TOKENS, normalize=str)
    assert not read_utterance(utterance, sample_rate=8000).samples.any()
    assert caplog.text == ""
