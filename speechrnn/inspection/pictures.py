"""Pictures, drawn with matplotlib (extra ``pictures``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechrnn.acoustic.gradient_flow import LagCurve
from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.types import BLANK_ID

if TYPE_CHECKING:
    from speechrnn.inspection.inspect import ComparedWord, Inspection

MARKS = {"equal": "", "substitute": "≠ ", "insert": "+ ", "delete": "− "}
"""Prefix of a wrong word, in addition to its colour."""

_MOST_ROWS = 40
_LEAST_POSTERIOR = 0.02
_FLOOR, _CEILING = 1e-12, 1e30  # drawn for vanished and unbounded gradients
_LEAST_SHARE = 1e-6


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Raise SpeechRNNError if matplotlib is not installed."""
    if not has_matplotlib():
        raise SpeechRNNError("pictures need matplotlib: pip install matplotlib")


def new_figure(width: float = 7.0, height: float = 4.0) -> Any:
    """Create an empty matplotlib figure, without a display or global state; width and height in inches.

    Raises:
        SpeechRNNError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Any, *, dpi: int = 120) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_pixels(figure: Any) -> np.ndarray:
    """A figure as pixels, (height, width, 3), uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def write_histograms(values: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write histograms side by side as PNG; names become axis labels.

    Raises:
        ConfigError: The file cannot be written.
    """
    figure = new_figure(4.5 * len(values), 3.5)
    for axes, (name, numbers) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        axes.hist(numbers, bins=50)
        axes.set(xlabel=name, ylabel="utterances")
    write_atomic(path, to_png(figure), error=ConfigError)


def draw_lag_curves(curves: Sequence[LagCurve], *, title: str = "") -> Any:
    """Draw the norm of errors by lag, one line per layer and direction.

    Args:
        curves: One or more; each is drawn as a share of its value at lag 0, on a logarithmic scale.
        title: Title of the figure.

    Returns:
        A matplotlib figure. Solid lines are forward, dashed ones backward; a dot marks each half-life.

    Raises:
        SpeechRNNError: matplotlib is not installed.
    """
    figure = new_figure()
    axes = figure.subplots()
    highest, lowest = 1.0, 1.0
    for curve in curves:
        start = float(curve.norms[0]) or 1.0
        shares = np.clip(curve.norms.cpu().double().numpy() / start, _FLOOR, _CEILING)
        style = "--" if curve.direction == "backward" else "-"
        half_life = curve.half_life_frames
        name = f"layer {curve.layer} {curve.direction}"
        label = f"{name}, half-life {half_life:.1f}" if np.isfinite(half_life) else f"{name}, no half-life"
        (line,) = axes.plot(range(len(shares)), shares, style, color=f"C{curve.layer - 1}", label=label)
        if np.isfinite(half_life):
            at = np.exp(np.interp(half_life, range(len(shares)), np.log(shares)))
            axes.plot(half_life, at, "o", color=line.get_color())
        highest, lowest = max(highest, shares.max()), min(lowest, shares.min())
    frame = curves[0].seconds_per_frame
    axes.set_yscale("log")
    axes.set_ylim(max(_LEAST_SHARE, lowest / 2), highest * 2)
    axes.set_xlim(0, None)
    axes.set_xlabel(f"lag k, in encoder frames of {1000 * frame:.0f} ms")
    axes.set_ylabel("norm of ∂loss$_t$/∂h$_{t-k}$, share of lag 0")
    axes.secondary_xaxis("top", functions=(lambda k: k * frame, lambda s: s / frame)).set_xlabel("seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    if title:
        axes.set_title(title)
    return figure


def draw_inspection(inspection: Inspection) -> Any:
    """Draw the panels of the page (:func:`speechrnn.inspection.page.to_page`) as a matplotlib figure.

    Raises:
        SpeechRNNError: matplotlib is not installed.
    """
    layers, has_reference = inspection.layers, inspection.reference is not None
    rows = choose_rows(inspection)
    heights = [1.0, 1.3, *[1.1] * len(layers), max(1.0, 0.13 * len(rows)), 0.35, *[0.35] * has_reference]
    figure = new_figure(max(8.0, min(40.0, 2.0 * inspection.seconds)), 1.2 * sum(heights))
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    start, end = inspection.start, inspection.start + inspection.seconds
    samples = inspection.waveform.samples
    panels[0].plot(np.linspace(start, end, len(samples), endpoint=False), samples, linewidth=0.4, color="C2")
    panels[0].set_ylabel("waveform")
    _show_features(panels[1], inspection)
    for axes, layer in zip(panels[2:], layers, strict=False):
        _show_matrix(axes, layer.states.T, start, inspection.encoder_seconds, "RdBu_r", limits=(-1, 1))
        axes.set_ylabel(layer.name.replace(" ", "\n", 2).replace("\n", " ", 1))
    axes = panels[2 + len(layers)]
    _show_matrix(axes, inspection.posteriors[:, rows].T, start, inspection.posterior_seconds, "viridis", limits=(0, 1))
    axes.set_yticks(range(len(rows)), ["␣" if (name := inspection.symbols[row]) == " " else name for row in rows])
    axes.tick_params(axis="y", labelsize="x-small")
    axes.set_ylabel("posteriors, best path")
    place = {token: number for number, token in enumerate(rows)}
    for token, first, last in inspection.path:
        if token in place:
            left, right = (start + inspection.posterior_seconds * edge for edge in (first, last + 1))
            corners = ([left, right, right, left, left], place[token] + np.array([-0.5, -0.5, 0.5, 0.5, -0.5]))
            axes.plot(*corners, color="white", linewidth=0.8)
    _write_words(panels[3 + len(layers)], inspection.hypothesis, "hypothesis")
    if inspection.reference is not None:
        _write_words(panels[4 + len(layers)], inspection.reference, "reference")
    for axes in (panels[0], *panels[2 : 2 + len(layers)]):
        axes.set_yticks([])
    panels[-1].set_xlim(start, end)
    panels[-1].set_xlabel("seconds")
    return figure


def _show_features(axes: Any, inspection: Inspection) -> None:
    """Log-mels over Hz, on the mel scale; other features by index."""
    axes.set_ylabel("MFCCs" if inspection.feature_kind == "mfcc" else "log-mels")
    if not len(inspection.bands_hz):
        _show_matrix(axes, inspection.features.T, inspection.start, inspection.frame_seconds, "magma")
        axes.set_yticks([])
    elif len(inspection.features):
        from librosa.display import specshow

        times = inspection.start + inspection.frame_seconds * (0.5 + np.arange(len(inspection.features)))
        hz = inspection.bands_hz
        specshow(inspection.features.T, x_coords=times, y_coords=hz, y_axis="mel", cmap="magma", ax=axes)
        axes.set_ylabel("log-mels, Hz")


def choose_rows(inspection: Inspection) -> list[int]:
    """Tokens to show: those of the best path and other probable ones, without the blank, at most forty."""
    best = inspection.posteriors.max(axis=0, initial=0.0)
    on_path = {token for token, _, _ in inspection.path}
    wanted = [token for token in range(len(best)) if token in on_path or best[token] >= _LEAST_POSTERIOR]
    wanted = [token for token in wanted if token != BLANK_ID]
    wanted.sort(key=lambda token: (token not in on_path, -best[token]))
    return sorted(wanted[:_MOST_ROWS])


def _show_matrix(
    axes: Any,
    rows: np.ndarray,
    start: float,
    frame_seconds: float,
    colours: str,
    limits: tuple[float | None, float | None] = (None, None),
) -> None:
    extent = (start, start + rows.shape[1] * frame_seconds, -0.5, len(rows) - 0.5)
    options = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "extent": extent, "cmap": colours}
    if rows.size:
        axes.imshow(rows, vmin=limits[0], vmax=limits[1], **options)


def _write_words(axes: Any, words: Sequence[ComparedWord], name: str) -> None:
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    for word in words:
        colour = "black" if word.operation == "equal" else "tab:red"
        mark = MARKS[word.operation]
        axes.axvspan(word.start, word.end, color=colour, alpha=0.12)
        axes.text((word.start + word.end) / 2, 0.5, mark + word.text, color=colour, ha="center", va="center",
                  fontsize="small", clip_on=True)  # fmt: skip
