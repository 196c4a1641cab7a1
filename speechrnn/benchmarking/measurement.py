"""A stopwatch for stages, the machine's matrix rate, and what was measured as tables and JSON."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from speechrnn.acoustic.model import AcousticModel
from speechrnn.recognition.engines import has_native_bfloat16

_MATRIX_SIZES = {"cpu": 1024, "cuda": 8192}
_MATRIX_REPEATS = 9


@dataclass(frozen=True)
class Measurement:
    """Time of each stage, and the rate of the encoder.

    Attributes:
        benchmark: ``train``, ``transcribe`` or ``decode``.
        model: In words: cell, units, layers, directions, parameters.
        engine: What computed the encoder, and its precision.
        device: Where it ran.
        threads: Torch's threads.
        audio_seconds: Seconds of audio in a round.
        rounds: Number of rounds; times are medians over them.
        stages: Seconds of each stage in a round.
        encoder_gflop: Operations of the matrix products of encoder and output layer in a round, in 10⁹, padding not
            counted, backward passes included; 0 if the encoder is no stage.
        matrix_rates: Measured rates of large matrix products by type, in 10⁹ operations a second; of bfloat16 only
            where the processor has instructions for it.
    """

    benchmark: str
    model: str
    engine: str
    device: str
    threads: int
    audio_seconds: float
    rounds: int
    stages: dict[str, float]
    encoder_gflop: float = 0.0
    matrix_rates: dict[str, float] = field(default_factory=dict)

    @property
    def encoder_rate(self) -> float:
        """Rate of the encoder's matrix products, in 10⁹ operations a second."""
        return self.encoder_gflop / sum(seconds for name, seconds in self.stages.items() if name.startswith("encoder"))

    def describe_stages(self) -> list[dict[str, Any]]:
        """Seconds, share and speed of each stage, and of all together."""
        total = sum(self.stages.values())
        rows = {**self.stages, **({} if self.benchmark == "decode" else {"total": total})}
        return [
            {
                "stage": name,
                "seconds": seconds,
                "share": seconds / total,
                "times_real_time": self.audio_seconds / max(seconds, 1e-9),
            }
            for name, seconds in rows.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON; their names do not change between versions."""
        values = {**vars(self), "stages": self.describe_stages()}
        if self.encoder_gflop:
            values["encoder_gflop_per_second"] = self.encoder_rate
            values["encoder_shares"] = {kind: self.encoder_rate / rate for kind, rate in self.matrix_rates.items()}
        return values

    def to_text(self) -> str:
        """Describe as a table in Markdown, with the roofline below it."""
        lines = [
            f"{self.model}; {self.engine}, {self.device}, {self.threads} threads",
            f"{self.audio_seconds:,.0f} s of audio, median of {self.rounds} rounds",
            "\n| stage | s | share % | × real time |\n| --- | --- | --- | --- |",
        ]
        for row in self.describe_stages():
            speed = f"{row['times_real_time']:,.0f}" if row["seconds"] > 1e-5 else ""
            lines.append(f"| {row['stage']} | {row['seconds']:.4f} | {100 * row['share']:.1f} | {speed} |")
        if self.encoder_gflop:
            lines.append(f"\nencoder: {self.encoder_gflop:,.1f} GFLOP, {self.encoder_rate:,.1f} GFLOP/s")
        for kind, rate in self.matrix_rates.items():
            share = f"; the encoder reaches {100 * self.encoder_rate / rate:.0f} %" if self.encoder_gflop else ""
            lines.append(f"matrix products in {kind}: {rate:,.0f} GFLOP/s{share}")
        return "\n".join(lines)


class Stopwatch:
    """Adds up the seconds of each stage; on a GPU it waits before and after a stage."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages of the same name are added up."""
        self._wait()
        begun = time.perf_counter()
        yield
        self._wait()
        self._seconds[name] += time.perf_counter() - begun

    def measure(self, run: Callable[[], Any], rounds: int) -> dict[str, float]:
        """Run once without counting, then ``rounds`` times; the median seconds of each stage."""
        counted = []
        for _ in range(rounds + 1):
            self._seconds = defaultdict(float)
            run()
            counted.append(self._seconds)
        return {name: statistics.median(each[name] for each in counted[1:]) for name in counted[0]}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def measure_matrix_rates(device: torch.device, *, size: int | None = None) -> dict[str, float]:
    """Best rates of a product of two square matrices, in 10⁹ operations a second, by the name of the type.

    Args:
        device: Where; on a CPU with torch's present number of threads.
        size: Rows of the matrices; None: 1024 on a CPU, 8192 on a GPU.
    """
    kinds = [torch.float32, torch.bfloat16] if has_native_bfloat16(device) else [torch.float32]
    size = size or _MATRIX_SIZES[device.type]
    rates: dict[str, float] = {}
    for kind in kinds:
        first, second = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        times = [_time_product(first, second) for _ in range(_MATRIX_REPEATS)]
        rates[str(kind).removeprefix("torch.")] = 2 * size**3 / min(times) / 1e9
    return rates


def _time_product(first: Tensor, second: Tensor) -> float:
    watch = Stopwatch(first.device)

    def multiply() -> None:
        with watch.stage("product"):
            torch.mm(first, second)

    return watch.measure(multiply, 1)["product"]


def count_operations(model: AcousticModel, feature_frames: Tensor) -> float:
    """Count the operations of the matrix products in one forward pass of encoder and output layer, without padding.

    Args:
        model: The model.
        feature_frames: Feature frames of each utterance, (B,), int64.
    """
    encoder, found = model.encoder, []
    sample = torch.zeros(1, 128, model.front_end.feature_size, device=next(model.parameters()).device)

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        channels = output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1]
        found.append(2 * module.weight.numel() * output.numel() / channels)

    layers = [each for each in encoder.subsampling.modules() if isinstance(each, nn.Conv1d | nn.Conv2d | nn.Linear)]
    hooks = [each.register_forward_hook(count) for each in layers]
    with torch.inference_mode():
        encoder.subsampling(sample, torch.tensor([sample.shape[1]]))
    for hook in hooks:
        hook.remove()
    subsampling = sum(found) / sample.shape[1] * float(feature_frames.sum())
    matrices = [each for part in (encoder.stack.layers, model.head) for each in part.parameters() if each.dim() == 2]
    steps = float(encoder.subsampling.count_frames(feature_frames).sum())
    return subsampling + steps * 2 * sum(each.numel() for each in matrices)


def describe_model(model: AcousticModel) -> str:
    """Cell, size and number of parameters in words."""
    config = model.encoder.config
    kind = "bidirectional" if config.bidirectional else "unidirectional"
    size = f"{config.resolved_hidden_size} × {config.resolved_num_layers}"
    return f"{config.cell} {size}, {kind}, {model.num_parameters:,} parameters"
