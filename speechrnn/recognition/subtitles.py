"""Subtitles: words grouped into cues, written as SubRip (SRT) or WebVTT."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from speechrnn.recognition.words import Segment, Word
from speechrnn.settings import Settings, bounded

PAUSE_SECONDS = 1.5
"""A silence this long ends a cue."""
_LEAST_SECONDS = 0.001
# SubRip has no escapes: what players take for mark-up is written in its full-width form.
_WITHOUT_MARKUP = str.maketrans("<>{}", "＜＞｛｝")


@dataclass(frozen=True)
class SubtitleOptions(Settings):
    """Options of subtitles; the first five have the names of Whisper's.

    A cue ends with its last word. It is extended into a silence after it only for ``min_cue_seconds`` and
    ``max_characters_per_second``, and never into the next cue of the same speaker; it ends earlier only for
    ``min_gap_seconds``, for which it gives up at most half of its time. Speakers who talk at the same time have cues at
    the same time.

    Attributes:
        word_timestamps: in WebVTT, write the start of each word into its cue; SubRip has no place for it
        highlight_words: write one cue for each word, which is underlined among the words around it
        max_line_width: characters in a line (default: 42); a longer word is not broken
        max_line_count: lines in a cue (default: 2)
        max_words_per_line: words in a cue (default: any number)
        max_cue_seconds: longest cue, in seconds (default: 7)
        min_cue_seconds: shortest cue, in seconds, where the next one leaves room (default: 0; subtitling guides: 0.83)
        max_characters_per_second: reading speed; a faster cue stays longer, where the next one leaves room (default:
            any speed; subtitling guides: 17 to 20)
        min_gap_seconds: time between two cues, in seconds (default: 0; subtitling guides: 0.08)

    Raises:
        ConfigError: An option has a wrong type or is out of range.
    """

    word_timestamps: bool = False
    highlight_words: bool = False
    max_line_width: int = bounded(42, 1, 10_000)
    max_line_count: int = bounded(2, 1, 100)
    max_words_per_line: int | None = bounded(None, 1, 10_000)
    max_cue_seconds: float = bounded(7.0, 0, 3600, open="low")
    min_cue_seconds: float = bounded(0.0, 0, 60)
    max_characters_per_second: float | None = bounded(None, 0, 1000, open="low")
    min_gap_seconds: float = bounded(0.0, 0, 10)


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        start: In seconds, whole milliseconds.
        end: In seconds, whole milliseconds; at least one later.
        words: The words of each line, without control characters.
        speaker: Who speaks; None if that is not known.
    """

    start: float
    end: float
    words: tuple[tuple[Word, ...], ...]
    speaker: str | None = None

    @property
    def lines(self) -> list[str]:
        """The lines as text."""
        return [" ".join(word.text for word in line) for line in self.words]


def cut_cues(
    segments: Iterable[Segment], options: SubtitleOptions | None = None, *, is_labelled: bool = False
) -> list[Cue]:
    """Cut segments into subtitles.

    A cue ends with its segment, before a pause of :data:`PAUSE_SECONDS`, and before a word that would exceed its lines,
    words or seconds. A longer single word has a cue of its own.

    Args:
        segments: In order of time, those of each speaker without overlaps.
        options: None: the defaults.
        is_labelled: Whether the speaker's name precedes the text and takes up room.

    Returns:
        Cues in order of time; those of one speaker do not overlap.
    """
    chosen = options or SubtitleOptions()
    groups = [(each.speaker, lines) for each in segments for lines in _group(each, chosen, is_labelled)]
    cues: list[Cue] = []
    following: dict[str | None, float] = {}
    for speaker, lines in reversed(groups):
        cues.append(_set_times(lines, speaker, following.get(speaker, math.inf), chosen))
        following[speaker] = cues[-1].start
    cues.reverse()
    return sorted(cues, key=lambda cue: cue.start)


def to_srt(segments: Iterable[Segment], options: SubtitleOptions | None = None) -> str:
    """Write segments as SubRip; a speaker's name and a colon precede the text."""
    chosen = options or SubtitleOptions()
    blocks = [
        f"{_clock(start, ',')} --> {_clock(end, ',')}\n{_to_plain(_label(cue.speaker))}{text}\n"
        for cue in cut_cues(segments, chosen, is_labelled=True)
        for start, end, text in _render(cue, chosen, is_vtt=False)
    ]
    return "\n".join(f"{number}\n{block}" for number, block in enumerate(blocks, start=1))


