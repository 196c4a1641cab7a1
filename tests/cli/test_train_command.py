"""``speechrnn train``: what is printed and returned, what is left out, and one line for every slip."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONE_SETTINGS, make_tone_configuration

import speechrnn
from speechrnn.cli.main import main

SETTINGS = [part for name, value in TONE_SETTINGS.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """A folder with a corpus that no test changes."""
    folder = tmp_path_factory.mktemp("train-command")
    make_tone_configuration(folder)
    return folder


@pytest.fixture
def configuration(tones, tmp_path) -> Path:
    """A configuration with manifests of its own beside it; their recordings are shared."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("train", "valid"):
        lines = read_lines(tones / f"{name}.jsonl")
        write_lines(
            folder / f"{name}.jsonl",
            [{**line, "audio_filepath": str(tones / str(line["audio_filepath"]))} for line in lines],
        )
    return Path(shutil.copy(tones / "config.yaml", folder))


@pytest.fixture
def output(configuration) -> Path:
    return configuration.parent / "run"


@pytest.fixture
def train(configuration, output):
    """Trains for one epoch."""

    def run(*arguments: object) -> int:
        common = [*SETTINGS, "--trainer.max_epochs", "1", "--output", str(output)]
        return main(["train", "--config", str(configuration), *common, *map(str, arguments)])

    return run


