"""Several processes that train together: the losses of one process, a clean end when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TONE_SETTINGS, make_tone_configuration
from test_checkpoints import read_log, wait_for

from speechrnn.corpus.batches import DurationBatches
from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.train import resume, train

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("processes")]
SETTINGS = {
    **TONE_SETTINGS,
    "trainer.max_epochs": 2,
    "augment.spec_augment.time_masks": 1,
    "data.batch_seconds": 2.0,
    "optimizer.learning_rate": 0.005,
}


MORE = {"checkpoints__every_minutes": 0, "optimizer__learning_rate": 0.02}


@pytest.fixture(scope="module")
def configuration(one_thread, tmp_path_factory):
    """60 utterances in batches of one to five: of some the second process gets less than the first, of some nothing."""
    configuration = make_tone_configuration(tmp_path_factory.mktemp("processes"))
    seconds = [json.loads(line)["duration"] for line in (configuration.parent / "train.jsonl").read_text().splitlines()]
    sizes = {len(batch) for batch in DurationBatches(seconds, batch_seconds=2.0).plan(0)}
    assert {1, 3} <= sizes
    return configuration


def start(configuration, output, **more):
    settings = {**SETTINGS, **{name.replace("__", "."): value for name, value in more.items()}, "trainer.devices": 2}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "speechrnn.cli.main", "train", "--config", str(configuration), "--output"]
    return subprocess.Popen([*command, str(output), *arguments], stderr=subprocess.PIPE, text=True)


def list_children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def is_gone(pid):
    """Ended, whether or not somebody has asked for its exit code."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


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
def test_validation_files_that_break_are_named_once_whoever_reads_them(tmp_path):
    configuration, output = make_tone_configuration(tmp_path / "tones"), tmp_path / "run"
    process = start(configuration, output, trainer__max_epochs=6, checkpoints__best=2, checkpoints__average=True)
    broken = [configuration.parent / "valid" / f"valid-{number}.wav" for number in range(3, 9)]
    errors = break_in_mid_run(process, output, broken)
    assert process.returncode == 0, errors  # faults.unreadable_share is about training
    together, alone = errors.split("epoch 6: loss")  # then the first process alone validates the mean of the two best
    for file in broken:
        assert together.count(f"validation counts it as wrong: {file.stem}: {file}: holds text") == 1
    assert "mean of the 2 best" in alone
    assert "counts it as wrong" not in alone
    assert (output / "left_out.jsonl").read_text() == ""


@pytest.mark.slow
def test_what_stops_all_processes_is_said_by_one(tmp_path):
    configuration, output = make_tone_configuration(tmp_path / "tones"), tmp_path / "run"
    process = start(configuration, output, trainer__max_epochs=100)
    errors = break_in_mid_run(process, output, [configuration.parent / "train" / "train-7.wav"])
    assert process.returncode == 2
    assert errors.count("error: 1 of 60 recordings could not be read") == 1
    assert "Traceback" not in errors


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
    assert f"which was killed or failed; its last message stands above; --resume {output} continues" in errors
    run = json.loads((output / "run.json").read_text())
    run["configuration"]["trainer"]["devices"] = 1  # one process takes up what two began: their batches are the same
    (output / "run.json").write_text(json.dumps(run))
    assert resume(output).valid_wer < 0.1


@pytest.mark.parametrize(
    ("number", "who"),
    [
        (signal.SIGINT, "second"),
        pytest.param(signal.SIGTERM, "all", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "second", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "all", marks=pytest.mark.slow),
    ],
)
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
