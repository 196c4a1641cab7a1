"""What a transcript consists of: words, and segments of words."""

from __future__ import annotations

from dataclasses import dataclass, replace


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

    def shift(self, seconds: float, *, earliest: float = 0.0) -> Segment:
        """Return the segment with its times this much later, and none before ``earliest``."""

        def move(time: float) -> float:
            return max(time + seconds, earliest)

        words = tuple(replace(word, start=move(word.start), end=move(word.end)) for word in self.words)
        return replace(self, start=move(self.start), end=move(self.end), words=words)
