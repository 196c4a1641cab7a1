"""A self-contained HTML page about one recording, with audio, pictures over time and a moving cursor."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path, PurePath

import numpy as np
import soundfile

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError
from speechrnn.inspection.inspect import ComparedWord, DirectionStates, Inspection
from speechrnn.inspection.pictures import MARKS, choose_rows, draw_inspection, require_matplotlib, to_png

_WAVEFORM_POINTS = 2000


def write_inspection(inspection: Inspection, folder: Path, name: str, *, has_states: bool = False) -> list[Path]:
    """Write the page, the picture and optionally the states as ``.npz``; returns their paths.

    Raises:
        ConfigError: A file cannot be written.
    """
    contents: dict[str, str | bytes] = {"html": to_page(inspection), "png": to_png(draw_inspection(inspection))}
    if has_states:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **inspection.export_states())
        contents["npz"] = buffer.getvalue()
    paths = [folder / f"{name}.inspect.{ending}" for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content, error=ConfigError)
    return paths


def to_page(inspection: Inspection) -> str:
    """The page as HTML, with audio, pictures, style and script embedded.

    Raises:
        SpeechRNNError: matplotlib is not installed.
    """
    require_matplotlib()
    rows = choose_rows(inspection)
    panels = [
        _panel("waveform", "", _waveform(inspection), height=90),
        _panel(_name_features(inspection), "lowest at the bottom", _heat(inspection.features.T, "magma"), height=120),
        *(_states_panel(layer, inspection) for layer in inspection.layers),
        _panel(
            "CTC posteriors and best path",
            "brighter: more probable; the best token is the blank where no symbol is marked",
            _posteriors(inspection, rows),
            height=max(60, 16 * len(rows)),
        ),
        _panel("hypothesis", "fainter: lower confidence", _words(inspection.hypothesis, inspection), height=44),
    ]
    if inspection.reference is not None:
        panels.append(_panel("reference", "aligned", _words(inspection.reference, inspection), height=44))
    folder = files("speechrnn.inspection")
    values = {
        "title": html.escape(PurePath(inspection.name).name),  # without folders: pages are shared
        "summary": _summarise(inspection),
        "audio": _audio(inspection),
        "panels": "\n".join(panels),
        "ticks": _ticks(inspection),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
        "start": f"{inspection.start:.6f}",
        "seconds": f"{inspection.seconds:.6f}",
        "width": f"{max(60.0, 6.0 * inspection.seconds):.1f}",
    }
    return _PAGE.format(**values)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
<header>
<h1>{title}</h1>
{summary}
<audio id="audio" controls preload="auto" src="{audio}"></audio>
<p class="keys"><kbd>Space</kbd> plays and stops, <kbd>←</kbd> <kbd>→</kbd> move by 0.1 s, <kbd>Home</kbd> goes to the
beginning; a click on a picture goes there, a click on a word plays it. <output id="readout"></output></p>
</header>
<main id="scroll" tabindex="0" aria-label="pictures over time">
<div id="stack" style="min-width: {width}rem" data-start="{start}" data-seconds="{seconds}">
<div class="ticks" aria-hidden="true">{ticks}</div>
{panels}
<div id="cursor" aria-hidden="true"></div>
</div>
</main>
<script>
{script}
</script>
</html>
"""


def _panel(name: str, note: str, content: str, *, height: float, attributes: str = "") -> str:
    label = f'<figcaption><span class="label"><b>{html.escape(name)}</b> {html.escape(note)}</span></figcaption>'
    return f'<figure{attributes}>{label}<div class="plot" style="height: {height:.0f}px">{content}</div></figure>'


def _summarise(inspection: Inspection) -> str:
    hypothesis = html.escape(" ".join(word.text for word in inspection.hypothesis)) or "<i>no words</i>"
    lines = [f"<p class=hypothesis>{hypothesis}</p>"]
    if inspection.reference is not None:
        reference = html.escape(" ".join(word.text for word in inspection.reference))
        words = "word" if len(inspection.reference) == 1 else "words"
        lines.append(
            f"<p>Reference: {reference}: {inspection.errors} of {len(inspection.reference)} {words} wrong.</p>"
        )
    where = f"{inspection.start:.2f} to {inspection.start + inspection.seconds:.2f} s"
    model = html.escape(PurePath(inspection.model).parent.name + "/" + PurePath(inspection.model).name)
    lines.append(f"<p class=note>{where}, {inspection.waveform.sample_rate:,} Hz; model {model}</p>")
    return "\n".join(lines)


