"""Fine-tuning as a user does it: what is chosen, what comes out, what it is compared with, and how it goes on."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONE_SETTINGS
from safetensors.torch import load_file
from stopping import stopped_in_call

import speechrnn
from speechrnn import fine_tuning
from speechrnn.cli.main import main
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.evaluation.evaluate import Comparison
from speechrnn.fine_tuning import (
    describe_finetuning,
    finetune,
    mix_weights,
)
from speechrnn.model_folder import load_model
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import WordTokens
from speechrnn.training.config import Config, StartConfig
from speechrnn.training.config_file import load_config
from speechrnn.training.module import SpeechModule
from speechrnn.training.preflight import REPLAY, prepare_run
from speechrnn.training.start import choose_settings, describe_plan, take_settings
from speechrnn.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

GERMAN = {"low": "tief", "middle": "mittel", "high": "höher"}
QUICK = {"trainer.max_epochs": 2, "trainer.accelerator": "cpu", "data.num_workers": 0, "gradients.every_steps": 0}


@pytest.fixture(scope="module")
def letters(tone_run, tmp_path_factory) -> Path:
    """A model that spells the three tones' names; it was trained for a moment only."""
    output = tmp_path_factory.mktemp("letters") / "run"
    settings = {**TONE_SETTINGS, "tokens.kind": "characters", "trainer.max_epochs": 2, "output": str(output)}
    provenance = {"languages": ["en"], "corpora": [{"corpus": "Tones", "license": "CC0"}]}
    return train(tone_run.folder / "config.yaml", settings, provenance=provenance).model


@pytest.fixture
def german(tone_run, tmp_path) -> Path:
    """The same tones with other names: train.jsonl of 15 utterances, valid.jsonl of 15."""
    for name, source in (("train", "test"), ("valid", "valid")):
        lines = [json.loads(line) for line in (tone_run.folder / f"{source}.jsonl").read_text().splitlines()]
        for line in lines:
            line["audio_filepath"] = str(tone_run.folder / line["audio_filepath"])
            line["text"] = " ".join(GERMAN[word] for word in line["text"].lower().rstrip(".").split())
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def tune(letters, german, **arguments):
    """Fine-tune on the German tones for a moment, into ``run`` beside them."""
    arguments = {"valid": german / "valid.jsonl", "output": german / "run", "overrides": QUICK, **arguments}
    return finetune(letters, arguments.pop("train", german / "train.jsonl"), **arguments)


def read_report(output):
    return json.loads((output / "finetuning.json").read_text())


def test_a_model_learns_new_names_with_new_letters(letters, german, caplog):
    caplog.set_level("INFO")
    outcome = tune(
        letters, german, overrides={**QUICK, "trainer.max_epochs": 12, "optimizer.learning_rate": 0.02}
    )  # fmt: skip
    assert ": 12 epochs in batches of 4 s, learning rate 0.02; training all layers\n" in caplog.text
    assert "alphabet: extend (the model lacks " in caplog.text
    assert "new symbols: " in caplog.text
    base, tuned = load_model(letters), load_model(outcome.training.model)
    assert tuned.tokens.symbols[: len(base.tokens)] == base.tokens.symbols
    assert set(tuned.tokens.symbols) - set(base.tokens.symbols) == set("frtö")
    valid = outcome.sets["valid"]
    assert valid.cer < 0.5 * valid.cer_before
    assert valid.low < valid.wer - valid.wer_before < valid.high
    assert valid.method == "paired t over 3 speakers"  # so few that 36 points are no significant difference
    assert read_report(german / "run")["sets"]["valid"]["verdict"] == valid.verdict
    assert "| your validation set | 15 |" in (german / "run" / "finetuning.md").read_text()
    card = (outcome.training.model / "README.md").read_text()
    assert "Tones" in card  # what it was begun from was trained on something, too
    assert "train.jsonl" in card
    assert str(german) not in (outcome.training.model / "config.json").read_text()
    assert str(letters.parent) not in (outcome.training.model / "config.json").read_text()
    assert speechrnn.load(outcome.training.model, device="cpu").tokens.symbols == tuned.tokens.symbols


