"""Write a model as an ONNX file, and compare it with the original before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.atomic_io import write_atomic
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.errors import AudioError, ConfigError, ModelError
from speechrnn.export.check import SECONDS, ExportComparison, compare, make_signal
from speechrnn.export.describe import describe_model
from speechrnn.export.metadata import INSTALL, Metadata, start_session
from speechrnn.export.running import ExportedStream
from speechrnn.model_folder import ModelFolder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_PIECE_SECONDS = 0.7


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        num_bytes: Its size.
        num_parameters: Weights of the model.
        int8_weights: How many of them have 8 bits in the file.
        comparison: The file beside the original.
        audio: What both were run on.
    """

    path: Path
    num_bytes: int
    num_parameters: int
    int8_weights: int
    comparison: ExportComparison
    audio: str


def export_onnx(
    model: ModelFolder, path: str | Path, *, int8: bool = False, streaming: bool = False, audio: str | None = None
) -> Exported:
    """Write a model as one ONNX file, from waveforms to log-probabilities.

    Args:
        model: The model, on the CPU.
        path: The file; an existing one is replaced.
        int8: Use 8-bit weights in LSTMs; other cells keep theirs.
        streaming: Write a graph for one chunk of a stream (:class:`speechrnn.export.running.ExportedStream`).
        audio: A recording on which the file is compared with the original; None: a built-in signal.

    Raises:
        ConfigError: A setting of the model cannot be exported, which the message names; or ``path`` is a folder.
        AudioError: ``audio`` cannot be read or is too short.
        ModelError: The output differs from the original's, the file cannot be written, or onnx is missing.
    """
    if Path(path).is_dir():
        raise ConfigError(f"export: {path} is a folder; name the file to write")
    samples, name = _read_samples(model, audio)
    content, metadata = _build(model, int8=int8, streaming=streaming)
    session = start_session(content, threads=1, where="export: the new file")
    run = partial(_run_stream if streaming else _run_whole, session, metadata)
    comparison = compare(model, run, samples, batched=not streaming)
    if not metadata.int8_weights and comparison.difference > comparison.allowed:
        raise ModelError(
            f"export: on {name} log-probabilities differ by {comparison.difference:.1e} from the original's, more than "
            f"{comparison.allowed:.1e}, so nothing was written; this is a fault of speechrnn: report it with the "
            "model's config.json"
        )
    write_atomic(path, content, error=ModelError)
    return Exported(Path(path), len(content), metadata.num_parameters, metadata.int8_weights, comparison, name)


def _build(model: ModelFolder, *, int8: bool, streaming: bool) -> tuple[bytes, Metadata]:
    """The content of the file, and its description."""
    try:
        from speechrnn.export.build import make_graph
        from speechrnn.export.streaming import make_step_graph
    except ImportError:
        raise ModelError(f"export: needs onnx and onnxruntime: {INSTALL}") from None
    stream = None
    if streaming:
        graph, stream = make_step_graph(model.acoustic, int8=int8)
    else:
        graph = make_graph(model.acoustic, int8=int8)
    metadata = describe_model(model, int8_weights=graph.int8_weights, stream=stream)
    return graph.build(metadata.pack()), metadata


def _run_whole(
    session: InferenceSession, metadata: Metadata, waveforms: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    log_probs, frames = session.run(None, {"waveforms": waveforms, "lengths": lengths})
    return log_probs, frames


def _run_stream(
    session: InferenceSession, metadata: Metadata, waveforms: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities of one recording, fed in pieces that are no whole chunks."""
    stream, piece = ExportedStream(session, metadata), round(_PIECE_SECONDS * metadata.sample_rate)
    [samples] = waveforms
    rows = [stream.feed(samples[start : start + piece]) for start in range(0, len(samples), piece)]
    found = np.concatenate([*rows, stream.finish()])
    return found[None], np.array([len(found)])


def _read_samples(model: ModelFolder, audio: str | None) -> tuple[np.ndarray, str]:
    """Samples for the comparison, and what they are."""
    rate = model.acoustic.sample_rate
    if audio is None:
        return make_signal(rate), "a built-in signal"
    is_long = audio_info(audio).seconds > SECONDS
    samples = read_audio(audio, sample_rate=rate, seconds=SECONDS if is_long else None).samples
    if model.acoustic.count_frames(len(samples)) < 1:
        raise AudioError(f"{audio}: too short for a single frame; give a recording of some seconds")
    return samples, audio
