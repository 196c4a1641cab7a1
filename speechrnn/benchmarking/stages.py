"""The stages of transcription, decoding and training, timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from speechrnn.acoustic.ctc import ctc_loss
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.resampling import resample
from speechrnn.benchmarking.measurement import (
    Measurement,
    Stopwatch,
    count_operations,
    describe_model,
    measure_matrix_rates,
)
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.recognition.batches import collect_batches
from speechrnn.recognition.cutting import Recording
from speechrnn.recognition.engines import Engine
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.types import Emission, Waveform, pad_sequences

TOKENS_A_SECOND = 12.0
"""Of the random targets that training is measured with; English has some 14 characters a second."""

_CLIP = 1.0
_BACKWARD_WORK = 2  # for each product forwards: one for the inputs' gradient and one for the weights'


class AudioReader:
    """Reads and resamples a round's recordings, and batches those of similar length.

    Args:
        utterances: Recordings, with headers.
        sample_rate: Of the model, in Hz.
        batch_seconds: Most audio in a batch, padding included, in seconds.
        watch: Gets the stages ``read`` and ``resample``.
    """

    def __init__(
        self, utterances: Sequence[Utterance], sample_rate: int, *, batch_seconds: float, watch: Stopwatch
    ) -> None:
        self.utterances, self.sample_rate, self.batch_seconds, self.watch = (
            utterances,
            sample_rate,
            batch_seconds,
            watch,
        )
        self.seconds = sum(each.seconds for each in utterances)

    def __iter__(self) -> Iterator[tuple[list[Recording], Tensor, Tensor]]:
        recordings = []
        for utterance in self.utterances:
            with self.watch.stage("read"):
                waveform = read_utterance(utterance)
            with self.watch.stage("resample"):
                samples = resample(waveform.samples, waveform.sample_rate, self.sample_rate)
            recordings.append(Recording(str(utterance.audio_path), samples))
        recordings.sort(key=lambda each: len(each.samples))
        for batch in collect_batches(recordings, most_samples=self.batch_seconds * self.sample_rate):
            yield batch, *pad_sequences([torch.from_numpy(each.samples) for each in batch])


def measure_transcription(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    engine: Engine | None = None,
    batch_seconds: float = 120.0,
    rounds: int = 3,
    **decoding: Any,
) -> Measurement:
    """Time a transcription from files to transcripts.

    Args:
        recognizer: The model.
        utterances: Recordings, with headers.
        engine: What computes encoder and output layer; None: the model itself.
        batch_seconds: Most audio in a batch, padding included, in seconds.
        rounds: How often it is repeated, after a round that does not count.
        **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

    Raises:
        AudioError: A recording cannot be read, or is too short.
        ConfigError: A decoding option is wrong.
    """
    model, device, watch = recognizer.model.acoustic, recognizer.device, Stopwatch(recognizer.device)
    decoder = recognizer.choose_decoder(**decoding)
    reader = AudioReader(utterances, recognizer.sample_rate, batch_seconds=batch_seconds, watch=watch)
    frames: list[Tensor] = []

    def run() -> None:
        frames.clear()
        for batch, waveforms, lengths in reader:
            _check_lengths(recognizer, batch)
            with watch.stage("features"):
                features, counts = model.front_end(waveforms.to(device), lengths)
            frames.append(counts)
            with watch.stage("encoder"):
                if engine is None:
                    encoded, steps, *_ = model.encoder(features, counts)
                    emission = Emission(model.head(encoded), steps)
                else:
                    emission = engine.compute(features, counts, None)
            with watch.stage("decode"):
                found = decoder.decode(emission.log_probs, emission.lengths)
            with watch.stage("transcript"):
                for recording, hypotheses in zip(batch, found, strict=True):
                    recognizer.make_transcript(recording, hypotheses, decoder)

    with torch.inference_mode():
        stages = watch.measure(run, rounds)
        work = count_operations(model, torch.cat(frames))
    name = "torch float32" if engine is None else engine.name
    return _describe("transcribe", model, reader, rounds, stages, work=work, engine=name)


def measure_decoding(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    batch_seconds: float = 120.0,
    rounds: int = 3,
    **decoding: Any,
) -> Measurement:
    """Time greedy decoding and a search on the same log-probabilities; arguments as :func:`measure_transcription`.

    The search is the one that the options choose, else a beam search without a language model.
    """
    watch = Stopwatch(recognizer.device)
    search = recognizer.choose_decoder(**decoding)
    if search.config.decoder == "greedy":
        search = recognizer.choose_decoder(**{**decoding, "decoder": "beam"})
    greedy = recognizer.choose_decoder(decoder="greedy")
    decoders = {"greedy": greedy, f"{search.config.decoder} {search.config.width}": search}
    reader = AudioReader(utterances, recognizer.sample_rate, batch_seconds=batch_seconds, watch=watch)
    emissions: list[Emission] = []
    for batch, waveforms, lengths in reader:
        _check_lengths(recognizer, batch)
        emissions.append(recognizer.emissions(waveforms, lengths))

    def run() -> None:
        for name, decoder in decoders.items():
            with watch.stage(name):
                for each in emissions:
                    decoder.decode(each.log_probs, each.lengths)

    stages = watch.measure(run, rounds)
    return _describe("decode", recognizer.model.acoustic, reader, rounds, stages)


def measure_training(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    *,
    batch_seconds: float = 60.0,
    rounds: int = 3,
    uses_bfloat16: bool = False,
) -> Measurement:
    """Time training steps, one for each batch, from files to the optimiser's step; the model is changed.

    The targets are random, :data:`TOKENS_A_SECOND`, fewer where CTC has too few frames. There is no augmentation.

    Args:
        model: The model, on its device.
        utterances: Recordings, with headers.
        batch_seconds: Most audio in a batch, padding included, in seconds.
        rounds: How often all batches are repeated, after a round that does not count.
        uses_bfloat16: Whether to train as with ``trainer.precision: bf16-mixed``.
    """
    from speechrnn.training.config import OptimizerConfig
    from speechrnn.training.optimization import build_optimizer, clip_gradients

    model.train()
    device, parameters = next(model.parameters()).device, list(model.parameters())
    watch, optimizer = Stopwatch(device), build_optimizer(parameters, OptimizerConfig())
    reader = AudioReader(utterances, model.sample_rate, batch_seconds=batch_seconds, watch=watch)
    precision = torch.autocast(device.type, torch.bfloat16) if uses_bfloat16 else nullcontext()
    frames: list[Tensor] = []

    def run() -> None:
        frames.clear()
        for _, waveforms, lengths in reader:
            with watch.stage("features"), torch.no_grad():
                features, counts = model.front_end(waveforms.to(device), lengths)
            frames.append(counts)
            with precision:
                with watch.stage("encoder forward"):
                    encoded, steps, *_ = model.encoder(features, counts)
                held = encoded.detach().requires_grad_()
                with watch.stage("loss"):  # forward and backward, the output layer included
                    targets, sizes = _draw_targets(model, lengths, steps)
                    log_probs = model.head(held)
                    ctc_loss(log_probs, targets.to(device), lengths=steps, target_lengths=sizes).backward()
            with watch.stage("encoder backward"):
                encoded.backward(held.grad)
            with watch.stage("optimiser"):
                norm = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
                clip_gradients(parameters, norm, _CLIP, "norm")
                optimizer.step()
                optimizer.zero_grad()

    stages = watch.measure(run, rounds)
    work = (1 + _BACKWARD_WORK) * count_operations(model, torch.cat(frames))
    engine = "torch bfloat16" if uses_bfloat16 else "torch float32"
    return _describe("train", model, reader, rounds, stages, work=work, engine=engine)


def _check_lengths(recognizer: Recognizer, batch: Sequence[Recording]) -> None:
    for each in batch:
        recognizer.check_length(Waveform(each.samples, recognizer.sample_rate), name=each.name or "recording")


def _draw_targets(model: AcousticModel, lengths: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Random tokens that CTC can align: (B, U), (B,)."""
    wanted = lengths / model.sample_rate * TOKENS_A_SECOND
    sizes = torch.minimum(wanted, steps / 2).long()
    generator = torch.Generator().manual_seed(0)
    shape = len(lengths), max(1, int(sizes.max()))
    return torch.randint(1, model.vocabulary_size, shape, generator=generator), sizes


def _describe(
    name: str,
    model: AcousticModel,
    reader: AudioReader,
    rounds: int,
    stages: dict[str, float],
    *,
    work: float = 0.0,
    engine: str = "torch float32",
) -> Measurement:
    device = next(model.parameters()).device
    return Measurement(
        benchmark=name,
        model=describe_model(model),
        engine=engine,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        audio_seconds=reader.seconds,
        rounds=rounds,
        stages=stages,
        encoder_gflop=work / 1e9,
        matrix_rates=measure_matrix_rates(device) if work else {},
    )
