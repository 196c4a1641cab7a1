"""Torch's threads: one for the front end and one after a fork."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.processes import torch_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_front_end_runs_in_one_thread_and_restores_the_number(two_threads, monkeypatch):
    counts = []
    original = torch.fft.rfft
    monkeypatch.setattr("torch.fft.rfft", lambda frames: counts.append(torch.get_num_threads()) or original(frames))
    monkeypatch.setattr(
        "speechrnn.audio.features.compute_deltas",
        lambda features, lengths, width: counts.append(torch.get_num_threads()) or features,
    )
    front_end = FrontEnd(FrontEndConfig(deltas=1))
    front_end(torch.randn(1, 16000), torch.tensor([16000]))
    assert counts == [1, 1]
    assert torch.get_num_threads() == 2


def test_an_error_restores_the_number_of_threads(two_threads):
    with pytest.raises(ValueError), torch_threads.one(torch.device("cpu")):
        raise ValueError
    assert torch.get_num_threads() == 2


def test_other_devices_are_left_alone(two_threads):
    with torch_threads.one(torch.device("cuda")):
        assert torch.get_num_threads() == 2


def test_python_thread_that_starts_meanwhile_gets_all_threads_afterwards(two_threads):
    """A new thread takes over the number that was last set, here the one of a front end at work."""
    counts = []

    def work():
        with torch_threads.one(torch.device("cpu")):
            counts.append(torch.get_num_threads())
        counts.append(torch.get_num_threads())

    with torch_threads.one(torch.device("cpu")):
        other = threading.Thread(target=work)
        other.start()
        other.join()
    assert counts == [1, 2]
    assert torch.get_num_threads() == 2


FORK = """
import os, signal, torch
from speechrnn.audio.features import FrontEnd
torch.set_num_threads(2)
weights = torch.randn(512, 512)
weights @ weights
(torch.randn(2**20) + 1).sum()  # starts torch's pool of threads
child = os.fork()
if child == 0:
    signal.alarm(60)
    FrontEnd()(torch.randn(4, 160000), torch.full((4,), 160000))
    (torch.randn(2**20) + 1).sum()
    assert torch.get_num_threads() == 1
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
def test_forked_child_computes():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
