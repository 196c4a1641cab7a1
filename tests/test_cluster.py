"""Bulk transcription on a real Ray cluster of two machines that are processes of this one; and what needs no Ray."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile

from speechrnn import cluster
from speechrnn.cli.main import main
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.output_folder import STATE_FILE, fingerprint_model
from speechrnn.recognition.part_worker import Job
from speechrnn.recognition.parts import LEAST_SECONDS, Source, open_parts

SECONDS = [0.4, 1.3, 0.7, 3.1, 0.5, 2.2, 6.5, 0.9]


@pytest.fixture(scope="module")
def calls(make_recording, tmp_path_factory):
    """96 recordings in two folders, one in eight longer than a window."""
    folder = tmp_path_factory.mktemp("calls")
    for number in range(96):
        path = folder / ("a", "b")[number % 2] / f"{number:03}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, make_recording(SECONDS[number % 8], seed=number), 8000)
    return folder


@pytest.fixture(scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("speechrnn.recognition.parts.LEAST_SECONDS", 4.0)
        monkeypatch.setattr("speechrnn.recognition.parts._PARTS", 10**9)
        yield


def read_rows(folder):
    return [line for path in sorted(folder.glob("part-*.jsonl")) for line in path.read_text().splitlines()]


def list_content(folder):
    """The files of a run; the state file has its lines in the order in which parts were done."""
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    content[STATE_FILE] = b"\n".join(sorted(content[STATE_FILE].splitlines()))
    return content


class FakeWorkers:
    """Workers that die of some recordings, in the place of Ray's."""

    def __init__(self, *poison):
        self.poison, self.begun = set(poison), 0

    def map(self, units, job, networks):
        for unit in units.values():
            self.begun += 1
            if self.poison & {source.name for source in unit.sources}:
                yield {"name": unit.name, "crash": "killed"}
            else:
                yield {"name": unit.name, "seconds": dict.fromkeys(range(len(unit.sources)), 1.0), "failed": {}}


@pytest.fixture
def transcribe_with(monkeypatch, tmp_path):
    @contextmanager
    def no_networks(job):
        yield []

    def transcribe(workers, count):
        monkeypatch.setattr(cluster, "_map", workers.map)
        monkeypatch.setattr(cluster, "_start_networks", no_networks)
        sources = [Source(f"{number}", f"/{number}.wav", seconds=LEAST_SECONDS / 10) for number in range(count)]
        with open_parts(tmp_path, sources, formats=(), settings={}) as folder:
            results = list(cluster.transcribe_parts(folder, Job("m", str(tmp_path), ())))
        done = [source.name for result in results for source in result.seconds]
        assert sorted(done + [source.name for source in folder.failures], key=int) == [str(n) for n in range(count)]
        return folder.failures

    return transcribe


def test_only_the_recording_that_kills_workers_fails(transcribe_with):
    workers = FakeWorkers("17", "29")
    failures = transcribe_with(workers, 40)
    assert {source.name: reason for source, reason in failures.items()} == {"17": "killed", "29": "killed"}
    assert workers.begun < 20
    assert len(transcribe_with(FakeWorkers("0"), 1)) == 1


def test_workers_that_always_fail_end_the_run(transcribe_with):
    workers = FakeWorkers(*map(str, range(1000)))
    with pytest.raises(SpeechRNNError, match="--ray: every worker fails: killed"):
        transcribe_with(workers, 1000)
    assert workers.begun <= 300


