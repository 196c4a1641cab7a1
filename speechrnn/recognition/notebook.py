"""A transcript in a notebook: its text, a player, and a table of words whose shade is their confidence."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence

from speechrnn.recognition.words import Segment

MOST_BYTES = 10_000_000
"""Largest recording that is embedded."""
MOST_WORDS = 1000
"""Words in the table."""

_KINDS = {
    **{b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg"},
    **dict.fromkeys((b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3"), "audio/mpeg"),
    b"\x1aE\xdf\xa3": "audio/webm",
}
"""First bytes of the formats that browsers play."""
_PAGE = """<div>
<p><b>{title}</b> {seconds:.2f} s, {words} words{speakers}</p>
{player}<p style="max-width: 60em">{text}</p>
<div style="max-height: 24em; max-width: 60em; overflow: auto">
<table style="border-collapse: collapse">
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{more}</div>
</div>
"""
_CELL = '<td style="text-align: {side}; padding: 0.1em 0.8em{more}">{content}</td>'
_HEAD = '<th style="text-align: {side}; padding: 0.1em 0.8em">{content}</th>'


def to_html(
    segments: Sequence[Segment], *, text: str, seconds: float, audio: str | None, speakers: Sequence[str]
) -> str:
    """Describe a transcript in HTML for a notebook.

    The less confident a word, the stronger its shade, on light and dark pages. The table has at most
    :data:`MOST_WORDS` words.

    Args:
        segments: What was said.
        text: The same as lines of text.
        seconds: Duration of the recording.
        audio: The recording's path; it is embedded if it is a regular file in a format that browsers play, of at most
            :data:`MOST_BYTES`.
        speakers: Names of the speakers; without them the table has no column for them.

    Returns:
        An HTML fragment without scripts; all text is escaped.
    """
    words = [(segment.speaker or "", word) for segment in segments for word in segment.words]
    columns = ["start", "end", *(["speaker"] if speakers else []), "word", "confidence"]
    rows = [
        {
            **{"start": f"{word.start:.2f}", "end": f"{word.end:.2f}", "speaker": speaker},
            **{"word": word.text, "confidence": f"{word.confidence:.2f}"},
        }
        for speaker, word in words[:MOST_WORDS]
    ]
    return _PAGE.format(
        title=html.escape(os.path.basename(audio or "") or "transcript"),
        seconds=seconds,
        words=f"{len(words):,}",
        speakers=html.escape(f", speakers: {', '.join(speakers)}") if speakers else "",
        player=_make_player(audio),
        text="<br>".join(html.escape(line) for line in text.splitlines()),
        head="".join(_HEAD.format(side=_find_side(name), content=name) for name in columns),
        rows="\n".join(_make_row(row, columns) for row in rows),
        more=f"<p>{len(words) - MOST_WORDS:,} more words are not shown.</p>\n" if len(words) > MOST_WORDS else "",
    )


def _make_row(row: dict[str, str], columns: Sequence[str]) -> str:
    strength = 0.75 * (1 - min(1.0, max(0.0, float(row["confidence"]))))
    shade = f"; background: rgba(230, 140, 0, {strength:.2f})"
    cells = (
        _CELL.format(
            side=_find_side(name),
            more=shade if name in ("word", "confidence") else "",
            content=html.escape(row[name]),
        )
        for name in columns
    )
    return f"<tr>{''.join(cells)}</tr>"


def _find_side(column: str) -> str:
    return "left" if column in ("speaker", "word") else "right"


def _make_player(path: str | None) -> str:
    """A player with the recording in it, or nothing if it is not a small readable file that browsers play."""
    try:
        if path is None or not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
            return ""
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES)
    except (OSError, ValueError):  # ValueError: a null character in the name
        return ""
    is_mp4 = content[4:8] == b"ftyp"
    kind = "audio/mp4" if is_mp4 else next((kind for head, kind in _KINDS.items() if content.startswith(head)), None)
    if kind is None:
        return ""
    return f'<audio controls src="data:{kind};base64,{base64.b64encode(content).decode()}"></audio>\n'
