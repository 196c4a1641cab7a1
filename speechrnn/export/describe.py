"""The description of a model that goes into its ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import speechrnn
from speechrnn.export.metadata import FORMAT_VERSION, Metadata
from speechrnn.model_folder import ModelFolder


def describe_model(
    model: ModelFolder,
    *,
    int8_weights: int = 0,
    stream: dict[str, Any] | None = None,
) -> Metadata:
    """Describe a model as :class:`~speechrnn.export.metadata.Metadata`.

    Args:
        model: The model.
        int8_weights: Weights with 8 bits.
        stream: Of a graph for one chunk: its chunks and caches; None for whole recordings.
    """
    acoustic, tokens = model.acoustic, model.tokens
    rate, training = acoustic.sample_rate, model.provenance.get("training") or {}
    return Metadata(
        format_version=FORMAT_VERSION,
        speechrnn_version=speechrnn.__version__,
        kind="whole" if stream is None else "step",
        name=model.name,
        sample_rate=rate,
        seconds_per_frame=acoustic.seconds_per_frame,
        least_samples=acoustic.least_samples,
        token_kind=tokens.kind,
        symbols=list(tokens.symbols),
        spellings=[[begins, letters] for begins, letters in tokens.spellings],
        text=asdict(model.text),
        front_end=asdict(acoustic.front_end.config),
        encoder=asdict(acoustic.encoder.config),
        calibrations={name: {"slope": each.slope, "offset": each.offset} for name, each in model.calibrations.items()},
        tuned={digest: asdict(each) for digest, each in model.tuned.items()},
        context_seconds=None if model.context is None else model.context.seconds,
        languages=list(model.provenance.get("languages") or []),
        corpora=list(model.provenance.get("corpora") or []),
        training={name: training[name] for name in ("hours_of_speech", "utterances") if name in training},
        num_parameters=acoustic.num_parameters,
        int8_weights=int8_weights,
        stream=stream,
    )