def test_a_machine_that_does_not_see_what_it_needs_is_named(tiny_model_folder, tmp_path, calls):
    job = Job(str(tiny_model_folder), str(tmp_path), ("jsonl",), {"language_model": str(tmp_path / "lm.arpa")})
    (tmp_path / "lm.arpa").write_text("")
    (tmp_path / "token").write_text("token")
    example = Source("a", str(calls / "a" / "000.wav"))
    expected = {"version": cluster.speechrnn.__version__, "model": fingerprint_model(job.model), "token": "token"}

    def check(**changed):
        found = {**cluster._probe(job, str(tmp_path / "token"), example), **changed}
        cluster._check_answer("10.0.0.7", found, expected, job, example)

    check()
    for changed, message in [
        ({"version": "0.0"}, "has speechrnn 0.0, here is .*; install the same version everywhere"),
        ({"token": ""}, f"does not see -o {tmp_path}: the output folder must be shared by all machines"),
        ({"model": ""}, "does not see the model .*: copy the model folder to the same path there"),
        ({"missing": [example.path]}, "does not see .*000.wav: copy it to the same path there"),
        ({"missing": [job.options["language_model"]]}, "does not see .*lm.arpa: copy it"),
    ]:
        with pytest.raises(ConfigError, match=f"^--ray: machine 10.0.0.7 {message}"):
            check(**changed)
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="the output folder must be shared"):
        check()


def test_warnings_of_workers_are_logged_and_make_the_result_incomplete(tmp_path, caplog):
    with open_parts(tmp_path, [Source("a", "/a")], formats=(), settings={}) as folder:
        answer = {"failed": {}, "seconds": {"0": 1.0}, "log": [[logging.WARNING, "a: 3 s are missing", True]]}
        cluster._finish(folder, folder.units[0], answer)
    [record] = caplog.records
    assert (record.getMessage(), record.is_incomplete) == ("a: 3 s are missing", True)


# With Ray.


