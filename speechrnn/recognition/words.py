"""What a transcript consists of: words, and segments of words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A recognised word.

    Attributes:
        text: Without white space.
        start: In seconds from the beginning of the recording.
        end: In seconds; not before the start.
        confidence: Probability that it is correct, in [0, 1], if the model has a calibration for the decoder
            (:class:`speechrnn.model_folder.additions.Calibration`); otherwise the geometric mean of the posteriors of
            its tokens, which ranks words but is overconfident.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Segment:
    """A part of a recording with speech.

    Attributes:
        start: Start of its first word, in seconds.
        end: End of its last word, in seconds.
        text: Its words, separated by single spaces.
        words: At least one.
        speaker: Who speaks, such as ``Channel 1``; None if that is not known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    speaker: str | None = None
