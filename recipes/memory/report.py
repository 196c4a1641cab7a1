"""The tables and pictures of what memory.py has found so far."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechrnn.acoustic.gradient_flow import LagCurve
from speechrnn.atomic_io import write_atomic
from speechrnn.inspection.pictures import new_figure, to_png

CELLS = ("tanh", "elementwise", "gru", "lstm")
LAGS = (10, 50, 200)
CHANCE = {"adding": "MSE 0.167", "copy": "87.5 % errors", "first digit": "90 % errors"}
SOLVED_BELOW = {"adding": 0.01, "copy": 0.01, "first digit": 0.02}
"""Each task of memory: what guessing gets, and the measure below which it counts as solved."""


def describe(results: dict[str, dict[str, Any]]) -> str:
    """All tables of what is there so far."""
    tables = (_table_memory, _table_gates, _table_clipping, _table_states, _table_next)
    parts = [table(results) for table in tables]
    return "\n".join(part for part in parts if part)


def _table_memory(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| task, chance | lag | clipping | " + " | ".join(CELLS) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in CELLS) + " |",
    ]
    for task in CHANCE:
        for lag in LAGS:
            for clip in ("clipped", "unclipped"):
                names = [f"{task.replace(' ', '-')}-{lag}-{cell}-{clip}" for cell in CELLS]
                if any(name in results for name in names):
                    cells = " | ".join(_show(task, results.get(name)) for name in names)
                    how = "norm 1" if clip == "clipped" else "off"
                    lines.append(f"| {task}, {CHANCE[task]} | {lag} | {how} | {cells} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _show(task: str, kept: dict[str, Any] | None) -> str:
    if kept is None:
        return ""
    if kept["failed"]:
        return f"failed in step {kept['steps']}"
    value = f"{kept['best']:.4f}" if task == "adding" else f"{100 * kept['best']:.1f} %"
    return f"**{value}**, {kept['steps']} steps" if kept["best"] < SOLVED_BELOW[task] else value


def _table_gates(results: dict[str, dict[str, Any]]) -> str:
    """Recurrent weights and units at their limits, before and after the longest sums were learned."""
    lines = [
        "| cell | gate | spectral radius | largest singular value | smallest | units at their limits |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in CELLS:
        kept = results.get(f"adding-{max(LAGS)}-{cell}-clipped", {})
        for gate, before in kept.get("gates_before", {}).items():
            after = kept["gates_after"][gate]
            values = [f"{before[key]:.2f} → {after[key]:.2f}" for key in ("spectral_radius", "largest", "smallest")]
            shares = f"{100 * before['saturated']:.0f} → {100 * after['saturated']:.0f} %"
            lines.append(f"| {cell} | {gate} | {' | '.join(values)} | {shares} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _table_clipping(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| optimiser | clipping | largest norm before clipping | of the first step | error, best (chance 1) | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for optimizer in ("sgd", "adam"):
        for how in ("none", "norm", "value"):
            kept = results.get(f"clipping-{optimizer}-{how}")
            if kept is None:
                continue
            norms = [math.inf if norm is None else norm for norm in kept["gradient_norms"]]
            largest = f"{max(norms):.3g}" if math.isfinite(max(norms)) else "not finite"
            best = "–" if kept["best"] is None else f"{kept['best']:.3f}"
            lines.append(f"| {optimizer} | {how} | {largest} | {norms[0]:.3g} | {best} | {kept['failed']} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _table_states(results: dict[str, dict[str, Any]]) -> str:
    rows = _state_rows(results)
    if not rows:
        return ""
    lines = ["| initial state | " + " | ".join(f"step {step}" for step in (1, 2, 3, 5, 10, 20)) + " |"]
    lines.append("| --- | " + " | ".join("---" for _ in range(6)) + " |")
    for name, errors in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{errors[step - 1]:.4f}" for step in (1, 2, 3, 5, 10, 20)) + " |")
    return "\n".join(lines) + "\n"


def _state_rows(results: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    rows = {}
    for state in ("zero", "learned", "encoded"):
        kept = results.get(f"state-{state}", {})
        if "by_step" in kept:
            rows[state] = kept["by_step"]
        if "by_step_wrong" in kept:
            rows["encoded from another wave"] = kept["by_step_wrong"]
    return rows


def _table_next(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| what comes next | error | of the simplest guess |", "| --- | --- | --- |"]
    for name, kept in results.items():
        if "naive" in kept:
            lag = kept["experiment"]["lag"]
            what = f"MFCCs, {20 * lag} ms ahead" if name.startswith("next-mfcc") else f"series, {lag} steps ahead"
            lines.append(f"| {what} | MSE {kept['measure']:.3f} | {kept['naive']:.3f} (as it is now) |")
        if "bits" in kept:
            bits, guess = kept["bits"], kept["bits_unigram"]
            lines.append(f"| next symbol of this recipe's README | {bits:.2f} bits | {guess:.2f} (how often each is) |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def draw(results: dict[str, dict[str, Any]], output: Path) -> None:
    """The pictures of what is there."""
    longest = {cell: results.get(f"adding-{max(LAGS)}-{cell}-clipped") for cell in CELLS}
    longest = {cell: kept for cell, kept in longest.items() if kept}
    if longest:
        _draw_curves(longest, output / "gradients.png")
        _draw_learning(longest, output / "learning.png")
    if "clipping-sgd-none" in results:
        _draw_clipping(results, output / "clipping.png")
    if _state_rows(results):
        _draw_states(_state_rows(results), output / "states.png")


def _draw_curves(longest: dict[str, dict[str, Any]], path: Path) -> None:
    figure = new_figure(9, 4)
    for axes, key, when in zip(
        figure.subplots(1, 2, sharey=True), ("curve_before", "curve_after"), ("before", "after"), strict=True
    ):
        for cell, kept in longest.items():
            norms = np.array(kept[key])
            curve = LagCurve(1, "forward", torch.tensor(norms), torch.ones(len(norms)), 1.0)
            half = curve.half_life_frames
            label = f"{cell}, half-life {half:.0f}" if math.isfinite(half) else f"{cell}, no half-life"
            axes.plot(np.clip(norms / max(norms[0], 1e-300), 1e-12, 1e12), label=label)
        axes.set_yscale("log")
        axes.set_ylim(1e-8, 1e3)
        axes.set_title(f"{when} training on lag {max(LAGS)}")
        axes.set_xlabel("lag k, in steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.axes[0].set_ylabel("norm of ∂loss/∂h$_{T-k}$, share of lag 0")
    write_atomic(path, to_png(figure))


def _draw_learning(longest: dict[str, dict[str, Any]], path: Path) -> None:
    figure = new_figure()
    axes = figure.subplots()
    for cell, kept in longest.items():
        axes.plot(*zip(*kept["validation"], strict=True), label=cell)
    axes.axhline(1 / 6, color="0.5", linestyle=":", label="chance")
    axes.axhline(0.01, color="0.5", linestyle="--", label="solved")
    axes.set_yscale("log")
    axes.set_xlabel("training steps")
    axes.set_ylabel("mean squared error")
    axes.set_title(f"adding two numbers, the first {max(LAGS)} steps ago")
    axes.legend(fontsize="small")
    write_atomic(path, to_png(figure))


def _draw_clipping(results: dict[str, dict[str, Any]], path: Path) -> None:
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    for optimizer, style in (("sgd", "-"), ("adam", "--")):
        for number, how in enumerate(("none", "norm", "value")):
            kept = results.get(f"clipping-{optimizer}-{how}")
            if kept is None:
                continue
            norms = [math.nan if norm is None else norm for norm in kept["gradient_norms"]]
            label = f"{optimizer}, {'not clipped' if how == 'none' else f'clipped by {how}'}"
            left.plot(norms, style, color=f"C{number}", linewidth=0.8, label=label)
            losses = np.array(kept["losses"])
            right.plot(np.clip(losses, 0, 1e6), style, color=f"C{number}", linewidth=0.8, label=label)
            if kept["failed"]:
                right.plot(len(losses) - 1, np.clip(losses[-1], 0, 1e6), "x", color=f"C{number}")
    for axes, name in ((left, "gradient norm before clipping"), (right, "loss of the step (chance 1)")):
        axes.set_yscale("log")
        axes.set_xlabel("training steps")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    figure.suptitle("a tanh RNN whose recurrent weights have spectral radius 2")
    write_atomic(path, to_png(figure))


def _draw_states(rows: dict[str, list[float]], path: Path) -> None:
    figure = new_figure()
    axes = figure.subplots()
    for name, errors in rows.items():
        axes.plot(range(1, len(errors) + 1), errors, "o-", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step of the wave")
    axes.set_ylabel("mean squared error of the next value")
    axes.set_title("what a hidden state starts from")
    axes.legend(fontsize="small")
    write_atomic(path, to_png(figure))
