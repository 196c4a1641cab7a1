"""Transcripts: text, segments and words with their times, and the formats that other programs read."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePath
from typing import Any

from speechrnn.recognition import subtitles
from speechrnn.recognition.words import Segment, Word

__all__ = ["FORMATS", "SUBTITLE_FORMATS", "Alternative", "Segment", "Transcript", "Word"]


@dataclass(frozen=True)
class Alternative:
    """One of several hypotheses for a recording.

    Attributes:
        text: The whole text.
        score: Natural log of its probability under the acoustic model, plus the scores of language model and hotwords;
            only differences between alternatives of the same recording are meaningful.
        words: Its words.
    """

    text: str
    score: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    Attributes:
        text: The whole text; empty if no word was recognised.
        segments: In order of time; none if no word was recognised. Those of speakers who talk at the same time overlap.
        seconds: Duration of the recording.
        audio: The recording's path, if it has one.
        language: The model's language, such as "en", if it was trained on exactly one.
        model: Name or path of the model.
        alternatives: The most probable hypotheses, this one first, if ``nbest`` is above 1.
        rejected: The text, if a word is below ``min_confidence``; ``text`` is then empty. Of a recording that was cut,
            the texts of the pieces that were rejected; ``text`` is that of the others.
        speakers: Names of the speakers, in the order of the channels, also of those without words; names that only
            segments have are appended. Empty if speakers are not known.
        skipped_seconds: Duration that ``vad_filter`` left out; the rest was transcribed.
    """

    text: str
    segments: tuple[Segment, ...]
    seconds: float
    audio: str | None = None
    language: str | None = None
    model: str | None = None
    alternatives: tuple[Alternative, ...] = ()
    rejected: str = ""
    speakers: tuple[str, ...] = ()
    skipped_seconds: float = 0.0

    def __post_init__(self) -> None:
        if named := [each.speaker for each in self.segments if each.speaker]:
            object.__setattr__(self, "speakers", tuple(dict.fromkeys([*self.speakers, *named])))

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def __repr__(self) -> str:
        speakers = f", {len(self.speakers)} speakers" if self.speakers else ""
        text, count = _SHORT.repr(self.text), len(self.words)
        return f"<{type(self).__name__} {text}, {count} words, {self.seconds:.2f} s{speakers}>"

    def _repr_html_(self) -> str:
        from speechrnn.recognition.notebook import to_html

        text, speakers = self.to_txt(), self.speakers
        return to_html(self.segments, text=text, seconds=self.seconds, audio=self.audio, speakers=speakers)

    def rename_speakers(self, names: Mapping[str, str]) -> Transcript:
        """Return the transcript with other names of speakers; those that ``names`` lacks keep theirs."""
        segments = [replace(each, speaker=names.get(each.speaker or "", each.speaker)) for each in self.segments]
        speakers = tuple(names.get(each, each) for each in self.speakers)
        return replace(self, segments=tuple(segments), speakers=speakers)

    def to_txt(self) -> str:
        """Return the text and a line break; with speakers a line for each turn: name, colon, text."""
        if not self.speakers:
            return self.text + "\n"
        turns = groupby(self.segments, key=lambda segment: segment.speaker)
        return "".join(
            (f"{subtitles.clean(name)}: " if name else "") + " ".join(each.text for each in turn) + "\n"
            for name, turn in turns
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """Return one JSON object; later versions may add keys, but do not rename or remove any.

        ``audio``, ``model``, ``language`` (each a string or null), ``seconds``, ``text`` and ``segments``: a list of
        objects with ``start``, ``end``, ``text`` and ``words``, a list of objects with ``text``, ``start``, ``end`` and
        ``confidence``. If ``nbest`` is above 1, ``alternatives`` is a list of objects with ``text``, ``score`` and
        ``words``; ``rejected`` is a text rejected by ``min_confidence``; ``skipped_seconds`` is what ``vad_filter``
        left out. If speakers are known, ``speakers`` lists their names, and segments and their words have a
        ``speaker``. Times are in seconds, rounded to a millisecond, confidences rounded to four digits.

        Args:
            indent: Spaces per level; None: one line.

        Returns:
            The object and a line break.
        """
        segments = [
            {
                **{"start": round(each.start, 3), "end": round(each.end, 3), "text": each.text},
                **({"speaker": each.speaker} if each.speaker else {}),
                "words": _round(each.words, each.speaker),
            }
            for each in self.segments
        ]
        content: dict[str, Any] = {name: getattr(self, name) for name in ("audio", "model", "language")}
        content |= {"seconds": round(self.seconds, 3), "text": self.text, "segments": segments}
        if self.speakers:
            content["speakers"] = list(self.speakers)
        if self.rejected:
            content["rejected"] = self.rejected
        if self.skipped_seconds:
            content["skipped_seconds"] = round(self.skipped_seconds, 3)
        if self.alternatives:
            content["alternatives"] = [
                {"text": each.text, "score": round(each.score, 4), "words": _round(each.words)}
                for each in self.alternatives
            ]
        return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"

    def to_srt(self, options: subtitles.SubtitleOptions | None = None) -> str:
        """Return SubRip subtitles, by default cues of at most two lines of 42 characters and 7 seconds.

        With speakers each cue begins with a name and a colon. ``<``, ``>``, ``{`` and ``}`` are written in their
        full-width forms, because SubRip has no escapes.

        Args:
            options: None: the defaults.
        """
        return subtitles.to_srt(self.segments, options)

    def to_vtt(self, options: subtitles.SubtitleOptions | None = None) -> str:
        """Return WebVTT subtitles, cut as in :meth:`to_srt`, with mark-up characters escaped; speakers are voice tags.

        Args:
            options: None: the defaults.
        """
        return subtitles.to_vtt(self.segments, options)

    def to_tsv(self) -> str:
        """Return a tab-separated table of segments with a header: start and end in whole milliseconds, text.

        With speakers there is a fourth column, ``speaker``.
        """
        names = ["start", "end", "text", *(["speaker"] if self.speakers else [])]
        rows = [
            [str(round(1000 * each.start)), str(round(1000 * each.end)), each.text, each.speaker or ""][: len(names)]
            for each in self.segments
        ]
        return "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in [names, *rows])

    def to_ctm(self) -> str:
        """Return NIST CTM, one word per line: ``recording channel start duration word confidence``; times in seconds.

        The channel is 1; with speakers it is A for the first of :attr:`speakers`, B for the second and so on, and the
        words of each channel are together. White space in the recording's name becomes ``_``.

        Source:
            NIST SCTK, "ctm" file format.
        """
        name = "_".join(PurePath(self.audio or "recording").stem.split())
        return "".join(
            f"{name} {channel} {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.4f}\n"
            for channel, word in self._list_channels()
        )

    def _list_channels(self) -> Iterator[tuple[str, Word]]:
        """Each word with its channel in CTM, the words of each channel together."""
        order = {name: number for number, name in enumerate(self.speakers)}
        for segment in sorted(self.segments, key=lambda segment: order.get(segment.speaker or "", -1)):
            number = order.get(segment.speaker or "", -1)
            channel = "1" if number < 0 else chr(ord("A") + number) if number < 26 else str(number + 1)
            for word in segment.words:
                yield channel, word


FORMATS: dict[str, Callable[..., str]] = {
    "txt": Transcript.to_txt,
    "json": Transcript.to_json,
    "srt": Transcript.to_srt,
    "vtt": Transcript.to_vtt,
    "tsv": Transcript.to_tsv,
    "ctm": Transcript.to_ctm,
}

PART_FORMATS = ("jsonl", "parquet")
"""Formats of files of many recordings (:mod:`speechrnn.recognition.parts`)."""

SUBTITLE_FORMATS = ("srt", "vtt")
"""Formats whose functions take :class:`~speechrnn.recognition.subtitles.SubtitleOptions`."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def _round(words: Sequence[Word], speaker: str | None = None) -> list[dict[str, Any]]:
    digits = {"start": 3, "end": 3, "confidence": 4}
    named = {"speaker": speaker} if speaker else {}
    return [
        {"text": word.text, **{name: round(getattr(word, name), n) for name, n in digits.items()}, **named}
        for word in words
    ]