def read_lines(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def write_lines(manifest: Path, lines: list[dict]) -> None:
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def short_utterance(configuration) -> Path:
    """Adds an utterance to the training set that CTC cannot align."""
    manifest = configuration.parent / "train.jsonl"
    soundfile.write(manifest.parent / "short.wav", np.random.default_rng(0).normal(0, 0.1, 900), 8000)
    with manifest.open("a") as file:
        file.write(json.dumps({"audio_filepath": "short.wav", "duration": 0.1125, "text": "low " * 6}) + "\n")
    return manifest


def error_of(capsys) -> str:
    """What the error says: the last line of standard error, and the only one of its kind."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("speechrnn: error: ") == 1
    assert "Traceback" not in captured.err
    last = captured.err.splitlines()[-1]
    assert last.startswith("speechrnn: error: ")
    return last.removeprefix("speechrnn: error: ")


def test_standard_output_is_only_the_folder_of_the_model(capsys, train, output):
    assert train() == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output / 'model'}\n"
    assert all(line.startswith("speechrnn: ") for line in captured.err.splitlines())
    assert re.search(r"^speechrnn: epoch 1: loss \d.*, WER \d.* h of audio/h$", captured.err, re.MULTILINE)
    assert "7,780 parameters, 60 training utterances" in captured.err
    assert speechrnn.load(output / "model").num_parameters == 7780


def test_settings_on_the_command_line_take_precedence_over_the_file(train, configuration, output):
    with configuration.open("a") as file:
        file.write("seed: 3\nencoder: {cell: lstm}\n")
    assert train("--encoder.hidden_size=12", "--augment.speed", "[0.9, 1.0]", "--seed", "4") == 0
    made = json.loads((output / "model" / "config.json").read_text())
    assert (made["encoder"]["cell"], made["encoder"]["hidden_size"]) == ("lstm", 12)
    assert made["provenance"]["configuration"]["augment"]["speed"] == [0.9, 1.0]
    assert made["provenance"]["training"]["seed"] == 4


def test_the_default_output_is_runs_and_the_folder_name_of_the_configuration(
    capsys, configuration, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["train", "--config", str(configuration), *SETTINGS, "--trainer.max_epochs", "1"]) == 0
    assert capsys.readouterr().out == f"{Path('runs/own/model')}\n"
    assert (tmp_path / "here" / "runs" / "own" / "model" / "config.json").is_file()


def test_utterances_that_cannot_be_aligned_are_listed_with_exit_code_1(capsys, train, output, short_utterance):
    assert train() == 1
    captured = capsys.readouterr()
    assert captured.out == f"{output / 'model'}\n"
    warnings = [line for line in captured.err.splitlines() if line.startswith("speechrnn: warning: ")]
    assert warnings[0].startswith(
        "speechrnn: warning: left out of training: short: 6 tokens with 5 repeats need at least 11 encoder frames, "
    )
    assert warnings[1] == "speechrnn: warning: 1 of 61 utterances are left out of training"
    assert [json.loads(line)["id"] for line in (output / "left_out.jsonl").read_text().splitlines()] == ["short"]


def test_a_trained_model_is_replaced_only_on_request(capsys, train, output):
    (output / "model").mkdir(parents=True)
    assert train() == 2
    assert error_of(capsys) == (f"{output}: already holds a trained model; pass another --output, or --overwrite")
    assert train("--overwrite") == 0
    assert (output / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder.hiden_size", "12"], "unknown setting encoder.hiden_size; did you mean encoder.hidden_size"),
        (["--encoder.cel", "gru"], "unknown setting encoder.cel; did you mean encoder.cell"),
        (["--cell", "gru"], "unknown setting cell"),
        (["--over"], "unknown setting over"),
        (["--encoder.hidden_size", "many"], "encoder.hidden_size"),
        (["--encoder.hidden_size", "0"], "encoder.hidden_size: expected a whole number in [1, 16384] or null, got 0"),
        (["--encoder.dropout", "1.5"], "encoder.dropout: expected a number in [0, 1), got 1.5"),
        (["--encoder.lookahead_frames", "3"], "encoder.lookahead_frames: a bidirectional encoder"),
        (["--optimizer.learning_rate", "-1"], "optimizer.learning_rate: expected a number in (0, 1000000000], got -1"),
        (["--data.batch_seconds", "nan"], "data.batch_seconds"),
        (["--augment.speed", "[9]"], "augment.speed: expected numbers in [0.25, 4], got [9.0]"),
        (["--tokens.kind", "sentencepiece"], "tokens.vocabulary_size 500: these texts support at most"),
        (["--trainer.max_epochs", "-1"], "optimizer.schedule: one_cycle needs an end"),
        (["--encoder.hidden_size", "16384", "--encoder.num_layers", "64"], "encoder: this model would have "),
        (["--data.num_workers", "1024"], "data.num_workers: expected at most "),
        (["--data.train", "gone.jsonl"], "data.train: no gone.jsonl in "),
        (["--data.valid", "null"], "data.valid: expected a manifest"),
        (["--seed", "-1"], "seed: expected a whole number in [0, 4294967295], got -1"),
        (["--seed", "4294967296"], "seed: expected a whole number in [0, 4294967295], got 4294967296"),
        (["--seed"], "seed"),
        (["stray"], "stray"),
        (["--data.test", "{valid: x.jsonl}"], "data.test: the results call the validation set valid"),
        (["--trainer.accelerator", "banana"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.precision", "transformer-engine"], "trainer: "),
        (["--trainer.max_epochs", "-5"], "trainer: `max_epochs` must be a non-negative integer"),
        (["--trainer.max_time", "soon"], "trainer: `Timer(duration='soon')` is not a valid duration"),
        (["--trainer.gradient_clip_algorithm", "scissors"], "trainer.gradient_clip_algorithm: expected norm or value"),
        (["--trainer.devices", "0"], "trainer: "),
        (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches: expected 1 or more, got 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch: expected 1 or more, got 0"),
        (["--trainer.max_epochs", "0"], "trainer: training ended before its first validation"),
        (["--trainer.check_val_every_n_epoch", "5"], "trainer: training ended before its first validation"),
        (["--trainer.limit_val_batches", "0"], "trainer: training ended before its first validation"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys, train, output, arguments, message):
    assert train(*arguments) == 2
    assert message in error_of(capsys)
    assert not (output / "model").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: {cel: gru}", "unknown setting encoder.cel; did you mean encoder.cell"),
        ("encoder: {cell: transformer}", "encoder.cell"),
        ("data: [1", "config.yaml line 1: cannot be read as YAML"),
        ("just words", "config.yaml: expected settings, as in encoder: {cell: gru}"),
        ("", "data.train: expected a manifest"),
        ("encoder: 3", "config.yaml: encoder: expected settings, as in encoder: {…}, got 3"),
        (b"\xff\xfe\x00", "config.yaml line 1: not UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_wrong_configuration_is_one_line(capsys, tmp_path, text, message):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["train", "--config", str(path), "--output", str(tmp_path / "run")]) == 2
    assert message in error_of(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_one_line(capsys, train):
    assert train("--trainer.accelerator", "gpu") == 2
    assert "trainer: No supported gpu backend found" in error_of(capsys)


def test_an_output_folder_that_cannot_be_made_is_one_line(capsys, train, configuration):
    for output in (configuration, configuration / "inside"):
        assert train("--output", output) == 2
        assert error_of(capsys).startswith(f"output {output}: cannot make this folder (")


def test_an_interruption_ends_in_one_line_and_exit_code_130(capsys, train, output, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("speechrnn.training.module.SpeechModule.training_step", interrupt)
    assert train() == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "speechrnn: interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert not (output / "model").exists()


def test_an_epoch_without_validation_reports_none(capsys, train):
    assert train("--trainer.max_epochs", 2, "--trainer.check_val_every_n_epoch", 2) == 0
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speechrnn: epoch ")]
    assert re.fullmatch(r"speechrnn: epoch 1: loss \d+\.\d+, gradient norm [^v]* [\d,]{1,7} h of audio/h", first)
    assert "validation loss" in second


def test_time_spent_waiting_for_audio_is_reported(capsys, train, monkeypatch):
    from speechrnn.training.data import UtteranceDataset

    def waiting():
        assert train("--trainer.max_epochs", 1, "--overwrite") == 0
        return int(re.search(r"(\d+) % of the time waiting for audio", capsys.readouterr().err)[1])

    read, usual = UtteranceDataset._read, waiting()

    def dawdle(self, utterance, seed):
        time.sleep(0.03)  # 60 utterances: two seconds
        return read(self, utterance, seed)

    monkeypatch.setattr(UtteranceDataset, "_read", dawdle)
    assert waiting() > usual + 10  # on a busy machine the steps take longer, too


def test_a_validation_utterance_shorter_than_a_frame_is_named(capsys, train, configuration):
    manifest = configuration.parent / "valid.jsonl"
    lines = read_lines(manifest)
    soundfile.write(manifest.parent / "click.wav", np.full(50, 0.1), 8000)
    write_lines(manifest, [*lines, {"audio_filepath": "click.wav", "duration": 50 / 8000, "text": "low"}])
    assert train() == 0
    assert "speechrnn: warning: left out of validation: click: shorter than one frame" in capsys.readouterr().err


def test_a_missing_configuration_and_a_folder_in_its_place_are_one_line(capsys, tmp_path):
    assert main(["train"]) == 2
    assert error_of(capsys) == "expected one of --config FILE, --resume DIR and --rerun-step DIR, got none of them"
    assert main(["train", "gone.yaml", "--seed", "1"]) == 2
    assert error_of(capsys).endswith("got gone.yaml; did you mean --config gone.yaml?")
    assert main(["train", "--config", str(tmp_path)]) == 2
    assert "is a folder; expected a YAML file" in error_of(capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{low", "train.jsonl line 2: cannot be read as JSON"),
        ('{"audio_filepath": "gone.wav", "duration": 1, "text": "low", "id": "u"}', "utterance u: "),
        (
            '{"audio_filepath": "short.wav", "duration": 99, "text": "low", "id": "u"}',
            "listed to end at 99.00 s",
        ),
    ],
)
def test_a_fault_in_a_corpus_is_one_line(capsys, train, configuration, short_utterance, line, message):
    lines = short_utterance.read_text().splitlines()
    lines[1] = line
    short_utterance.write_text("\n".join(lines) + "\n")
    assert train() == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low " * 99, "train.jsonl: none of 60 utterances can be trained on; the first, train-0: 99 tokens with 98"),
        ("", "all transcripts are empty"),
    ],
)
def test_a_corpus_without_learnable_text_is_one_line(capsys, train, configuration, text, message):
    manifest = configuration.parent / "train.jsonl"
    write_lines(manifest, [{**line, "text": text} for line in read_lines(manifest)])
    assert train() == 2
    assert message in error_of(capsys)


def test_a_validation_text_that_the_model_cannot_write_is_named_and_scored(capsys, train, configuration):
    manifest = configuration.parent / "valid.jsonl"
    lines = read_lines(manifest)
    lines[0]["text"] = "Seven."
    write_lines(manifest, lines)
    assert train() == 0
    assert (
        "speechrnn: warning: counts in the WER, not in the loss: valid-0: "
        "transcript 'seven': the model has no token for 'seven'"
    ) in capsys.readouterr().err


def test_a_recording_damaged_inside_stops_the_run_in_one_line(capsys, train, configuration):
    manifest = configuration.parent / "train.jsonl"
    lines = read_lines(manifest)
    wave, _ = soundfile.read(lines[3]["audio_filepath"])
    flac = manifest.parent / "broken.flac"
    soundfile.write(flac, wave, 8000)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    lines[3]["audio_filepath"] = "broken.flac"
    write_lines(manifest, lines)
    assert train() == 2
    assert "broken.flac: damaged or cut off" in error_of(capsys)


def test_a_loss_that_explodes_stops_the_run_in_one_line(capsys, train):
    assert train("--optimizer.learning_rate", "1e9", "--trainer.gradient_clip_val", "0") == 2
    assert " in 5 steps in a row, the last with " in error_of(capsys)


def test_help_explains_settings_and_shows_an_example(capsys):
    assert main(["train", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "[--KEY VALUE …]" in out
    assert "--KEY VALUE overrides the file, as in --encoder.hidden_size 256" in out
    assert "begin with --trainer." in out
    assert "example: speechrnn train --config recipes/fsdd/config.yaml --encoder.hidden_size 256" in out


def test_print_config_shows_every_setting_and_trains_nothing(capsys, configuration, output):
    import yaml

    with pytest.raises(SystemExit) as done:
        main(["train", "--config", str(configuration), "--encoder.cell", "lstm", "--print_config"])
    assert not done.value.code
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["encoder"]["cell"], shown["data"]["train"]) == ("lstm", "train.jsonl")
    assert shown["trainer"]["max_epochs"] == 30
    assert not output.exists()


def test_manifests_are_found_from_anywhere_by_their_full_path(capsys, train, configuration, output, tmp_path):
    moved = shutil.move(configuration, tmp_path / "config.yaml")
    common = ["train", "--config", str(moved), *SETTINGS, "--trainer.max_epochs", "1", "--output", str(output / "x")]
    assert main(common) == 2
    assert f"data.train: no train.jsonl in {output / 'x'}, {tmp_path}, .;" in error_of(capsys)
    assert main([*common, *(f"--data.{name}={configuration.parent / name}.jsonl" for name in ("train", "valid"))]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "nowhere"], "nowhere: holds no run (no run.json); start one with --config"),
        (["--resume", "x", "--seed", "3"], "--resume: uses the settings of the run; remove --seed"),
        (["--resume", "x", "--overwrite"], "--resume: uses the settings of the run; remove --overwrite"),
        (["--resume", "x", "--config", "y"], "expected one of --config FILE, --resume DIR and --rerun-step DIR, got"),
        (["--rerun-step", "nowhere"], "--rerun-step nowhere: no saved step there; pass a folder of a run's faults/"),
    ],
)
def test_an_error_in_resuming_is_one_line(capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert words in error_of(capsys)


def test_rerunning_a_skipped_step_prints_a_table(capsys, train, output):
    assert train("--optimizer.learning_rate", "1e9", "--trainer.gradient_clip_val", "0") == 2
    faults = sorted((output / "faults").iterdir())
    assert len(faults) >= 5
    capsys.readouterr()
    assert main(["train", "--rerun-step", str(faults[0])]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| utterance | seconds | tokens | loss, nats | gradient norm | largest sample |"
    assert "nan" in lines[2]


def test_an_empty_configuration_takes_all_settings_from_the_command_line(configuration, output):
    empty = configuration.with_name("empty.yaml")
    empty.write_text("# nothing here\n")
    data = [part for name in ("train", "valid") for part in (f"--data.{name}", f"{configuration.parent}/{name}.jsonl")]
    settings = [*SETTINGS, *data, "--trainer.max_epochs", "1", "--output", str(output)]
    assert main(["train", "--config", str(empty), *settings]) == 0
    assert (output / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--encoder.size", "tiny"],
            "sets encoder.hidden_size to 8, which takes precedence; add --encoder.hidden_size null",
        ),
        (
            ["--encoder.size=tiny", "--encoder.hidden_size", "null"],
            "sets encoder.num_layers to 1, which takes precedence",
        ),
        (["--optimizer.learning_rate", "1e400"], "optimizer.learning_rate: expected a number in (0, "),
    ],
)
def test_an_impossible_setting_is_one_line(capsys, configuration, arguments, message):
    configuration.write_text("encoder: {hidden_size: 8, num_layers: 1}\n")
    assert main(["train", "--config", str(configuration), *arguments]) == 2
    assert message in error_of(capsys)


def test_the_earlier_name_of_rerun_step_is_accepted(capsys):
    for option in ("--rerun-step", "--replay"):
        assert main(["train", option, "nowhere"]) == 2
        assert "nowhere: no saved step there" in error_of(capsys)
