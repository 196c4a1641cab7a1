"""Bulk transcription on many machines through Ray Data.

The recordings are divided into parts (:mod:`speechrnn.recognition.parts`). A worker, one for each core, transcribes a
part with :meth:`~speechrnn.recognition.transcriber.Transcriber.transcribe_many` and writes its file. Where there are
GPUs, the network runs on them, one process each: the workers read, cut, batch and search, and send each padded batch
to one of these processes. Ray repeats the part of a worker that is killed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import speechrnn
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import count_cores
from speechrnn.recognition.output_folder import fingerprint_model
from speechrnn.recognition.part_worker import Job, load_recognizer, make_remote, transcribe_unit
from speechrnn.recognition.parts import PartFolder, Source, Unit, describe_recording

if TYPE_CHECKING:
    from speechrnn.recognition.recognizer import Recognizer

logger = logging.getLogger("speechrnn")

ANSWER_SECONDS = 30
"""How long a cluster may take to answer."""
START_SECONDS = 300
"""How long a process on each machine may take to start."""
WORKER_BYTES = 2**30
"""Memory that Ray reserves for a worker."""


@dataclass(frozen=True)
class Result:
    """What became of a unit.

    Attributes:
        unit: The unit.
        seconds: Duration of each recording that is transcribed.
        failures: The others, and why.
    """

    unit: Unit
    seconds: Mapping[Source, float]
    failures: Mapping[Source, str]


def check_installed() -> None:
    """Check that Ray is there.

    Raises:
        ConfigError: It is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("ray", "pyarrow", "pandas")):
        raise ConfigError("--ray: needs Ray; run pip install 'speechrnn[cluster]'")


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Connect to a cluster until the block ends.

    Args:
        address: ``local`` starts Ray on this machine; ``auto`` is the cluster that this machine is part of, or that
            the environment variable ``RAY_ADDRESS`` names; or ``HOST:PORT``.

    Raises:
        ConfigError: Ray is not installed, the address is none, or it does not answer within a minute.
    """
    check_installed()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the first import, for a cluster that is started here
    options: dict[str, Any] = {"address": _check_address(address)}
    if address == "local":
        options |= {"num_cpus": count_cores(), "include_dashboard": False}
    import ray

    with _quiet():
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL + 1)
        except Exception as error:  # of another version, no machine of the cluster …
            raise ConfigError(f"--ray {address}: {' '.join(str(error).split())[:300]}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what Ray's compiled code writes to standard error; what Python writes there stays."""
    stream = sys.stderr
    try:
        original = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    with open(os.devnull, "wb") as nothing, open(original, "w", buffering=1, errors="backslashreplace") as kept:
        with suppress(OSError, ValueError, AttributeError):
            if stream.fileno() == 2:
                sys.stderr = kept
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            sys.stderr = stream


