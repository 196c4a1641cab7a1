"""Gradients of a run in its logs, pictures and warnings."""

import csv
import logging

import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from speechrnn.errors import SpeechRNNError
from speechrnn.training.train import train


@pytest.fixture
def tone_configuration(tmp_path):
    """30 utterances to train on, 6 to validate on."""
    return make_tone_configuration(tmp_path / "tones", train=30, valid=6)


def run(configuration, **changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    settings = {**TONE_SETTINGS, "output": str(configuration.parent / "run"), "trainer.max_epochs": 1, **dotted}
    return train(configuration, settings).output


def read_metrics(output):
    with (output / "logs" / "csv" / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_board(output):
    board = EventAccumulator(str(output / "logs" / "tensorboard"), {"images": 0, "histograms": 0})
    board.Reload()
    return board


def test_norms_of_each_layer_add_up_to_the_unclipped_norm(tone_configuration):
    output = run(
        tone_configuration, encoder__num_layers=2, trainer__gradient_clip_val=1e-3, trainer__log_every_n_steps=1
    )
    names = ["layer_1", "layer_2", "head"]
    rows = [row for row in read_metrics(output) if row["train/gradient_norm"]]
    assert rows
    for row in rows:
        squares = sum(float(row[f"gradients/norm/{name}"]) ** 2 for name in names)
        assert squares**0.5 == pytest.approx(float(row["train/gradient_norm"]), rel=1e-4)
        assert squares**0.5 > 1e-2
    histogram = read_board(output).Histograms("gradients/log10_norm/layer_2")[0].histogram_value
    assert histogram.num == len(rows)


def test_every_n_steps_the_curve_is_drawn_and_its_half_life_logged(tone_configuration):
    output = run(tone_configuration, gradients__every_steps=3, gradients__utterances=5, trainer__max_epochs=2)
    steps = [event.step for event in read_board(output).Images("gradients/through_time")]
    assert steps[:2] == [3, 6]
    for direction in ("forward", "backward"):
        rows = [row for row in read_metrics(output) if row.get(f"gradients/half_life_seconds/layer_1_{direction}")]
        assert [int(row["step"]) for row in rows] == steps
        assert all(float(row[f"gradients/half_life_seconds/layer_1_{direction}"]) > 0 for row in rows)


def test_each_measurement_logs_recurrent_weights_and_saturated_units(tone_configuration):
    from speechrnn.acoustic.gradient_flow import measure_recurrent_weights
    from speechrnn.model_folder import load_model

    output = run(tone_configuration, gradients__every_steps=2, encoder__cell="lstm")
    *_, row = [row for row in read_metrics(output) if row.get("gradients/reach_seconds/layer_1_forward")]
    weights = measure_recurrent_weights(load_model(output / "model").acoustic.encoder.stack)
    assert len(weights) == 8
    for each in weights:
        place = f"layer_1_{each.direction}/{each.gate.replace(' ', '_')}"
        assert float(row[f"recurrent/spectral_radius/{place}"]) == pytest.approx(each.spectral_radius, rel=1e-4)
        largest = float(each.singular_values[0])
        assert float(row[f"recurrent/largest_singular_value/{place}"]) == pytest.approx(largest, rel=1e-4)
        assert 0 <= float(row[f"recurrent/saturated_share/{place}"]) <= 1


def test_accumulated_batches_are_measured_once(tone_configuration):
    output = run(tone_configuration, gradients__every_steps=2, trainer__accumulate_grad_batches=3)
    steps = [event.step for event in read_board(output).Images("gradients/through_time")]
    assert steps
    assert len(set(steps)) == len(steps)


def test_measuring_does_not_change_training(tone_configuration):
    weights = []
    for every in (0, 2):
        output = run(
            tone_configuration,
            output=str(tone_configuration.parent / f"run{every}"),
            gradients__every_steps=every,
            encoder__dropout=0.3,
        )
        from safetensors.torch import load_file

        weights.append(load_file(output / "model" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not read_board(tone_configuration.parent / "run0").Tags()["images"]


def test_vanishing_gradients_are_logged_once(tone_configuration, caplog, monkeypatch):
    monkeypatch.setattr("speechrnn.acoustic.gradient_flow.NOTHING", 0.9)  # hardly anything counts as something
    with caplog.at_level(logging.INFO, logger="speechrnn"):
        run(tone_configuration, gradients__every_steps=2, encoder__cell="tanh", trainer__max_epochs=2)
    said = [message for message in caplog.messages if "gradients vanish; use encoder.cell lstm or gru" in message]
    assert {message.split(": ")[1].split(",")[0] for message in said} == {"layer 1"}
    assert len(said) <= 4  # once for each direction, and anew where it had changed in between


def test_exploding_gradients_without_clipping_are_reported(tone_configuration, caplog, monkeypatch):
    monkeypatch.setattr("speechrnn.training.gradient_watch._EXPLODED", 1e-3)
    with caplog.at_level(logging.WARNING, logger="speechrnn"):
        run(tone_configuration, trainer__gradient_clip_val=0.0)
    [said] = [message for message in caplog.messages if "gradients explode" in message]
    assert "nothing clips them" in said
    assert "set trainer.gradient_clip_val to 1.0" in said
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="speechrnn"):
        run(tone_configuration, output=str(tone_configuration.parent / "clipped"), trainer__gradient_clip_val=1.0)
    assert not [message for message in caplog.messages if "gradients explode" in message]


def test_without_matplotlib_there_are_numbers_and_no_pictures(tone_configuration, monkeypatch):
    monkeypatch.setattr("speechrnn.training.gradient_watch.has_matplotlib", lambda: False)
    output = run(tone_configuration, gradients__every_steps=3)
    assert not read_board(output).Tags()["images"]
    assert any(row.get("gradients/reach_seconds/layer_1_forward") for row in read_metrics(output))


def test_validation_data_that_cannot_be_measured_does_not_end_the_run(tone_configuration, caplog, monkeypatch):
    def refuse(*_, **__):
        raise SpeechRNNError("there is none")

    monkeypatch.setattr("speechrnn.training.gradient_watch.measure_lag_curves", refuse)
    with caplog.at_level(logging.INFO, logger="speechrnn"):
        run(tone_configuration, gradients__every_steps=3)
    assert "step 3: there is none" in caplog.messages
