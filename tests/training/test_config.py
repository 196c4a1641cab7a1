"""The configuration: the documented example parses, slips are refused in one line, overrides win."""

from pathlib import Path

import pytest

from speechrnn.errors import ConfigError
from speechrnn.training.config import Config
from speechrnn.training.config_file import config_from_dict, load_config


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_reach_their_dataclasses_and_overrides_take_precedence(tmp_path):
    path = write(
        tmp_path,
        """
        data: {train: train.jsonl, valid: valid.jsonl, test: {test: test.jsonl}, batch_seconds: 60}
        front_end: {sample_rate: 8000, kind: mfcc, num_coefficients: 20, deltas: 1}
        tokens: {kind: characters}
        encoder: {cell: gru, hidden_size: 128, num_layers: 2, bidirectional: true, dropout: 0.2}
        augment: {speed: [0.9, 1.0, 1.1], spec_augment: {time_masks: 2, frequency_masks: 2}}
        optimizer: {learning_rate: 3.0e-3, schedule: one_cycle}
        trainer: {max_epochs: 30, gradient_clip_val: 1.0, precision: 32-true}
        """,
    )
    config = load_config(path, ["--encoder.hidden_size", "256", "--trainer.max_epochs=3"])
    assert config.data.test == {"test": "test.jsonl"}
    assert config.front_end.sample_rate == 8000
    assert config.encoder.hidden_size == 256
    assert config.augment.speed == (0.9, 1.0, 1.1)
    assert config.augment.spec_augment.time_masks == 2
    assert config.optimizer.learning_rate == 3e-3
    assert config.trainer["max_epochs"] == 3
    assert config.trainer["gradient_clip_val"] == 1.0


