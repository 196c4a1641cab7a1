"""data.batch_seconds auto: the largest budget that fits, on a simulated device, and the run that keeps it."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration

from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.training.batch_search import find_largest, search_batch_seconds
from speechrnn.training.config_file import load_config
from speechrnn.training.data import SpeechData
from speechrnn.training.losses import UtteranceLosses
from speechrnn.training.run import is_resumable
from speechrnn.training.train import train

AUTO = {
    **TONE_SETTINGS,
    "data.batch_seconds": "auto",
    "augment.speed": [0.8, 1.0],
    "encoder.dropout": 0.1,
    "trainer.max_epochs": 1,
}


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    return make_tone_configuration(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def data(configuration):
    prepared = SpeechData(load_config(configuration, AUTO), [configuration.parent])
    prepared.setup()
    return prepared


def search(data, *, most=1000.0):
    return search_batch_seconds(data.config, data.preflight, data.train_set, device=torch.device("cpu"), most=most)


def limit_memory(monkeypatch, count):
    """A device on which a batch of more than ``count`` utterances runs out of memory, half of the times late."""
    compute, seen = UtteranceLosses.__call__, []

    def compute_within(self, batch):
        seen.append((len(batch.ids), batch.waveforms.shape[1], batch.targets.shape[1]))
        if len(batch.ids) > count:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB\nmore")
        return compute(self, batch)

    monkeypatch.setattr(UtteranceLosses, "__call__", compute_within)
    return seen


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 31, 32, 33, 1000, 5000])
def test_the_largest_number_that_fits_is_found_to_a_sixteenth_in_few_trials(limit):
    trials = []
    found = find_largest(lambda number: trials.append(number) or number <= limit, most=2000)
    assert min(limit, 2000) * 15 / 16 - 1 <= found <= limit
    assert max(trials) <= 2000
    assert len(trials) == len(set(trials)) <= 16


def test_the_search_leaves_a_tenth_of_the_memory_and_tries_the_largest_batches(data, monkeypatch):
    seen = limit_memory(monkeypatch, 11)
    longest = max(data.preflight.train, key=lambda each: each.seconds)
    assert search(data) == pytest.approx(0.9 * 11 * longest.seconds)
    samples, tokens = ({row[place] for row in seen} for place in (1, 2))
    assert samples == {round(longest.seconds / 0.8 * 8000)}
    assert tokens == {max(len(each.tokens) for each in data.preflight.train)}
    assert search(data, most=5.0) == 5.0


def test_the_search_changes_neither_model_nor_random_state(data, monkeypatch):
    limit_memory(monkeypatch, 3)
    weights = {name: each.clone() for name, each in data.preflight.model.state_dict().items()}
    state = torch.random.get_rng_state()
    search(data)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(each, weights[name]) for name, each in data.preflight.model.state_dict().items())
    assert all(parameter.grad is None for parameter in data.preflight.model.parameters())


def test_an_utterance_that_does_not_fit_alone_is_named_in_one_line(data, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(SpeechRNNError, match=r"longest utterance alone, train-\d+ \(\d\.\d s\): CUDA out of") as caught:
        search(data)
    assert "\n" not in str(caught.value)


def test_on_a_cpu_an_epoch_has_at_least_50_batches_and_the_run_keeps_the_number(configuration, data, tmp_path):
    total = sum(each.seconds for each in data.preflight.train)
    longest = max(each.seconds for each in data.preflight.train)
    expected = max(longest, total / 50)
    assert expected - 0.1 < data.config.data.batch_seconds <= expected
    train(configuration, {**AUTO, "output": str(tmp_path / "run")}, logger=False)
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]["data"]["batch_seconds"]
    assert kept == data.config.data.batch_seconds


def test_a_run_that_found_its_budget_is_resumable_with_auto(configuration, data, tmp_path, monkeypatch):
    asked = load_config(configuration, AUTO)
    monkeypatch.setattr("speechrnn.training.run.read_run", lambda output: replace_run(data.config))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert is_resumable(tmp_path, asked)
    assert not is_resumable(tmp_path, replace(asked, seed=1))


def replace_run(config):
    from speechrnn.training.run import Run

    return Run(config, [], {})


def test_a_checkpoint_of_your_own_trainer_keeps_the_budget(configuration, data):
    again = SpeechData(data.config, preflight=data.preflight)
    again.config = replace(data.config, data=replace(data.config.data, batch_seconds="auto"))
    again._is_auto = True
    again.load_state_dict({"epoch": 0, "batches_done": 0, "data": "", "batch_seconds": 3.0})
    assert again.config.data.batch_seconds == 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer.devices": 2}, "data.batch_seconds: auto is for one process"),
        ({"data.carry_state": "speaker"}, "data.batch_seconds: auto cannot be combined with data.carry_state"),
        ({"data.batch_seconds": "all"}, "data.batch_seconds: expected a number of seconds in .* or auto, got"),
    ],
)
def test_settings_that_do_not_go_together_are_named(configuration, settings, message):
    with pytest.raises(ConfigError, match=message):
        SpeechData(load_config(configuration, {**AUTO, **settings}), [configuration.parent]).setup()
