"""Preflight: which utterances can be trained on, and why the others cannot, before the first step."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.corpus.compact import CompactList
from speechrnn.errors import CorpusError
from speechrnn.text.tokens import Tokens

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


@dataclass(frozen=True, slots=True)
class Utterance:
    """What training needs to know of an utterance before it reads the audio.

    Attributes:
        id: Its name in the corpus.
        audio_path: The recording.
        start: Where it begins in the recording, in seconds.
        seconds: Its duration.
        num_samples: Its length at the model's sample rate.
        text: Reference after the model's text normalisation.
        tokens: Token ids of the text; empty where the model lacks a character.
        speaker: Who speaks, where known.
        corpus: Which corpus it comes from, where the manifest joins several.
    """

    id: str
    audio_path: str
    start: float
    seconds: float
    num_samples: int
    text: str
    tokens: Sequence[int]
    speaker: str | None
    corpus: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """An utterance that cannot be trained on, and the reason in words."""

    id: str
    reason: str


def describe_cut(
    cut: MonoCut, *, tokens: Tokens, normalize: Callable[[str], str], sample_rate: int
) -> tuple[Utterance, str | None]:
    """What training needs to know of a cut, and why its text cannot be trained on (None where it can)."""
    from speechrnn.audio.resampling import resampled_length

    supervision = cut.supervisions[0]
    text = normalize(supervision.text or "")
    ids: list[int] = []
    reason = None
    if not text:
        reason = "its transcript is empty"
    else:
        try:
            ids = tokens.encode(text)
        except CorpusError as error:
            reason = str(error)
    utterance = Utterance(
        id=cut.id,
        audio_path=str(cut.recording.sources[0].source),
        start=cut.start,
        seconds=cut.duration,
        num_samples=resampled_length(_count_source_samples(cut), cut.recording.sampling_rate, sample_rate),
        text=text,
        tokens=array(_find_typecode(len(tokens)), ids),
        speaker=supervision.speaker,
        corpus=(cut.custom or {}).get("corpus"),
    )
    return utterance, reason


def _find_typecode(count: int) -> str:
    """The smallest unsigned integers that tell so many tokens apart."""
    return "B" if count <= 2**8 else "H" if count <= 2**16 else "I"


def _count_source_samples(cut: MonoCut) -> int:
    """Samples that :func:`read_utterance` reads of a cut before it resamples them; halves are rounded as it does."""
    rate = cut.recording.sampling_rate
    first = math.floor(cut.start * rate + 0.5)
    return min(max(1, math.floor(cut.duration * rate + 0.5)), cut.recording.num_samples - first)


def check_corpus(
    cuts: Iterable[MonoCut],
    *,
    tokens: Tokens,
    normalize: Callable[[str], str],
    sample_rate: int,
    explain_infeasible: Callable[[Sequence[int], int], str | None],
) -> tuple[CompactList[Utterance], list[LeftOut]]:
    """Sort a corpus into what can be trained on and what cannot.

    Args:
        cuts: The corpus.
        tokens: What the model's outputs stand for.
        normalize: The model's text normalisation.
        sample_rate: The model's, in Hz.
        explain_infeasible: Why CTC cannot align these tokens with so many samples, or None where it can.

    Returns:
        The usable utterances, made anew when they are asked for, and those left out with their reasons, both in the
        corpus's order.
    """
    usable, left_out = CompactList(Utterance), []
    for cut in cuts:
        utterance, reason = describe_cut(cut, tokens=tokens, normalize=normalize, sample_rate=sample_rate)
        reason = reason or explain_infeasible(utterance.tokens, utterance.num_samples)
        if reason is None:
            usable.append(utterance)
        else:
            left_out.append(LeftOut(cut.id, reason))
    return usable, left_out


def read_utterance(utterance: Utterance, *, sample_rate: int) -> np.ndarray:
    """Read an utterance's samples, (N,), float32, at ``sample_rate`` in Hz."""
    from speechrnn.audio.files import read_audio

    return read_audio(
        utterance.audio_path,
        sample_rate=sample_rate,
        start=utterance.start,
        seconds=utterance.seconds,
        check_levels=False,
    ).samples
