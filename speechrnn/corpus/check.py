"""Find the utterances that cannot be trained on, with the reasons, before training starts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.errors import CorpusError
from speechrnn.text.tokens import Tokens


@dataclass(frozen=True)
class LeftOut:
    """An utterance that cannot be trained on, and the reason."""

    id: str
    reason: str


def encode_utterance(
    utterance: Utterance, *, tokens: Tokens, normalize: Callable[[str], str]
) -> tuple[Utterance, str | None]:
    """Normalise the text of an utterance and add its tokens.

    Returns:
        The utterance, and why its text cannot be trained on (None if it can).
    """
    text = normalize(utterance.text)
    ids: list[int] = []
    reason = None if text else "its transcript is empty"
    if text:
        try:
            ids = tokens.encode(text)
        except CorpusError as error:
            reason = str(error)
    typecode = "B" if len(tokens) <= 2**8 else "H" if len(tokens) <= 2**16 else "I"  # to save memory
    return replace(utterance, text=text, tokens=array(typecode, ids)), reason


def check_corpus(
    utterances: Iterable[Utterance],
    *,
    tokens: Tokens,
    normalize: Callable[[str], str],
    sample_rate: int,
    explain_infeasible: Callable[[Sequence[int], int], str | None],
) -> tuple[UtteranceList, list[LeftOut]]:
    """Separate the utterances that can be trained on from the others.

    Args:
        utterances: The corpus, headers read.
        tokens: The model's tokens.
        normalize: The model's text normalisation.
        sample_rate: The model's, in Hz.
        explain_infeasible: Why CTC cannot align tokens with a number of samples; None if it can.

    Returns:
        The usable utterances with normalised text and tokens, and the others with the reasons, in the corpus's order.
    """
    usable, left_out = UtteranceList(), []
    for each in utterances:
        utterance, reason = encode_utterance(each, tokens=tokens, normalize=normalize)
        reason = reason or explain_infeasible(utterance.tokens, utterance.count_samples(sample_rate))
        if reason is None:
            usable.append(utterance)
        else:
            left_out.append(LeftOut(each.id, reason))
    return usable, left_out
