"""Training on two nodes, which are processes of this machine, started as docs/many_machines.md says."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import TONE_SETTINGS, make_tone_configuration
from test_checkpoints import assert_same, read_log, read_released

from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(900)]
SETTINGS = {
    **TONE_SETTINGS,
    "trainer.max_epochs": 3,
    "augment.spec_augment.time_masks": 1,
    "data.batch_seconds": 2.0,
    "optimizer.learning_rate": 0.005,
}


@pytest.fixture(scope="module")
def configuration(one_thread, tmp_path_factory):
    return make_tone_configuration(tmp_path_factory.mktemp("nodes"))


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_nodes(launcher, *arguments):
    """One process on each of two nodes, started by two agents of torchrun, or as srun does."""
    port = find_port()
    processes = []
    for rank in range(2):
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        command = ["-m", "speechrnn", *map(str, arguments)]
        if launcher == "torchrun":
            nodes = f"--nnodes 2 --nproc-per-node 1 --node-rank {rank} --master-addr 127.0.0.1 --master-port {port}"
            command = ["-m", "torch.distributed.run", *nodes.split(), *command]
        else:
            environment |= {"SLURM_JOB_ID": str(port), "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost"}
            environment |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
            environment |= {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
        started = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(started)
    return processes


def start_training(launcher, configuration, output, **more):
    settings = {**SETTINGS, **{name.replace("__", "."): value for name, value in more.items()}}
    settings |= {"trainer.num_nodes": 2, "trainer.devices": 1}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return start_nodes(launcher, "train", "--config", configuration, "--output", output, *options)


def wait(processes):
    errors = [process.communicate(timeout=800)[1] for process in processes]
    return [process.returncode for process in processes], errors


def count_steps(output):
    """The optimiser's steps before each validation."""
    [path] = (output / "logs").rglob("metrics.csv")
    return [int(row["step"]) for row in csv.DictReader(path.open()) if row.get("valid/wer")]


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_nodes_take_the_steps_of_one_process_on_the_same_utterances(configuration, tmp_path, launcher):
    processes = start_training(launcher, configuration, tmp_path / "two")
    train(configuration, {**SETTINGS, "output": str(tmp_path / "one")})
    codes, errors = wait(processes)
    assert codes == [0, 0], errors
    assert [text.count("epoch 1: loss") for text in errors] == [1, 0]  # one of them speaks
    assert count_steps(tmp_path / "two") == count_steps(tmp_path / "one")
    for name in ("train/loss_epoch", "valid/loss", "valid/wer"):  # means over all utterances of an epoch
        one, two = ([float(value) for value in read_log(tmp_path / run, name)] for run in ("one", "two"))
        assert one == pytest.approx(two, rel=1e-3)
    training = [json.loads((tmp_path / run / "model" / "config.json").read_text()) for run in ("one", "two")]
    one, two = (each["provenance"]["training"] for each in training)
    assert two["processes"] == 2
    assert two["utterances"] == one["utterances"]


def test_a_node_that_is_lost_ends_the_other_and_the_run_is_resumed_on_both(configuration, tmp_path):
    processes = start_training("torchrun", configuration, tmp_path / "whole")
    assert wait(processes)[0] == [0, 0]
    output = tmp_path / "lost"
    processes = start_training("torchrun", configuration, output, checkpoints__every_minutes=0)
    last = output / "checkpoints" / "last.ckpt"
    while not last.exists() and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # as SLURM does; torchrun passes it on
    codes, errors = wait(processes)
    assert all(codes), errors
    assert WholeCheckpointIO().load_checkpoint(last)["SpeechData"]["batches_done"] >= 0
    codes, errors = wait(start_nodes("torchrun", "train", "--resume", output))
    assert codes == [0, 0], errors
    assert_same(read_released(output), read_released(tmp_path / "whole"))
