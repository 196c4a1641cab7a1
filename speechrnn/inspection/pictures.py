"""Pictures, drawn with matplotlib (extra ``pictures``)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from speechrnn.acoustic.gradient_flow import LagCurve
from speechrnn.errors import SpeechRNNError

_FLOOR, _CEILING = 1e-12, 1e30  # what vanished and unbounded gradients are drawn as
_LEAST_SHARE = 1e-6


def has_matplotlib() -> bool:
    """Whether pictures can be drawn here."""
    return find_spec("matplotlib") is not None


def new_figure(width: float = 7.0, height: float = 4.0) -> Any:
    """An empty matplotlib figure, in inches; it needs no screen and no global state.

    Raises:
        SpeechRNNError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise SpeechRNNError("pictures need matplotlib: pip install 'speechrnn[pictures]'")
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


def draw_lag_curves(curves: Sequence[LagCurve], *, title: str = "") -> Any:
    """Draw how much of an error arrives at the states before it, one line a layer and direction.

    Args:
        curves: One or more; each is drawn as a share of its value at lag 0, on a logarithmic scale.
        title: What the picture is of.

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