def test_an_interrupted_run_continues_and_a_finished_one_is_left_alone(letters, german, monkeypatch):
    overrides = {**QUICK, "checkpoints.every_minutes": 0}
    whole = tune(letters, german, output=german / "whole", overrides=overrides)
    with stopped_in_call(4):
        tune(letters, german, overrides=overrides)
    again = tune(letters, german, overrides=overrides)
    weights = [load_file(outcome.training.model / "model.safetensors") for outcome in (whole, again)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    monkeypatch.setattr(SpeechModule, "training_step", None)  # nothing is trained any more
    assert tune(letters, german, overrides=overrides).sets == again.sets
    with pytest.raises(ConfigError, match="already holds a trained model; pass another --output, or --overwrite"):
        tune(letters, german, train=german / "valid.jsonl", valid=german / "train.jsonl", overrides=overrides)


def test_frozen_layers_do_not_change_and_the_others_do(letters, german):
    before = load_file(letters / "model.safetensors")
    # Gradients of frozen layers are measured, too.
    outcome = tune(letters, german, overrides={**QUICK, "start.layers": 0, "gradients.every_steps": 4})
    after = load_file(outcome.training.model / "model.safetensors")
    for name, value in before.items():
        if not name.startswith("head."):
            assert torch.equal(after[name], value), name
    rows = before["head.projection.weight"].shape[0]
    assert not torch.equal(after["head.projection.weight"][:rows], before["head.projection.weight"])


def test_without_a_validation_set_a_tenth_is_held_out(letters, german, caplog):
    caplog.set_level("INFO")
    tune(letters, german, valid=None)
    assert "no validation set was given: 1 of 15 utterances are held out" in caplog.text
    ids = [
        {json.loads(line)["audio_filepath"] for line in (german / "run" / f"{name}.jsonl").read_text().splitlines()}
        for name in ("train", "valid")
    ]
    assert (len(ids[0]), len(ids[1])) == (14, 1)
    assert not ids[0] & ids[1]
    assert tune(letters, german, valid=None).training.model.is_dir()  # the same call, done
    before = (german / "run" / "train.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a trained model; pass another --output, or --overwrite"):
        tune(letters, german, train=german / "valid.jsonl", valid=None)
    assert (german / "run" / "train.jsonl").read_bytes() == before  # what that model learned from is still to be seen


def test_one_utterance_cannot_be_split(letters, german):
    manifest = german / "one.jsonl"
    manifest.write_text((german / "train.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(CorpusError, match="one utterance cannot be split; give a validation corpus with --valid"):
        tune(letters, german, train=manifest, valid=None)


def test_mapped_letters_are_also_mapped_in_references(letters, german, caplog):
    caplog.set_level("INFO")
    outcome = tune(letters, german, alphabet="map", replacements={"t": "d", "f": "w", "ö": "oe", "r": "l"})
    assert "map: ö becomes oe" in caplog.text
    tuned = load_model(outcome.training.model)
    assert tuned.tokens.symbols == load_model(letters).tokens.symbols
    assert tuned.text.replacements == {"t": "d", "f": "w", "ö": "oe", "r": "l"}
    assert outcome.training.left_out == []
    recognizer = speechrnn.load(outcome.training.model, device="cpu")
    from speechrnn.evaluation.evaluate import evaluate

    evaluation = evaluate(recognizer, german / "valid.jsonl")
    word = {"tief": 4, "mittel": 6, "höher": 6}  # "hoehel": letters of the references as the model writes them
    characters = sum(each.character_counts.length for each in evaluation.utterances)
    texts = [json.loads(line)["text"].split() for line in (german / "valid.jsonl").read_text().splitlines()]
    assert characters == sum(sum(word[w] for w in text) + len(text) - 1 for text in texts)


@pytest.mark.parametrize(("alphabet", "replacements"), [("map", {}), ("extend", {"ö": "oe"}), (None, {"ö": "oe"})])
def test_a_letter_map_and_its_mode_require_each_other(letters, german, alphabet, replacements):
    with pytest.raises(ConfigError, match="--alphabet map and --map need each other"):
        tune(letters, german, alphabet=alphabet, replacements=replacements)


def test_replay_data_is_mixed_in_by_share_of_time(letters, german, tone_run):
    settings = {
        **TONE_SETTINGS, "tokens.kind": "characters", "start.model": str(letters), "start.alphabet": "extend",
        "start.replay": str(tone_run.folder / "train.jsonl"), "start.replay_share": 0.4,
        "data.train": str(german / "train.jsonl"), "data.valid": str(german / "valid.jsonl"),
    }  # fmt: skip
    preflight = prepare_run(load_config(None, settings), folders=[])
    seconds = {True: 0.0, False: 0.0}
    for utterance in preflight.train:
        seconds[utterance.corpus == REPLAY] += utterance.seconds
    drawn = preflight.weights[REPLAY] * seconds[True]
    assert drawn / (drawn + seconds[False]) == pytest.approx(0.4)
    assert len(preflight.train) == 15 + 60
    assert len({utterance.id for utterance in preflight.train}) == 75


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({0.25: (0.30, 0.20), 0.5: (0.29, 0.15), 0.75: (0.31, 0.05)}, 0.5),  # the last one is worse on one set
        ({0.25: (0.29, 0.31), 0.5: (0.31, 0.20), 0.75: (0.50, 0.10)}, 0.0),  # each is worse on one
        ({0.25: (0.30, 0.25), 0.5: (0.30, 0.30), 0.75: (0.30, 0.30)}, 0.25),
        ({0.25: (0.30, 0.30), 0.5: (0.30, 0.30), 0.75: (0.30, 0.30)}, 0.0),  # nothing is gained
    ],
)
def test_a_mean_of_old_and_new_weights_must_be_better_on_both_sets(monkeypatch, rates, expected):
    """After training alone both sets have 30 %."""

    def evaluations(*wers):
        return {
            name: SimpleNamespace(score=SimpleNamespace(wer=wer, cer=wer))
            for name, wer in zip(("valid", "old"), wers, strict=True)
        }

    monkeypatch.setattr(fine_tuning, "mix_weights", lambda tuned, old, share: share)
    monkeypatch.setattr(fine_tuning, "_evaluate_all", lambda share, corpora: evaluations(*rates[share]))
    after = evaluations(0.30, 0.30)
    share, found = fine_tuning._try_means(None, None, {"valid": None, "old": None}, after)
    assert share == expected
    wers = tuple(each.score.wer for each in found.values())
    assert wers == (rates[share] if share else (0.30, 0.30))


def test_forgetting_is_reported(letters, german, tone_run):
    outcome = tune(
        letters, german, replay=tone_run.folder / "train.jsonl", old_valid=tone_run.folder / "valid.jsonl"
    )  # fmt: skip
    assert set(outcome.sets) == {"valid", "old"}
    assert outcome.sets["old"].utterances == 15
    report = describe_finetuning(outcome)
    assert "These sets chose the checkpoint or the weights, so the rates after fine-tuning" in report
    assert "| the old model's validation set | 15 |" in report
    tuned = load_model(outcome.training.model)
    assert tuned.provenance["training"].get("old_weights", 0.0) == outcome.old_share


def test_weights_are_averaged_by_symbol_if_symbols_differ(make_tiny_model):
    from speechrnn.text.tokens import CharacterTokens

    old = make_tiny_model(seed=1, tokens=CharacterTokens(["<blank>", "a", "b"]))
    new = make_tiny_model(seed=2, tokens=CharacterTokens(["<blank>", "b", "ä"]))
    mean = mix_weights(new, old, 0.25).acoustic.state_dict()
    first, second = old.acoustic.state_dict(), new.acoustic.state_dict()
    name = "encoder.stack.layers.0.directions.0.weight_hh_l0"
    torch.testing.assert_close(mean[name], 0.25 * first[name] + 0.75 * second[name])
    head = "head.projection.weight"
    torch.testing.assert_close(mean[head][0], 0.25 * first[head][0] + 0.75 * second[head][0])
    torch.testing.assert_close(mean[head][1], 0.25 * first[head][2] + 0.75 * second[head][1])  # b
    torch.testing.assert_close(mean[head][2], second[head][2])  # ä is new
    assert torch.equal(new.acoustic.state_dict()[name], second[name])  # and neither model has changed


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.2, -0.1, "better"), (0.1, 0.2, "worse"), (-0.1, 0.1, "no significant difference")],
)
def test_the_verdict_follows_the_interval(low, high, verdict):
    assert Comparison(1, 1, 0.5, 0.4, 0.3, 0.2, low, high, "").verdict == verdict


