"""Training end to end on three tones: it learns, it repeats itself, it names what it leaves out."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONE_SETTINGS, make_tone_configuration, say_tones
from safetensors.torch import load_file

import speechrnn
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.training import preflight
from speechrnn.training.config_file import load_config
from speechrnn.training.preflight import prepare_run
from speechrnn.training.train import train


def settings(configuration: Path, **changes: object) -> dict[str, object]:
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return {**TONE_SETTINGS, "output": str(configuration.parent / "run"), "trainer.max_epochs": 1, **dotted}


def add_line(manifest: Path, **entry: object) -> None:
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def test_a_trained_model_transcribes_new_recordings(tone_run):
    recognizer = speechrnn.load(tone_run.model)
    for seed, words in enumerate((["low", "high"], ["middle", "middle", "low"], ["high"])):
        result = recognizer.transcribe(say_tones(words, np.random.default_rng(100 + seed)), sample_rate=8000)
        assert result.text == " ".join(words)


def test_beam_search_finds_the_same_words_at_the_same_times(tone_run):
    recognizer = speechrnn.load(tone_run.model)
    samples = say_tones(["low", "high", "middle"], np.random.default_rng(9))
    greedy, beam = (recognizer.transcribe(samples, sample_rate=8000, decoder=name) for name in ("greedy", "beam"))
    assert beam.text == greedy.text == "low high middle"
    for one, other in zip(beam.words, greedy.words, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.1)


def test_a_closed_vocabulary_restricts_the_transcript(tone_run):
    recognizer = speechrnn.load(tone_run.model)
    samples = say_tones(["low", "high", "middle"], np.random.default_rng(9))

    def transcribe(**allowed: object) -> str:
        return recognizer.transcribe(samples, sample_rate=8000, decoder="lexicon", **allowed).text

    assert transcribe(words=["Low", "middle", "high"]) == "low high middle"
    assert set(transcribe(words=["low", "middle"]).split()) <= {"low", "middle"}
    assert transcribe(sentences=["high low", "low high middle", "middle"]) == "low high middle"
    assert transcribe(sentences=["low high low"]) in ("low high low", "")
    assert recognizer.transcribe(samples, sample_rate=8000, words=["middle"]).text in ("middle", "middle middle")
    with pytest.raises(ConfigError, match="needs words or sentences"):
        transcribe()
    for wrong in ({"words": ["low"]}, {"words": ["low"], "sentences": ["low"]}):
        with pytest.raises(ConfigError, match="allows any text; use lexicon|cannot be combined"):
            recognizer.transcribe(samples, sample_rate=8000, decoder="greedy", **wrong)
    with pytest.raises(ConfigError, match="sentences"):
        transcribe(words=["low"], sentences=["low"])
    with pytest.raises(ConfigError, match="loud"):
        transcribe(words=["low", "loud"])
    with pytest.raises((TypeError, ConfigError), match="beam_sise"):
        transcribe(words=["low"], beam_sise=4)


def test_an_alphabet_file_is_found_beside_the_configuration(tone_run):
    (tone_run.folder / "alphabet.txt").write_text("\n".join([" ", *"abcdefghijklmnopqrstuvwxyz"]) + "\n")
    settings = {**TONE_SETTINGS, "tokens.kind": "characters", "tokens.alphabet": "alphabet.txt"}
    preflight = prepare_run(load_config(tone_run.folder / "config.yaml", settings), folders=[tone_run.folder])
    assert len(preflight.tokens) == 28
    settings["tokens.alphabet"] = "gone.txt"
    with pytest.raises(CorpusError, match=r"tokens.alphabet: no gone.txt in"):
        prepare_run(load_config(tone_run.folder / "config.yaml", settings), folders=[tone_run.folder])


def test_a_run_leaves_model_checkpoints_and_logs(tone_run):
    output = tone_run.result.output
    assert {path.name for path in output.iterdir()} >= {"model", "checkpoints", "logs", "left_out.jsonl"}
    names = [path.name for path in (output / "checkpoints").iterdir()]
    assert len(names) == 1
    assert names[0].startswith("epoch-")
    with (output / "logs" / "csv" / "metrics.csv").open() as file:
        names = set(next(csv.reader(file)))
    assert names >= {
        "train/loss_step", "train/gradient_norm", "train/clipped_share", "train/learning_rate",
        "train/audio_hours_an_hour", "valid/loss", "valid/wer", "valid/cer", "valid/blank_rate",
    }  # fmt: skip
    assert list((output / "logs" / "tensorboard").glob("events.*"))


def test_the_released_model_is_the_best_checkpoint(tone_run):
    output = tone_run.result.output
    best = load_file(next((output / "checkpoints").glob("epoch-*.safetensors")))
    released = load_file(output / "model" / "model.safetensors")
    assert set(released) == set(best)
    assert all(torch.equal(value, best[name]) for name, value in released.items())


@pytest.fixture
def few_tones(tmp_path):
    """24 utterances to train on, 6 to validate on."""
    return make_tone_configuration(tmp_path / "few", train=24, valid=6)


def test_same_seed_gives_the_same_weights_and_another_seed_others(few_tones):
    weights = []
    for run, seed in enumerate((5, 5, 6)):
        changes = settings(
            few_tones,
            seed=seed,
            output=str(few_tones.parent / f"run{run}"),
            encoder__dropout=0.2,
            augment__speed=[0.9, 1.0, 1.1],
            augment__spec_augment__time_masks=1,
        )
        weights.append(load_file(train(few_tones, changes).model / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_utterances_that_ctc_cannot_align_are_named_counted_and_left_out(tone_configuration, caplog):
    manifest = tone_configuration.parent / "train.jsonl"
    soundfile.write(manifest.parent / "short.wav", np.random.default_rng(0).normal(0, 0.1, 900), 8000)
    add_line(manifest, audio_filepath="short.wav", duration=900 / 8000, text="low low low low low low")
    add_line(manifest, audio_filepath="train/train-0.wav", duration=0.3, text="", id="silent")
    with caplog.at_level(logging.WARNING, "speechrnn"):
        result = train(tone_configuration, settings(tone_configuration))
    assert [item.id for item in result.left_out] == ["short", "silent"]
    assert "6 tokens with 5 repeats need at least 11 encoder frames, this model makes 5" in caplog.text
    assert "2 of 62 utterances are left out of training" in caplog.text
    listed = [json.loads(line) for line in (result.output / "left_out.jsonl").read_text().splitlines()]
    assert listed[1] == {"id": "silent", "reason": "its transcript is empty"}


def test_a_corpus_without_usable_utterances_is_refused(tone_configuration):
    manifest = tone_configuration.parent / "train.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**line, "text": "low " * 99}) + "\n" for line in lines))
    with pytest.raises(CorpusError, match="none of 60 utterances can be trained on; the first, train-0: 99 tokens"):
        train(tone_configuration, settings(tone_configuration))


def test_validation_words_that_the_model_lacks_count_in_the_wer(tone_configuration, caplog):
    manifest = tone_configuration.parent / "valid.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**line, "text": "unheard"}) + "\n" for line in lines))
    with caplog.at_level(logging.WARNING, "speechrnn"):
        result = train(tone_configuration, settings(tone_configuration))
    assert result.valid_wer >= 1.0
    assert "counts in the WER, not in the loss" in caplog.text


def test_a_finished_run_is_not_replaced_without_overwrite(tone_run):
    with pytest.raises(ConfigError, match="already holds a trained model"):
        train(tone_run.folder / "config.yaml", {"output": str(tone_run.result.output)})


def test_a_missing_manifest_is_named_with_the_folders_searched(tone_configuration):
    with pytest.raises(CorpusError, match=r"data.train: no gone.jsonl in .*tones"):
        train(tone_configuration, settings(tone_configuration, data__train="gone.jsonl"))
    with pytest.raises(ConfigError, match="data.valid: expected a manifest"):
        train(tone_configuration, {**settings(tone_configuration), "data.valid": "null"})


def test_one_cycle_without_an_end_is_refused(tone_configuration):
    endless = settings(tone_configuration, trainer__max_epochs=-1)
    with pytest.raises(ConfigError, match="one_cycle needs an end"):
        train(tone_configuration, endless)


@pytest.mark.parametrize(
    "changes",
    [
        {"front_end.normalization": "corpus", "front_end.deltas": 2},
        {"front_end.normalization": "sliding", "encoder.cell": "lstm", "encoder.bidirectional": False,
         "encoder.lookahead_frames": 4},
        {"encoder.cell": "elementwise", "encoder.initial_state": "learned", "optimizer.schedule": "plateau"},
        {"encoder.cell": "tanh", "encoder.subsampling": "convolution", "trainer.gradient_clip_algorithm": "value",
         "trainer.gradient_clip_val": 0.5},
        {"trainer.accumulate_grad_batches": 3, "optimizer.schedule": "constant", "early_stopping_patience": 1},
        {"trainer.precision": "bf16-mixed", "data.num_workers": 1, "trainer.gradient_clip_val": 0},
    ],
)  # fmt: skip
def test_every_kind_of_run_trains_and_its_model_loads(few_tones, changes):
    result = train(few_tones, {**settings(few_tones), "trainer.max_epochs": 2, **changes})
    recognizer = speechrnn.load(result.model)
    assert recognizer.transcribe(few_tones.parent / "test" / "test-0.wav").seconds > 0


def test_a_released_model_holds_no_absolute_paths(tone_run):
    for name in ("config.json", "README.md"):
        assert str(tone_run.folder) not in (tone_run.model / name).read_text()


def test_corpus_statistics_are_kept_in_the_model(tone_configuration):
    result = train(tone_configuration, settings(tone_configuration, front_end__normalization="corpus"))
    weights = load_file(result.model / "model.safetensors")
    assert weights["front_end.std"].min() > 0.01
    assert weights["front_end.mean"].abs().max() > 0.1


def test_statistics_of_a_long_corpus_are_taken_over_every_nth_utterance(tone_configuration, monkeypatch):
    read: list[str] = []
    original = preflight._read_or_nothing
    monkeypatch.setattr(preflight, "_read_or_nothing", lambda each, rate: read.append(each.id) or original(each, rate))
    config = load_config(tone_configuration, {**TONE_SETTINGS, "front_end.normalization": "corpus"})
    found = prepare_run(config, folders=[tone_configuration.parent])
    everything = [each.id for each in found.train]
    assert sorted(read) == sorted(everything)
    read.clear()
    seconds = sum(each.seconds for each in found.train)
    monkeypatch.setattr(preflight, "_MOST_STATISTICS_SECONDS", seconds / 2.5)
    prepare_run(config, folders=[tone_configuration.parent])
    assert sorted(read) == sorted(everything[::3])


def test_half_precision_trains_and_its_loss_is_taken_in_float32(tone_configuration, monkeypatch):
    from speechrnn.training import losses

    original, types = losses.ctc_losses, set()

    def note(log_probs, *arguments, **options):
        types.add(log_probs.dtype)
        return original(log_probs, *arguments, **options)

    monkeypatch.setattr(losses, "ctc_losses", note)
    changes = {"trainer.precision": "bf16-mixed", "trainer.max_epochs": 8}
    result = train(tone_configuration, settings(tone_configuration, **changes))
    assert types == {torch.float32}
    assert result.valid_wer < 0.2
    assert {value.dtype for value in load_file(result.model / "model.safetensors").values()} == {torch.float32}


def test_a_weight_of_a_corpus_that_is_not_there_is_named(tone_configuration, caplog):
    def prepare(**weights):
        caplog.clear()
        config = load_config(tone_configuration, {**TONE_SETTINGS, "data.weights": weights})
        prepare_run(config, folders=[tone_configuration.parent])
        return [record.getMessage() for record in caplog.records if "data.weights" in record.getMessage()]

    nothing_of = "data.weights.{}: no such corpus in the training manifest ({})"
    assert prepare() == []
    assert prepare(tones=2.0) == [nothing_of.format("tones", "its utterances have no corpus")]
    manifest = tone_configuration.parent / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**row, "corpus": "tones"}) + "\n" for row in rows))
    assert prepare(tones=2.0) == []
    assert prepare(tones=2.0, tunes=0.5) == [nothing_of.format("tunes", "it has tones")]


def test_single_words_are_learned_from_the_final_state(tone_configuration):
    """One word a recording; what has more is named and left out."""
    folder = tone_configuration.parent
    for part, count in (("train", 90), ("valid", 24)):
        rng, manifest = np.random.default_rng(count), folder / f"single-{part}.jsonl"
        for number in range(count):
            word = ("low", "middle", "high")[number % 3]
            path = folder / f"{part}-{number}.wav"
            soundfile.write(path, say_tones([word], rng), 8000)
            add_line(manifest, audio_filepath=str(path), duration=soundfile.info(path).duration, text=word)
    path = folder / "two.wav"
    soundfile.write(path, say_tones(["low", "high"], np.random.default_rng(0)), 8000)
    add_line(
        folder / "single-train.jsonl", audio_filepath=str(path), duration=soundfile.info(path).duration, text="low high"
    )
    result = train(
        tone_configuration,
        settings(
            tone_configuration,
            data__train="single-train.jsonl",
            data__valid="single-valid.jsonl",
            encoder__output="final_state",
            trainer__max_epochs=8,
        ),
    )
    assert [(left.id, "a recording has one token" in left.reason) for left in result.left_out] == [("two", True)]
    assert result.valid_wer == 0.0
    recognizer = speechrnn.load(result.model)
    samples = say_tones(["middle"], np.random.default_rng(77))
    [word] = recognizer.transcribe(samples, sample_rate=8000).words
    assert (word.text, word.start, word.end) == ("middle", pytest.approx(0.1), pytest.approx(0.3))  # where it sounds