def test_overrides_may_be_a_mapping():
    config = load_config(None, {"encoder.cell": "lstm", "augment.speed": [0.9, 1.1], "seed": 7})
    assert (config.encoder.cell, config.augment.speed, config.seed) == ("lstm", (0.9, 1.1), 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("encoder: {cel: gru}", "unknown setting encoder.cel; did you mean encoder.cell"),
        ("encoder: {hidden: 12}", "unknown setting encoder.hidden; did you mean encoder.hidden_size"),
        ("encodr: {cell: gru}", "unknown setting encodr"),
        ("augment: {spec_augment: {time_mask: 1}}", "unknown setting augment.spec_augment.time_mask"),
        ("trainer: {max_epoch: 3}", "unknown setting trainer.max_epoch; did you mean trainer.max_epochs"),
        (
            "trainer: {use_distributed_sampler: true}",
            "trainer.use_distributed_sampler cannot be set: every process gets",
        ),
        ("encoder: {cell: transformer}", "encoder.cell"),
        ("encoder: {dropout: 1.5}", "encoder.dropout: expected a number in [0, 1), got 1.5"),
        ("encoder: {hidden_size: many}", "encoder.hidden_size"),
        (
            "data: {batch_seconds: -1}",
            "data.batch_seconds: expected a number of seconds in (0, 1000000] or auto, got -1.0",
        ),
        ("augment: {speed: fast}", "augment.speed"),
        ("optimizer: {learning_rate: 0}", "optimizer.learning_rate: expected a number in (0, 1000000000], got 0"),
        ("front_end: {num_coefficients: 80}", "num_coefficients"),
        ("seed: -1", "seed: expected a whole number in [0, 4294967295], got -1"),
        ("trainer: {gradient_clip_val: -1.0}", "trainer.gradient_clip_val"),
        ("early_stopping_patience: 0", "early_stopping_patience"),
        ("checkpoints: {every_minutes: -1}", "checkpoints.every_minutes"),
        ("checkpoints: {best: 0}", "checkpoints.best"),
        ("checkpoints: {average: true}", "set checkpoints.best to 2 or more"),
        ("faults: {unreadable_share: 2}", "faults.unreadable_share"),
        ("faults: {nonfinite_in_a_row: 0}", "faults.nonfinite_in_a_row"),
        ("optimizer: {weight_noise: -1}", "optimizer.weight_noise"),
        ("ctc: {intermediate_weight: 1}", "ctc.intermediate_weight"),
        ("ctc: {intermediate_layers: [0]}", "ctc.intermediate_layers: expected whole numbers in [1, 64], got [0]"),
        ("{ctc: {intermediate_layers: [2]}, encoder: {num_layers: 2}}", "expected layers below the last of 2, got [2]"),
        ("encoder: {input_dropout: 1}", "encoder.input_dropout"),
        ("encoder: {recurrent_dropout: -0.1}", "encoder.recurrent_dropout"),
        ("augment: {warp: {vocal_tract: 2}}", "augment.warp.vocal_tract"),
        ("data: [1", "config.yaml"),
        ("just words", "config.yaml"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoder.cel", "gru"], "did you mean encoder.cell"),
        (["--encoder.hidden", "3"], "did you mean encoder.hidden_size"),
        (["--see", "3"], "unknown setting see"),
        (["--trainer.max_epoch", "3"], "did you mean trainer.max_epochs"),
        (["--trainer.max_epochs", "x"], "trainer.max_epochs: expected a whole number or null, got x"),
        (
            ["--encoder.cell", "cnn"],
            "expected one of tanh, elementwise, gru, lstm, mingru, minlstm, got cnn",
        ),
        (["stray"], "stray"),
        (["--seed"], "seed"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(arguments, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_a_configuration_survives_writing_and_reading(tmp_path):
    import json

    text = "{encoder: {cell: lstm}, augment: {speed: [0.9, 1.1]}, ctc: {intermediate_layers: [1]}, seed: 3}"
    config = load_config(write(tmp_path, text), ["--data.test", "{a: b.jsonl}", "--trainer.max_time", "00:01:00:00"])
    assert config_from_dict(json.loads(json.dumps(config.to_dict())), where="here") == config


def test_a_configuration_is_plain_data():
    import json

    assert json.loads(json.dumps(Config().to_dict()))["encoder"]["cell"] == "gru"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nencoder: {cell: gru}\nseed: 2\n", "config.yaml line 3: seed is given twice"),
        ("encoder:\n  cell: gru\n  cell: lstm\n", "config.yaml line 3: cell is given twice"),
        ("data: &a\n  test: *a\n", "config.yaml: nested too deeply or recursively"),
        ("[" * 10_000, "config.yaml: nested too deeply"),
        ("augment: {remains: {probability: 1}, word_fragments: {}}", "augment.word_fragments: given twice"),
        ("optimizer: {learning_rate: 1e400}", "optimizer.learning_rate: expected a number in (0, 1000000000], got inf"),
    ],
)
def test_a_malicious_file_is_refused_at_once(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(20)
def test_a_malicious_value_is_refused_at_once():
    levels = ", ".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))
    bomb = f"{{a0: &a0 x, {levels}}}"
    for value in (bomb, "{a: &a [*a]}", "[" * 10_000):
        with pytest.raises(ConfigError) as caught:
            load_config(None, ["--prepare", value])
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_an_empty_file_leaves_the_defaults(tmp_path):
    assert load_config(write(tmp_path, "# nothing\n"), {"seed": 3}) == load_config(None, {"seed": 3})


def test_a_named_size_and_a_hidden_size_together_are_refused(tmp_path):
    path = write(tmp_path, "encoder: {hidden_size: 96}")
    with pytest.raises(ConfigError, match=r"--encoder.size: .*config.yaml sets encoder.hidden_size to 96, which takes"):
        load_config(path, ["--encoder.size=large"])
    config = load_config(path, {"encoder.size": "large", "encoder.hidden_size": None})
    assert config.encoder.resolved_hidden_size == 800
    assert load_config(path, {"encoder.size": "tiny", "encoder.hidden_size": 64}).encoder.resolved_num_layers == 2


def test_setting_names_of_earlier_versions_are_read(tmp_path):
    old = {"augment": {"remains": {"probability": 0.5}}}
    for config in (
        load_config(write(tmp_path, str(old))),
        load_config(None, ["--augment.remains.probability", "0.5"]),
        load_config(None, ["--augment.remains.probability=0.5"]),
        load_config(None, {"augment.remains": {"probability": 0.5}}),
        config_from_dict(old, where="run.json"),
    ):
        assert config.augment.word_fragments.probability == 0.5
