"""All measurements on a GPU in one run: features, recurrent layers, training, CTC, transcription, decoding.

    python tests/benchmarks/gpu.py [--seconds 240] [--json FILE] [--only recurrence training]
    python tests/benchmarks/gpu.py --device cpu --tiny       # the same code in seconds, to test it

Each value is the median of as many repetitions as its share of the time allows, after one that does not count. Audio is
noise, half of the utterances are between half and full length. Precisions: ``float32`` without TF32, ``tf32``, ``fp16``
(autocast, as --trainer.precision 16-mixed). Peers: nn.LSTM and nn.GRU of the same shape over padded and over packed
sequences, torchaudio's features, torch's own CTC and cuDNN's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn.acoustic.ctc import ctc_losses
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import RecurrentStack
from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.decoding.beam import BeamConfig, decode_beam
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.training.config import OptimizerConfig
from speechrnn.training.optimization import build_optimizer
from speechrnn.types import mask_padding

RATE, VOCABULARY = 16_000, 32
CELLS = ("lstm", "gru", "mingru", "minlstm")
PEERS = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class Row:
    """A measured value.

    Attributes:
        section: What is measured.
        system: Ours or a peer.
        precision: ``float32``, ``tf32`` or ``fp16``.
        milliseconds: Median of one call; None if it failed.
        real_time: Seconds of audio per second, padding not counted.
        note: Shape, or what failed.
    """

    section: str
    system: str
    precision: str
    milliseconds: float | None
    real_time: float | None
    note: str


@dataclass(frozen=True)
class Setup:
    """Device, sizes and time per measured value."""

    device: str
    rows: int
    seconds: float
    units: int
    layers: int
    large_units: int
    each: float

    def lengths(self, full: int) -> Tensor:
        """Half of the rows at full length, the others from half to full, (B,), int64, on the host."""
        spread = torch.linspace(0.5, 1.0, self.rows).clamp(max=1.0)
        spread[1::2] = 1.0
        return (spread * full).long()

    def waveforms(self) -> tuple[Tensor, Tensor]:
        """(B, N) on the host, and its lengths."""
        lengths = self.lengths(int(RATE * self.seconds))
        waveforms = 0.1 * torch.randn(self.rows, int(RATE * self.seconds), generator=torch.Generator().manual_seed(0))
        return waveforms, lengths


@contextmanager
def precision_of(name: str, device: str) -> Iterator[None]:
    """TF32 on or off, and autocast for fp16 (bfloat16 on a CPU)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != "float32"
    try:
        dtype = torch.float16 if device == "cuda" else torch.bfloat16
        with torch.autocast(device, dtype, enabled=name == "fp16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def time_call(run: Callable[[], object], setup: Setup) -> float:
    """Median milliseconds."""
    times: list[float] = []
    ends = time.perf_counter() + setup.each
    while len(times) < 2 or (time.perf_counter() < ends and len(times) < 200):
        started = time.perf_counter()
        run()
        if setup.device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[1:])


def measure_features(setup: Setup) -> Iterator[Row]:
    """Log-mels and MFCCs from waveforms on the device."""
    from torchaudio.transforms import MFCC

    waveforms, lengths = setup.waveforms()
    waveforms = waveforms.to(setup.device)
    spoken = float(lengths.sum()) / RATE
    systems: dict[str, Callable[[], object]] = {}
    for kind in ("log_mel", "mfcc"):
        front_end = FrontEnd(FrontEndConfig(kind=kind)).to(setup.device).eval()  # type: ignore[arg-type]
        systems[f"ours, {kind}"] = lambda front_end=front_end: front_end(waveforms, lengths)  # type: ignore[misc]
    options = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}
    peer = MFCC(RATE, 40, melkwargs=options).to(setup.device)
    systems["torchaudio, mfcc"] = lambda: peer(waveforms)
    for name, run in systems.items():
        with torch.inference_mode():
            taken = time_call(run, setup)
        yield Row("features", name, "float32", taken, spoken / taken * 1e3, f"{setup.rows} x {setup.seconds:g} s")


def run_peer(module: nn.RNNBase, inputs: Tensor, lengths: Tensor, *, is_packed: bool) -> Tensor:
    """Outputs of torch's module over padded or packed sequences."""
    if not is_packed:
        return module(inputs)[0]
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(module(packed)[0], batch_first=True)[0]


