"""Run a graph for one chunk of a stream; needs numpy and onnxruntime only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from speechrnn.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

    from speechrnn.export.metadata import Metadata


class ExportedStream:
    """One stream of a model that was exported with ``--streaming``.

    Args:
        session: The model; several streams may share it.
        metadata: Its description.

    Attributes:
        num_samples: Samples fed so far.

    Raises:
        ModelError: It was exported without ``--streaming``.
    """

    def __init__(self, session: onnxruntime.InferenceSession, metadata: Metadata) -> None:
        if metadata.stream is None:
            raise ModelError(
                f"{metadata.name}: exported for whole recordings; export it again with speechrnn export --streaming"
            )
        self._session, self._about, self.num_samples = session, metadata.stream, 0
        self._caches = {each["name"]: np.zeros(each["shape"], dtype=each["dtype"]) for each in self._about["caches"]}
        self._waiting = np.zeros(0, dtype=np.float32)
        self._vocabulary_size = len(metadata.symbols)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples, (N,), float32, any number, and return the log-probabilities they complete, (T', V)."""
        self.num_samples += len(samples)
        waiting = np.concatenate([self._waiting, samples])
        used = len(waiting) // self._about["step_samples"] * self._about["step_samples"]
        self._waiting = waiting[used:]
        return self._step(waiting[:used], -1)

    def finish(self) -> np.ndarray:
        """End the recording, and return the log-probabilities of its remaining frames, (T', V)."""
        step = self._about["step_samples"]
        size = len(self._waiting) + self._about["flush_samples"]
        padded = np.zeros(-(-size // step) * step, dtype=np.float32)
        padded[: len(self._waiting)] = self._waiting
        return self._step(padded, self.num_samples)

    def _step(self, samples: np.ndarray, num_samples: int) -> np.ndarray:
        if not len(samples):
            return np.zeros((0, self._vocabulary_size), dtype=np.float32)
        inputs = {"samples": samples[None], "num_samples": np.array([num_samples]), **self._caches}
        log_probs, *caches = self._session.run(None, inputs)
        self._caches = dict(zip(self._caches, caches, strict=True))
        found: np.ndarray = log_probs[0]
        return found
