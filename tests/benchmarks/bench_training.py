"""Training steps of a bidirectional stack against torch's own layers of equal size, padded and packed, on two threads.

    python tests/benchmarks/bench_training.py [--batch-seconds 60] [--threads 2] [--rounds 5]

Three layers of 256 units in both directions without normalisation and residual connections, so that all three have
equal parameters; 40 features, 50 frames a second; utterances of 3 to 12 s. A step is forward pass, CTC loss, backward
pass and AdamW. They take turns; the median of the rounds. Padded, torch's backward direction reads the padding first,
which is not the same model; packed is. Audio trained on per second is without padding.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn.acoustic.ctc import ctc_loss
from speechrnn.acoustic.recurrent import RecurrentStack

FEATURES, UNITS, LAYERS, VOCABULARY, FRAMES_A_SECOND, TOKENS_A_SECOND = 40, 256, 3, 30, 50, 12


def make_batch(seconds: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (B, T, F), lengths (B,), targets (B, U) and their lengths (B,)."""
    generator = torch.Generator().manual_seed(0)
    durations: list[float] = []
    while sum(durations) < seconds:
        durations.append(3.0 + 9.0 * float(torch.rand(1, generator=generator)))
    lengths = torch.tensor([round(each * FRAMES_A_SECOND) for each in sorted(durations)])
    sizes = torch.tensor([round(each * TOKENS_A_SECOND) for each in sorted(durations)])
    features = torch.randn(len(lengths), int(lengths.max()), FEATURES, generator=generator)
    targets = torch.randint(1, VOCABULARY, (len(lengths), int(sizes.max())), generator=generator)
    return features, lengths, targets, sizes


def make_runs(cell: str) -> dict[str, tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]]:
    """Each system's module, and its function from features and lengths to outputs (B, T, 2 · H)."""
    ours = RecurrentStack(
        cell,  # type: ignore[arg-type]
        FEATURES,
        hidden_size=UNITS,
        num_layers=LAYERS,
        bidirectional=True,
        layer_norm=False,
        residual=False,
    )
    kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
    theirs = kind(FEATURES, UNITS, LAYERS, batch_first=True, bidirectional=True)

    def run_packed(features: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]

    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    return {
        "speechrnn": (ours, lambda features, lengths: ours(features, lengths)[0]),
        f"nn.{kind.__name__}, padded": (theirs, lambda features, lengths: theirs(features)[0]),
        f"nn.{kind.__name__}, packed": (theirs, run_packed),
    }


def measure(cell: str, seconds: float, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each system."""
    features, lengths, targets, sizes = make_batch(seconds)
    taken: dict[str, list[float]] = defaultdict(list)
    head = nn.Linear(2 * UNITS, VOCABULARY)
    runs = make_runs(cell)
    optimizers = {
        name: torch.optim.AdamW([*module.parameters(), *head.parameters()], fused=True)
        for name, (module, _) in runs.items()
    }
    for number in range(rounds + 1):
        for name, (_, run) in runs.items():
            begun = time.perf_counter()
            log_probs = head(run(features, lengths)).log_softmax(dim=-1)
            ctc_loss(log_probs, targets, lengths=lengths, target_lengths=sizes).backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if number > 0:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    audio = float(make_batch(args.batch_seconds)[1].sum()) / FRAMES_A_SECOND
    print("| cell | system | s per step | × real time | speechrnn is faster by |\n| --- | --- | --- | --- | --- |")
    for cell in ("gru", "lstm"):
        found = measure(cell, args.batch_seconds, args.rounds)
        ours = found["speechrnn"]
        for name, median in found.items():
            print(f"| {cell} | {name} | {median:.3f} | {audio / median:.0f} | {median / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
