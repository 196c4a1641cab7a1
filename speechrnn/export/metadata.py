"""What an exported model says about itself; read without torch.

An ONNX file holds a map of texts. Each field of :class:`Metadata` is one of them, as JSON, under the name of the field
with ``speechrnn.`` before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.errors import ModelError
from speechrnn.settings import check_format_version

if TYPE_CHECKING:
    import onnxruntime

FORMAT_VERSION = 1
PREFIX = "speechrnn."
INSTALL = "pip install 'speechrnn[onnx]'"


@dataclass(frozen=True)
class Metadata:
    """Everything that a program needs, beside the graph, to write the transcripts of the original model.

    Attributes:
        format_version: Of this description; readers refuse newer ones.
        speechrnn_version: Of the package that exported it.
        kind: ``whole``: recordings in, log-probabilities out; ``step``: a chunk of samples and caches in,
            log-probabilities of the frames that it completes and new caches out.
        name: The original's name or path; None: unnamed.
        sample_rate: Of the waveforms, in Hz.
        seconds_per_frame: From one row of log-probabilities to the next.
        least_samples: Samples of the shortest recording that has a frame.
        token_kind: ``characters``, ``words``, ``sentencepiece`` or ``phones``.
        symbols: Symbol of each token id; the blank at 0.
        spellings: For each token id, whether it begins a word, and the letters that it writes.
        text: Normalisation of the training transcripts (``config.json``, section ``text``).
        front_end: Settings of the features, for people.
        encoder: Settings of the encoder, for people.
        calibrations: Calibrations of word confidences: slope and offset, by the name of the decoder.
        tuned: Weights of language models tuned for this model, by the digest of the language model.
        context_seconds: Context that windows of long recordings need on each side; None: not measured.
        languages: Language tags.
        corpora: What it was trained on, with licence and attribution.
        training: Hours of speech and utterances that it was trained on, as far as they are known.
        num_parameters: Weights of the original.
        int8_weights: How many of them have 8 bits here.
        stream: Of a step: chunk lengths, delay and caches (:mod:`speechrnn.export.streaming`); None of a whole model.
    """

    format_version: int
    speechrnn_version: str
    kind: str
    name: str | None
    sample_rate: int
    seconds_per_frame: float
    least_samples: int
    token_kind: str
    symbols: list[str]
    spellings: list[list[Any]]
    text: dict[str, Any]
    front_end: dict[str, Any]
    encoder: dict[str, Any]
    calibrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    context_seconds: float | None = None
    languages: list[str] = field(default_factory=list)
    corpora: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    num_parameters: int = 0
    int8_weights: int = 0
    stream: dict[str, Any] | None = None

    def pack(self) -> dict[str, str]:
        """The map of texts that an ONNX file holds."""
        return {PREFIX + name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}


_NUMBERS = ("sample_rate", "seconds_per_frame", "least_samples")


def read_metadata(texts: Mapping[str, str], *, where: str) -> Metadata:
    """Read the map of texts of an ONNX file.

    Args:
        texts: As onnxruntime's ``session.get_modelmeta().custom_metadata_map``.
        where: The file, for messages.

    Raises:
        ModelError: The file is not from speechrnn, from a newer one, or damaged.
    """
    again = "export the model again: speechrnn export"
    if PREFIX + "format_version" not in texts:
        raise ModelError(f"{where}: an ONNX file of another program; expected one that speechrnn export wrote")
    try:
        values = {name.removeprefix(PREFIX): json.loads(text) for name, text in texts.items() if PREFIX in name}
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: the description of the model is damaged ({error}); {again}") from error
    check_format_version(
        values["format_version"], FORMAT_VERSION, where=where, instead=", or export the model again with this one"
    )
    try:
        metadata = Metadata(**{each.name: values[each.name] for each in fields(Metadata)})
    except KeyError as error:
        raise ModelError(f"{where}: the description of the model lacks {error.args[0]}; {again}") from None
    _check(metadata, where, again)
    return metadata


def _check(metadata: Metadata, where: str, again: str) -> None:
    """Check what readers compute with."""
    for name in _NUMBERS:
        value = getattr(metadata, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ModelError(f"{where}: {name}: expected a number above 0, got {value!r:.40}; {again}")
    symbols, spellings = metadata.symbols, metadata.spellings
    if not isinstance(symbols, list) or not isinstance(spellings, list) or not 1 < len(symbols) == len(spellings):
        raise ModelError(f"{where}: symbols and spellings: expected two lists of one length; {again}")
    if not all(isinstance(each, list) and [type(part) for part in each] == [bool, str] for each in spellings):
        raise ModelError(f"{where}: spellings: expected pairs of true or false and letters; {again}")
    for name in ("calibrations", "tuned", "text", "training", "front_end", "encoder"):
        if not isinstance(getattr(metadata, name), dict):
            raise ModelError(f"{where}: {name}: expected a mapping; {again}")


def open_session(
    model: str | Path | bytes, *, threads: int = 1, where: str | None = None
) -> tuple[onnxruntime.InferenceSession, Metadata]:
    """Open an exported model on the CPU.

    Args:
        model: The file, or its content.
        threads: Of one operator.
        where: Name of the model in messages; None: its path.

    Raises:
        ModelError: There is no such file, it is no ONNX file or damaged, not from speechrnn or from a newer one; or
            onnxruntime is missing or too old.
    """
    where = where or ("the model" if isinstance(model, bytes) else str(model))
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise ModelError(f"{where}: no such file; expected one that speechrnn export wrote")
    session = start_session(model if isinstance(model, bytes) else str(model), threads=threads, where=where)
    return session, read_metadata(session.get_modelmeta().custom_metadata_map, where=where)


def start_session(model: str | bytes, *, threads: int, where: str) -> onnxruntime.InferenceSession:
    """Start onnxruntime with a graph, without reading its description; arguments as for :func:`open_session`."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"ONNX models need onnxruntime: {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # its messages are in the exception
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime, whose exceptions have no common class
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{where}: onnxruntime {onnxruntime.__version__} cannot open it ({reason}); the file is damaged, or "
            f"onnxruntime too old: export the model again, or {INSTALL}"
        ) from error
