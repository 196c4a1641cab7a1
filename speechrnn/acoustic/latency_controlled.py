"""Streams of bidirectional acoustic models, chunk by chunk with a limited right context.

The log-probabilities are those of ``model(waveforms, lengths, chunks=chunks)`` over the whole recording
(:mod:`speechrnn.acoustic.chunked`), however the audio is cut. They differ from those of the model without chunks. Those
of a chunk are computed once, when its right context has arrived, and do not change afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from speechrnn.acoustic.chunked import Chunks, run_in_chunks, run_windows
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.streaming import StreamingInputs
from speechrnn.errors import ConfigError
from speechrnn.processes import torch_threads


class LatencyControlledAcoustics:
    """A bidirectional acoustic model over one stream.

    The model is shared and not changed. A stream holds the states of the forward directions and at most a chunk and
    its right context, however long it is.

    Args:
        model: The acoustic model, set to evaluation.
        chunks: Length of a chunk and of its right context.
        state: Initial state, (L, P, 2, H); None for the model's own.
        speaker_stats: Statistics of the speaker, (1 + F,), for front ends that normalise by speaker.

    Attributes:
        num_frames: Rows of log-probabilities returned so far.
        delay_seconds: From the start of a chunk's first frame to the last sample that its log-probabilities need. It
            is the longest delay; that of a chunk's last frame is shorter by the chunk.

    Raises:
        ConfigError: The model is unidirectional, or a setting of the front end needs the whole recording.
    """

    def __init__(
        self, model: AcousticModel, *, chunks: Chunks, state: Tensor | None = None, speaker_stats: Tensor | None = None
    ) -> None:
        if not model.encoder.config.bidirectional:
            raise ConfigError("latency_controlled: a unidirectional model streams exactly without it; leave it out")
        self.model, self.chunks, self.num_frames = model, chunks, 0
        self._inputs = StreamingInputs(model, speaker_stats=speaker_stats)
        like = torch.zeros(1, 0, model.front_end.feature_size, device=next(model.parameters()).device)
        with self._computing():
            own = model.encoder.make_initial_state(None, None, like=like)
        self._state = own if state is None else state[:, :, :, None].to(own)
        self._held = like.new_zeros(1, 0, self._inputs.output_size)
        steps = chunks.steps + chunks.context_steps - 1
        self.delay_seconds = self._inputs.delay_samples / model.sample_rate + steps * model.seconds_per_step

    def feed(self, samples: Tensor | np.ndarray) -> Tensor:
        """Advance the stream.

        Args:
            samples: The next ones, at the model's rate, (N,), float32; any number of them.

        Returns:
            Natural-log probabilities of the chunks whose right context they complete, (T', V), float32.
        """
        own, width = self.chunks.steps, self.chunks.steps + self.chunks.context_steps
        with self._computing():
            held = torch.cat([self._held, self._inputs.feed(samples)], dim=1)
            count = max(0, held.shape[1] - self.chunks.context_steps) // own
            if count:
                windows = held.unfold(1, width, own)[:, :count].transpose(2, 3)  # (1, K, W, D)
                lengths = torch.full((1, count), width)
                layers, self._state = run_windows(
                    self.model.encoder.stack, windows, lengths, own=own, state=self._state
                )
                frames = layers[-1][:, :, :own].flatten(1, 2)
            else:
                frames = held.new_zeros(1, 0, self.model.encoder.output_size)
            self._held = held[:, count * own :].clone()  # a view would keep a long piece in memory
            return self._emit(frames)

    def finish(self) -> Tensor:
        """End the stream, and return the log-probabilities of the remaining frames, (T', V)."""
        with self._computing():
            held = torch.cat([self._held, self._inputs.finish()], dim=1)
            lengths = torch.tensor([held.shape[1]])
            frames, _ = run_in_chunks(self.model.encoder.stack, held, lengths, chunks=self.chunks, state=self._state)
            return self._emit(frames)

    def _emit(self, frames: Tensor) -> Tensor:
        self.num_frames += frames.shape[1]
        return self.model.head(frames)[0]

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Without gradients, and on a CPU with one thread."""
        with torch.inference_mode(), torch_threads.one(next(self.model.parameters()).device):
            yield
