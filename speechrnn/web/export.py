"""Write the folder of a web page that transcribes with one model."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, ModelError
from speechrnn.export.describe import describe_model
from speechrnn.export.export import Exported, export_onnx
from speechrnn.export.metadata import open_session
from speechrnn.model_folder.content import ModelFolder
from speechrnn.recognition.cutting import DEFAULT_MAX_SECONDS
from speechrnn.recognition.joining import count_step
from speechrnn.recognition.longform import choose_context, count_future
from speechrnn.web.runtime import read_runtime

MODEL_FILE = "model.onnx"
STREAM_FILE = "stream.onnx"
DESCRIPTION_FILE = "model.json"
_SCRIPTS = ("page", "audio", "decode", "subtitles", "worker", "recorder")
PAGE_FILES = ("index.html", "style.css", *(f"{name}.js" for name in _SCRIPTS))
_DESCRIBED = (
    *("speechrnn_version", "sample_rate", "seconds_per_frame", "least_samples", "spellings"),
    *("languages", "corpora", "num_parameters"),
)


def export_page(
    model: ModelFolder,
    folder: str | Path,
    *,
    int8: bool = False,
    streaming: bool = False,
    audio: str | None = None,
    onnxruntime_web: str | Path | None = None,
) -> Exported:
    """Write a folder of static files: a page that transcribes files and the microphone in the browser.

    Files of an earlier page are replaced, others are left alone.

    Args:
        model: The model, on the CPU.
        folder: The folder; created if missing.
        int8: As for :func:`~speechrnn.export.export.export_onnx`, and so is ``audio``.
        streaming: Refuse a model that cannot show the text of the microphone while it records. Others of them have it
            in any case.
        audio: A recording on which the exported model is compared with the original.
        onnxruntime_web: The folder of the npm package onnxruntime-web, or its archive; None: ``npm pack`` fetches it.

    Raises:
        ConfigError: A setting of the model cannot be exported, or onnxruntime-web is missing.
        ModelError: The exported model differs from the original, or the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"export: {folder} is a file; name a folder")
    runtime = read_runtime(onnxruntime_web)
    exported = export_onnx(model, folder / MODEL_FILE, int8=int8, audio=audio)
    about = {**describe_page(model), "stream": _export_stream(model, folder / STREAM_FILE, streaming, int8, audio)}
    content = {**runtime, DESCRIPTION_FILE: json.dumps(about, ensure_ascii=False).encode()}
    content |= {name: (files("speechrnn.web") / "page" / name).read_bytes() for name in PAGE_FILES}
    for name, data in content.items():
        write_atomic(folder / name, data, error=ModelError)
    return exported


def _export_stream(
    model: ModelFolder, path: Path, is_required: bool, int8: bool, audio: str | None
) -> dict[str, Any] | None:
    """Write the graph for streams, and return its description; None for a model that needs whole recordings."""
    from speechrnn.export.streaming import check_step  # imports onnx

    try:
        check_step(model.acoustic)
    except ConfigError:
        if is_required:
            raise
        path.unlink(missing_ok=True)
        return None
    export_onnx(model, path, int8=int8, streaming=True, audio=audio)
    return open_session(path)[1].stream


def describe_page(model: ModelFolder) -> dict[str, Any]:
    """What the page must know of its model; a part of :class:`~speechrnn.export.metadata.Metadata`, and windows."""
    about = vars(describe_model(model))
    return {
        **{name: about[name] for name in _DESCRIBED},
        "name": shorten_name(model.name),
        "calibration": about["calibrations"].get("greedy"),
        "windows": find_windows(model),
    }


def shorten_name(name: str | None) -> str:
    """A model's name without the folders it lies in: ``runs/digits/model`` is ``digits``."""
    parts = [part for part in PurePath(name or "").parts if part not in ("model", "/")]
    return parts[-1] if parts else "unnamed"


def find_windows(model: ModelFolder) -> dict[str, int] | None:
    """How the page cuts long recordings: sizes in samples and in steps of ``step`` samples; None: never.

    They are those of :class:`~speechrnn.recognition.cutters.WindowCutter` with the default options.
    """
    acoustic, rate = model.acoustic, model.acoustic.sample_rate
    if acoustic.encoder.config.output == "final_state":
        return None
    step = count_step(acoustic)
    left = math.ceil(choose_context(model) * rate / step)
    return {
        "longest": math.floor(DEFAULT_MAX_SECONDS * rate),
        "step": step,
        "tail": acoustic.front_end.config.fft_length,
        "window": math.floor(DEFAULT_MAX_SECONDS * rate / step),
        "left": left,
        "right": count_future(acoustic, left),
    }
