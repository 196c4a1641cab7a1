"""Bulk transcription by two workers, one worker, and without Ray: ``python tests/benchmarks/bench_cluster.py``.

A local Ray cluster of machines with one core each: every machine's processes are bound to a core of their own. The
model is an untrained bidirectional GRU of 256 units and 3 layers, the recordings are noise of 2 to 20 s at 16 kHz. The
rate is taken from the fourth part that is complete to the last one, so that the start of Ray and of the workers does
not count. The command itself, which would run on a machine of its own, shares the cores; its share is printed. Needs
``pip install '.[cluster]'`` and two cores with nothing else to do.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from speechrnn import cluster
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.model_folder import ModelFolder, save_model
from speechrnn.recognition import parts
from speechrnn.recognition.part_worker import Job
from speechrnn.recognition.recognizer import load
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import CharacterTokens

PART_SECONDS = 150.0
STARTING = 4
"""Parts until all workers have started."""


def make_model(folder: Path) -> None:
    """Save an untrained model of size small."""
    torch.manual_seed(0)
    tokens = CharacterTokens.build(["abcdefghijklmnopqrstuvwxyz '"])
    acoustic = AcousticModel(FrontEndConfig(), EncoderConfig(size="small"), len(tokens))
    save_model(folder, ModelFolder(acoustic, tokens, TextConfig(), {}))


def make_recordings(folder: Path, hours: float) -> list[parts.Source]:
    """Write noise, and describe it."""
    rng, seconds, sources = np.random.default_rng(0), 0.0, []
    while seconds < 3600 * hours:
        length = rng.uniform(2, 20)
        path = folder / f"{len(sources):05}.wav"
        soundfile.write(path, (0.1 * rng.standard_normal(round(16000 * length))).clip(-1, 1), 16000)
        sources.append(parts.Source(path.name, str(path), **parts.describe_recording(str(path))))
        seconds += length
    return sources


def bind(pids: list[int], core: int) -> None:
    """Bind processes and all that they start to a core."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def run_workers(count: int, job: Job, sources: list[parts.Source], cores: list[int]) -> tuple[float, float]:
    """Times real time of a number of workers, and the share of a core that this process uses meanwhile."""
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for core in cores[:count]:
        node = machines.add_node(num_cpus=1)
        bind([each.process.pid for kind in node.all_processes.values() for each in kind], core)
    try:
        with (
            parts.open_parts(Path(job.folder), sources, formats=job.formats, settings={}) as folder,
            cluster.connect(machines.address),
        ):
            cluster.check_nodes(job)
            done = []
            for result in cluster.transcribe_parts(folder, job):
                done.append((time.perf_counter(), time.process_time(), sum(result.seconds.values())))
    finally:
        machines.shutdown()
    assert sum(len(unit.sources) for unit in folder.units) == len(sources)
    (began, began_used, _), *_ = counted = done[STARTING - 1 :]
    ended, ended_used, _ = counted[-1]
    seconds = sum(seconds for *_, seconds in counted[1:])
    return seconds / (ended - began), (ended_used - began_used) / (ended - began)


def run_alone(job: Job, sources: list[parts.Source], core: int) -> float:
    """Times real time without Ray, on one core."""
    bind([os.getpid()], core)
    torch.set_num_threads(1)
    recognizer = load(job.model, device="cpu")
    paths = [source.path for source in sources]
    recognizer.transcribe(paths[0])
    began = time.perf_counter()
    seconds = sum(each.seconds for each in recognizer.transcribe_many(paths, **job.options))
    return seconds / (time.perf_counter() - began)


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    args = parser.parse_args()
    parts.LEAST_SECONDS, parts._PARTS = PART_SECONDS, 10**9
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in ("model", "audio", "out")}
        for folder in folders.values():
            folder.mkdir()
        make_model(folders["model"])
        sources = make_recordings(folders["audio"], args.hours)
        job = Job(str(folders["model"]), str(folders["out"]), ("jsonl",), {}, {"device": "cpu"})
        two, share = run_workers(2, job, sources, cores)
        one, _ = run_workers(1, job, sources, cores)
        alone = run_alone(job, sources, cores[0])
    print(f"{args.hours:g} h in {len(sources)} recordings; the command used {100 * share:.0f} % of a core meanwhile")
    print(f"two workers {two:.0f} x real time, one worker {one:.0f} x, without Ray {alone:.0f} x")
    print(f"two workers over one: {two / one:.2f} x; one worker over no Ray: {one / alone:.2f} x")


if __name__ == "__main__":
    main()