def measure_recurrence(setup: Setup) -> Iterator[Row]:
    """Bidirectional stacks, forward and backward, at 40 ms per frame; ours with layer norm and residuals."""
    frames, size = max(2, int(25 * setup.seconds)), setup.units
    inputs = torch.randn(setup.rows, frames, size, device=setup.device, requires_grad=True)
    lengths = setup.lengths(frames)
    spoken = float(lengths.sum()) / 25
    for cell in CELLS:
        options = {"hidden_size": size, "num_layers": setup.layers, "bidirectional": True}
        stack = RecurrentStack(cell, size, **options).to(setup.device)  # type: ignore[arg-type]
        systems: dict[str, Callable[[], Tensor]] = {f"ours, {cell}": lambda stack=stack: stack(inputs, lengths)[0]}  # type: ignore[misc]
        if cell in PEERS:
            peer = PEERS[cell](size, size, setup.layers, batch_first=True, bidirectional=True).to(setup.device)
            for is_packed in (False, True):
                name = f"nn.{cell.upper()}, {'packed' if is_packed else 'padded'}"
                systems[name] = lambda peer=peer, is_packed=is_packed: run_peer(  # type: ignore[misc]
                    peer, inputs, lengths, is_packed=is_packed
                )
        for name, run in systems.items():
            for precision in ("float32", "tf32", "fp16"):
                with precision_of(precision, setup.device):
                    taken = time_call(lambda run=run: run().float().sum().backward(), setup)  # type: ignore[misc]
                note = f"{setup.rows} x {frames} frames, {setup.layers} x {size}"
                yield Row("recurrence", name, precision, taken, spoken / taken * 1e3, note)


class PeerStack(nn.Module):
    """torch's module in the place of our stack, so that everything else of a training step is the same."""

    def __init__(self, module: nn.RNNBase, *, is_packed: bool) -> None:
        super().__init__()
        self.module, self.is_packed = module, is_packed

    def forward(self, inputs: Tensor, lengths: Tensor, **_: object) -> tuple[Tensor, None, list[Tensor]]:
        """(B, T, F) → (B, T, D·H), zero past a length."""
        return mask_padding(run_peer(self.module, inputs, lengths.cpu(), is_packed=self.is_packed), lengths), None, []


def make_systems(setup: Setup, cell: str, **shape: Any) -> Iterator[tuple[str, AcousticModel]]:
    """Our model, and for a bidirectional LSTM or GRU the same with torch's module, padded and packed."""
    yield f"ours, {cell}", make_model(setup, cell, **shape)
    if cell not in PEERS or not shape["bidirectional"]:
        return
    for is_packed in (False, True):
        model = make_model(setup, cell, **shape)
        size, layers = model.encoder.subsampling.output_size, shape["layers"]
        peer = PEERS[cell](size, shape["units"], layers, batch_first=True, bidirectional=True).to(setup.device)
        model.encoder.stack = PeerStack(peer, is_packed=is_packed)  # type: ignore[assignment]
        yield f"nn.{cell.upper()}, {'packed' if is_packed else 'padded'}", model


def make_model(setup: Setup, cell: str, *, layers: int, units: int, **encoder: object) -> AcousticModel:
    """An untrained model with 80 log-mels and 40 ms per encoder frame."""
    config = EncoderConfig(cell=cell, num_layers=layers, hidden_size=units, subsampling_factor=4, **encoder)  # type: ignore[arg-type]
    return AcousticModel(FrontEndConfig(kind="log_mel", n_mels=80), config, VOCABULARY).to(setup.device)


def measure_training(setup: Setup) -> Iterator[Row]:
    """Whole steps: waveforms to the device, features, encoder, CTC, backward, fused AdamW."""
    waveforms, lengths = setup.waveforms()
    spoken = float(lengths.sum()) / RATE
    tokens = max(1, int(3 * setup.seconds))
    targets = torch.randint(1, VOCABULARY, (setup.rows, tokens)).to(setup.device)
    target_lengths = torch.full((setup.rows,), tokens)
    shapes = {f"bidirectional {setup.layers} x {setup.units}": (setup.layers, setup.units, True)}
    shapes[f"MLPerf-sized, unidirectional 5 x {setup.large_units}"] = (5, setup.large_units, False)
    for note, (layers, units, is_both) in shapes.items():
        for cell in CELLS if is_both else ("lstm", "minlstm"):
            shape = {"layers": layers, "units": units, "bidirectional": is_both, "subsampling": "convolution_2d"}
            pairs = [(*system, each) for system in make_systems(setup, cell, **shape) for each in ("tf32", "fp16")]
            for name, model, precision in pairs:
                optimizer = build_optimizer(model.parameters(), OptimizerConfig())

                def step(model: AcousticModel = model, optimizer: Any = optimizer, precision: str = precision) -> None:
                    with precision_of(precision, setup.device):
                        emission = model(waveforms.to(setup.device, non_blocking=True), lengths)
                        options = {"lengths": emission.lengths, "target_lengths": target_lengths}
                        loss = ctc_losses(emission.log_probs, targets, **options).mean()
                    optimizer.zero_grad()
                    (loss / 1e3).backward()
                    optimizer.step()

                taken = time_call(step, setup)
                yield Row("training", name, precision, taken, spoken / taken * 1e3, note)


