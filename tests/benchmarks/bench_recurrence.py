"""Milliseconds of an LSTM or GRU, forward and backward, in each precision: which kernels of cuDNN are fast.

    python tests/benchmarks/bench_recurrence.py [--device cuda] [--frames 200] [--repeats 8]

torch alone, without this package. First one layer in one direction, then four bidirectional layers: as two passes per
layer, the second one reversed in time, and as cuDNN's bidirectional LSTM.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPES = ((768, 384, 32), (768, 384, 64), (768, 384, 128), (1024, 512, 64), (640, 320, 60))
"""Input size, units, utterances."""


def time_backward(run: Callable[[], Tensor], repeats: int, device: str) -> float:
    """Mean milliseconds of a forward and backward pass, after three that do not count."""
    for number in range(3 + repeats):
        if number == 3:
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
        run().sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats * 1e3


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    dtypes = (torch.float32, torch.bfloat16) + ((torch.float16,) if args.device == "cuda" else ())
    print(f"torch {torch.__version__}, {args.device}, {args.frames} frames, {', '.join(map(str, dtypes))}")
    for kind in (nn.LSTM, nn.GRU):
        for input_size, hidden_size, rows in SHAPES:
            times = []
            for dtype in dtypes:
                layer = kind(input_size, hidden_size, batch_first=True).to(args.device, dtype)
                inputs = torch.randn(rows, args.frames, input_size, device=args.device, dtype=dtype, requires_grad=True)
                times.append(time_backward(lambda: layer(inputs)[0], args.repeats, args.device))  # noqa: B023
            print(kind.__name__, f"{input_size} -> {hidden_size}, {rows} utterances:", *(f"{t:.1f}" for t in times))
    for dtype in dtypes:
        layers = [nn.LSTM(768, 384, batch_first=True).to(args.device, dtype) for _ in range(8)]
        whole = nn.LSTM(768, 384, 4, batch_first=True, bidirectional=True).to(args.device, dtype)
        inputs = torch.randn(64, args.frames, 768, device=args.device, dtype=dtype, requires_grad=True)

        def run_passes() -> Tensor:
            hidden = inputs  # noqa: B023
            for forward, backward in zip(layers[::2], layers[1::2], strict=True):  # noqa: B023
                hidden = torch.cat([forward(hidden)[0], backward(hidden.flip(1))[0].flip(1)], dim=-1)
            return hidden

        passes = time_backward(run_passes, args.repeats, args.device)
        together = time_backward(lambda: whole(inputs)[0], args.repeats, args.device)  # noqa: B023
        print(f"4 bidirectional layers, {dtype}: two passes {passes:.1f}, bidirectional {together:.1f}")


if __name__ == "__main__":
    main()
