"""Transcripts: text, segments and words with their times, and the formats that other programs read."""

from __future__ import annotations

import json
import reprlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError

# What a viewer can read in time, as subtitling guides commonly set it.
LINE_CHARACTERS = 42
CUE_LINES = 2
CUE_SECONDS = 7.0
# A silence this long ends a cue.
PAUSE_SECONDS = 1.5


@dataclass(frozen=True)
class Word:
    """A recognised word.

    Attributes:
        text: As the model writes it; no white space.
        start: In seconds from the beginning of the recording.
        end: Likewise; not before the start.
        confidence: Probability that it is right, in [0, 1], where the model has a calibration for the decoder
            (:class:`speechrnn.model_folder.additions.Calibration`); else the geometric mean of the posteriors of its
            tokens, which ranks words but is overconfident.
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
        score: Natural log of its probability under the acoustic model, plus the scores of language model and hotwords;
            only differences between readings of the same recording have a meaning.
        words: Its words.
    """

    text: str
    score: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    Attributes:
        text: All of it; empty if no word was recognised.
        segments: In the order of time; none if no word was recognised.
        seconds: Duration of the recording.
        audio: The recording's path, where it has one.
        language: The model's language, such as "en", if it was trained on exactly one.
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

    def __repr__(self) -> str:
        return f"<Transcript {_SHORT.repr(self.text)}, {len(self.words)} words, {self.seconds:.2f} s>"

    def to_txt(self) -> str:
        """The text and a line break."""
        return self.text + "\n"

    def to_json(self, *, indent: int | None = None) -> str:
        """One JSON object; later versions add keys, and never rename or remove one.

        ``audio``, ``model``, ``language`` (each a string or null), ``seconds``, ``text`` and ``segments``: a list of
        objects with ``start``, ``end``, ``text`` and ``words``, a list of objects with ``text``, ``start``, ``end`` and
        ``confidence``. Where several readings were asked for, ``alternatives`` is a list of objects with ``text``,
        ``score`` and ``words``; ``rejected`` is a text that was rejected by ``min_confidence``. Times are in seconds,
        rounded to a millisecond, confidences rounded to four digits.

        Args:
            indent: Spaces of each level; None: all on one line.

        Returns:
            The object, ending in a line break.
        """
        content: dict[str, Any] = {
            "audio": self.audio,
            "model": self.model,
            "language": self.language,
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "segments": [
                {
                    "start": round(each.start, 3),
                    "end": round(each.end, 3),
                    "text": each.text,
                    "words": _round_words(each.words),
                }
                for each in self.segments
            ],
        }
        if self.rejected:
            content["rejected"] = self.rejected
        if self.alternatives:
            content["alternatives"] = [
                {"text": each.text, "score": round(each.score, 4), "words": _round_words(each.words)}
                for each in self.alternatives
            ]
        return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"

    def to_srt(self) -> str:
        """SubRip subtitles: cues of at most two lines of 42 characters and 7 seconds."""
        cues = enumerate(cut_cues(self), start=1)
        return "\n".join(f"{number}\n{cue.times(',')}\n" + "\n".join(cue.lines) + "\n" for number, cue in cues)

    def to_vtt(self) -> str:
        """WebVTT subtitles, cut as in :meth:`to_srt`, with mark-up characters escaped.

        Source:
            W3C, "WebVTT: The Web Video Text Tracks Format", section 4.2.
        """
        cues = [f"{cue.times('.')}\n" + "\n".join(map(_escape, cue.lines)) + "\n" for cue in cut_cues(self)]
        return "\n".join(["WEBVTT\n", *cues])

    def to_tsv(self) -> str:
        """A table of segments with a header line: start and end in whole milliseconds, text; separated by tabs."""
        rows = [
            f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{' '.join(segment.text.split())}\n"
            for segment in self.segments
        ]
        return "".join(["start\tend\ttext\n", *rows])

    def to_ctm(self) -> str:
        """NIST CTM: a line a word, ``recording 1 start duration word confidence``; times in seconds.

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
    """Choose a file name, without ending, for each recording: its own, or with a number where that is taken.

    Args:
        paths: Recordings; the same path gets the same name.

    Returns:
        The name of each path: no two equal, upper and lower case being the same.
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
    """Write a transcript in several formats: the path with a point and the format's name after it.

    Raises:
        ConfigError: A file cannot be written.
    """
    for name in formats:
        content = transcript.to_json(indent=2) if name == "json" else FORMATS[name](transcript)
        write_atomic(path.with_name(f"{path.name}.{name}"), content, error=ConfigError)


def _round_words(words: Iterable[Word]) -> list[dict[str, Any]]:
    return [
        {
            "text": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in words
    ]


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        start: In seconds.
        end: Likewise; at least a millisecond later.
        lines: One or two; a word longer than a line is not broken.
    """

    start: float
    end: float
    lines: list[str]

    def times(self, point: str) -> str:
        """Start and end, with this character before the milliseconds."""
        return f"{_clock(self.start, point)} --> {_clock(self.end, point)}"


def cut_cues(transcript: Transcript) -> list[Cue]:
    """Cut a transcript into subtitles that can be read in time.

    A cue is as long as possible: it ends with its segment, before a pause of 1.5 seconds, and where another word would
    make a third line of 42 characters or pass 7 seconds. A single longer word stands alone.
    """
    return [_make_cue(words) for segment in transcript.segments for words in _group(segment.words)]


def _group(words: tuple[Word, ...]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and not _fits(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _fits(group: list[Word], word: Word) -> bool:
    is_near = word.start - group[-1].end < PAUSE_SECONDS
    is_short = word.end - group[0].start <= CUE_SECONDS
    return is_near and is_short and len(_wrap([*group, word])) <= CUE_LINES


def _wrap(words: list[Word]) -> list[str]:
    text = " ".join(word.text for word in words)
    return textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)


def _make_cue(words: list[Word]) -> Cue:
    start = words[0].start
    return Cue(start, max(words[-1].end, start + 0.001), _wrap(words))


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds, as in 00:01:02.345; three digits of hours if needed."""
    total, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(total, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
