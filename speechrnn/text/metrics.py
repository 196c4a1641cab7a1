"""How far a hypothesis is from its reference: error counts, error rates, and how sure one can be of them.

Nothing here normalises text beyond its white space: the caller decides what counts as the same word.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from speechrnn.errors import CorpusError

Operation = Literal["equal", "substitute", "delete", "insert"]

_SPEAKERS_NEEDED = 10
_DRAWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn references into hypotheses. Counts of several utterances add up.

    Attributes:
        substitutions: Reference tokens heard as another.
        deletions: Reference tokens not heard.
        insertions: Tokens heard that the reference does not have.
        length: Tokens of the reference.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0

    @property
    def errors(self) -> int:
        """Edits of every sort."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors over reference tokens, from 0; above 1 with many insertions.

        An empty reference gives 0 without insertions and infinity with them, so rates of single utterances are for
        listings; the rate of a corpus is that of the added counts.
        """
        if self.length == 0:
            return float("inf") if self.errors else 0.0
        return self.errors / self.length

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


@dataclass(frozen=True)
class Interval:
    """What an error rate may be on more speech of the same sort.

    Attributes:
        low: Lower end, a fraction.
        high: Upper end, a fraction.
        method: How it was found, in words.
    """

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Score:
    """The errors of a set of utterances. Rates are fractions.

    Attributes:
        utterances: Utterances scored.
        words: Words of the references.
        wer: Word error rate: word errors over reference words.
        wer_low: Lower end of its interval.
        wer_high: Upper end of its interval.
        cer: Character error rate, spaces included.
        sentence_error_rate: Share of utterances with at least one word error.
        interval_method: How the interval was found, in words.
        substitutions: Words heard as another.
        deletions: Words not heard.
        insertions: Words heard that were not said.
    """

    utterances: int
    words: int
    wer: float
    wer_low: float
    wer_high: float
    cer: float
    sentence_error_rate: float
    interval_method: str
    substitutions: int
    deletions: int
    insertions: int

    def to_dict(self) -> dict[str, Any]:
        """Give the attributes by name, ready for JSON."""
        return asdict(self)


def count_errors(reference_tokens: Sequence[Hashable], hypothesis_tokens: Sequence[Hashable]) -> ErrorCounts:
    """Count the fewest edits that turn a reference into a hypothesis.

    Args:
        reference_tokens: What was said.
        hypothesis_tokens: What was heard.

    Returns:
        The edits. Their sum is the Levenshtein distance; where several ways have it, their split is one of them.
    """
    # Imported late: it takes as long as a small command's own work, and transcribing does not need it.
    from rapidfuzz.distance import Levenshtein

    edits = [edit.tag for edit in Levenshtein.editops(reference_tokens, hypothesis_tokens)]
    return ErrorCounts(edits.count("replace"), edits.count("delete"), edits.count("insert"), len(reference_tokens))


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count word errors; words are what white space parts.

    Args:
        reference: What was said.
        hypothesis: What was heard.
    """
    return count_errors(reference.split(), hypothesis.split())


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count character errors (Unicode code points); the single spaces between words count too.

    Args:
        reference: What was said.
        hypothesis: What was heard.
    """
    return count_errors(" ".join(reference.split()), " ".join(hypothesis.split()))


def align_words(reference: str, hypothesis: str) -> list[tuple[Operation, str | None, str | None]]:
    """Lay a hypothesis beside its reference, word by word.

    Args:
        reference: What was said.
        hypothesis: What was heard.

    Returns:
        What happened, the reference word (None where inserted) and the hypothesis word (None where deleted), in order.
        The edits are those that `word_errors` counts.
    """
    from rapidfuzz.distance import Levenshtein

    said, heard = reference.split(), hypothesis.split()
    steps: list[tuple[Operation, str | None, str | None]] = []
    for block in Levenshtein.opcodes(said, heard):
        reference_words = said[block.src_start : block.src_end]
        hypothesis_words = heard[block.dest_start : block.dest_end]
        if block.tag == "delete":
            steps += [("delete", word, None) for word in reference_words]
        elif block.tag == "insert":
            steps += [("insert", None, word) for word in hypothesis_words]
        else:
            operation: Operation = "equal" if block.tag == "equal" else "substitute"
            steps += [(operation, *pair) for pair in zip(reference_words, hypothesis_words, strict=True)]
    return steps


def error_rate_interval(
    counts: Sequence[ErrorCounts],
    speakers: Sequence[str | None] | None,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Say how sure one can be of a word error rate.

    - Ten or more speakers are known: percentile bootstrap over speakers, because one speaker's errors go together. An
      utterance of unknown speaker counts as a speaker of its own.
    - Fewer: percentile bootstrap over utterances.
    - No error at all, where resampling shows nothing: the two-sided exact binomial bound, [0, 1 - (alpha / 2)^(1 / n)]
      for n words, alpha = 1 - confidence. It takes the words as independent, which flatters where speakers are few.
    - One utterance with errors tells nothing of others: [0, 1], or up to the rate where that is higher.

    Args:
        counts: Word errors of each utterance.
        speakers: Speaker of each utterance, None where unknown; None where no speaker is.
        confidence: Probability that the interval aims to cover, in (0, 1).
        samples: Bootstrap resamples.
        seed: Seed of the resampling: the same seed, the same interval.

    Raises:
        CorpusError: There is no reference word, or not one speaker for each utterance.

    Source:
        Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004;
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
        Biometrika 26, 1934.
    """
    total = _add(counts)
    if speakers is not None and len(speakers) != len(counts):
        raise CorpusError(f"{len(counts)} utterances but {len(speakers)} speakers; give one each, None where unknown")
    alpha = 1 - confidence
    if total.errors == 0:
        words = _number(total.length, "word")
        return Interval(0.0, 1 - (alpha / 2) ** (1 / total.length), f"exact binomial bound over {words} at zero errors")
    if len(counts) == 1:
        return Interval(0.0, max(1.0, total.rate), "none possible: one utterance does not show how utterances differ")
    table, groups = _group(counts, speakers)
    rates = _resample_rates(table, samples=samples, generator=np.random.default_rng(seed))
    low, high = np.quantile(rates, [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high), f"bootstrap over {groups}, {samples} resamples")


