"""The context that windows of a long recording need on each side, as measured for a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from speechrnn.errors import AudioError, ConfigError
from speechrnn.model_folder.additions import Context
from speechrnn.model_folder.format import add_context, find_folder
from speechrnn.recognition.longform import count_future
from speechrnn.recognition.recognizer import as_recognizer

if TYPE_CHECKING:
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.audio.blocks import AudioSource
    from speechrnn.recognition.recognizer import Recognizer

logger = logging.getLogger("speechrnn")

CANDIDATE_SECONDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_WINDOW_SECONDS = 10.0  # used part of a window


def measure_context(
    model: Recognizer | str, audio: AudioSource | Sequence[AudioSource], *, tolerance: float = 0.1, save: bool = False
) -> Context:
    """Measure how much context the windows of long recordings need on each side (``context_seconds``).

    The log-probabilities of windows are compared with those of the whole recording; the change is the largest one of
    the best token of a frame. Features are normalised over the whole recording for both, so that it is the context of
    the layers that is measured. From then on this model uses the result.

    Args:
        model: A recogniser, or the path of a model.
        audio: A recording of half a minute or more, such as the model is for, or several.
        tolerance: Greatest change, in nats; 0.1 changes a probability by 10 %.
        save: Also store the result in the model's folder.

    Returns:
        The smallest of nine contexts from 0.25 to 8 seconds within the tolerance; if none is, 8 seconds, and a warning.

    Raises:
        AudioError: No recording is as long as three windows of the longest context.
        ConfigError: ``save`` for a model that was not loaded from a folder.
        ModelError: There is no such model, or its folder cannot be written or belongs to the package.
    """
    recognizer = as_recognizer(model, "measure_context")
    folder = None
    if save:
        if recognizer.model.path is None or recognizer.name is None:
            raise ConfigError("measure_context: save needs a model that was loaded from a folder")
        folder = find_folder(recognizer.name, to_change=True)
    acoustic, changes, seconds = recognizer.model.acoustic, dict.fromkeys(CANDIDATE_SECONDS, 0.0), 0.0
    sources: Sequence[Any] = audio if isinstance(audio, list | tuple) else [audio]
    for source in sources:
        waveform = recognizer.read(source)
        if waveform.seconds < _WINDOW_SECONDS + 2 * CANDIDATE_SECONDS[-1]:
            continue
        seconds += waveform.seconds
        samples = torch.from_numpy(waveform.samples)[None].to(recognizer.device)
        for context, change in _measure(acoustic, samples).items():
            changes[context] = max(changes[context], change)
    if not seconds:
        raise AudioError(
            f"measure_context: no recording has {_WINDOW_SECONDS + 2 * CANDIDATE_SECONDS[-1]:g} s; give a longer one"
        )
    chosen = next((each for each in CANDIDATE_SECONDS if changes[each] <= tolerance), CANDIDATE_SECONDS[-1])
    if changes[chosen] > tolerance:
        message = (
            "a context of %g s still changes log-probabilities by %.2f; cut long recordings of this model with vad"
        )
        logger.warning(message, chosen, changes[chosen])
    found = Context(chosen, changes[chosen], tolerance, seconds)
    recognizer.model = replace(recognizer.model, context=found)
    if folder is not None:
        add_context(folder, found)
    return found


@torch.inference_mode()
def _measure(acoustic: AcousticModel, samples: Tensor) -> dict[float, float]:
    """Largest change at each context, for a recording, (1, N)."""
    features, lengths = acoustic.front_end(samples, torch.tensor([samples.shape[1]]))
    whole = _compute(acoustic, features, lengths)
    frames = len(whole)
    size = round(_WINDOW_SECONDS / acoustic.seconds_per_frame)
    longest = math.ceil(CANDIDATE_SECONDS[-1] / acoustic.seconds_per_frame)
    factor, changes = acoustic.encoder.config.subsampling_factor, {}
    for context in CANDIDATE_SECONDS:
        left = math.ceil(context / acoustic.seconds_per_frame)
        right = count_future(acoustic, left)
        change = 0.0
        for first in range(longest, frames - size - longest + 1, size):
            part = features[:, (first - left) * factor : (first + size + right) * factor]
            found = _compute(acoustic, part, torch.tensor([part.shape[1]]))[left : left + size]
            expected, best = whole[first : first + size].max(dim=-1, keepdim=True)
            change = max(change, float((found.gather(1, best) - expected).abs().max()))
        changes[context] = change
    return changes


def _compute(acoustic: AcousticModel, features: Tensor, lengths: Tensor) -> Tensor:
    frames, lengths, *_ = acoustic.encoder(features, lengths)
    return acoustic.head(frames)[0, : int(lengths[0])]
