"""Features, states and posteriors of a model over the time of one recording."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechrnn.acoustic.unrolled import Unrolled, unroll_model
from speechrnn.audio.feature_config import FrontEndConfig
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.audio.transforms import space_bands
from speechrnn.decoding.alignment import align_tokens
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError, CorpusError, SpeechRNNError
from speechrnn.recognition.transcript import Word
from speechrnn.text.normalize import normalize_text
from speechrnn.text.scores import Operation, align_words
from speechrnn.types import Batch, Waveform

if TYPE_CHECKING:
    from speechrnn.recognition.recognizer import Recognizer

MOST_SECONDS = 120.0
"""Longest segment that can be shown."""

_MOST_MEMORY_FRAMES = 1e4
_KEPT = {"gru": 1, "lstm": 1, "mingru": -1, "minlstm": -1}
"""Place of the share of its past that a unit keeps, among the values saved by :mod:`speechrnn.acoustic.unrolled`."""


@dataclass(frozen=True)
class DirectionStates:
    """Hidden states of one layer in one direction.

    Attributes:
        layer: Recurrent layer, counted from 1.
        direction: ``forward`` or ``backward``.
        states: Hidden state after every encoder frame, (T', H), units in the order of ``units``.
        units: Unit of the layer in each column, (H,), from the shortest to the longest memory.
        memory_frames: Encoder frames after which each unit keeps 1/e of its value without new input, (H,): -1 / ln of
            the share of its own past that it keeps per frame, averaged over this recording. That share is an LSTM's
            forget gate, a GRU's update gate, what the update gate of a minGRU or minLSTM leaves, and |u| (1 - h²) of a
            tanh or elementwise unit.
    """

    layer: int
    direction: str
    states: np.ndarray
    units: np.ndarray
    memory_frames: np.ndarray

    @property
    def name(self) -> str:
        """Such as ``layer 2 backward``."""
        return f"layer {self.layer} {self.direction}"


@dataclass(frozen=True)
class ComparedWord:
    """A word of the hypothesis or of the reference, compared with the other.

    Attributes:
        text: The word.
        start: In seconds from the beginning of the recording.
        end: Likewise.
        operation: ``equal``, ``substitute``, ``insert`` (hypothesis only) or ``delete`` (reference only).
        other: The aligned word on the other side, or None.
        confidence: Confidence of a word of the hypothesis, in [0, 1].
    """

    text: str
    start: float
    end: float
    operation: Operation
    other: str | None
    confidence: float | None = None


@dataclass(frozen=True)
class Inspection:
    """A model's view of one recording.

    Attributes:
        name: Name of the recording.
        model: The model's name or path.
        waveform: The segment that is shown, at the model's sample rate.
        start: Its start in the recording, in seconds.
        features: (T, F).
        feature_kind: ``mfcc`` or ``log_mel``.
        frame_seconds: Time from one feature frame to the next.
        layers: Hidden states, layer by layer, forward before backward.
        posteriors: Probability of each token at each encoder frame, (T', V).
        encoder_seconds: Time from one step of the recurrent layers to the next.
        posterior_seconds: Time from one row of the posteriors to the next: the same, except with a final state, whose
            single row spans the recording.
        symbols: Symbol of each of the V tokens.
        path: Tokens of the best path: id, first and last frame.
        hypothesis: Recognised words.
        reference: Words of the reference, aligned with the recording, or None.
        bands_hz: Centre of each band, in Hz, if the features are log-mels without deltas; else empty.
    """

    name: str
    model: str
    waveform: Waveform
    start: float
    features: np.ndarray
    feature_kind: str
    frame_seconds: float
    layers: list[DirectionStates]
    posteriors: np.ndarray
    encoder_seconds: float
    posterior_seconds: float
    symbols: list[str]
    path: list[tuple[int, int, int]]
    hypothesis: list[ComparedWord]
    reference: list[ComparedWord] | None
    bands_hz: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def seconds(self) -> float:
        """Duration of the segment that is shown."""
        return self.waveform.seconds

    @property
    def errors(self) -> int:
        """Word errors; 0 without a reference."""
        words = [*self.hypothesis, *(word for word in self.reference or [] if word.operation == "delete")]
        return sum(word.operation != "equal" for word in words) if self.reference is not None else 0

    def export_states(self) -> dict[str, np.ndarray]:
        """Hidden states in the layers' own order of units, for ``numpy.savez``.

        Returns:
            ``layer_1_forward`` … (T', H) float32, ``seconds`` (T',): start of each step, and ``posteriors`` (T', V).
        """
        arrays = {}
        for layer in self.layers:
            states = np.empty_like(layer.states)
            states[:, layer.units] = layer.states
            arrays[layer.name.replace(" ", "_")] = states
        seconds = self.start + self.encoder_seconds * np.arange(len(self.layers[0].states))
        return {**arrays, "seconds": seconds, "posteriors": self.posteriors}


def inspect_recording(
    recognizer: Recognizer,
    audio: str | os.PathLike[str] | Waveform,
    *,
    text: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> Inspection:
    """Run a model on a recording step by step and collect features, states, posteriors and words.

    Args:
        recognizer: The model.
        audio: A recording.
        text: Reference text of the segment.
        start: Start of the segment, in seconds.
        end: End of the segment, in seconds; None: the recording's end.
        channel: Channel to use, from 0; None: the mean of all.

    Raises:
        AudioError: The recording cannot be read, is too short, or does not contain the segment.
        ConfigError: The segment is longer than two minutes, or ends before it starts.
        CorpusError: The text has symbols that the model lacks.
        SpeechRNNError: The recording is too short for the text.
        ModelError: The model has a cell that cannot be unrolled.
    """
    name = "recording" if isinstance(audio, Waveform) else os.fspath(audio)
    waveform = _read(recognizer, audio, name, start, end, channel)
    recognizer.check_length(waveform, name=name)
    acoustic = recognizer.model.acoustic
    features, layers, log_probs = _run(recognizer, waveform)
    [best] = decode_greedy(log_probs, torch.tensor([log_probs.shape[1]]))
    aligned = _align_reference(recognizer, text, log_probs[0], waveform)
    hypothesis, reference = _compare(recognizer.transcribe(waveform).words, aligned, start)
    return Inspection(
        name=name,
        model=str(recognizer.name or ""),
        waveform=waveform,
        start=start,
        features=features,
        feature_kind=acoustic.front_end.config.kind,
        frame_seconds=acoustic.front_end.frame_shift_seconds,
        layers=layers,
        posteriors=log_probs[0].exp().numpy(),
        encoder_seconds=acoustic.seconds_per_step,
        posterior_seconds=min(acoustic.seconds_per_frame, waveform.seconds),
        symbols=list(recognizer.tokens.symbols),
        path=[(token, *span) for token, span in zip(best.tokens, best.frames, strict=True)],
        hypothesis=hypothesis,
        reference=reference,
        bands_hz=_find_bands(acoustic.front_end.config),
    )


def _find_bands(config: FrontEndConfig) -> np.ndarray:
    if config.kind != "log_mel" or config.deltas:
        return np.zeros(0)
    return space_bands(config.f_min_hz, config.upper_edge_hz, config.n_mels, config.mel_scale)[1:-1].numpy()


def _run(recognizer: Recognizer, waveform: Waveform) -> tuple[np.ndarray, list[DirectionStates], Tensor]:
    """Features (T, F), states of every layer, and log-probabilities (1, T', V), on the CPU."""
    samples, lengths = torch.from_numpy(waveform.samples)[None], torch.tensor([len(waveform.samples)])
    batch = Batch(samples, lengths, torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), [""])
    acoustic = recognizer.model.acoustic.to("cpu").eval()
    try:
        with torch.inference_mode():
            features, _ = acoustic.front_end(samples, lengths)
            layers, log_probs, _ = unroll_model(acoustic, batch)
    finally:
        acoustic.to(recognizer.device)
    states = [
        _sort_units(number, name, direction)
        for number, layer in enumerate(layers, start=1)
        for name, direction in zip(("forward", "backward"), layer.directions, strict=False)
    ]
    return features[0].numpy(), states, log_probs


def _read(
    recognizer: Recognizer, audio: Any, name: str, start: float, end: float | None, channel: int | None
) -> Waveform:
    if not start >= 0 or (end is not None and not end > start):
        raise ConfigError(f"--start {start:g} --end {end if end is None else f'{end:g}'}: expected 0 <= start < end")
    if isinstance(audio, Waveform):
        total, source, rate = audio.seconds, audio.samples, audio.sample_rate
    else:
        total, source, rate = audio_info(audio).seconds, audio, None
    segment = (total if end is None else min(end, total)) - start
    if segment > MOST_SECONDS:
        raise ConfigError(
            f"{name}: {segment:,.0f} s, expected at most {MOST_SECONDS:.0f} s; select a part with --start and --end"
        )
    seconds = None if end is None or end >= total else end - start
    options: dict[str, Any] = {"input_rate": rate, "start": start, "seconds": seconds, "channel": channel, "name": name}
    return read_audio(source, sample_rate=recognizer.sample_rate, **options)


def _sort_units(layer: int, name: str, direction: Unrolled) -> DirectionStates:
    memory = measure_unit_memory(direction).numpy()
    order = np.argsort(memory, kind="stable")
    return DirectionStates(layer, name, direction.outputs[0].numpy()[:, order], order, memory[order])


def measure_unit_memory(direction: Unrolled) -> Tensor:
    """Memory of each unit, in encoder frames, (H,): see :class:`DirectionStates`."""
    recurrent = direction.weights.weight_recurrent.detach()
    if direction.cell in _KEPT:
        kept = torch.stack([saved[_KEPT[direction.cell]] for saved in direction.saved])  # (T', B, H)
    else:
        own = recurrent if recurrent.ndim == 1 else recurrent.diagonal()
        kept = torch.stack([own.abs() * (1 - saved[0] ** 2) for saved in direction.saved])
    frame = torch.arange(len(kept))
    share = kept[frame[:, None] < direction.lengths].mean(dim=0).clamp(1e-6, 1 - 1 / _MOST_MEMORY_FRAMES)
    return -1.0 / share.log()


def _align_reference(
    recognizer: Recognizer, text: str | None, log_probs: Tensor, waveform: Waveform
) -> list[Word] | None:
    if text is None:
        return None
    normalized = normalize_text(text, recognizer.model.text)
    if not normalized:
        raise CorpusError(f"--text {text!r}: empty after the model's normalisation; expected the spoken words")
    tokens = recognizer.tokens.encode(normalized)
    acoustic = recognizer.model.acoustic
    reason = acoustic.explain_infeasible(tokens, len(waveform.samples))
    if reason is not None:
        raise SpeechRNNError(f"--text: the text cannot be aligned: {reason}")
    frames = align_tokens(log_probs.numpy(), tokens)
    words = []
    for word, first, last in recognizer.tokens.words(tokens):
        edges = (acoustic.seconds_per_frame * frame for frame in (frames[first][0], frames[last][1] + 1))
        start, end = (min(edge, waveform.seconds) for edge in edges)
        words.append(Word(word, start, end, 1.0))
    return words


def _compare(
    hypothesis: tuple[Word, ...], reference: list[Word] | None, start: float
) -> tuple[list[ComparedWord], list[ComparedWord] | None]:

    def make(word: Word, operation: Operation, other: str | None, confidence: float | None = None) -> ComparedWord:
        return ComparedWord(word.text, start + word.start, start + word.end, operation, other, confidence)

    if reference is None:
        return [make(word, "equal", None, word.confidence) for word in hypothesis], None
    new, old = iter(hypothesis), iter(reference)
    compared: tuple[list[ComparedWord], list[ComparedWord]] = ([], [])
    texts = (" ".join(word.text for word in words) for words in (reference, hypothesis))
    for operation, old_text, new_text in align_words(*texts):
        if new_text is not None:
            word = next(new)
            compared[0].append(make(word, operation, old_text, word.confidence))
        if old_text is not None:
            compared[1].append(make(next(old), operation, new_text))
    return compared
