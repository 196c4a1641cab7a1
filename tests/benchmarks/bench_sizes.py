"""Parameters and speed of the named encoder sizes: ``python tests/benchmarks/bench_sizes.py [--device cuda]``.

Speech-like noise of 16 kHz, 40 MFCCs, bidirectional GRU and LSTM side by side, two-fold subsampling, 30 characters.
Speed is audio time over processing time: hours of audio an hour. Training is forward, CTC loss, backward, clipping and
an AdamW step on batches of the given seconds; transcribing is one 10 s utterance at a time, greedy.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from speechrnn.acoustic.ctc import ctc_loss
from speechrnn.acoustic.encoder import SIZES, EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.decoding.greedy import decode_greedy

UTTERANCE_SECONDS = 10
VOCABULARY = 30


def time_median(action: Callable[[], None], repeats: int, device: str) -> float:
    """Median seconds of an action, after one run that does not count."""
    action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(size: str, cell: str, device: str, batch_seconds: int, repeats: int) -> tuple[int, float, float]:
    """Parameters, hours of audio trained an hour, and transcribed an hour."""
    torch.manual_seed(0)
    encoder = EncoderConfig(size=size, cell=cell)  # type: ignore[arg-type]
    model = AcousticModel(FrontEndConfig(), encoder, VOCABULARY).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    rows = batch_seconds // UTTERANCE_SECONDS
    waveforms = 0.1 * torch.randn(rows, 16000 * UTTERANCE_SECONDS, device=device)
    lengths = torch.full((rows,), waveforms.shape[1], device=device)
    targets = torch.randint(1, VOCABULARY, (rows, 12 * UTTERANCE_SECONDS), device=device)
    target_lengths = torch.full((rows,), targets.shape[1], device=device)

    def train() -> None:
        emission = model(waveforms, lengths)
        loss = ctc_loss(emission.log_probs, targets, lengths=emission.lengths, target_lengths=target_lengths)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def transcribe() -> None:
        with torch.inference_mode():
            emission = model(waveforms[:1], lengths[:1])
            decode_greedy(emission.log_probs, emission.lengths)

    trained = rows * UTTERANCE_SECONDS / time_median(train, repeats, device)
    model.eval()
    return model.num_parameters, trained, UTTERANCE_SECONDS / time_median(transcribe, 2 * repeats + 1, device)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-seconds", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    place = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {place}, batches of {args.batch_seconds} s\n")
    print("| size | units × layers | cell | parameters | trained, h of audio/h | transcribed, × real time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size, (hidden_size, num_layers) in SIZES.items():
        for cell in ("gru", "lstm"):
            parameters, trained, transcribed = measure(size, cell, args.device, args.batch_seconds, args.repeats)
            speeds = f"{trained:,.0f} | {transcribed:,.0f}"
            shape = f"`{size}` | {hidden_size} × {num_layers} | {cell}"
            print(f"| {shape} | {parameters / 1e6:.1f} M | {speeds} |", flush=True)


if __name__ == "__main__":
    main()