class Machines:
    """Machines with a core each; the head has none."""

    def __init__(self, count, **resources):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1, **resources) for _ in range(count)]
        self.address = self.cluster.address

    def find_workers(self):
        """Process ids of the workers of the machines."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        raylets = {each.all_processes["raylet"][0].process.pid for each in self.nodes}
        return [pid for pid, parent in parents.items() if parent in raylets and is_worker(pid)]


def is_worker(pid):
    try:
        return "MapWorker" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def machines():
    pytest.importorskip("ray", reason="needs pip install '.[cluster]'")
    made = Machines(2)
    yield made
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def transcribe(tiny_model_folder, calls, machines):
    def run(output, *options, address=machines.address):
        arguments = ["transcribe", calls, "--recursive", "-m", tiny_model_folder, "--ray", address, "-o", output]
        return main([*map(str, arguments), "--max-seconds", "5", "--cut", "windows", *map(str, options)])

    return run


@contextmanager
def when_begun(folder, action, *, parts=2):
    """Act once some parts are complete and another is in work; the action returns whether it could."""
    acted = []

    def watch():
        deadline = time.monotonic() + 240
        while not acted and time.monotonic() < deadline:
            state = folder / STATE_FILE
            if state.exists() and len(state.read_text().splitlines()) > parts and [*folder.glob(".part-*.begun")]:
                acted.extend([True] if action() else [])
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    assert acted


@pytest.fixture(scope="module")
def whole(transcribe, small_parts, tmp_path_factory):
    """The files of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert transcribe(folder) == 0
    return list_content(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_write_what_one_machine_writes(transcribe, whole, calls, tmp_path, tiny_model_folder, capfd):
    arguments = ["transcribe", str(calls), "--recursive", "-m", str(tiny_model_folder), "--device", "cpu"]
    capfd.readouterr()
    assert main([*arguments, "--max-seconds", "5", "--cut", "windows", "-f", "json"]) == 0
    expected = capfd.readouterr().out.splitlines()
    assert transcribe(tmp_path / "again") == 0
    assert read_rows(tmp_path / "again") == expected
    assert list_content(tmp_path / "again") == whole
    captured = capfd.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2, captured.err  # speed and count, nothing of Ray's
    assert transcribe(tmp_path / "again", "--resume") == 0
    assert capfd.readouterr().err == f"speechrnn: {tmp_path / 'again'}: 96 of 96 recordings are complete\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_there_twice_when_workers_are_killed(transcribe, whole, machines, tmp_path):
    killed = []

    def kill():
        for pid in machines.find_workers()[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return len(killed) == 3

    with when_begun(tmp_path / "killed", kill):
        assert transcribe(tmp_path / "killed") == 0
    assert list_content(tmp_path / "killed") == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_command_is_killed_is_continued(transcribe, whole, machines, tmp_path, calls, tiny_model_folder):
    script = "import sys\nimport speechrnn.recognition.parts as p\np.LEAST_SECONDS, p._PARTS = 4.0, 10**9\n"
    script += "from speechrnn.cli.main import main\nsys.exit(main(sys.argv[1:]))\n"
    arguments = [calls, "--recursive", "-m", tiny_model_folder, "--ray", machines.address, "-o", tmp_path / "continued"]
    arguments += ["--max-seconds", "5", "--cut", "windows"]
    process = subprocess.Popen([sys.executable, "-c", script, "transcribe", *map(str, arguments)])
    with when_begun(tmp_path / "continued", lambda: process.kill() is None):
        process.wait()
    done = [json.loads(line) for line in (tmp_path / "continued" / STATE_FILE).read_text().splitlines()[1:]]
    written = {row["part"]: (tmp_path / "continued" / f"{row['part']}.jsonl").stat().st_mtime_ns for row in done}
    assert 0 < len(done) < len(whole) - 1
    assert transcribe(tmp_path / "continued", "--resume") == 0
    assert list_content(tmp_path / "continued") == whole
    for name, when in written.items():
        assert (tmp_path / "continued" / f"{name}.jsonl").stat().st_mtime_ns == when


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_network_on_processes_with_gpus_gives_the_same_files(transcribe, tmp_path, whole):
    """Ray is told of GPUs that are not there, so that the processes compute on the CPU."""
    machines = Machines(2, num_gpus=1)
    try:
        machines.cluster.add_node(num_cpus=2)
        assert transcribe(tmp_path / "gpu", "--batch-seconds", 7, address=machines.address) == 0
    finally:
        machines.cluster.shutdown()
    assert list_content(tmp_path / "gpu") == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_is_lost_does_not_stop_the_others(transcribe, tmp_path, whole):
    machines = Machines(2)
    output = tmp_path / "lost"

    def lose():
        machines.cluster.remove_node(machines.nodes[0], allow_graceful=False)
        return True

    try:
        with when_begun(output, lose):
            assert transcribe(output, address=machines.address) == 0
    finally:
        machines.cluster.shutdown()
    assert list_content(output) == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("small_parts")
def test_every_machine_has_a_worker(transcribe, machines, tmp_path):
    with when_begun(tmp_path / "out", lambda: len(machines.find_workers()) == 2, parts=0):
        assert transcribe(tmp_path / "out") == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_failures_are_listed_and_others_go_on(machines, tmp_path, make_recording, tiny_model_folder, capfd):
    (tmp_path / "calls").mkdir()
    soundfile.write(tmp_path / "calls" / "good.wav", make_recording(1.0), 8000)
    (tmp_path / "calls" / "bad.wav").write_text("text")
    arguments = ["transcribe", tmp_path / "calls", tmp_path / "gone.wav", "-m", tiny_model_folder]
    arguments = [*map(str, arguments), "--ray", machines.address, "-o", str(tmp_path / "out"), "-f", "all"]
    assert main(arguments) == 1
    errors = capfd.readouterr().err
    assert f"{tmp_path}/out: 1 of 3 recordings are complete, 2 failed: {tmp_path}/out/failures.jsonl" in errors
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert [Path(each["audio"]).name for each in failures] == ["bad.wav", "gone.wav"]
    assert all(f"speechrnn: error: {each['error']}" in errors for each in failures)
    assert [path.suffix for path in sorted((tmp_path / "out").glob("part-*"))] == [".jsonl", ".parquet"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_gpu_that_no_machine_has_is_one_line(transcribe, tmp_path, capfd):
    assert transcribe(tmp_path / "out", "--device", "cuda") == 2
    message = "speechrnn: error: --device cuda: no machine of the cluster has a GPU that Ray knows; use auto or cpu"
    assert message in capfd.readouterr().err.splitlines()
