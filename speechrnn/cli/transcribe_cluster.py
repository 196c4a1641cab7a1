"""``speechrnn transcribe --ray``: the same transcripts, computed by a cluster."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.audio.folders import find_recordings
from speechrnn.cli import arguments
from speechrnn.errors import AudioError, ConfigError, CorpusError, SpeechRNNError
from speechrnn.recognition.part_worker import Job
from speechrnn.recognition.parts import FAILURES_FILE, PartFolder, Source, describe_recording, open_parts
from speechrnn.recognition.transcript import PART_FORMATS

if TYPE_CHECKING:
    from speechrnn.corpus.readers import Format


def run(
    args: argparse.Namespace,
    options: Mapping[str, Any],
    describe_settings: Callable[[], Mapping[str, Any]],
    report: Callable[[str, SpeechRNNError], None],
) -> int:
    """Transcribe on the cluster ``args.ray``.

    Args:
        args: The options of the command.
        options: Keyword arguments of ``transcribe_many``.
        describe_settings: Returns what the transcripts depend on, by the names of the options.
        report: Called with a path that cannot be used, and the error.

    Returns:
        1 if some recordings failed, 2 if all did.

    Raises:
        ConfigError: The options do not fit together, or the cluster cannot be used.
    """
    from speechrnn import cluster

    _check_options(args)
    cluster.check_installed()
    sources, num_unused = _find_sources(args, report)
    if not sources:
        return 2
    job = _make_job(args, options)
    settings = {**describe_settings(), "ray": True, "format": job.formats}
    with open_parts(
        Path(job.folder), sources, formats=job.formats, settings=settings, is_resumed=args.resume
    ) as folder:
        if folder.units:
            cluster.check_job(job)
            with cluster.connect(args.ray):
                cluster.check_nodes(job, next((source for source in sources if source.size), None))
                _transcribe(folder, job, report)
    done = len(sources) - len(folder.failures)
    failures = f", {len(folder.failures)} failed: {args.output}/{FAILURES_FILE}" if folder.failures else ""
    arguments.print_note(f"{args.output}: {done} of {len(sources)} recordings are complete{failures}")
    return 2 if not done else 1 if folder.failures or num_unused else 0


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what does not work on a cluster."""
    if args.output is None:
        raise ConfigError("--ray: needs -o DIR, a folder that all machines of the cluster share")
    if args.format not in (*PART_FORMATS, "all"):
        raise ConfigError(f"-f {args.format}: with --ray choose jsonl, parquet or all (both)")
    if isinstance(args.model, list):
        raise ConfigError("--ray: takes one model; several -m transcribe together on one machine only")
    if args.model.endswith(".onnx"):
        raise ConfigError(f"-m {args.model}: with --ray give a model folder, and --backend onnx where it is faster")
    if args.consecutive:
        raise ConfigError("--consecutive: cannot follow --ray; consecutive recordings are computed one by one")
    if "-" in args.audio:
        raise ConfigError("-: standard input is not visible to a cluster; give files, folders or a corpus")
    if args.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {args.device}: with --ray give auto, cpu or cuda; Ray chooses the GPUs")


def _make_job(args: argparse.Namespace, options: Mapping[str, Any]) -> Job:
    """What the workers need; paths are absolute, because they run in other folders."""
    arguments.make_output_folder(args.output)
    options = dict(options)
    if options.get("language_model"):
        options["language_model"] = os.path.abspath(options["language_model"])
    engine = {name: value for name in ("backend", "precision") if (value := getattr(args, name)) != "auto"}
    names = tuple(map(str.strip, args.speaker_names.split(","))) if args.speaker_names else ()
    return Job(
        os.path.abspath(args.model) if os.path.isdir(args.model) else args.model,
        os.path.abspath(args.output),
        PART_FORMATS if args.format == "all" else (args.format,),
        options,
        {"device": args.device, **engine},
        names,
    )


def _find_sources(args: argparse.Namespace, report: Callable[[str, SpeechRNNError], None]) -> tuple[list[Source], int]:
    """The recordings and utterances of all paths, and how many paths cannot be used."""
    sources: dict[str, Source] = {}
    unused = []

    def refuse(path: str, error: SpeechRNNError) -> None:
        unused.append(path)
        report(path, error)

    for path in args.audio:
        try:
            found = find_sources(path, is_recursive=args.recursive, skipped=args.output, on_error=refuse)
        except SpeechRNNError as error:
            refuse(path, error)
        else:
            for source in found:
                sources.setdefault(source.key, source)
    if args.channels == "separate" and not all(source.is_whole for source in sources.values()):
        raise ConfigError("--channels separate: needs whole recordings, not parts of them that a corpus lists")
    return list(sources.values()), len(unused)


def find_sources(
    path: str,
    *,
    is_recursive: bool = False,
    skipped: str | None = None,
    on_error: Callable[[str, SpeechRNNError], None] | None = None,
) -> list[Source]:
    """Find what a path stands for: a recording, the recordings in a folder, or else the utterances of a corpus.

    Args:
        path: A file or a folder.
        is_recursive: Whether to search the sub-folders of a folder.
        skipped: A folder that is not searched.
        on_error: Called with a sub-folder that cannot be read, and the error.

    Raises:
        AudioError: A folder holds neither recordings nor a corpus.
        CorpusError: A corpus cannot be read.
    """
    if os.path.isdir(path):
        try:
            names = find_recordings(path, is_recursive=is_recursive, skipped=skipped, on_error=on_error)
        except AudioError:
            if not (corpus := _find_corpus(path)):
                raise
            return _read_corpus(corpus, path)
        return [Source(name, os.path.abspath(name), **describe_recording(name)) for name in names]
    is_recording = os.path.splitext(path)[1].lower() in AUDIO_ENDINGS
    if not is_recording and (corpus := _find_corpus(path)):
        return _read_corpus(corpus, path)
    return [Source(path, os.path.abspath(path), **describe_recording(path))]


def _find_corpus(path: str) -> Format | None:
    """The format of a corpus; None if it is none."""
    from speechrnn.corpus.readers import find_format

    try:
        return find_format(path)
    except CorpusError:
        return None


def _read_corpus(corpus: Format, path: str) -> list[Source]:
    """The utterances, without the headers of their recordings."""
    return [
        Source(
            str(each.audio_path),
            os.path.abspath(each.audio_path),
            **describe_recording(str(each.audio_path)),
            start=each.start,
            seconds=None if math.isinf(each.seconds) else each.seconds,
            id=each.id,
        )
        for each in corpus.read(Path(path))
    ]


def _transcribe(folder: PartFolder, job: Job, report: Callable[[str, SpeechRNNError], None]) -> None:
    """Transcribe what is not complete, with a progress bar of estimated seconds of audio."""
    from speechrnn.cluster import transcribe_parts

    total = sum(source.estimate_seconds() for unit in folder.units for source in unit.sources)
    began, passed, seconds = time.monotonic(), 0.0, 0.0
    try:
        with arguments.show_progress("transcribing") as show:
            show(0.0, total)
            for result in transcribe_parts(folder, job):
                passed += sum(source.estimate_seconds() for source in result.unit.sources)
                seconds += sum(result.seconds.values())
                show(passed, total)
                for source, reason in result.failures.items():
                    report(source.name, SpeechRNNError(reason))
    finally:
        folder.finish()
    elapsed = time.monotonic() - began
    arguments.print_note(f"{seconds / 3600:.2f} h of audio in {elapsed:.0f} s, {seconds / elapsed:.0f} x real time")
