"""Milliseconds of the scan cells (minGRU, minLSTM) against torch's GRU and LSTM, forward alone and with backward.

    python tests/benchmarks/bench_cells.py [--device cpu] [--threads 1] [--seconds 120] [--json FILE]

One layer in one direction, 512 inputs to 256 units, then the bidirectional stack of 3 x 256 with layer normalisation
(``size: small``) against nn.GRU and nn.LSTM of that shape. Each time is the median of as many rounds as fit into the
time; in every round all systems run in turn, so that another load on the machine meets all of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from speechrnn.acoustic.minimal import new_state, scan
from speechrnn.acoustic.recurrent import RecurrentLayer, RecurrentStack

SHAPES = {"cpu": ((1, 200), (8, 200), (32, 200), (1, 3000)), "cuda": ((8, 400), (32, 400), (128, 400), (8, 3000))}
"""Utterances and frames."""

INPUTS, UNITS, LAYERS = 512, 256, 3
SYSTEMS = ("mingru", "minlstm", "gru", "lstm", "nn.GRU", "nn.LSTM")


def build(system: str, *, is_stack: bool, device: str) -> Callable[[Tensor], Tensor]:
    """A layer or stack as a function of inputs (B, T, F), with the package's lengths and states where it needs them."""
    if system.startswith("nn."):
        shape = {"num_layers": LAYERS, "bidirectional": True} if is_stack else {}
        module = getattr(nn, system[3:])(INPUTS, UNITS, batch_first=True, **shape).to(device)
        return lambda inputs: module(inputs)[0]
    if is_stack:
        stack = RecurrentStack(system, INPUTS, hidden_size=UNITS, num_layers=LAYERS, bidirectional=True).to(device)  # type: ignore[arg-type]
        return lambda inputs: stack(inputs, torch.full((len(inputs),), inputs.shape[1]))[0]
    layer = RecurrentLayer(system, INPUTS, UNITS, bidirectional=False).to(device)  # type: ignore[arg-type]
    parts = 2 if system == "lstm" else 1
    return lambda inputs: layer(
        inputs, torch.full((len(inputs),), inputs.shape[1]), initial=inputs.new_zeros(parts, 1, len(inputs), UNITS)
    )[0]


def measure(run: Callable[[Tensor], Tensor], inputs: Tensor, *, with_backward: bool) -> float:
    """Milliseconds of one call."""
    if inputs.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.set_grad_enabled(with_backward):
        output = run(inputs)
        if with_backward:
            output.sum().backward()
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def compare(*, is_stack: bool, rows: int, frames: int, device: str, seconds: float) -> list[dict[str, object]]:
    """Times of all systems on one shape."""
    inputs = torch.randn(rows, frames, INPUTS, device=device, requires_grad=True)
    found = []
    for with_backward in (False, True):
        runs = {name: build(name, is_stack=is_stack, device=device) for name in SYSTEMS}
        times: dict[str, list[float]] = {name: [] for name in runs}
        ends = time.perf_counter() + seconds / 2
        while len(times[SYSTEMS[0]]) < 2 or (time.perf_counter() < ends and len(times[SYSTEMS[0]]) < 50):
            for name, run in runs.items():
                times[name].append(measure(run, inputs, with_backward=with_backward))
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first call warms up
        where = {"what": "stack" if is_stack else "layer", "utterances": rows, "frames": frames}
        found.append({**where, "pass": "forward + backward" if with_backward else "forward", "milliseconds": medians})
    return found


def measure_errors(frames: int) -> dict[str, float]:
    """Largest error of a state in float32 over this many frames: of our scan, and of one on logarithms throughout."""
    torch.manual_seed(0)
    a_update, a_new = torch.randn(2, 1, frames, UNITS)
    update, initial = torch.sigmoid(a_update), torch.rand(1, UNITS) + 0.1
    exact, steps = initial.double(), []
    for gate, new in zip(update.double().unbind(1), new_state(a_new.double()).unbind(1), strict=True):
        exact = exact + gate * (new - exact)
        steps.append(exact)
    terms = torch.cat([initial.log()[:, None], update.log() + new_state(a_new).log()], dim=1)
    total = nn.functional.pad(torch.sigmoid(-a_update).log().cumsum(dim=1), (0, 0, 1, 0))
    log_space = (total + (terms - total).logcumsumexp(dim=1)).exp()[:, 1:]
    wanted, found = torch.stack(steps, dim=1), {"scan": scan(update, a_new, initial), "log space": log_space}
    return {name: float((states - wanted).abs().max()) for name, states in found.items()}


def main() -> None:
    """Print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, milliseconds (× faster than its peer)")
    errors = ", ".join(f"{name} {error:.1g}" for name, error in measure_errors(3000).items())
    print(f"largest error after 3,000 frames: {errors}")
    print("| what | utterances x frames | pass | " + " | ".join(SYSTEMS) + " |\n" + "| --- " * (3 + len(SYSTEMS)) + "|")
    shapes = SHAPES[args.device]
    cases = [(False, *shape) for shape in shapes] + [(True, *shape) for shape in shapes[:3]]
    found = []
    for is_stack, rows, frames in cases:
        options = {"device": args.device, "seconds": args.seconds / len(cases)}
        for row in compare(is_stack=is_stack, rows=rows, frames=frames, **options):  # type: ignore[arg-type]
            found.append(row)
            times: dict[str, float] = row["milliseconds"]  # type: ignore[assignment]
            peer = {name: times["nn.LSTM" if name.endswith("lstm") else "nn.GRU"] for name in times}
            cells = " | ".join(f"{times[name]:.1f} ({peer[name] / times[name]:.1f} ×)" for name in times)
            print(f"| {row['what']} | {rows} x {frames} | {row['pass']} | {cells} |", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
