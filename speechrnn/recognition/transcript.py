"""What was said in a recording: text, segments, words; each with its time."""

from __future__ import annotations

from dataclasses import dataclass

from speechrnn.recognition import writers


@dataclass(frozen=True)
class Word:
    """A word that was heard.

    Attributes:
        text: As the model writes it; no white space.
        start: In seconds from the beginning of the recording.
        end: Likewise; not before the start.
        confidence: Probability that it is right, in [0, 1], where the model has a calibration for the decoder
            (:mod:`speechrnn.recognition.confidence`); else the geometric mean of the posteriors of its tokens, which
            ranks words and promises more than it holds.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Attributes:
        start: Start of its first word, in seconds.
        end: End of its last word, in seconds.
        text: Its words with single spaces between them.
        words: At least one.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Alternative:
    """One of several readings of a recording.

    Attributes:
        text: All of it.
        score: Natural log of its probability under the acoustic model, and what language model and hotwords add; only
            the difference to another reading of the same recording means something.
        words: Its words.
    """

    text: str
    score: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        text: All of it; empty where no word was heard.
        segments: In the order of time; none where no word was heard.
        seconds: Duration of the recording.
        audio: The recording's path, where it has one.
        language: The model's language, such as "en", where it knows exactly one.
        model: Which model: the name or path it was loaded from.
        alternatives: The most probable readings, this one first, where several were asked for (``nbest``).
        rejected: The text, where a word is below ``min_confidence``; ``text`` is empty then.
    """

    text: str
    segments: tuple[Segment, ...]
    seconds: float
    audio: str | None = None
    language: str | None = None
    model: str | None = None
    alternatives: tuple[Alternative, ...] = ()
    rejected: str = ""

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_txt(self) -> str:
        """The text and a line break."""
        return writers.write_txt(self)

    def to_json(self, *, indent: int | None = None) -> str:
        """One JSON object; keys are added in later versions, never renamed or taken away.

        ``audio``, ``model``, ``language`` (each a string or null), ``seconds``, ``text`` and ``segments``: a list of
        objects with ``start``, ``end``, ``text`` and ``words``, a list of objects with ``text``, ``start``, ``end`` and
        ``confidence``. Where several readings were asked for, ``alternatives`` is a list of objects with ``text``,
        ``score`` and ``words``; where what was heard was not sure enough, ``rejected`` is that text. Times are in
        seconds, rounded to a millisecond, confidences rounded to four digits.

        Args:
            indent: Spaces of each level; None: all on one line.

        Returns:
            The object, ending in a line break.
        """
        return writers.write_json(self, indent=indent)

    def to_srt(self) -> str:
        """SubRip subtitles: cues of at most two lines of 42 characters and 7 seconds."""
        return writers.write_srt(self)

    def to_vtt(self) -> str:
        """WebVTT subtitles, cut as in :meth:`to_srt`."""
        return writers.write_vtt(self)

    def to_tsv(self) -> str:
        """A table of segments with a header line: start and end in whole milliseconds, text; parted by tabs."""
        return writers.write_tsv(self)

    def to_ctm(self) -> str:
        """NIST CTM: a line a word, ``recording 1 start duration word confidence``; times in seconds."""
        return writers.write_ctm(self)
