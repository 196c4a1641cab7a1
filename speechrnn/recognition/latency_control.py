"""The settings of latency-controlled streams."""

from __future__ import annotations

from dataclasses import dataclass

from speechrnn.settings import Settings, bounded


@dataclass(frozen=True)
class LatencyControlConfig(Settings, section="latency_controlled"):
    """Chunks of a latency-controlled stream of a bidirectional model; both lengths are rounded to encoder frames.

    Text appears up to the sum of both after its sound, and each frame is computed (chunk + context) / chunk times.

    Attributes:
        chunk_seconds: length of a chunk (default: 0.5)
        right_context_seconds: audio after a chunk that its text depends on (default: 0.5)
    """

    chunk_seconds: float = bounded(0.5, 0, 3600, open="low", unit="seconds")
    right_context_seconds: float = bounded(0.5, 0, 3600, unit="seconds")
