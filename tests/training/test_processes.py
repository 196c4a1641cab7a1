"""Processes: what two that train together add up, and, in slow tests, real ones that are killed or interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration
from single_steps import make_batch, make_module, trainer_that_is_none  # noqa: F401
from test_checkpoints import RUN, assert_same, read_log, read_released, whole  # noqa: F401

from speechrnn.corpus.batches import DurationBatches, select_utterances
from speechrnn.errors import SpeechRNNError
from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.config import DataConfig
from speechrnn.training.optimization import EpochTotals
from speechrnn.training.train import _train, resume, train
from speechrnn.training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {
    **TONE_SETTINGS,
    "trainer.max_epochs": 2,
    "augment.spec_augment.time_masks": 1,
    "data.batch_seconds": 2.0,
    "optimizer.learning_rate": 0.005,
}
MORE = {"checkpoints__every_minutes": 0, "optimizer__learning_rate": 0.02}


@pytest.mark.usefixtures("trainer_that_is_none")
@pytest.mark.parametrize("shares", [([0, 2], [1, 3]), ([0, 1, 2], [3]), ([0, 1, 2, 3], [])])
def test_the_mean_gradient_of_two_processes_is_that_of_one(make_tiny_model, tmp_path, monkeypatch, shares):
    module = make_module(make_tiny_model(), tmp_path)
    batch = make_batch(module)

    def take_gradients(part):
        module.zero_grad()
        module._step = None
        module.backward(module.training_step(part, 0))
        return torch.cat([p.grad.flatten() for p in module.parameters()])

    alone = take_gradients(batch)
    module._trainer.world_size = 2
    monkeypatch.setattr("speechrnn.training.module.sum_on_device", lambda value: torch.full_like(value, 4.0))
    found = [take_gradients(select_utterances(batch, share) if share else replace(batch, ids=[])) for share in shares]
    torch.testing.assert_close((found[0] + found[1]) / 2, alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_two_processes_report_the_rates_of_all_utterances(monkeypatch, caplog):
    pairs = [("a b", "a c"), ("b", ""), ("c d", "c d"), ("d", "e")]
    together, first, second = Validation(), Validation(), Validation()
    for number, pair in enumerate(pairs):
        for validation in (together, second if number == 3 else first):
            validation.count(*pair)
    for validation in (together, second):
        validation.fail("gone", "f", "no such file")
    others = list(second.sums.values())
    add = lambda values, device: [a + b for a, b in zip(values, others, strict=True)]  # noqa: E731
    monkeypatch.setattr("speechrnn.training.validation.sum_over_processes", add)
    monkeypatch.setattr("speechrnn.training.validation.gather_from_processes", lambda items: [*items, ("gone", "x")])
    assert first.finish(torch.device("cpu")) == together.finish(None)
    assert caplog.text.count("counted as wrong in validation: gone") == 2


def test_the_totals_of_two_processes_count_each_step_once(monkeypatch):
    own = EpochTotals(loss=6.0, utterances=3.0, seconds=2.0, norms=8.0, steps=4.0, clipped=1.0)
    monkeypatch.setattr("speechrnn.training.optimization.sum_over_processes", lambda values, device: [
        a + b for a, b in zip(values, [4.0, 0.0, 1.0, 3.0], strict=True)])  # fmt: skip
    totals = own.gather(torch.device("cpu"))
    assert (totals.mean("loss"), totals.seconds, totals.mean("norms"), totals.steps) == (2.5, 5.0, 2.0, 4.0)


@pytest.mark.parametrize(("world_size", "expected"), [(2, SpeechRNNError), (1, RuntimeError)])
def test_a_lost_process_is_one_line(world_size, expected):
    def fit(*args, **kwargs):
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2222")

    trainer = SimpleNamespace(fit=fit, world_size=world_size, global_rank=0, interrupted=False)
    data = SimpleNamespace(config=SimpleNamespace(data=DataConfig(num_workers=0), output="run"))
    with pytest.raises(expected) as caught:
        _train(trainer, None, data, None)
    assert ("process 0 of 2 has lost another one" in str(caught.value)) == (world_size == 2)
    assert ("continue with --resume run (" in str(caught.value)) == (world_size == 2)


@pytest.fixture(scope="module")
def configuration(one_thread, tmp_path_factory):
    """60 utterances in batches of one to five: of some the second process gets less than the first, of some nothing."""
    configuration = make_tone_configuration(tmp_path_factory.mktemp("processes"))
    seconds = [json.loads(line)["duration"] for line in (configuration.parent / "train.jsonl").read_text().splitlines()]
    sizes = {len(batch) for batch in DurationBatches(seconds, batch_seconds=2.0).plan(0)}
    assert {1, 3} <= sizes
    return configuration


def start(configuration, output, **more):
    settings = {**SETTINGS, "trainer.devices": 2, **{name.replace("__", "."): value for name, value in more.items()}}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "speechrnn.cli.main", "train", "--config", str(configuration), "--output"]
    return subprocess.Popen([*command, str(output), *arguments], stderr=subprocess.PIPE, text=True)


def start_one(configuration, output, **more):
    """The run of ``whole`` in a process of its own."""
    return start(configuration, output, **{**RUN, "data.num_workers": 1, "trainer.devices": 1, **more})


def wait_for(path, process, *, at_most=120.0):
    deadline = time.monotonic() + at_most
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists(), process.communicate()[1]


def list_children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def is_gone(pid):
    """Ended, whether or not its exit code was read."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(whole, tmp_path):  # noqa: F811
    configuration, output, *_ = whole
    generator = random.Random(0)
    for number in range(5):
        run = tmp_path / f"run{number}"
        process = start_one(configuration, run)
        wait_for(run / "checkpoints" / "last.ckpt", process)
        time.sleep(generator.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
        resume(run)
        assert_same(read_released(run), read_released(output))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_saves_and_logs_it(whole, tmp_path, number):  # noqa: F811
    configuration, output, *_ = whole
    process = start_one(configuration, tmp_path / "run", **{"checkpoints.every_minutes": 1000})
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wait_for(last, process)  # the start of the second epoch
    os.kill(process.pid, number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130, errors
    assert "interrupted: saving after this batch" in errors
    assert "Traceback" not in errors
    position = WholeCheckpointIO().load_checkpoint(last)["SpeechData"]
    assert (position["epoch"], position["batches_done"]) > (1, 0)
    resume(tmp_path / "run")
    assert_same(read_released(tmp_path / "run"), read_released(output))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(configuration, tmp_path):
    process = start(configuration, tmp_path / "two")
    train(configuration, {**SETTINGS, "output": str(tmp_path / "one")})
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert errors.count("epoch 1: loss") == 1  # one of them speaks
    for name in ("train/loss_epoch", "valid/loss", "valid/wer"):
        one, two = ([float(value) for value in read_log(tmp_path / run, name)] for run in ("one", "two"))
        assert one == pytest.approx(two, rel=1e-3)


def break_in_mid_run(process, output, files):
    wait_for(output / "checkpoints" / "last.ckpt", process)
    for file in files:
        file.write_text("gone")
    return process.communicate(timeout=120)[1]


@pytest.mark.slow
def test_a_damaged_validation_file_is_named_once_by_any_process(tmp_path):
    configuration, output = make_tone_configuration(tmp_path / "tones"), tmp_path / "run"
    process = start(configuration, output, trainer__max_epochs=6, checkpoints__best=2, checkpoints__average=True)
    broken = [configuration.parent / "valid" / f"valid-{number}.wav" for number in range(3, 9)]
    errors = break_in_mid_run(process, output, broken)
    assert process.returncode == 0, errors  # faults.unreadable_share is about training
    together, alone = errors.split("epoch 6: loss")  # then the first process alone validates the mean of the two best
    for file in broken:
        assert together.count(f"counted as wrong in validation: {file.stem}: {file}: contains text") == 1
    assert "mean of the 2 best" in alone
    assert "counted as wrong" not in alone
    assert (output / "left_out.jsonl").read_text() == ""


@pytest.mark.slow
def test_an_error_of_all_processes_is_reported_once(tmp_path):
    configuration, output = make_tone_configuration(tmp_path / "tones"), tmp_path / "run"
    process = start(configuration, output, trainer__max_epochs=100)
    errors = break_in_mid_run(process, output, [configuration.parent / "train" / "train-7.wav"])
    assert process.returncode == 2
    assert errors.count("error: 1 of 60 recordings could not be read") == 1
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the second process in /proc")
def test_a_killed_process_ends_the_other_in_one_line_and_the_run_goes_on(configuration, tmp_path):
    output = tmp_path / "run"
    process = start(configuration, output, trainer__max_epochs=14, **MORE)
    wait_for(output / "checkpoints" / "last.ckpt", process)
    (child,) = list_children(process)[:1]
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert f"which was killed or failed (see its last message above); continue with --resume {output}" in errors
    run = json.loads((output / "run.json").read_text())
    run["configuration"]["trainer"]["devices"] = 1  # one process takes up what two began: their batches are the same
    (output / "run.json").write_text(json.dumps(run))
    assert resume(output).valid_wer < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("who", ["second", "all"])
def test_a_signal_to_all_processes_or_to_one_saves_and_ends_all(configuration, tmp_path, number, who):
    """A cluster sends SIGTERM to every process, and a launcher may pass it on besides."""
    output = tmp_path / "run"
    more = {**MORE, "checkpoints__every_minutes": 1000, "trainer__max_epochs": 100}
    process = start(configuration, output, **more)
    last = output / "checkpoints" / "last.ckpt"
    wait_for(last, process)
    (child,) = list_children(process)[:1]
    time.sleep(0.3)
    for pid in (process.pid, child) if who == "all" else (child,):
        os.kill(pid, number)
    if number == signal.SIGTERM:
        os.kill(child, number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert is_gone(child)
    assert WholeCheckpointIO().load_checkpoint(last)["SpeechData"]["batches_done"] > 0
