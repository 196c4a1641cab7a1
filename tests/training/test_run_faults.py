"""What happens to a run from outside: signals, locks, moved folders; and what it shows."""

import logging
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import TONE_SETTINGS
from stopping import stopped_in_call
from torch.utils.data import DataLoader, Dataset

from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import locked
from speechrnn.training.data import _Loader
from speechrnn.training.module import SpeechModule
from speechrnn.training.train import resume, train

RUN = {**TONE_SETTINGS, "trainer.max_epochs": 2, "data.batch_seconds": 8, "checkpoints.every_minutes": 0}


class Blocked(Dataset):
    """Whether an interrupt is blocked in the process that reads."""

    def __getitem__(self, index):
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def __len__(self):
        return 2


def test_an_interrupt_reaches_the_main_process_only():
    assert list(_Loader(Blocked(), batch_size=None, num_workers=1)) == [True, True]
    assert list(DataLoader(Blocked(), batch_size=None, num_workers=1)) == [False, False]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_folder_is_locked_for_one_running_process(tmp_path):
    hold = "import sys, time, pathlib; from speechrnn.processes import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1]), ''):\n    print('locked', flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with (
        pytest.raises(ConfigError, match="it is locked"),
        locked(tmp_path, "it is locked"),
    ):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path, "it is locked"):
        pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_is_released_is_taken_by_one_process_only(tmp_path):
    race = """
import pathlib, sys
from speechrnn.errors import ConfigError
from speechrnn.processes import locked
folder = pathlib.Path(sys.argv[1])
for _ in range(1500):
    try:
        with locked(folder, ""):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
    except ConfigError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", race, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_a_folder_that_is_moved_away_ends_the_run_in_one_line(tone_configuration, tmp_path, monkeypatch):
    original = SpeechModule.training_step

    def move(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 1:
            shutil.move(tmp_path / "run", tmp_path / "moved")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpeechModule, "training_step", move)
    with pytest.raises(SpeechRNNError, match="run: this folder was moved or deleted while the run wrote to it"):
        train(tone_configuration, {**RUN, "output": str(tmp_path / "run")})
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    shutil.move(tmp_path / "moved", tmp_path / "run")
    assert resume(tmp_path / "run").model.is_dir()


@pytest.mark.parametrize("has_own", [False, True])
def test_a_run_from_python_logs_its_epochs_if_logging_is_not_configured(
    tone_configuration, tmp_path, monkeypatch, capsys, has_own
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()] if has_own else [])
    train(tone_configuration, {**RUN, "trainer.max_epochs": 1, "output": str(tmp_path / "run")})
    found = capsys.readouterr()
    assert not found.out
    assert found.err.count("epoch 1: loss") == (0 if has_own else 1)
    assert not logging.getLogger("speechrnn").handlers


def test_a_resumed_epoch_reports_no_more_waiting_than_its_duration(tone_configuration, tmp_path, caplog):
    with stopped_in_call(4):
        train(tone_configuration, {**RUN, "output": str(tmp_path / "run")})
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="speechrnn"):
        resume(tmp_path / "run")
    shares = [record.args[-2] for record in caplog.records if record.msg.startswith("epoch %d: loss")]
    assert len(shares) == 2
    assert all(0 <= share <= 100 for share in shares)