def test_more_speech_takes_fewer_epochs(letters, german):
    base, entries = load_model(letters), read_corpus(german / "train.jsonl")
    short = choose_settings(base, entries, text=TextConfig(), alphabet=None)
    assert (short["trainer.max_epochs"], short["checkpoints.best"]) == (200, 30)
    assert short["start.head_epochs"] > 0
    long = choose_settings(
        base, [replace(entry, seconds=1000.0) for entry in entries], text=TextConfig(), alphabet=None
    )
    assert (long["trainer.max_epochs"], long["checkpoints.best"]) == (10, 3)
    assert long["data.batch_seconds"] > short["data.batch_seconds"]
    # Fewer are asked for: the output layer has none for itself, and a mean is of the last few.
    asked = choose_settings(base, entries, text=TextConfig(), alphabet=None, epochs=12)
    assert (asked["trainer.max_epochs"], asked["checkpoints.best"], asked["start.head_epochs"]) == (12, 3, 0)
    for impossible in (-1, "many"):
        found = choose_settings(base, entries, text=TextConfig(), alphabet=None, epochs=impossible)
        assert found["trainer.max_epochs"] == 200
    known = replace(base, text=TextConfig(replacements={"t": "d", "f": "w", "ö": "oe", "r": "l"}))
    settings = choose_settings(known, entries, text=known.text, alphabet=None)
    assert settings["start.head_epochs"] == 0
    # Another language moves fast and everywhere alike, a known one slowly and its lower layers slower.
    assert settings["optimizer.learning_rate"] < short["optimizer.learning_rate"]
    assert settings["start.layer_decay"] < short["start.layer_decay"] == 1.0


