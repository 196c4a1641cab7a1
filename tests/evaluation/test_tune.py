"""Weights of a language model: found on validation data, kept with the model, used from then on."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import say_tones

import speechrnn
from speechrnn.cli.main import main
from speechrnn.corpus.manifest import read_manifest
from speechrnn.errors import ConfigError, CorpusError, ModelError
from speechrnn.evaluation.tune import tune_weights
from speechrnn.language.compiled import CompiledNgram, write_compiled
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.model_folder import load_model, save_model
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.types import Emission


@pytest.fixture
def texts(tone_run):
    """What is said in the validation set, as the model writes it."""
    return [entry.text.lower().rstrip(".").split() for entry in read_manifest(tone_run.folder / "valid.jsonl")]


@pytest.fixture
def language_model(texts):
    return CompiledNgram.of(build_ngram(texts * 3, order=3))


@pytest.fixture
def folder(tone_run, tmp_path):
    """A copy of the tone model to be written into."""
    save_model(tmp_path / "model", load_model(tone_run.model))
    return tmp_path / "model"


@pytest.fixture
def hard_of_hearing(monkeypatch):
    """Emissions that leave much to be guessed."""
    emissions = Recognizer.emissions

    def blur(self, waveforms, lengths, **state):
        clear = emissions(self, waveforms, lengths, **state)
        noise = torch.randn(clear.log_probs.shape, generator=torch.Generator().manual_seed(1))
        return Emission((0.12 * clear.log_probs + 0.5 * noise).log_softmax(-1), clear.lengths)

    monkeypatch.setattr(Recognizer, "emissions", blur)


def test_a_language_model_that_helps_gets_a_weight(folder, tone_run, language_model, hard_of_hearing):
    reports = []
    found = tune_weights(
        speechrnn.load(folder), tone_run.folder / "valid.jsonl", language_model,
        advance=lambda done, total: reports.append((done, total)),
    )  # fmt: skip
    assert found.wer < min(found.beam_wer, found.greedy_wer)
    assert found.config.language_weight > 0
    assert (found.unit, found.utterances) == ("words", 15)
    assert [done for done, _ in reports] == list(range(1, found.tried + 1))
    assert all(done <= total for done, total in reports)


def test_tuned_weights_are_stored_and_used(folder, tone_run, language_model, hard_of_hearing, tmp_path, capsys, caplog):
    write_compiled(tmp_path / "lm.bin", language_model)
    valid = str(tone_run.folder / "valid.jsonl")
    argv = ["evaluate", valid, "-m", str(folder), "--language-model", str(tmp_path / "lm.bin"), "--json"]
    with caplog.at_level(logging.WARNING, "speechrnn"):
        assert main(argv) == 0
    assert "was not tuned with this model: its weights are defaults (language_weight 0.5, " in caplog.text
    before = json.loads(capsys.readouterr().out)["wer"]
    assert main(["lm", "tune", valid, "-m", str(folder), "--language-model", str(tmp_path / "lm.bin")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("language_weight ")
    [kept] = json.loads((folder / "language" / "weights.json").read_text()).values()
    assert f"WER {100 * kept['wer']:.2f} % on 15 utterances" in said
    assert (kept["file"], kept["corpus"], kept["utterances"]) == ("lm.bin", valid, 15)
    caplog.clear()
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["wer"] == pytest.approx(kept["wer"])
    assert kept["wer"] <= before
    assert "not tuned" not in caplog.text
    speechrnn.load(folder)  # a model folder all the same
    save_model(folder, load_model(tone_run.model))
    assert not (folder / "language").exists()  # other weights of the network, other weights of the language model


def test_a_language_model_stored_with_a_model_is_used_by_default(
    folder, tone_run, language_model, hard_of_hearing, tmp_path, capsys
):
    write_compiled(tmp_path / "lm.bin", language_model)
    valid = str(tone_run.folder / "valid.jsonl")
    tune = ["lm", "tune", valid, "-m", str(folder), "--language-model", str(tmp_path / "lm.bin")]
    assert main([*tune, "--set-default"]) == 0
    recognizer, digest = speechrnn.load(folder), language_model.digest
    (tmp_path / "lm.bin").unlink()
    assert recognizer.choose_decoder().name == f"beam {digest}"
    assert recognizer.choose_decoder(decoder="beam", hotwords=["low"]).name == f"beam {digest}"
    assert recognizer.choose_decoder(decoder="greedy").name == "greedy"
    assert recognizer.choose_decoder(words=["low"]).name == "lexicon"
    save_model(tmp_path / "copy", recognizer.model)  # goes with the model
    assert speechrnn.load(tmp_path / "copy").choose_decoder().name == f"beam {digest}"
    capsys.readouterr()
    assert main(["evaluate", valid, "-m", str(folder), "--json"]) == 0
    by_default = json.loads(capsys.readouterr().out)["wer"]
    [stored] = json.loads((folder / "language" / "weights.json").read_text()).values()
    assert by_default == pytest.approx(stored["wer"])
    (folder / "language" / "model.bin").write_bytes(b"damaged")
    assert main(["evaluate", valid, "-m", str(folder)]) == 2
    assert "model.bin" in capsys.readouterr().err


def test_a_language_model_that_does_not_help_is_not_stored(folder, tone_run, tmp_path, capsys):
    """The model recognises the tones without errors, so that nothing can improve on it."""
    write_compiled(tmp_path / "lm.bin", CompiledNgram.of(build_ngram([["low"], ["high", "high"]], order=2)))
    valid = str(tone_run.folder / "valid.jsonl")
    assert main(["lm", "tune", valid, "-m", str(folder), "--language-model", str(tmp_path / "lm.bin")]) == 1
    assert "gave no improvement" in capsys.readouterr().err
    assert not (folder / "language").exists()


def test_language_models_and_hotwords_change_the_text(tone_run, language_model, tmp_path):
    recognizer = speechrnn.load(tone_run.model)
    samples = say_tones(["low", "high", "middle"], np.random.default_rng(9))

    def transcribe(**options):
        return recognizer.transcribe(samples, sample_rate=8000, **options).text

    none = CompiledNgram.of(build_ngram([["high"]], order=1))
    assert transcribe(language_model=none, language_weight=0.0, word_bonus=0.0) == "low high middle"
    write_compiled(tmp_path / "lm.bin", language_model)
    assert transcribe(language_model=tmp_path / "lm.bin", language_weight=0.1) == "low high middle"
    assert "Middle middle".lower() in transcribe(hotwords={"Middle middle": 200.0})
    assert transcribe(hotwords={"middle": 1.0}, words=["low", "middle"], decoder="lexicon").split()[-1] == "middle"


def test_an_untuned_language_model_causes_one_warning(tone_run, language_model, caplog):
    recognizer = speechrnn.load(tone_run.model)
    samples = say_tones(["low"], np.random.default_rng(9))
    for _ in range(2):
        recognizer.transcribe(samples, sample_rate=8000, language_model=language_model)
    assert caplog.text.count("was not tuned with this model") == 1


def test_unknown_words_have_the_tuned_cost(tone_run, texts, hard_of_hearing):
    """A third of what is said is unknown to it, so that a high cost would make it deaf to that."""
    known = [[word for word in words if word != "middle"] for words in texts]
    model = CompiledNgram.of(build_ngram([words for words in known if words], order=2))
    found = tune_weights(speechrnn.load(tone_run.model), tone_run.folder / "valid.jsonl", model)
    assert found.config.unknown_cost < 8.0


def test_a_weak_acoustic_model_follows_the_language_model(tone_run, hard_of_hearing):
    recognizer = speechrnn.load(tone_run.model)
    samples = say_tones(["low", "high", "middle"], np.random.default_rng(9))
    model = CompiledNgram.of(build_ngram([["high", "high"]] * 20, order=2))
    text = recognizer.transcribe(samples, sample_rate=8000, language_model=model, language_weight=3.0).text
    assert set(text.split()) == {"high"}
    assert set(recognizer.transcribe(samples, sample_rate=8000, decoder="beam").text.split()) > {"high"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language_weight": 1.0}, "language_weight: needs a language model, and none is given"),
        (
            {"decoder": "greedy", "hotwords": {"low": 1.0}},
            "hotwords: needs a beam search, and the decoder is greedy",
        ),
        ({"hotwords": {"loud": 1.0}}, "the model cannot write 'u'"),
    ],
)
def test_incompatible_options_are_refused(tone_run, options, message):
    with pytest.raises(ConfigError, match=message):
        speechrnn.load(tone_run.model).transcribe(np.zeros(8000), sample_rate=8000, **options)


def test_unusable_tuning_data_is_named(folder, tone_run, language_model, tmp_path):
    (tmp_path / "empty.jsonl").write_text(
        json.dumps({"audio_filepath": str(tone_run.folder / "valid" / "valid-0.wav"), "duration": 0.4, "text": ""})
    )
    with pytest.raises(CorpusError, match="no utterance has a word in its reference; nothing to tune on"):
        tune_weights(speechrnn.load(folder), tmp_path / "empty.jsonl", language_model)
    (folder / "language").mkdir()
    (folder / "language" / "weights.json").write_text("{")
    with pytest.raises(ModelError, match="weights.json: cannot be read as JSON"):
        speechrnn.load(folder)