def difference_interval(
    first: Sequence[ErrorCounts],
    second: Sequence[ErrorCounts],
    speakers: Sequence[str | None] | None,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """How much one system's error rate lies above another's on the same utterances: paired, so that what is hard for
    both does not blur the difference. Zero outside the interval: the difference is no accident of these recordings.

    Args:
        first: Errors of each utterance by one system.
        second: By the other one; the interval is of its rate minus the first one's.
        speakers: As in :func:`error_rate_interval`; each draw takes the same ones for both.
        confidence: Probability that the interval aims to cover, in (0, 1).
        samples: Bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        CorpusError: There is no reference word, or the numbers of utterances differ.

    Source:
        Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    if len(first) != len(second):
        raise CorpusError(f"{len(first)} and {len(second)} utterances; a paired comparison needs the same ones")
    _add(first)
    (one, groups), (other, _) = _group(first, speakers), _group(second, speakers)
    table = np.concatenate([one, other], axis=1)
    generator = np.random.default_rng(seed)
    sums = _resample(table, samples=samples, generator=generator)
    sums = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    differences = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), f"paired bootstrap over {groups}, {samples} resamples")


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    speakers: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Score:
    """Score hypotheses against references, as they are: normalise both before, or neither.

    Args:
        references: What was said in each utterance.
        hypotheses: What was heard in each.
        speakers: Speaker of each utterance, None where unknown.
        seed: Seed of the interval's resampling.

    Raises:
        CorpusError: The numbers of utterances differ, or no reference has a word.
    """
    if len(references) != len(hypotheses):
        raise CorpusError(f"{len(references)} references but {len(hypotheses)} hypotheses; give one for each")
    counts = [word_errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    total = _add(counts)
    characters = _add([character_errors(*pair) for pair in zip(references, hypotheses, strict=True)])
    interval = error_rate_interval(counts, speakers, seed=seed)
    return Score(
        utterances=len(counts),
        words=total.length,
        wer=total.rate,
        wer_low=interval.low,
        wer_high=interval.high,
        cer=characters.rate,
        sentence_error_rate=sum(count.errors > 0 for count in counts) / len(counts),
        interval_method=interval.method,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
    )


def _add(counts: Sequence[ErrorCounts]) -> ErrorCounts:
    total = sum(counts, ErrorCounts())
    if total.length == 0:
        raise CorpusError(
            f"no word in the references of {_number(len(counts), 'utterance')}, so there is no error rate; "
            "score utterances that have a transcript"
        )
    return total


def _group(counts: Sequence[ErrorCounts], speakers: Sequence[str | None] | None) -> tuple[np.ndarray, str]:
    """Give errors and lengths of each thing to resample, (G, 2), int64, and its name."""
    table = np.array([(count.errors, count.length) for count in counts], dtype=np.int64)
    known = sorted({speaker for speaker in speakers or () if speaker is not None})
    if speakers is None or len(known) < _SPEAKERS_NEEDED:
        return table, _number(len(counts), "utterance")
    row_of = {speaker: row for row, speaker in enumerate(known)}
    unknown = speakers.count(None)
    fresh = iter(range(len(known), len(known) + unknown))
    rows = [next(fresh) if speaker is None else row_of[speaker] for speaker in speakers]
    grouped = np.zeros((len(known) + unknown, 2), dtype=np.int64)
    np.add.at(grouped, rows, table)
    strangers = f" and {_number(unknown, 'utterance')} of unknown speaker" if unknown else ""
    return grouped, f"{_number(len(known), 'speaker')}{strangers}"


def _resample_rates(table: np.ndarray, *, samples: int, generator: np.random.Generator) -> np.ndarray:
    """The rate of each draw that has a word."""
    errors, lengths = _resample(table, samples=samples, generator=generator).T
    return errors[lengths > 0] / lengths[lengths > 0]


def _resample(table: np.ndarray, *, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Draw as many rows as there are, with replacement, over and over; the sums of each draw, (samples, columns)."""
    size = len(table)
    at_once = max(1, _DRAWS_AT_ONCE // size)
    sums = []
    for first in range(0, samples, at_once):
        picks = generator.integers(size, size=(min(at_once, samples - first), size))
        sums.append(table[picks].sum(axis=1))
    return np.concatenate(sums)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