def _check_address(address: str) -> str:
    """Check that a cluster answers there; Ray itself would try for minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address in ("auto", "local"):
        return address
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
    if found is None or int(found[2]) > 65535:
        raise ConfigError(f"--ray {address}: expected auto, local or HOST:PORT of the head node, such as 10.0.0.5:6379")
    hint = "check the address, and that ray start --head runs there"
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=ANSWER_SECONDS / 3).close()
    except OSError as error:
        raise ConfigError(f"--ray {address}: does not answer ({error.strerror or error}); {hint}") from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, timeout=ANSWER_SECONDS, capture_output=True)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        raise ConfigError(f"--ray {address}: something answers there, but not as a Ray cluster; {hint}")
    return address


def check_job(job: Job) -> None:
    """Check that the model can be loaded here, and that the options fit it.

    Raises:
        ConfigError: An option is wrong, or does not fit the model.
        ModelError: There is no such model, or it is damaged.
    """
    from speechrnn.recognition.recognizer import load

    list(load(job.model, **{**job.load_options, "device": "cpu"}).transcribe_many([], **job.options))


def check_nodes(job: Job, example: Source | None = None) -> None:
    """Check on each machine of the cluster that a worker can do its work.

    Args:
        job: The work.
        example: A recording, which should be visible there.

    Raises:
        ConfigError: A machine does not answer, has another version of the package, or cannot see the output folder,
            the model, another file or the recording; the message names it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise ConfigError("--ray: no machine of the cluster has a CPU for work; add one with ray start --address")
    token = Path(job.folder, f".speechrnn-{os.getpid()}.token")
    expected = {"version": speechrnn.__version__, "model": fingerprint_model(job.model), "token": token.name}
    try:
        token.write_text(token.name, encoding="utf-8")
        probe = ray.remote(num_cpus=0, max_retries=1)(_probe)
        answers = {
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                job, str(token), example
            ): node["NodeManagerAddress"]
            for node in nodes
        }
        ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=START_SECONDS)
        for each in late:
            raise ConfigError(f"--ray: machine {answers[each]} does not answer; remove it from the cluster")
        for each in ready:
            try:
                found = ray.get(each)
            except Exception as error:  # an import that fails there, a machine that is lost
                reason = " ".join(str(error).split())[-300:]
                raise ConfigError(f"--ray: machine {answers[each]} cannot work: {reason}") from error
            _check_answer(answers[each], found, expected, job, example)
    except OSError as error:
        raise ConfigError(f"{job.folder}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        with suppress(OSError):
            token.unlink()


def _probe(job: Job, token: str, example: Source | None) -> dict[str, Any]:
    """What a machine sees."""
    found: dict[str, Any] = {"version": speechrnn.__version__, "model": "", "token": ""}
    with suppress(OSError):
        found["token"] = Path(token).read_text(encoding="utf-8")
    with suppress(SpeechRNNError):
        found["model"] = fingerprint_model(job.model)
    paths = [job.options.get("language_model"), example and example.path]
    return {**found, "missing": [path for path in paths if path and not describe_recording(path)]}


def _check_answer(
    machine: str, found: Mapping[str, Any], expected: Mapping[str, str], job: Job, example: Source | None
) -> None:
    """Refuse a machine that cannot work."""
    prefix = f"--ray: machine {machine}"
    if found["version"] != expected["version"]:
        versions = f"has speechrnn {found['version']}, here is {expected['version']}"
        raise ConfigError(f"{prefix} {versions}; install the same version everywhere")
    if found["token"] != expected["token"]:
        reason = "the output folder must be shared by all machines; choose one on a shared file system"
        raise ConfigError(f"{prefix} does not see -o {job.folder}: {reason}")
    if found["model"] != expected["model"]:
        reason = "copy the model folder to the same path there, or to a shared file system"
        raise ConfigError(f"{prefix} does not see the model {job.model}, or has another one there: {reason}")
    for path in found["missing"]:
        if path == job.options.get("language_model") or describe_recording(path):
            reason = "copy it to the same path there, or to a shared file system"
            raise ConfigError(f"{prefix} does not see {path}: {reason}")


def transcribe_parts(folder: PartFolder, job: Job) -> Iterator[Result]:
    """Transcribe the units of a folder on the cluster that this process is connected to.

    A unit whose worker is killed repeatedly, or raises an error that is not about the recording, is divided, until the
    recording that causes it is alone; that one is a failure.

    Yields:
        What became of each unit, in any order; it is noted in the folder already.

    Raises:
        ConfigError: The options do not fit the model, a file cannot be written, or the cluster has no room.
        SpeechRNNError: No unit can be transcribed, or the cluster is lost.
    """
    with _start_networks(job) as networks:
        waiting, has_result, is_first = {unit.name: unit for unit in folder.units}, False, True
        while waiting:
            crashed: dict[str, str] = {}
            for answer in _map(waiting, job, networks):
                if "error" in answer:
                    raise ConfigError(answer["error"])
                if "crash" in answer:
                    crashed[answer["name"]] = answer["crash"]
                    continue
                has_result = True
                yield _finish(folder, waiting[answer["name"]], answer)
            divided = [each for name in crashed for each in _divide(waiting[name])]
            if not has_result and not is_first and divided:
                raise SpeechRNNError(f"--ray: every worker fails: {next(iter(crashed.values()))}")
            for name, reason in crashed.items():
                if len(waiting[name].sources) == 1:
                    yield _finish(folder, waiting[name], {"failed": {"0": reason}})
            waiting, is_first = {unit.name: unit for unit in divided}, False


def _divide(unit: Unit) -> list[Unit]:
    """Both halves of a unit; none if it is one recording."""
    half = len(unit.sources) // 2
    return [Unit(unit.number, part) for part in (unit.sources[:half], unit.sources[half:])] if half else []


def _finish(folder: PartFolder, unit: Unit, answer: Mapping[str, Any]) -> Result:
    for level, message, is_incomplete in answer.get("log", ()):
        logger.log(level, "%s", message, extra={"is_incomplete": is_incomplete})
    failures = {unit.sources[int(number)]: reason for number, reason in answer["failed"].items()}
    seconds = {unit.sources[int(number)]: value for number, value in answer.get("seconds", {}).items()}
    folder.add(unit, failures)
    return Result(unit, seconds, failures)


def _map(units: Mapping[str, Unit], job: Job, networks: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Answers of the workers to units, as they come."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    count = min(_count_workers() - len(networks), len(units))
    if count < 1:
        raise ConfigError("--ray: no machine of the cluster has a CPU and 1 GiB of memory for a worker; add one")
    if ray.available_resources().get("CPU", 0) < 1:
        logger.warning("--ray: all CPUs of the cluster are in use; waiting")
    rows = ray.data.from_items([{"unit": unit.to_json()} for unit in units.values()], override_num_blocks=len(units))
    answers = rows.map(
        Worker,
        fn_constructor_args=(job, list(networks)),
        # A pool that grows would not: Ray Data adds workers for queues only, and none queues more than one unit.
        compute=ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        memory=WORKER_BYTES,
    )
    try:
        for row in answers.iter_rows():
            yield json.loads(row["answer"])
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise SpeechRNNError(f"--ray: stopped by Ray ({reason}); continue with --resume") from error


def _count_workers() -> int:
    """Workers that the cluster has cores and memory for."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(each.get("CPU", 0), each.get("memory", math.inf) // WORKER_BYTES)) for each in resources)


@contextmanager
def _start_networks(job: Job) -> Iterator[list[Any]]:
    """A process for each GPU, with the identity of its machine; none if the device is a CPU, or there is no GPU.

    Raises:
        ConfigError: A GPU is asked for, and there is none.
    """
    import ray

    device = str(job.load_options.get("device", "auto"))
    count = int(ray.cluster_resources().get("GPU", 0)) if device != "cpu" else 0
    if device == "cuda" and not count:
        raise ConfigError("--device cuda: no machine of the cluster has a GPU that Ray knows; use auto or cpu")
    options = {"num_cpus": 1, "num_gpus": 1, "max_restarts": -1, "max_task_retries": -1}
    networks = [ray.remote(**options)(Network).remote(job) for _ in range(count)]
    try:
        places = ray.get([each.find_node.remote() for each in networks])
        yield list(zip(places, networks, strict=True))
    except ray.exceptions.RayActorError as error:  # the model cannot be loaded there
        reason = str(error).strip().splitlines()[-1]
        raise SpeechRNNError(f"--ray: a process with a GPU has failed: {reason[:300]}") from error
    finally:
        for each in networks:
            ray.kill(each)


class Network:
    """The network of a model, in a process with a GPU.

    Args:
        job: The work.
    """

    def __init__(self, job: Job) -> None:
        from speechrnn.recognition.recognizer import load

        self._recognizer = load(job.model, **job.load_options)

    def find_node(self) -> str:
        """Return the identity of this machine."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def compute(self, *batch: Any, **profile: Any) -> tuple[Any, Any]:
        """Log-probabilities (B, T', V) of a padded batch and their lengths (B,), as arrays."""
        emission = self._recognizer.emissions(*batch, **profile)
        return emission.log_probs.cpu().numpy(), emission.lengths.cpu().numpy()


class Worker:
    """Transcribes units; Ray Data makes one for each core.

    Args:
        job: The work.
        networks: Processes that compute the network; none: it is computed here.
    """

    def __init__(self, job: Job, networks: Sequence[tuple[str, Any]] = ()) -> None:
        self._job = job
        self._recognizer = _load_remote(job, networks) if networks else load_recognizer(job)

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        """Transcribe a unit; the answer is JSON too."""
        unit = Unit.from_json(row["unit"])
        return {"answer": json.dumps({"name": unit.name, **transcribe_unit(self._recognizer, unit, self._job)})}


def _load_remote(job: Job, networks: Sequence[tuple[str, Any]]) -> Recognizer:
    """A recogniser whose network is computed by one of the processes of this machine, or else of any."""
    import ray

    from speechrnn.model_folder import load_model

    node = ray.get_runtime_context().get_node_id()
    near = [network for place, network in networks if place == node] or [network for _, network in networks]
    return make_remote(
        load_model(job.model),
        lambda *batch, **profile: ray.get(random.choice(near).compute.remote(*batch, **profile)),
    )
