"""Long recordings: cut while they are read, in memory that does not grow with the length.

Cuts are at pauses found by voice activity detection, and each piece is transcribed like a recording. Otherwise the
recording is cut into overlapping windows of W seconds, each W − 2C seconds after the previous one. The
log-probabilities of the first and last C seconds of a window, whose context is incomplete, are dropped; the rest are
joined and decoded in stretches that end at runs of blanks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.audio.vad_options import has_vad
from speechrnn.errors import ConfigError
from speechrnn.recognition.cutters import JOIN_SECONDS, PauseCutter, WindowCutter
from speechrnn.recognition.cutting import CutConfig, End, Piece
from speechrnn.recognition.joining import Model, count_step

if TYPE_CHECKING:
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.model_folder import ModelFolder

DEFAULT_CONTEXT_SECONDS = 2.0
USUAL_LENGTHS = 2.0  # a piece may be this much longer than the mean training utterance


def cut_recording(
    transcriber: Model, name: str | None, blocks: Iterable[np.ndarray], config: CutConfig, *, nbest: int
) -> Iterator[Piece | End]:
    """Cut a recording.

    Args:
        transcriber: The model that the pieces are for.
        name: Its name or path, where it has one.
        blocks: Its samples, each (N,), at the model's rate.
        config: How.
        nbest: Hypotheses asked for.

    Yields:
        The pieces, and at last the recording's end.

    Raises:
        ConfigError: More than one hypothesis is asked for, or the options do not fit the model.
    """
    if nbest > 1:
        raise ConfigError(
            f"nbest {nbest}: {name or 'recording'} is cut, and only whole recordings have alternatives; set nbest to 1 "
            "or raise max_seconds"
        )
    cutter, count, rate = make_cutter(transcriber, config), 0, transcriber.sample_rate
    for block in blocks:
        count += len(block)
        for first in range(0, len(block), rate):
            for piece in cutter.feed(block[first : first + rate]):
                yield replace(piece, name=name)
    for piece in cutter.flush():
        yield replace(piece, name=name)
    yield End(name, count / rate, cutter.skipped / rate)


def make_cutter(transcriber: Model, config: CutConfig) -> PauseCutter | WindowCutter:
    """Choose how a model's recordings are cut.

    Raises:
        ConfigError: The context leaves nothing of a window, or the members of an ensemble have different frames.
    """
    models = [each.model for each in get_members(transcriber)]
    steps = [count_step(model.acoustic) for model in models]
    if config.needs_vad() or (config.cut == "auto" and has_vad()):
        step = steps[0] if len(set(steps)) == 1 else None
        join_seconds = min(choose_join(model) for model in models)
        return PauseCutter(config, transcriber.sample_rate, step=step, join_seconds=join_seconds)
    assert config.max_seconds is not None
    if len(set(steps)) > 1:
        raise ConfigError(
            f"cut windows: models with {' and '.join(map(str, steps))} samples a frame cannot share windows; use cut "
            "vad, or one of them"
        )
    step, rate = steps[0], transcriber.sample_rate
    seconds = config.context_seconds
    left = math.ceil(max(choose_context(model) if seconds is None else seconds for model in models) * rate / step)
    return WindowCutter(
        step=step,
        tail=max(model.acoustic.front_end.config.fft_length for model in models),
        window=math.floor(config.max_seconds * rate / step),
        left=left,
        right=max(count_future(model.acoustic, left) for model in models),
    )


def get_members(transcriber: Model) -> Sequence[Model]:
    """The models of an ensemble, or one model alone."""
    return getattr(transcriber, "members", (transcriber,))


def choose_join(model: ModelFolder) -> float:
    """Seconds up to which speech is joined into a piece: twice the mean training utterance, if that is known.

    Networks that were trained on single words or short commands leave out most words of longer pieces.
    """
    training = model.provenance.get("training") or {}
    hours, count = training.get("hours_of_speech"), training.get("utterances")
    if not (isinstance(hours, int | float) and isinstance(count, int) and hours > 0 and count > 0):
        return JOIN_SECONDS
    return min(JOIN_SECONDS, USUAL_LENGTHS * 3600 * hours / count)


def choose_context(model: ModelFolder) -> float:
    """Seconds of context of a model's windows: as measured, or the default; at least the sliding normalisation's."""
    front_end = model.acoustic.front_end.config
    sliding = front_end.normalization_seconds if front_end.normalization == "sliding" else 0.0
    return max(sliding, DEFAULT_CONTEXT_SECONDS if model.context is None else model.context.seconds)


def count_future(acoustic: AcousticModel, context: int) -> int:
    """Encoder frames after the used ones of a window: the look-ahead of a unidirectional model, else the context."""
    encoder, front_end = acoustic.encoder.config, acoustic.front_end.config
    if encoder.bidirectional:
        return context
    # What deltas and the convolution of the subsampling reach beyond a frame.
    return (
        encoder.lookahead_frames + 1 + math.ceil(front_end.deltas * front_end.delta_width / encoder.subsampling_factor)
    )
