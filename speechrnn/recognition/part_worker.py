"""What a worker of a bulk transcription does: one part after the other, read, transcribed and written."""

from __future__ import annotations

import io
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.recognition.parts import Source, Unit

if TYPE_CHECKING:
    from speechrnn.recognition.recognizer import Recognizer
    from speechrnn.recognition.transcript import Transcript

logger = logging.getLogger("speechrnn")

MOST_ATTEMPTS = 3
"""How often a part is begun whose worker is killed."""


@dataclass(frozen=True)
class Job:
    """What the workers need.

    Attributes:
        model: Name or absolute path of the model.
        folder: Absolute path of the output folder.
        formats: Names of the formats to write.
        options: Keyword arguments of ``transcribe_many``.
        load_options: Keyword arguments of :func:`~speechrnn.recognition.recognizer.load`.
        speaker_names: Names for the speakers of separate channels.
    """

    model: str
    folder: str
    formats: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    load_options: Mapping[str, Any] = field(default_factory=dict)
    speaker_names: tuple[str, ...] = ()


def load_recognizer(job: Job) -> Recognizer:
    """Load the model, with its fastest engine from the start: the same recording is always computed in the same way."""
    from speechrnn.recognition.recognizer import load

    recognizer = load(job.model, **job.load_options)
    recognizer.prepare()
    return recognizer


def make_remote(model: Any, compute: Callable[..., tuple[Any, Any]]) -> Recognizer:
    """Make a recogniser whose network is computed elsewhere.

    Args:
        model: The :class:`~speechrnn.model_folder.ModelFolder`.
        compute: As :meth:`Network.compute`.
    """
    import numpy as np
    import torch

    from speechrnn.recognition.recognizer import Recognizer
    from speechrnn.types import Emission

    class Remote(Recognizer):
        def __init__(self) -> None:
            super().__init__(model, device="cpu")
            self._seconds_before_faster = math.inf  # no engine here

        def emissions(self, waveforms: Any, lengths: Any, **profile: Any) -> Emission:
            arrays = [np.asarray(each) for each in (waveforms, lengths)]
            given = {name: np.asarray(value) for name, value in profile.items() if isinstance(value, torch.Tensor)}
            log_probs, counts = compute(*arrays, **given)
            return Emission(torch.from_numpy(np.array(log_probs)), torch.from_numpy(np.array(counts)))

    return Remote()


def transcribe_unit(recognizer: Recognizer, unit: Unit, job: Job) -> dict[str, Any]:
    """Transcribe the recordings of a unit, and write its files.

    Returns:
        ``seconds`` and ``failed``: by number of the recording, its duration or why it failed; ``log``: what was
        logged. Instead ``error`` if nothing can be transcribed with these options, or the files cannot be written;
        ``crash`` for an error that has another cause.
    """
    begun = Path(job.folder, f".{unit.name}.begun")
    done: dict[int, Transcript] = {}
    failed: dict[int, str] = {}
    log: list[tuple[int, str, bool]] = []
    try:
        if _count_attempts(begun) > MOST_ATTEMPTS:
            return {"crash": f"its worker was killed {MOST_ATTEMPTS} times; its memory may be too small"}
        with _collect_log(log):
            for number, found in _transcribe(recognizer, unit.sources, job.options):
                if isinstance(found, SpeechRNNError):
                    failed[number] = str(found)
                else:
                    done[number] = found
        rows = [_make_row(unit.sources[number], found, job) for number, found in sorted(done.items())]
        write_part(Path(job.folder), unit.name, rows, job.formats)
        begun.unlink(missing_ok=True)
    except SpeechRNNError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"crash": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"seconds": {number: found.seconds for number, found in done.items()}, "failed": failed, "log": log}


def _count_attempts(begun: Path) -> int:
    """Count this attempt, in a file that those before it have left."""
    try:
        with begun.open("ab") as file:
            file.write(b".")
            return file.tell()
    except OSError as error:
        raise ConfigError(f"{begun}: cannot be written ({error.strerror}); check the folder and free space") from error


def _transcribe(
    recognizer: Recognizer, sources: Sequence[Source], options: Mapping[str, Any]
) -> Iterator[tuple[int, Transcript | SpeechRNNError]]:
    """Transcripts and failures by number of the source."""
    waiting: deque[int] = deque()
    failed: list[tuple[int, SpeechRNNError]] = []

    def read() -> Iterator[Any]:
        for number, source in enumerate(sources):
            waiting.append(number)
            yield _open(source, recognizer, options)

    # Transcripts and calls of on_error come in the order of the sources.
    found = recognizer.transcribe_many(
        read(), on_error=lambda _, error: failed.append((waiting.popleft(), error)), **options
    )
    for transcript in found:
        yield waiting.popleft(), transcript
    yield from failed


def _open(source: Source, recognizer: Recognizer, options: Mapping[str, Any]) -> Any:
    """A path; of a part of a recording its samples, or what raises the error at its turn."""
    if source.is_whole:
        return source.path
    from speechrnn.audio.files import read_audio
    from speechrnn.recognition.channels import Unreadable

    channel = options.get("channel")
    try:
        return read_audio(
            source.path,
            sample_rate=recognizer.sample_rate,
            channel=channel if isinstance(channel, int) else None,
            start=source.start,
            seconds=source.seconds,
        )
    except SpeechRNNError as error:
        return Unreadable(error)


def _make_row(source: Source, transcript: Transcript, job: Job) -> dict[str, Any]:
    """A transcript as ``-f json`` writes it; of an utterance also its name and its place in the recording."""
    if job.speaker_names:
        transcript = transcript.rename_speakers(dict(zip(transcript.speakers, job.speaker_names, strict=False)))
    row = json.loads(replace(transcript, audio=source.name).to_json())
    utterance = {} if source.id is None else {"id": source.id, "offset": source.start}
    return {**utterance, **row}


@contextmanager
def _collect_log(log: list[tuple[int, str, bool]]) -> Iterator[None]:
    """Collect what the package logs: level, message, whether a recording is incomplete."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.append((record.levelno, record.getMessage(), getattr(record, "is_incomplete", False)))

    handler = Collector()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def write_part(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], formats: Iterable[str]) -> None:
    """Write the transcripts of a part, or nothing if there are none.

    Args:
        folder: Where.
        name: Of the files, without ending.
        rows: The transcripts, as :meth:`~speechrnn.recognition.transcript.Transcript.to_json` describes them.
        formats: ``jsonl``, ``parquet``.

    Raises:
        ConfigError: A file cannot be written.
    """
    for each in formats if rows else ():
        write_atomic(folder / f"{name}.{each}", _WRITERS[each](rows), error=ConfigError)


def _to_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The same columns in every part, whatever its transcripts lack."""
    import pyarrow as pa
    import pyarrow.parquet

    times = [("start", pa.float64()), ("end", pa.float64())]
    word = pa.struct([("text", pa.string()), *times, ("confidence", pa.float64()), ("speaker", pa.string())])
    words = ("words", pa.list_(word))
    segment = pa.struct([*times, ("text", pa.string()), ("speaker", pa.string()), words])
    alternative = pa.struct([("text", pa.string()), ("score", pa.float64()), words])
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "audio", "model", "language", "text", "rejected")),
            *((name, pa.float64()) for name in ("offset", "seconds", "skipped_seconds")),
            ("segments", pa.list_(segment)),
            ("speakers", pa.list_(pa.string())),
            ("alternatives", pa.list_(alternative)),
        ]
    )
    written = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), written, compression="zstd")
    return written.getvalue()


_WRITERS: dict[str, Any] = {"jsonl": _to_json_lines, "parquet": _to_parquet}
