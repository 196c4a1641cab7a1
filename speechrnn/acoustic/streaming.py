"""Streams: a unidirectional acoustic model fed in pieces, with the log-probabilities of the whole recording.

Each step of the model that looks at neighbouring frames runs on the frames that arrived and the few that it still
needs from before; outputs whose inputs are incomplete wait. The recurrent layers carry their state. No step is written
a second time: they are the modules of :class:`~speechrnn.acoustic.model.AcousticModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from speechrnn.acoustic.model import AcousticModel
from speechrnn.errors import ConfigError
from speechrnn.processes import torch_threads
from speechrnn.types import pad_sequences

_Step = Callable[[Tensor, Tensor], Tensor]
_ADVICE = "for streams train with front_end.normalization sliding (or corpus) and encoder.bidirectional false"


class BufferedStep:
    """One step of the model over frames that arrive in pieces.

    Output m needs the inputs from m · stride − before to m · stride + after; the step itself fills up what lies before
    the first and after the last input.

    Args:
        run: The step: inputs (1, T, …) and their number (1,) to outputs (1, T', D).
        output_size: D.
        stride: Inputs from one output to the next.
        before: Earlier inputs that an output needs.
        after: Later inputs that an output needs.
    """

    def __init__(self, run: _Step, output_size: int, *, stride: int = 1, before: int = 0, after: int = 0) -> None:
        self.output_size, self.after, self.stride = output_size, after, stride
        self._run = run
        self._before = -(-before // stride)  # in outputs
        self._held: Tensor | None = None
        self._given = 0  # outputs of the held inputs that were returned before
        self._skipped = 0  # inputs to come that no output needs

    def feed(self, inputs: Tensor, *, is_last: bool = False) -> Tensor:
        """Return the outputs that these inputs, (1, T, …), complete: (1, T', D); at the end all that remain."""
        skipped = min(self._skipped, inputs.shape[1])
        self._skipped -= skipped
        held = inputs[:, skipped:] if self._held is None else torch.cat([self._held, inputs[:, skipped:]], dim=1)
        size = held.shape[1]
        ready = max(0, size - 1 - self.after) // self.stride + 1 if size > self.after else 0
        outputs = held.new_zeros(1, 0, self.output_size)
        if size and (is_last or ready > self._given):
            outputs = self._run(held, torch.tensor([size]))[:, self._given : None if is_last else ready]
        dropped = max(0, self._given + outputs.shape[1] - self._before)
        self._given += outputs.shape[1] - dropped
        self._skipped += max(0, dropped * self.stride - size)
        self._held = held[:, dropped * self.stride :].clone()  # a view would keep a long chunk in memory
        return outputs


class StreamingInputs:
    """The part before the recurrent layers: front end and subsampling, fed in pieces.

    Args:
        model: The acoustic model, set to evaluation.
        speaker_stats: Statistics of the speaker, (1 + F,), for front ends that normalise by speaker.

    Attributes:
        output_size: Features per encoder frame.
        delay_samples: Samples from the start of an encoder frame to the last one that it needs.

    Raises:
        ConfigError: A setting of the front end or the encoder needs the whole recording; the message names it.
    """

    def __init__(self, model: AcousticModel, *, speaker_stats: Tensor | None = None) -> None:
        check_inputs(model, speaker_stats)
        front_end, subsampling = model.front_end, model.encoder.subsampling
        config, factor = front_end.config, model.encoder.config.subsampling_factor
        reach = config.deltas * config.delta_width
        history = config.sliding_frames - 1 if config.normalization == "sliding" else 0
        self._device = next(model.parameters()).device
        stats = None if speaker_stats is None else speaker_stats[None].to(self._device)
        self._steps = [
            BufferedStep(
                lambda samples, lengths: front_end.log_mel(samples, lengths)[0],
                config.n_mels,
                stride=config.hop_length,
                after=config.window_length - 1,
            ),
            BufferedStep(
                lambda log_mels, lengths: front_end.derive_features(log_mels, lengths, speaker_stats=stats),
                front_end.feature_size,
                before=reach + history,
                after=reach,
            ),
            BufferedStep(
                lambda features, lengths: subsampling(features, lengths)[0],
                subsampling.output_size,
                stride=factor,
                before=subsampling.before,
                after=subsampling.after,
            ),
        ]
        self.output_size = subsampling.output_size
        self.delay_samples = config.window_length + config.hop_length * (reach + subsampling.after)

    def feed(self, samples: Tensor | np.ndarray, *, is_last: bool = False) -> Tensor:
        """Take samples at the model's rate, (N,), and return the encoder's inputs that they complete, (1, T', D)."""
        frames = torch.as_tensor(samples).to(self._device, torch.float32)[None]
        for step in self._steps:
            frames = step.feed(frames, is_last=is_last)
        return frames

    def finish(self) -> Tensor:
        """Return the remaining inputs, (1, T', D); the recording ends here."""
        return self.feed(torch.zeros(0), is_last=True)


class StreamingAcoustics:
    """A unidirectional acoustic model over one stream, with the log-probabilities of the whole recording.

    The model is shared and not changed: each stream holds its own state, whose size does not depend on the length of
    the stream. Each call takes as long as its samples need.

    Args:
        model: The acoustic model, set to evaluation.
        state: Initial state, (L, P, D, H); None for the model's own.
        speaker_stats: Statistics of the speaker, (1 + F,), for front ends that normalise by speaker.

    Attributes:
        num_frames: Rows of log-probabilities returned so far.
        delay_seconds: From the start of an encoder frame to the last sample that its log-probabilities need.

    Raises:
        ConfigError: A setting of the model needs the whole recording; the message names it and says which training
            makes models for streams.
    """

    def __init__(
        self, model: AcousticModel, *, state: Tensor | None = None, speaker_stats: Tensor | None = None
    ) -> None:
        check_streams(model, speaker_stats)
        encoder, lookahead = model.encoder, model.encoder.config.lookahead_frames
        self.model, self.num_frames = model, 0
        self._inputs = StreamingInputs(model, speaker_stats=speaker_stats)
        with _computing(model):
            like = torch.zeros(1, 0, model.front_end.feature_size, device=next(model.parameters()).device)
            own = encoder.make_initial_state(None, None, like=like)
        self._state = own if state is None else state[:, :, :, None].to(own)
        self._lookahead = BufferedStep(
            lambda frames, lengths: encoder.select_output(frames, lengths)[0], encoder.output_size, after=lookahead
        )
        samples = self._inputs.delay_samples + lookahead * encoder.config.subsampling_factor * _hop(model)
        self.delay_seconds = samples / model.sample_rate

    def feed(self, samples: Tensor | np.ndarray) -> Tensor:
        """Advance the stream.

        Args:
            samples: The next ones, at the model's rate, (N,), float32; any number of them.

        Returns:
            Natural-log probabilities of the encoder frames that they complete, (T', V), float32.
        """
        return feed_together([self], [torch.as_tensor(samples)])[0]

    def finish(self) -> Tensor:
        """End the stream, and return the log-probabilities of the remaining frames, (T', V)."""
        return _advance([self], [torch.zeros(0)], is_last=True)[0]


def feed_together(streams: Sequence[StreamingAcoustics], samples: Sequence[Tensor]) -> list[Tensor]:
    """Advance several streams of one model, with one call of the recurrent layers for all of them.

    Args:
        streams: Streams of the same model.
        samples: The next ones of each, (N,); any number of them.

    Returns:
        Log-probabilities of each, (T', V), as :meth:`StreamingAcoustics.feed` returns them.
    """
    return _advance(streams, samples, is_last=False)


def check_streams(model: AcousticModel, speaker_stats: Tensor | None = None) -> None:
    """Check that a model can be fed in pieces with the result of the whole recording.

    Raises:
        ConfigError: It cannot; the message names the setting.
    """
    if model.encoder.config.bidirectional:
        raise ConfigError(
            f"stream: encoder.bidirectional true needs the whole recording; {_ADVICE}; or give latency_controlled, for "
            "models trained with chunks.probability above 0"
        )
    check_inputs(model, speaker_stats)


def check_inputs(model: AcousticModel, speaker_stats: Tensor | None = None) -> None:
    """Check the same of all settings except ``encoder.bidirectional``.

    Raises:
        ConfigError: A setting needs the whole recording.
    """
    config = model.front_end.config
    if model.encoder.config.output == "final_state":
        raise ConfigError(f"stream: encoder.output final_state needs the whole recording; use frames, and {_ADVICE}")
    if config.compatibility != "none":
        raise ConfigError(
            f"stream: front_end.compatibility {config.compatibility} needs the whole recording; use none, and {_ADVICE}"
        )
    if config.normalization == "utterance":
        raise ConfigError(f"stream: front_end.normalization utterance needs the whole recording; {_ADVICE}")
    if config.normalization == "speaker" and speaker_stats is None:
        raise ConfigError(
            "stream: front_end.normalization speaker needs the whole recording, or a known speaker; give speaker, or "
            f"{_ADVICE}"
        )


def _advance(streams: Sequence[StreamingAcoustics], samples: Sequence[Tensor], *, is_last: bool) -> list[Tensor]:
    model = streams[0].model
    with _computing(model):
        inputs = [stream._inputs.feed(each, is_last=is_last)[0] for stream, each in zip(streams, samples, strict=True)]
        padded, lengths = pad_sequences(inputs)
        if int(lengths.max()):
            frames, states, _ = model.encoder.stack(
                padded,
                lengths,
                state=torch.cat([stream._state for stream in streams], dim=3),
                return_state=True,
            )
            assert states is not None
            for number, stream in enumerate(streams):
                stream._state = states[:, :, :, number : number + 1]
        else:
            frames = inputs[0].new_zeros(len(streams), 0, model.encoder.output_size)
        found = []
        for stream, row, length in zip(streams, frames, lengths.tolist(), strict=True):
            outputs = stream._lookahead.feed(row[None, :length], is_last=is_last)
            found.append(model.head(outputs)[0])
            stream.num_frames += len(found[-1])
        return found


def _hop(model: AcousticModel) -> int:
    return model.front_end.config.hop_length


@contextmanager
def _computing(model: AcousticModel) -> Iterator[None]:
    """Without gradients, and on a CPU with one thread: the operations are too short for more."""
    with torch.inference_mode(), torch_threads.one(next(model.parameters()).device):
        yield