def to_vtt(segments: Iterable[Segment], options: SubtitleOptions | None = None) -> str:
    """Write segments as WebVTT, with mark-up characters escaped; a speaker is a voice tag.

    Source:
        W3C, "WebVTT: The Web Video Text Tracks Format", sections 4.2.1 and 4.2.2.
    """
    chosen = options or SubtitleOptions()
    blocks = [
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_voice(cue.speaker)}{text}\n"
        for cue in cut_cues(segments, chosen)
        for start, end, text in _render(cue, chosen, is_vtt=True)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def clean(text: str) -> str:
    """Text on one line: white space becomes single spaces, control characters are left out."""
    if not text.isprintable():
        text = "".join(each for each in text if each.isspace() or unicodedata.category(each) != "Cc")
    return " ".join(text.split())


def _group(segment: Segment, options: SubtitleOptions, is_labelled: bool) -> Iterator[list[list[Word]]]:
    """The words of each cue, by line."""
    lines: list[list[Word]] = []
    label = len(_label(segment.speaker)) if is_labelled else 0
    width = 0
    for original in segment.words:
        if not (text := clean(original.text)):
            continue
        word = original if text == original.text else replace(original, text=text)
        fits = width + 1 + len(text) <= options.max_line_width
        if lines and (_ends_before(word, lines, options) or not (fits or len(lines) < options.max_line_count)):
            yield lines
            lines = []
        if lines and fits:
            lines[-1].append(word)
            width += 1 + len(text)
        else:
            width = len(text) + (0 if lines else label)
            lines.append([word])
    if lines:
        yield lines


def _ends_before(word: Word, lines: list[list[Word]], options: SubtitleOptions) -> bool:
    """Whether a cue ends before a word because of a pause, its duration, or its number of words."""
    return (
        word.start - lines[-1][-1].end >= PAUSE_SECONDS
        or word.end - lines[0][0].start > options.max_cue_seconds
        or sum(map(len, lines)) == options.max_words_per_line
    )


def _set_times(lines: list[list[Word]], speaker: str | None, following: float, options: SubtitleOptions) -> Cue:
    """A cue with its times; ``following`` is the start of the speaker's next one."""
    start, end = round(max(0.0, lines[0][0].start), 3), lines[-1][-1].end
    shortest = options.min_cue_seconds
    if options.max_characters_per_second is not None:
        characters = sum(len(word.text) + 1 for line in lines for word in line) - 1
        shortest = max(shortest, characters / options.max_characters_per_second)
    latest = following - options.min_gap_seconds
    end = max(end, min(start + min(shortest, options.max_cue_seconds), latest))
    end = min(end, max(latest, (start + end) / 2), following)
    return Cue(start, max(round(end, 3), round(start + _LEAST_SECONDS, 3)), tuple(map(tuple, lines)), speaker)


def _render(cue: Cue, options: SubtitleOptions, *, is_vtt: bool) -> Iterator[tuple[float, float, str]]:
    """Start, end and text of a cue; with highlighted words, of one for each word and each pause between words."""
    if not options.highlight_words:
        yield cue.start, cue.end, _write(cue, is_vtt=is_vtt, is_timed=is_vtt and options.word_timestamps)
        return
    last = cue.start
    for number, word in enumerate(word for line in cue.words for word in line):
        start, end = (min(max(round(time, 3), last), cue.end) for time in (word.start, word.end))
        if start > last:
            yield last, start, _write(cue, is_vtt=is_vtt)
        if end > start:
            yield start, end, _write(cue, is_vtt=is_vtt, marked=number)
        last = end
    if last < cue.end:
        yield last, cue.end, _write(cue, is_vtt=is_vtt)


def _write(cue: Cue, *, is_vtt: bool, is_timed: bool = False, marked: int | None = None) -> str:
    """The lines of a cue, one word of it underlined, or each preceded by its time."""
    number, last, lines = 0, cue.start, []
    for line in cue.words:
        written = []
        for word in line:
            text = html.escape(word.text, quote=False) if is_vtt else _to_plain(word.text)
            if is_timed and last < (start := round(word.start, 3)) < cue.end:  # as WebVTT demands
                last, text = start, f"<{_clock(start, '.')}>{text}"
            written.append(f"<u>{text}</u>" if number == marked else text)
            number += 1
        lines.append(" ".join(written))
    return "\n".join(lines)


def _to_plain(text: str) -> str:
    return text.translate(_WITHOUT_MARKUP)


def _label(speaker: str | None) -> str:
    return f"{clean(speaker)}: " if speaker else ""


def _voice(speaker: str | None) -> str:
    return f"<v {html.escape(clean(speaker), quote=False)}>" if speaker else ""


def _clock(seconds: float, point: str) -> str:
    """Format a time as 00:01:02.345, with three digits of hours if needed."""
    total, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, second = divmod(total, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"
