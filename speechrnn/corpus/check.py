"""Which utterances can be trained on, and why the others cannot, before the first step."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from speechrnn.corpus.utterance import CompactList, Utterance, compact_utterances
from speechrnn.errors import CorpusError
from speechrnn.text.tokens import Tokens


@dataclass(frozen=True)
class LeftOut:
    """An utterance that cannot be trained on, and the reason in words."""

    id: str
    reason: str


def encode_utterance(
    utterance: Utterance, *, tokens: Tokens, normalize: Callable[[str], str]
) -> tuple[Utterance, str | None]:
    """Normalise the text of an utterance and add its tokens.

    Returns:
        The utterance, and why its text cannot be trained on (None where it can).
    """
    text = normalize(utterance.text)
    ids: list[int] = []
    reason = None if text else "its transcript is empty"
    if text:
        try:
            ids = tokens.encode(text)
        except CorpusError as error:
            reason = str(error)
    return replace(utterance, text=text, tokens=array(_find_typecode(len(tokens)), ids)), reason


def _find_typecode(count: int) -> str:
    """The smallest unsigned integers that tell so many tokens apart."""
    return "B" if count <= 2**8 else "H" if count <= 2**16 else "I"


def check_corpus(
    utterances: Iterable[Utterance],
    *,
    tokens: Tokens,
    normalize: Callable[[str], str],
    sample_rate: int,
    explain_infeasible: Callable[[Sequence[int], int], str | None],
) -> tuple[CompactList[Utterance], list[LeftOut]]:
    """Sort a corpus into what can be trained on and what cannot.

    Args:
        utterances: The corpus, headers read.
        tokens: The model's tokens.
        normalize: The model's text normalisation.
        sample_rate: The model's, in Hz.
        explain_infeasible: Why CTC cannot align these tokens with so many samples, or None where it can.

    Returns:
        The usable utterances with normalised text and tokens, and those left out with their reasons, both in the
        corpus's order.
    """
    usable, left_out = compact_utterances(), []
    for each in utterances:
        utterance, reason = encode_utterance(each, tokens=tokens, normalize=normalize)
        reason = reason or explain_infeasible(utterance.tokens, utterance.count_samples(sample_rate))
        if reason is None:
            usable.append(utterance)
        else:
            left_out.append(LeftOut(each.id, reason))
    return usable, left_out