@pytest.mark.parametrize(("asked", "epochs", "best"), [({}, 200, 30), ({"trainer.max_epochs": 7}, 7, 3)])
def test_epochs_are_as_requested_or_chosen_by_the_amount_of_speech(letters, german, monkeypatch, asked, epochs, best):
    configurations = []
    monkeypatch.setattr("speechrnn.fine_tuning.train", lambda config, **_: configurations.append(config))
    with pytest.raises(AttributeError):  # nothing was trained
        tune(letters, german, overrides={"trainer.accelerator": "cpu", **asked})
    [config] = configurations
    assert (config.trainer["max_epochs"], config.checkpoints.best) == (epochs, best)


def test_fine_tuning_does_not_copy_the_old_model_folder(letters):
    """Consistency doubles the time of a step; the rest of how the model was trained stays."""
    base = load_model(letters)
    earlier = {"ctc": {"consistency": 0.3, "intermediate_layers": [1]}}
    base = replace(base, provenance={**base.provenance, "configuration": earlier})
    settings = take_settings(base, letters, {})["ctc"]
    assert (settings["consistency"], settings["intermediate_layers"]) == (0.0, [1])


def test_settings_of_an_earlier_version_in_a_model_are_read(letters):
    base = load_model(letters)
    earlier = {"augment": {"remains": {"probability": 0.5}}}
    base = replace(base, provenance={**base.provenance, "configuration": earlier})
    assert take_settings(base, letters, {})["augment"] == {"word_fragments": {"probability": 0.5}}


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (StartConfig(), "learning rate 0.001; training all layers"),
        (StartConfig(head_epochs=1), "training all layers, the output layer alone in the first epoch"),
        (StartConfig(layers=0, head_epochs=3), "; training only the output layer"),
        (
            StartConfig(layers=2, head_epochs=3),
            "training the output layer and 2 layers below it, the output layer alone in the first",
        ),
        (StartConfig(unfreeze_every=4), "training all layers, one more layer every 4 epochs"),
        (
            StartConfig(layer_decay=0.9),
            "all layers, learning rate times 0.9 from each layer to the one below it",
        ),
        (StartConfig(replay="old", replay_share=0.75), "training all layers, 75 % of the training data is replayed"),
    ],
)
def test_the_plan_is_that_of_the_final_configuration(start, said):
    assert said in describe_plan(Config(start=start, trainer={"max_epochs": 7}))


