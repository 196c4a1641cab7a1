"""Phones: words in, phones out, by a lexicon that goes with the model; trained, scored and aligned."""

import json

import numpy as np
import pytest
import soundfile
from conftest import TONE_SETTINGS, say_tones

import speechrnn
from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.text.phone_tokens import PhoneTokens
from speechrnn.text.token_files import build_tokens, load_tokens
from speechrnn.text.tokens import TokensConfig
from speechrnn.training.train import train

SPOKEN = {"THE": ["DH", "AH"], "cat": ["K", "AE", "T"], "dog": ["D", "AO", "G"], "zoo": ["Z", "UW"]}
TEXTS = ["the cat", "cat dog"]


@pytest.fixture
def tokens():
    return PhoneTokens.build(TEXTS, SPOKEN, normalize=str.lower)


def test_symbols_are_the_phones_of_the_training_words(tokens):
    assert tokens.symbols == ["<blank>", "AE", "AH", "AO", "D", "DH", "G", "K", "T"]
    assert set(tokens.pronunciations) == {"the", "cat", "dog"}  # zoo has phones that no training text has


def test_words_are_encoded_and_phones_decoded(tokens):
    ids = tokens.encode("the cat")
    assert [tokens.symbols[token] for token in ids] == ["DH", "AH", "K", "AE", "T"]
    assert tokens.decode(ids) == "DH AH K AE T" == tokens.written("the cat")
    assert tokens.encode("") == []
    assert tokens.spell("the cat") == (ids, [("the", 0, 1), ("cat", 2, 4)])


def test_words_without_pronunciation_are_named(tokens):
    assert tokens.unknown("the cow zoo cow") == ["cow", "zoo"]
    assert tokens.written("the cow") == "DH AH cow"
    with pytest.raises(CorpusError, match="the model has no token for 'cow'"):
        tokens.encode("the cow")
    with pytest.raises(CorpusError, match="tokens.lexicon: has none of the words of the training texts: hund"):
        PhoneTokens.build(["hund"], SPOKEN)


def test_phones_are_stored_with_their_lexicon(tokens, tmp_path):
    tokens.save(tmp_path)
    again = load_tokens(tmp_path)
    assert (again.kind, again.symbols, again.pronunciations) == ("phones", tokens.symbols, tokens.pronunciations)
    (tmp_path / "lexicon.txt").unlink()
    with pytest.raises(ModelError, match="lexicon.txt: no such file; expected a lexicon"):
        load_tokens(tmp_path)


def test_lexicon_and_phones_require_each_other(tmp_path):
    for settings in ({"kind": "phones"}, {"lexicon": "lexicon.txt"}):
        with pytest.raises(ConfigError, match="tokens.lexicon and tokens.kind phones go together"):
            TokensConfig(**settings)
    path = tmp_path / "lexicon.txt"
    path.write_text("CAT K AE1 T\n")
    config = TokensConfig(kind="phones", lexicon=str(path))
    assert build_tokens(config, ["cat"], normalize=str.lower).symbols == ["<blank>", "AE", "K", "T"]


@pytest.fixture(scope="module")
def model(tone_run, tmp_path_factory):
    """Two phones a tone."""
    folder = tmp_path_factory.mktemp("phones")
    (folder / "lexicon.txt").write_text("Low L OW1\nMiddle M IH1\nHigh HH AY1\n")
    settings = {
        **TONE_SETTINGS,
        "tokens.kind": "phones",
        "tokens.lexicon": str(folder / "lexicon.txt"),
        "encoder.subsampling_factor": 2,
        "output": str(folder / "run"),
    }
    return train(tone_run.folder / "config.yaml", settings)


def test_training_and_scoring_count_phones(model, tone_run):
    assert model.valid_wer < 0.3
    recognizer = speechrnn.load(model.model, device="cpu")
    found = evaluate(recognizer, tone_run.folder / "valid.jsonl")
    assert found.score.wer == pytest.approx(model.valid_wer, abs=1e-6)
    words = [
        len(json.loads(line)["text"].split()) for line in (tone_run.folder / "valid.jsonl").read_text().splitlines()
    ]
    assert found.score.words == 2 * sum(words)
    assert set(" ".join(each.hypothesis for each in found.utterances).split()) <= {"L", "OW", "M", "IH", "HH", "AY"}


def test_words_are_aligned_with_their_phones(model, tmp_path):
    soundfile.write(tmp_path / "said.wav", say_tones(["high", "low"], np.random.default_rng(1)), 8000)
    found = speechrnn.align(speechrnn.load(model.model, device="cpu"), tmp_path / "said.wav", "High, low.")
    assert [word.text for word in found.words] == ["high", "low"]
    assert [[token.text for token in word.tokens] for word in found.words] == [["HH", "AY"], ["L", "OW"]]
    assert found.words[0].start <= found.words[0].tokens[1].start <= found.words[0].end < found.words[1].end
    with pytest.raises(ConfigError, match="the text: .*'loud'"):
        speechrnn.align(speechrnn.load(model.model, device="cpu"), tmp_path / "said.wav", "loud")


def test_a_model_of_phones_is_fine_tuned_by_its_own_lexicon(model, tone_run, tmp_path):
    outcome = speechrnn.finetune(
        model.model,
        tone_run.folder / "test.jsonl",
        tone_run.folder / "valid.jsonl",
        output=tmp_path / "run",
        overrides={"trainer.max_epochs": 1, "trainer.accelerator": "cpu", "data.num_workers": 0},
    )
    assert outcome.sets["valid"].wer <= 0.5
    assert "lexicon.txt" in {path.name for path in outcome.training.model.iterdir()}
