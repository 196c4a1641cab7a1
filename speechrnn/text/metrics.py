"""Edits between a hypothesis and its reference: counts, rates and alignments.

Nothing here normalises text beyond its white space: the caller decides what counts as the same word.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Operation = Literal["equal", "substitute", "delete", "insert"]


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