def test_the_command_prints_the_table(letters, german, capsys):
    quick = [part for name, value in QUICK.items() for part in (f"--{name}", str(value))]
    command = ["finetune", "-m", str(letters), "--train", str(german / "train.jsonl"), "--output", str(german / "run")]
    assert main([*command, "--valid", str(german / "valid.jsonl"), "--freeze", "encoder", *quick]) == 0
    assert "| your validation set | 15 |" in capsys.readouterr().out
    configuration = json.loads((german / "run" / "run.json").read_text())["configuration"]
    assert configuration["start"]["layers"] == 0


def test_a_model_of_letters_becomes_one_of_words(letters, german, caplog):
    caplog.set_level("INFO")
    settings = {**QUICK, "tokens.kind": "words", "trainer.max_epochs": 8, "optimizer.learning_rate": 0.02}
    outcome = tune(letters, german, overrides=settings)
    assert "alphabet: replace (the model has characters, asked for: words; a new output layer" in caplog.text
    assert load_model(outcome.training.model).tokens.symbols == ["<blank>", "höher", "mittel", "tief"]
    assert outcome.sets["valid"].wer < outcome.sets["valid"].wer_before
    choice = json.loads((german / "run" / "run.json").read_text())["configuration"]["start"]
    assert choice["head_epochs"] > 0  # the new output layer is warmed up
    with pytest.raises(ConfigError, match="tokens.kind: words, but start.model has characters"):
        tune(letters, german, overrides=settings, output=german / "kept", alphabet="keep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--freeze", "1"], "--freeze 1: expected encoder, or 0 to 0 of the model's 1 layers"),
        (["--freeze", "all"], "--freeze all: expected encoder"),
        (["--map", "äae"], "--map äae: expected a letter, = and its replacement, as in ä=ae"),
        (["--alphabet", "map"], "--alphabet map and --map need each other"),
        (["--alphabet", "add"], "invalid choice: 'add'"),
        (["--encoder.hidden_size", "99"], "encoder.hidden_size: 99, but start.model"),
        (["--start.layer_decay", "2"], "start.layer_decay: expected a number in (0, 1], got 2.0"),
        (["--replay", "gone.jsonl"], "gone.jsonl: no such file or folder"),
        (["--old-valid", "gone.jsonl"], "gone.jsonl"),
        (["--valid", "gone.jsonl"], "gone.jsonl"),
        (["-m", "gone"], "gone: there is no such model folder"),
        (
            ["-m", "one", "-m", "two"],
            "-m one -m two: this command takes one model; transcribe and evaluate take several",
        ),
    ],
)
def test_an_error_is_one_line(letters, german, capsys, arguments, message):
    model = [] if "-m" in arguments else ["-m", str(letters)]
    command = ["finetune", *model, "--train", str(german / "train.jsonl"), "--output", str(german / "run")]
    assert main([*command, "--valid", str(german / "valid.jsonl"), *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert error.startswith("speechrnn: error: ")
    assert not (german / "run" / "model").exists()


def test_recordings_of_another_rate_are_resampled(letters, german):
    lines = [json.loads(line) for line in (german / "train.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        samples, rate = soundfile.read(line["audio_filepath"])
        line["audio_filepath"] = f"{number}.flac"
        soundfile.write(german / line["audio_filepath"], np.repeat(samples, 2), 2 * rate)
    (german / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = tune(letters, german)
    assert outcome.training.left_out == []
    assert load_model(outcome.training.model).acoustic.sample_rate == 8000


def test_a_text_too_long_for_its_recording_is_left_out_and_named(letters, german, capsys):
    lines = (german / "train.jsonl").read_text().splitlines()
    wrong = {**json.loads(lines[0]), "text": "tief " * 100, "id": "long"}
    (german / "train.jsonl").write_text("\n".join([json.dumps(wrong), *lines[1:]]) + "\n")
    quick = [part for name, value in QUICK.items() for part in (f"--{name}", str(value))]
    command = ["finetune", "-m", str(letters), "--train", str(german / "train.jsonl"), "--output", str(german / "run")]
    assert main([*command, "--valid", str(german / "valid.jsonl"), *quick]) == 1
    assert "left out of training: long: " in capsys.readouterr().err
    assert "long" in (german / "run" / "left_out.jsonl").read_text()


def test_each_corpus_is_read_once_and_each_model_loaded_once(letters, german, monkeypatch):
    read, loaded = [], []
    for module in ("speechrnn.fine_tuning", "speechrnn.training.preflight", "speechrnn.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.read_corpus", lambda path, *a, **k: read.append(Path(path)) or read_corpus(path))
    for module in ("speechrnn.fine_tuning", "speechrnn.training.preflight", "speechrnn.model_folder.format"):
        monkeypatch.setattr(f"{module}.load_model", lambda path: loaded.append(Path(path)) or load_model(path))
    outcome = tune(letters, german, replay=german / "train.jsonl", old_valid=german / "valid.jsonl", alphabet="extend")
    names = [path.name for path in read]
    assert sorted(names) == ["train.jsonl", "train.jsonl", "valid.jsonl", "valid.jsonl"]  # one for each argument
    assert loaded.count(letters.resolve()) == 1
    assert loaded.count(outcome.training.model) <= 2  # to score it, and to add the results to its card


def test_fine_tuning_enters_few_of_our_files(letters, german):
    package, files = Path(speechrnn.__file__).parent, set()

    def profile(frame, event, argument):
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(profile)
    try:
        tune(letters, german, overrides={**QUICK, "trainer.max_epochs": 1})
    finally:
        sys.setprofile(None)
    ours = sorted(name for name in files if Path(name).is_relative_to(package))
    assert len(ours) <= 65, "\n".join(ours)


def test_a_model_of_words_is_not_given_the_rare_words_of_sentences(caplog):
    base = SimpleNamespace(tokens=WordTokens(["<blank>", "yes", "no"]), text=TextConfig())
    sentences = [Utterance(str(n), Path("a.wav"), f"word{n} again word{n + 40} here", seconds=3.0) for n in range(23)]
    with pytest.raises(ConfigError, match=r"lacks 48 words of these texts, 46 of which .* --tokens.kind characters"):
        choose_settings(base, sentences, text=TextConfig(), alphabet=None)
    choose_settings(base, sentences, text=TextConfig(), alphabet=None, kind="characters")
    assert choose_settings(base, sentences, text=TextConfig(), alphabet="replace")["start.alphabet"] == "replace"
    commands = [Utterance(str(n), Path("a.wav"), "stop" if n % 2 else "go", seconds=1.0) for n in range(8)]
    assert choose_settings(base, commands, text=TextConfig(), alphabet=None)["start.alphabet"] == "replace"
