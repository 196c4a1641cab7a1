"""How long a large corpus takes to open, and how fast audio is read for training.

``python tests/benchmarks/bench_corpus.py open [--hours 1000]`` writes shards of made-up utterances without audio, then
reads and checks them and plans an epoch, in a process of its own.

``python tests/benchmarks/bench_corpus.py load CORPUS [--workers 2]`` decodes, resamples, changes the speed of and adds
noise to a real corpus's utterances as training does, with nothing trained.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SHARD = 1000
SECONDS = 12.0


def write_shards(folder: Path, hours: float) -> int:
    """Shards whose archives have their entries, and no bytes in them."""
    count = round(hours * 3600 / SECONDS)
    for first in range(0, count, SHARD):
        number = f"{first // SHARD:06d}"
        with (
            gzip.open(folder / f"cuts.{number}.jsonl.gz", "wt", compresslevel=1) as cuts,
            tarfile.open(folder / f"recording.{number}.tar", "w") as archive,
        ):
            for i in range(first, min(count, first + SHARD)):
                name, seconds = f"utterance-{i:08d}", SECONDS + (i % 97 - 48) / 10
                recording = {"sampling_rate": 16000, "num_samples": round(seconds * 16000), "channel_ids": [0]}
                text = " ".join(f"word{(i * 7 + k) % 5000}" for k in range(30))
                supervision = {"text": text, "speaker": f"s{i % 900}"}
                cut = {"id": name, "start": 0, "duration": seconds, "recording": recording}
                cuts.write(json.dumps({**cut, "supervisions": [supervision]}) + "\n")
                archive.addfile(tarfile.TarInfo(f"{name}.flac"))
    return count


def open_shards(folder: Path) -> None:
    """What training does before its first step, the model's feasibility check replaced by a count of frames."""
    from speechrnn.corpus.check import check_corpus
    from speechrnn.corpus.readers import read_corpus
    from speechrnn.text.tokens import CharacterTokens
    from speechrnn.training.config import DataConfig
    from speechrnn.training.data import plan_batches

    marks = [mark()]
    cuts = read_corpus(folder)
    marks.append(mark())
    tokens = CharacterTokens.build(cut.text for cut in cuts)
    usable, _ = check_corpus(
        cuts,
        tokens=tokens,
        normalize=str.lower,
        sample_rate=16000,
        explain_infeasible=lambda ids, samples: None if len(ids) <= samples // 320 else "too short",
    )
    marks.append(mark())
    batches = plan_batches(usable, DataConfig(batch_seconds=300), seed=0, shuffle=True)
    planned = len(batches.plan(0))
    marks.append(mark())
    hours = sum(utterance.seconds for utterance in usable) / 3600
    print(f"{len(usable):,} utterances, {hours:,.0f} h, {planned:,} batches; {marks[0][1]:.3f} GiB before")
    for name, before, after in zip(("opened", "checked", "planned"), marks, marks[1:], strict=False):
        print(f"{name} in {after[0] - before[0]:.1f} s, most memory so far {after[1]:.3f} GiB")
    print(f"{(marks[-1][1] - marks[0][1]) * 2**30 / len(usable):.0f} bytes an utterance")


def mark() -> tuple[float, float]:
    """The time in seconds, and the most memory that this process has had so far, in GiB."""
    return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_loader(corpus: str, workers: int, most_hours: float) -> None:
    """Hours of audio that come out of the loader in an hour."""
    from speechrnn.audio.augment import AugmentConfig
    from speechrnn.audio.channel import NoiseConfig
    from speechrnn.corpus.check import encode_utterance
    from speechrnn.corpus.readers import read_corpus
    from speechrnn.text.tokens import CharacterTokens
    from speechrnn.training.config import Config, DataConfig
    from speechrnn.training.data import SpeechData
    from speechrnn.training.preflight import Preflight

    cuts = list(read_corpus(corpus))
    tokens = CharacterTokens.build(cut.text for cut in cuts)
    describe = partial(encode_utterance, tokens=tokens, normalize=str)
    utterances = [describe(cut)[0] for cut in cuts]
    augment = AugmentConfig(speed=(0.9, 1.0, 1.1), noise=NoiseConfig(probability=1.0))
    config = Config(data=DataConfig(batch_seconds=120, num_workers=workers), augment=augment)
    model: Any = SimpleNamespace(sample_rate=16000, explain_infeasible=lambda ids, samples: None)
    data = SpeechData(config, preflight=Preflight(model, tokens, utterances, utterances[:1], [], {}))  # type: ignore[arg-type]
    data.setup()
    batches = iter(data.train_dataloader())
    next(batches)  # the workers have started
    started, samples = time.perf_counter(), 0
    for batch in batches:
        samples += int(batch.waveform_lengths.sum())
        if samples / 16000 / 3600 > most_hours:
            break
    seconds = time.perf_counter() - started
    print(f"{samples / 16000 / 3600:.2f} h of audio in {seconds:.1f} s: {samples / 16000 / seconds:,.0f} x real time")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    opening = actions.add_parser("open")
    opening.add_argument("--hours", type=float, default=1000.0)
    opening.add_argument("--folder", help=argparse.SUPPRESS)
    loading = actions.add_parser("load")
    loading.add_argument("corpus")
    loading.add_argument("--workers", type=int, default=2)
    loading.add_argument("--most-hours", type=float, default=2.0)
    args = parser.parse_args()
    if args.action == "load":
        measure_loader(args.corpus, args.workers, args.most_hours)
    elif args.folder is not None:
        open_shards(Path(args.folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_shards(Path(folder), args.hours)
            subprocess.run([sys.executable, __file__, "open", "--folder", folder], check=True)


if __name__ == "__main__":
    main()
