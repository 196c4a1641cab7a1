"""Transcripts: text, segments and words with their times, and the formats that other programs read."""

from __future__ import annotations

import html
import json
import reprlib
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError

# Limits common in subtitling guides.
LINE_CHARACTERS = 42
CUE_LINES = 2
CUE_SECONDS = 7.0
# A silence this long ends a cue.
PAUSE_SECONDS = 1.5


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
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


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
        segments: In order of time; none if no word was recognised.
        seconds: Duration of the recording.
        audio: The recording's path, if it has one.
        language: The model's language, such as "en", if it was trained on exactly one.
        model: Name or path of the model.
        alternatives: The most probable hypotheses, this one first, if ``nbest`` is above 1.
        rejected: The text, if a word is below ``min_confidence``; ``text`` is then empty.
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

    def __repr__(self) -> str:
        return f"<Transcript {_SHORT.repr(self.text)}, {len(self.words)} words, {self.seconds:.2f} s>"

    def to_txt(self) -> str:
        """Return the text and a line break."""
        return self.text + "\n"

    def to_json(self, *, indent: int | None = None) -> str:
        """Return one JSON object; later versions may add keys, but do not rename or remove any.

        ``audio``, ``model``, ``language`` (each a string or null), ``seconds``, ``text`` and ``segments``: a list of
        objects with ``start``, ``end``, ``text`` and ``words``, a list of objects with ``text``, ``start``, ``end`` and
        ``confidence``. If ``nbest`` is above 1, ``alternatives`` is a list of objects with ``text``, ``score`` and
        ``words``; ``rejected`` is a text rejected by ``min_confidence``. Times are in seconds,
        rounded to a millisecond, confidences rounded to four digits.

        Args:
            indent: Spaces per level; None: one line.

        Returns:
            The object and a line break.
        """
        segments = [
            {"start": round(each.start, 3), "end": round(each.end, 3), "text": each.text, "words": _round(each.words)}
            for each in self.segments
        ]
        content: dict[str, Any] = {name: getattr(self, name) for name in ("audio", "model", "language")}
        content |= {"seconds": round(self.seconds, 3), "text": self.text, "segments": segments}
        if self.rejected:
            content["rejected"] = self.rejected
        if self.alternatives:
            content["alternatives"] = [
                {"text": each.text, "score": round(each.score, 4), "words": _round(each.words)}
                for each in self.alternatives
            ]
        return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"

    def to_srt(self) -> str:
        """Return SubRip subtitles: cues of at most two lines of 42 characters and 7 seconds."""
        cues = enumerate(cut_cues(self), start=1)
        return "\n".join(f"{number}\n{cue.times(',')}\n" + "\n".join(cue.lines) + "\n" for number, cue in cues)

    def to_vtt(self) -> str:
        """Return WebVTT subtitles, cut as in :meth:`to_srt`, with mark-up characters escaped.

        Source:
            W3C, "WebVTT: The Web Video Text Tracks Format", section 4.2.
        """
        cues = [
            f"{cue.times('.')}\n" + "\n".join(html.escape(line, quote=False) for line in cue.lines) + "\n"
            for cue in cut_cues(self)
        ]
        return "\n".join(["WEBVTT\n", *cues])

    def to_tsv(self) -> str:
        """Return a tab-separated table of segments with a header: start and end in whole milliseconds, text."""
        rows = [
            f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{' '.join(segment.text.split())}\n"
            for segment in self.segments
        ]
        return "".join(["start\tend\ttext\n", *rows])

    def to_ctm(self) -> str:
        """Return NIST CTM, one word per line: ``recording 1 start duration word confidence``; times in seconds.

        White space in the recording's name becomes ``_``.

        Source:
            NIST SCTK, "ctm" file format.
        """
        name = "_".join(PurePath(self.audio or "recording").stem.split())
        return "".join(
            f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.4f}\n"
            for word in self.words
        )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": Transcript.to_txt,
    "json": Transcript.to_json,
    "srt": Transcript.to_srt,
    "vtt": Transcript.to_vtt,
    "tsv": Transcript.to_tsv,
    "ctm": Transcript.to_ctm,
}

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def choose_names(paths: Sequence[str]) -> dict[str, str]:
    """Choose a file name without ending for each recording: its own, with a number appended if that is taken.

    Args:
        paths: Recordings; equal paths get the same name.

    Returns:
        The name of each path; no two are equal, ignoring case.
    """
    own = {Path(path).stem.casefold() for path in paths}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        name, number = Path(path).stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in own):
            number += 1
            name = f"{Path(path).stem}-{number}"
        names[path] = name
        taken.add(name.casefold())
    return names


def write_files(transcript: Transcript, formats: Sequence[str], path: Path) -> None:
    """Write a transcript in several formats, each to the path with the format's name as ending.

    Raises:
        ConfigError: A file cannot be written.
    """
    for name in formats:
        content = transcript.to_json(indent=2) if name == "json" else FORMATS[name](transcript)
        write_atomic(path.with_name(f"{path.name}.{name}"), content, error=ConfigError)


def _round(words: Sequence[Word]) -> list[dict[str, Any]]:
    digits = {"start": 3, "end": 3, "confidence": 4}
    return [
        {"text": word.text, **{name: round(getattr(word, name), n) for name, n in digits.items()}} for word in words
    ]


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        start: In seconds.
        end: In seconds; at least a millisecond later.
        lines: One or two; a word longer than a line is not broken.
    """

    start: float
    end: float
    lines: list[str]

    def times(self, point: str) -> str:
        """Return start and end, with this character before the milliseconds."""
        return f"{_clock(self.start, point)} --> {_clock(self.end, point)}"


def cut_cues(transcript: Transcript) -> list[Cue]:
    """Cut a transcript into subtitles.

    A cue ends with its segment, before a pause of 1.5 seconds, and before a word that would make a third line of 42
    characters or exceed 7 seconds. A longer single word has a cue of its own.
    """
    groups: list[list[Word]] = []
    for segment in transcript.segments:
        groups.append([])
        for word in segment.words:
            group = groups[-1]
            if group and (
                word.start - group[-1].end >= PAUSE_SECONDS
                or word.end - group[0].start > CUE_SECONDS
                or len(_wrap([*group, word])) > CUE_LINES
            ):
                groups.append([])
            groups[-1].append(word)
    return [Cue(words[0].start, max(words[-1].end, words[0].start + 0.001), _wrap(words)) for words in groups]


def _wrap(words: list[Word]) -> list[str]:
    text = " ".join(word.text for word in words)
    return textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)


def _clock(seconds: float, point: str) -> str:
    """Format a time as 00:01:02.345, with three digits of hours if needed."""
    total, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, second = divmod(total, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"
