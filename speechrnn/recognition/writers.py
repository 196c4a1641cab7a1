"""Transcripts in the formats that other programs read; each returns the whole content of a file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.recognition.transcript import Transcript, Word

# What a viewer can read in time, as subtitling guides commonly set it.
LINE_CHARACTERS = 42
CUE_LINES = 2
CUE_SECONDS = 7.0
# A silence this long parts cues: a subtitle should not stand while nobody speaks.
PAUSE_SECONDS = 1.5


@dataclass(frozen=True)
class Cue:
    """What stands on the screen at once.

    Attributes:
        start: In seconds.
        end: Likewise; at least a millisecond later.
        lines: One or two; a word longer than a line is not broken.
    """

    start: float
    end: float
    lines: list[str]


def write_txt(transcript: Transcript) -> str:
    """The text and a line break."""
    return transcript.text + "\n"


def write_json(transcript: Transcript, *, indent: int | None = None) -> str:
    """One JSON object, as :meth:`speechrnn.recognition.transcript.Transcript.to_json` describes it."""
    content = {
        "audio": transcript.audio,
        "model": transcript.model,
        "language": transcript.language,
        "seconds": round(transcript.seconds, 3),
        "text": transcript.text,
        "segments": [_round(asdict(segment)) for segment in transcript.segments],
    }
    if transcript.rejected:
        content["rejected"] = transcript.rejected
    if transcript.alternatives:
        content["alternatives"] = [
            {"text": each.text, "score": round(each.score, 4), "words": _round_words(map(asdict, each.words))}
            for each in transcript.alternatives
        ]
    return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"


def _round(segment: dict[str, Any]) -> dict[str, Any]:
    times = {"start": round(segment["start"], 3), "end": round(segment["end"], 3)}
    return {**times, "text": segment["text"], "words": _round_words(segment["words"])}


def _round_words(words: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "text": word["text"],
            "start": round(word["start"], 3),
            "end": round(word["end"], 3),
            "confidence": round(word["confidence"], 4),
        }
        for word in words
    ]


def write_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, a comma before the milliseconds."""
    cues = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cut_cues(transcript), start=1)
    ]
    return "\n".join(cues)


def write_vtt(transcript: Transcript) -> str:
    """WebVTT: a header, a point before the milliseconds, the signs of mark-up escaped.

    Source:
        W3C, "WebVTT: The Web Video Text Tracks Format", section 4.2.
    """
    cues = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(_escape, cue.lines)) + "\n"
        for cue in cut_cues(transcript)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def write_tsv(transcript: Transcript) -> str:
    """A header and one line a segment: start and end in whole milliseconds, text; parted by tabs."""
    rows = [
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{' '.join(segment.text.split())}\n"
        for segment in transcript.segments
    ]
    return "".join(["start\tend\ttext\n", *rows])


def write_ctm(transcript: Transcript) -> str:
    """NIST CTM: recording, channel (always 1), start, duration, word, confidence; white space in a name becomes ``_``.

    Source:
        NIST SCTK, "ctm" file format.
    """
    name = "_".join(PurePath(transcript.audio or "recording").stem.split())
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.4f}\n"
        for word in transcript.words
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": write_txt,
    "json": write_json,
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": write_tsv,
    "ctm": write_ctm,
}


def cut_cues(transcript: Transcript) -> list[Cue]:
    """Cut a transcript into subtitles that can be read in time.

    A cue is as long as it may be: it ends with its segment, before a pause of 1.5 seconds, and where another word would
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
    """Hours, minutes, seconds and milliseconds, as in 00:01:02.345; three digits of hours where they are needed."""
    total, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(total, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