def measure_ctc(setup: Setup) -> Iterator[Row]:
    """CTC forward and backward: ours, and torch's function with the targets that cuDNN takes, all of full length."""
    frames, tokens = max(8, int(25 * setup.seconds)), max(1, int(3 * setup.seconds))
    logits = torch.randn(setup.rows, frames, VOCABULARY, device=setup.device, requires_grad=True)
    log_probs = logits.log_softmax(-1)
    targets = torch.randint(1, VOCABULARY, (setup.rows, tokens))
    lengths, target_lengths = torch.full((setup.rows,), frames), torch.full((setup.rows,), tokens)
    on_device = targets.to(setup.device)
    flat, short, counts = targets.flatten().int(), lengths.int(), target_lengths.int()
    systems = {
        "ours": lambda: ctc_losses(log_probs, on_device, lengths=lengths, target_lengths=target_lengths),
        "cuDNN's targets": lambda: nn.functional.ctc_loss(
            log_probs.transpose(0, 1), flat, short, counts, reduction="none"
        ),
    }
    values = {name: run().detach().cpu() for name, run in systems.items()}
    error = float((values["ours"] - values["cuDNN's targets"]).abs().max())
    for name, run in systems.items():
        taken = time_call(lambda run=run: torch.autograd.grad(run().sum(), log_probs, retain_graph=True), setup)  # type: ignore[misc]
        spoken = setup.rows * setup.seconds
        yield Row("ctc", name, "float32", taken, spoken / taken * 1e3, f"largest difference {error:.1g} nats")


def measure_transcription(setup: Setup) -> Iterator[Row]:
    """Waveforms on the host to tokens with times and confidences on the host, greedy, bidirectional 5 x 512."""
    waveforms, lengths = setup.waveforms()
    waveforms = waveforms.pin_memory() if setup.device == "cuda" else waveforms
    spoken = float(lengths.sum()) / RATE
    for cell in CELLS:
        model = make_model(setup, cell, layers=5, units=setup.units).eval()
        for precision in ("float32", "tf32", "fp16"):

            def run(model: AcousticModel = model) -> None:
                emission = model(waveforms.to(setup.device, non_blocking=True), lengths)
                decode_greedy(emission.log_probs, emission.lengths)

            with torch.inference_mode(), precision_of(precision, setup.device):
                taken = time_call(run, setup)
            yield Row("greedy", f"ours, {cell}", precision, taken, spoken / taken * 1e3, f"5 x {setup.units}")


def measure_decoding(setup: Setup) -> Iterator[Row]:
    """Log-probabilities on the device to hypotheses: greedy, and copied to the compiled beam search."""
    frames = max(8, int(25 * setup.seconds))
    logits = 3 * torch.randn(setup.rows, frames, VOCABULARY, device=setup.device)
    logits[..., 0] += 6  # mostly blanks, as after training
    log_probs, lengths = logits.log_softmax(-1), setup.lengths(frames)
    spoken = float(lengths.sum()) / 25
    systems: dict[str, Callable[[], object]] = {"greedy": lambda: decode_greedy(log_probs, lengths)}
    systems["beam 16"] = lambda: decode_beam(log_probs.cpu(), lengths, BeamConfig(16))
    for name, run in systems.items():
        taken = time_call(run, setup)
        yield Row("decoding", name, "float32", taken, spoken / taken * 1e3, f"{setup.rows} x {frames} frames")


SECTIONS = {
    "features": measure_features,
    "recurrence": measure_recurrence,
    "training": measure_training,
    "ctc": measure_ctc,
    "greedy": measure_transcription,
    "decoding": measure_decoding,
}
_VALUES = 3 + 24 + 20 + 2 + 12 + 2


def run_all(setup: Setup, only: list[str], seconds: float) -> Iterator[Row]:
    """All sections; one that fails is a row with its message, one for which no time is left says so."""
    ends = time.perf_counter() + seconds
    for name in only:
        rows = SECTIONS[name](setup)
        while True:
            try:
                row = next(rows) if time.perf_counter() < ends else Row(name, "", "", None, None, "no time left")
            except StopIteration:
                break
            except RuntimeError as error:
                row = Row(name, "", "", None, None, str(error).splitlines()[0])
            yield row
            if row.milliseconds is None:
                break


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, two repetitions each")
    parser.add_argument("--seconds", type=float, default=240.0, help="time for all sections")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.tiny:
        setup = Setup(args.device, rows=3, seconds=0.6, units=8, layers=2, large_units=16, each=0.0)
    else:
        each = 0.6 * args.seconds / _VALUES  # the rest: building, and first calls
        setup = Setup(args.device, rows=128, seconds=12.0, units=512, layers=4, large_units=1024, each=each)
    place = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {place}\n")
    print("| what | system | precision | ms | × real time | |\n| --- | --- | --- | --- | --- | --- |")
    found = []
    for row in run_all(setup, args.only, args.seconds):
        found.append(row)
        values = [
            f"{value:,.{digits}f}" if value else "" for value, digits in ((row.milliseconds, 2), (row.real_time, 0))
        ]
        print(f"| {row.section} | {row.system} | {row.precision} | {' | '.join(values)} | {row.note} |", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"device": place, "torch": torch.__version__, "rows": [asdict(row) for row in found]}, file)


if __name__ == "__main__":
    main()