def _audio(inspection: Inspection) -> str:
    buffer = io.BytesIO()
    samples = np.clip(inspection.waveform.samples, -1.0, 1.0)
    soundfile.write(buffer, samples, inspection.waveform.sample_rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _percent(seconds: float, inspection: Inspection) -> float:
    """Horizontal position of a time, in per cent of the width."""
    return 100.0 * (seconds - inspection.start) / inspection.seconds


def _ticks(inspection: Inspection) -> str:
    step = next(
        size for size in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if inspection.seconds / size <= 15 or size == 10.0
    )
    first = int(np.ceil(inspection.start / step - 1e-9))
    last = int(np.floor((inspection.start + inspection.seconds) / step + 1e-9))
    digits = 1 if step < 1 else 0
    return "".join(
        f'<span style="left: {_percent(number * step, inspection):.3f}%">{number * step:.{digits}f} s</span>'
        for number in range(first, last + 1)
    )


def _waveform(inspection: Inspection) -> str:
    samples = inspection.waveform.samples
    blocks = np.array_split(samples, min(_WAVEFORM_POINTS, len(samples)))
    loudest = max(1e-6, float(np.abs(samples).max()))
    tops, bottoms = ([float(pick(block)) / loudest for block in blocks] for pick in (np.max, np.min))
    at = [1000.0 * (number + 0.5) / len(blocks) for number in range(len(blocks))]
    outline = [*zip(at, tops, strict=True), *zip(at[::-1], bottoms[::-1], strict=True)]
    points = " ".join(f"{x:.1f},{50 - 48 * y:.1f}" for x, y in outline)
    return (
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="waveform">'
        f'<polygon points="{points}"/></svg>'
    )


def _name_features(inspection: Inspection) -> str:
    kind = "MFCCs" if inspection.feature_kind == "mfcc" else "log-mel bands"
    return f"{inspection.features.shape[1]} {kind}"


def _heat(rows: np.ndarray, colours: str, *, low: float | None = None, high: float | None = None) -> str:
    """A matrix as picture, its first row at the bottom."""
    from matplotlib.image import imsave

    if low is None or high is None:
        low, high = (float(np.quantile(rows, share)) if rows.size else 0.0 for share in (0.01, 0.99))
    buffer = io.BytesIO()
    imsave(buffer, rows[::-1], cmap=colours, vmin=low, vmax=max(high, low + 1e-6), format="png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/png;base64,{data}">'


def _stretch(content: str, frames: int, frame_seconds: float, inspection: Inspection) -> str:
    """Scale a picture to the duration of its frames."""
    width = 100 * frames * frame_seconds / inspection.seconds
    return f'<div class="frames" style="width: {width:.4f}%">{content}</div>'


def _states_panel(layer: DirectionStates, inspection: Inspection) -> str:
    memory = inspection.encoder_seconds * layer.memory_frames
    spread = ", ".join(f"{value:.2f}" for value in np.quantile(memory, [0.1, 0.5, 0.9]))
    note = f"longest memory at the top; 10, 50 and 90 % of the units forget within {spread} s"
    image = _heat(layer.states.T, "RdBu_r", low=-1.0, high=1.0)
    units = json.dumps([[int(unit), round(float(s), 3)] for unit, s in zip(layer.units, memory, strict=True)])
    return _panel(
        layer.name,
        note,
        _stretch(image, len(layer.states), inspection.encoder_seconds, inspection),
        height=100,
        attributes=f" class=states data-units='{units}'",
    )


def _posteriors(inspection: Inspection, rows: Sequence[int]) -> str:
    if not rows:
        return "<p class=note>only blanks</p>"
    frames = len(inspection.posteriors)
    image = _heat(inspection.posteriors[:, rows].T, "viridis", low=0.0, high=1.0)
    height = 100.0 / len(rows)
    parts = [image]
    place = {token: number for number, token in enumerate(rows)}
    for token, first, last in inspection.path:
        if token in place:
            left, width = 100.0 * first / frames, 100.0 * (last + 1 - first) / frames
            bottom = height * place[token]
            parts.append(
                f'<span class="token" style="left: {left:.3f}%; width: {width:.3f}%; bottom: {bottom:.3f}%; '
                f'height: {height:.3f}%">{_show(inspection.symbols[token])}</span>'
            )
    labels = "".join(
        f'<span style="bottom: {height * number:.3f}%; height: {height:.3f}%">{_show(inspection.symbols[token])}</span>'
        for number, token in enumerate(rows)
    )
    body = _stretch("".join(parts), frames, inspection.posterior_seconds, inspection)
    return f'<div class="symbols" aria-hidden="true">{labels}</div>{body}'


def _show(symbol: str) -> str:
    return html.escape("␣" if symbol == " " else symbol)


_MEANINGS = {"substitute": "substituted for {other}", "insert": "inserted", "delete": "deleted"}


def _words(words: Sequence[ComparedWord], inspection: Inspection) -> str:
    parts = []
    for word in words:
        left = _percent(word.start, inspection)
        width = _percent(word.end, inspection) - left
        notes = [f"{word.start:.2f} to {word.end:.2f} s"]
        if word.confidence is not None:
            notes.append(f"confidence {word.confidence:.2f}")
        if word.operation in _MEANINGS:
            is_reference = word.operation == "substitute" and word.confidence is None
            meaning = "recognised as {other}" if is_reference else _MEANINGS[word.operation]
            notes.append(meaning.format(other=word.other))
        sure = 1.0 if word.confidence is None else 0.25 + 0.75 * word.confidence
        parts.append(
            f'<button class="word {word.operation}" style="left: {left:.3f}%; width: {width:.3f}%; --sure: {sure:.2f}" '
            f'data-start="{word.start:.4f}" data-end="{word.end:.4f}" title="{html.escape(", ".join(notes))}">'
            f"{MARKS[word.operation]}{html.escape(word.text)}</button>"
        )
    return "".join(parts)
