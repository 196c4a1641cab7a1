"""Combining several models: every hypothesis is scored by all of them.

Models that were trained separately emit a token in different frames, so averaging posteriors frame by frame loses
tokens to blanks. Here whole token sequences ("readings") are compared, by the mean over the models of their log
probability over all paths. Readings come from each model's own search. Without a closed vocabulary the best one also
takes over parts of the others' readings while that raises its score.

Source:
    Hypotheses of one system scored by others: M. Ostendorf et al., "Integration of diverse recognition methodologies
    through reevaluation of N-best sentence hypotheses", HLT 1991. Why the mean of CTC posteriors fails: G. Kurata and
    K. Audhkhasi, "Guiding CTC posterior spike timings for improved posterior fusion and knowledge distillation",
    Interspeech 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from speechrnn.decoding.beam import make_hypothesis
from speechrnn.decoding.greedy import check_log_probs
from speechrnn.errors import ConfigError
from speechrnn.types import BLANK_ID, Hypothesis, as_array

Reading = tuple[int, ...]
Change = tuple[int, int, Reading]
"""First token to replace, the one after the last, and the replacement."""

_SCORED_AT_ONCE = 64


def combine_hypotheses(
    found: Sequence[Sequence[Sequence[Hypothesis]]],
    log_probs: Sequence[Tensor | np.ndarray],
    lengths: Sequence[Tensor | np.ndarray],
    *,
    score_language: Callable[[Reading], float] | None = None,
    nbest: int = 1,
    blank_id: int = BLANK_ID,
) -> list[list[Hypothesis]]:
    """Combine the hypotheses of several models.

    Args:
        found: For each of K models and each of B utterances its hypotheses, the best first, at least one.
        log_probs: Of each model, (B, T', V), natural log; T' may differ between models, V may not.
        lengths: Valid frames of each, (B,), int64.
        score_language: Score of language model and hotwords for any reading, as in the hypotheses; the best reading
            then takes over parts of the others' best ones. None for a closed vocabulary.
        nbest: Most hypotheses of each utterance.
        blank_id: Token id of the blank.

    Returns:
        For each utterance its hypotheses, the best first. The acoustic score is the mean over the models of the natural
        log of the probability over all paths; frames are those of the first model; a token's confidence is the mean
        over the models. A reading too long for one of the models is left out; if there is no other, the first model's
        hypothesis is returned unchanged.

    Raises:
        ConfigError: The shapes do not fit each other.
    """
    if not len(found) == len(log_probs) == len(lengths) or len({each.shape[2] for each in log_probs}) != 1:
        raise ConfigError("combine_hypotheses: expected the same number of models, and of tokens, everywhere")
    for each, valid in zip(log_probs, lengths, strict=True):
        check_log_probs(each, valid, blank_id, name="combine_hypotheses")
    rows = [torch.as_tensor(as_array(each)).double() for each in log_probs]
    return [
        _combine_one(
            [hypotheses[place] for hypotheses in found],
            [each[place, : int(valid[place])] for each, valid in zip(rows, lengths, strict=True)],
            score_language,
            nbest,
            blank_id,
        )
        for place in range(len(found[0]))
    ]


def score_readings(log_probs: Tensor, readings: Sequence[Reading], *, blank_id: int = BLANK_ID) -> np.ndarray:
    """Compute the natural log of the probability of each reading over all paths, (R,); -inf where it does not fit.

    Args:
        log_probs: Of one utterance, (T', V), natural log, float64 on the CPU.
        readings: Token ids without blanks, R of them.
        blank_id: Token id of the blank.
    """
    if not len(log_probs):
        return np.array([-math.inf if reading else 0.0 for reading in readings])
    scores = []
    for first in range(0, len(readings), _SCORED_AT_ONCE):
        part = readings[first : first + _SCORED_AT_ONCE]
        losses = torch.nn.functional.ctc_loss(
            log_probs[:, None].expand(-1, len(part), -1),
            torch.tensor([token for reading in part for token in reading], dtype=torch.long),
            torch.full((len(part),), len(log_probs)),
            torch.tensor([len(reading) for reading in part]),
            blank=blank_id,
            reduction="none",
        )
        scores.append(-losses.numpy())
    return np.concatenate(scores)


def _combine_one(
    found: Sequence[Sequence[Hypothesis]],
    rows: Sequence[Tensor],
    score_language: Callable[[Reading], float] | None,
    nbest: int,
    blank_id: int,
) -> list[Hypothesis]:
    language: dict[Reading, float] = {}
    for hypotheses in found:
        for hypothesis in hypotheses:
            if math.isfinite(hypothesis.acoustic_score):
                language.setdefault(tuple(hypothesis.tokens), hypothesis.language_score)

    def score(readings: Sequence[Reading]) -> np.ndarray:
        """Mean log probabilities plus the score of the language model."""
        acoustic = np.mean([score_readings(row, readings, blank_id=blank_id) for row in rows], axis=0)
        for reading in readings:
            if reading not in language and score_language is not None:
                language[reading] = score_language(reading)
        return acoustic + [language[reading] for reading in readings]

    readings = list(language)
    scores = dict(zip(readings, score(readings).tolist(), strict=True)) if readings else {}
    if score_language is not None and len(readings) > 1:
        best = max(scores, key=lambda reading: scores[reading])
        others = [tuple(hypotheses[0].tokens) for hypotheses in found]
        best, scores[best] = _recombine(best, scores[best], others, score)
    possible = [reading for reading in scores if scores[reading] > -math.inf]
    ranked = sorted(possible, key=lambda reading: scores[reading], reverse=True)
    if not ranked:
        return [found[0][0]]
    return [
        _make_hypothesis(rows, reading, scores[reading] - language[reading], language[reading], blank_id)
        for reading in ranked[:nbest]
    ]


def _make_hypothesis(
    rows: Sequence[Tensor], reading: Reading, acoustic: float, language: float, blank_id: int
) -> Hypothesis:
    """With the first model's frames and the mean of all models' confidences."""
    first, *others = (make_hypothesis(row.numpy(), reading, acoustic, blank_id, language) for row in rows)
    confidences = np.mean([each.confidences for each in (first, *others)], axis=0)
    return replace(first, confidences=confidences.tolist())


def _recombine(
    best: Reading, value: float, others: Iterable[Reading], score: Callable[[Sequence[Reading]], np.ndarray]
) -> tuple[Reading, float]:
    """Replace parts of the best reading by parts of the others; return it and its score."""
    others = list(dict.fromkeys(others))
    while True:
        changes = list(dict.fromkeys(change for other in others for change in _compare(best, other)))
        if not changes:
            return best, value
        values = score([_apply(best, [change]) for change in changes])
        better = [number for number in np.argsort(-values, kind="stable").tolist() if values[number] > value]
        if not better:
            return best, value
        taken = _choose_apart([changes[number] for number in better])
        all_taken = _apply(best, taken)
        [together] = score([all_taken]).tolist()
        if together > values[better[0]]:
            best, value = all_taken, together
        else:
            best, value = _apply(best, [changes[better[0]]]), float(values[better[0]])


def _compare(reading: Reading, other: Reading) -> list[Change]:
    """The fewest changes that turn this reading into the other one."""
    from rapidfuzz.distance import Levenshtein

    changes: list[Change] = []
    for edit in Levenshtein.opcodes(reading, other):
        if edit.tag == "equal":
            continue
        first, tokens = edit.src_start, other[edit.dest_start : edit.dest_end]
        if changes and changes[-1][1] == first:  # adjacent edits are one change
            first, _, before = changes.pop()
            tokens = before + tokens
        changes.append((first, edit.src_end, tokens))
    return changes


def _choose_apart(changes: Sequence[Change]) -> list[Change]:
    """Choose changes, in order, that neither overlap nor touch an earlier one."""
    taken: list[Change] = []
    for first, last, tokens in changes:
        if all(last < other_first or first > other_last for other_first, other_last, _ in taken):
            taken.append((first, last, tokens))
    return taken


def _apply(reading: Reading, changes: Sequence[Change]) -> Reading:
    """Apply changes that do not touch each other."""
    for first, last, tokens in sorted(changes, reverse=True):
        reading = (*reading[:first], *tokens, *reading[last:])
    return reading
