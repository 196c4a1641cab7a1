"""The recogniser: recordings in, transcripts out."""

from __future__ import annotations

import bisect
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.audio.files import read_audio
from speechrnn.audio.resampling import resampled_length
from speechrnn.errors import AudioError, ConfigError, SpeechRNNError
from speechrnn.model_folder import ModelFolder
from speechrnn.padding import pad_sequences
from speechrnn.recognition.assembly import TranscriptMaker
from speechrnn.recognition.batches import collect_batches
from speechrnn.recognition.confidence import Calibration
from speechrnn.recognition.decoders import Decoder, Decoders, DecodingConfig, takes_decoding
from speechrnn.recognition.devices import choose_device
from speechrnn.recognition.language_weights import TunedWeights
from speechrnn.recognition.speakers import Voice, read_speaker
from speechrnn.recognition.transcript import Transcript
from speechrnn.types import Emission, Hypothesis, Waveform

if TYPE_CHECKING:
    from pathlib import Path

    from speechrnn.audio.files import AudioSource as Source

logger = logging.getLogger("speechrnn")

DEFAULT_BATCH_SECONDS = 120.0


class Recognizer:
    """A model ready to transcribe.

    Args:
        model: What a model folder holds. Its acoustic model is moved to the device and set to evaluation.
        device: As in :func:`speechrnn.recognition.loading.load`.
        name: What transcripts call the model.
        tuned: Weights of language models that were tuned for it, by their digests.
        calibrations: Of its words' confidences, by the name of the decoder.
        speakers: Files of the voices that it was adapted to, by name.

    Raises:
        ConfigError: There is no such device.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str | torch.device = "auto",
        name: str | None = None,
        tuned: Mapping[str, TunedWeights] | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
        speakers: Mapping[str, Path] | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.name = name
        self.model = model
        self.tokens = model.tokens
        self.provenance = model.provenance
        self._acoustic = model.acoustic.to(self.device).eval()
        self.calibrations = dict(calibrations or {})
        self.speakers = dict(speakers or {})
        self._decoders = Decoders(model.tokens, model.text, tuned or {})

    @property
    def sample_rate(self) -> int:
        """Samples a second that the model hears, in Hz; recordings of any rate are brought to it."""
        return self._acoustic.sample_rate

    @property
    def seconds_per_frame(self) -> float:
        """From one row of log-probabilities to the next."""
        return self._acoustic.seconds_per_frame

    def count_frames(self, num_samples: int) -> int:
        """Rows of log-probabilities that a recording of so many samples has."""
        return self._acoustic.count_frames(num_samples)

    @property
    def num_parameters(self) -> int:
        """Trained numbers."""
        return self._acoustic.num_parameters

    @property
    def language(self) -> str | None:
        """The language it was trained on, such as "en"; None where it is not known, or not one."""
        languages = self.provenance.get("languages") or []
        return str(languages[0]) if len(languages) == 1 else None

    @takes_decoding
    def transcribe(
        self,
        audio: Source,
        *,
        sample_rate: int | None = None,
        channel: int | None = None,
        speaker: str | Voice | None = None,
        **decoding: Any,
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            audio: Path, encoded bytes, binary file object, :class:`~speechrnn.types.Waveform`, or numpy array or torch
                tensor with its ``sample_rate``.
            sample_rate: Rate of an array or tensor, in Hz; files say their own.
            channel: Channel to take, from 0; None: the mean of all.
            speaker: Who speaks: a name that the model was adapted to (``speechrnn adapt``), or what :meth:`hear` made
                of other recordings.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            AudioError: The recording cannot be read, or is too short for a single frame.
            ConfigError: There is no such decoder, the beam holds nothing, it is not said what may be said, or the model
                cannot write it.
        """
        [transcript] = self.transcribe_many(
            [audio], sample_rate=sample_rate, channel=channel, speaker=speaker, **decoding
        )
        return transcript

    @takes_decoding
    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        sample_rate: int | None = None,
        channel: int | None = None,
        speaker: str | Voice | None = None,
        carry_state: bool = False,
        batch_seconds: float = DEFAULT_BATCH_SECONDS,
        on_error: Callable[[Any, SpeechRNNError], None] | None = None,
        **decoding: Any,
    ) -> Iterator[Transcript]:
        """Transcribe recordings in batches of neighbours, lazily and in order.

        Args:
            sources: Each as in :meth:`transcribe`. They are read as far as the next batch needs.
            sample_rate: Rate of arrays and tensors, in Hz.
            channel: Channel to take, from 0; None: the mean of all.
            speaker: Who speaks in all of them, as in :meth:`transcribe`.
            carry_state: They are consecutive pieces of one recording: each starts from the forward direction's hidden
                state in which the one before it ended. Then they are computed one by one.
            batch_seconds: Most audio in a batch, padding included, in seconds; a longer recording goes alone.
            on_error: Called with a source that cannot be transcribed, and the error; the source is then left out.
                Without it the error is raised at that source's turn, after the transcripts of all sources before it.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Yields:
            A transcript for each source.

        Raises:
            AudioError: A recording cannot be read or is too short, and there is no ``on_error``.
            ConfigError: There is no such decoder, ``batch_seconds`` is not positive, or ``sources`` is one recording.
        """
        decoder = self.choose_decoder(**decoding)
        voice = self.find_speaker(speaker) if isinstance(speaker, str) else speaker or Voice()
        if not batch_seconds > 0:
            raise ConfigError(f"batch_seconds: expected more than 0 seconds, got {batch_seconds}")
        if is_one_recording(sources):
            raise ConfigError("transcribe_many takes several recordings, as a list; for one there is transcribe")
        recordings = self._read_all(sources, sample_rate, channel, on_error)
        if carry_state:
            return self._transcribe_in_turn(recordings, decoder, voice)
        batches = collect_batches(
            recordings, lambda recording: len(recording.samples), most_samples=batch_seconds * self.sample_rate
        )
        return (transcript for batch in batches for transcript in self._transcribe_batch(batch, decoder, voice)[0])

    @property
    def hears_speakers(self) -> bool:
        """Whether it normalises features by what was heard of a speaker (``front_end.normalization``)."""
        return self._acoustic.front_end.config.normalization == "speaker"

    def hear(self, sources: Iterable[Source]) -> Voice:
        """What recordings tell of a speaker, without learning: the mean of the features, and the state, for models that
        make use of either; to be given as ``speaker`` to :meth:`transcribe`.

        Args:
            sources: Recordings of one speaker, each as :meth:`transcribe` takes it, but for arrays.

        Raises:
            AudioError: A recording cannot be read, or is too short for a single frame, or there is none.
            ConfigError: ``sources`` is one recording, not a list.
        """
        if is_one_recording(sources):
            raise ConfigError("hear takes recordings as a list, of one or more")
        accumulator, samples = StatisticsAccumulator(self._acoustic.front_end), []
        for source in sources:
            heard = torch.from_numpy(self._read(source, None, None).samples)
            accumulator.add(heard[None].to(self.device), torch.tensor([len(heard)], device=self.device))
            if self._acoustic.encoder.reference is not None:
                samples.append(heard)
        if not accumulator.num_frames:
            raise AudioError("nothing was heard of the speaker; give one recording or more")
        state = self.make_state(torch.cat(samples)) if samples else None
        if not self.hears_speakers:
            return Voice(state)
        mean, _ = accumulator.compute()
        return Voice(state, torch.cat([torch.tensor([float(accumulator.num_frames)]), mean]))

    def find_speaker(self, name: str) -> Voice:
        """What the model knows of a speaker.

        Raises:
            ConfigError: The model was never adapted to a speaker of this name.
            ModelError: The speaker's file is damaged.
        """
        if name not in self.speakers:
            known = f"it knows {', '.join(self.speakers)}" if self.speakers else "it knows none yet"
            raise ConfigError(f"speaker {name}: the model was not adapted to one of that name; {known}")
        shape, feature_size = self._acoustic.encoder.stack.state_shape, self._acoustic.front_end.feature_size
        return read_speaker(self.speakers[name], shape=shape, feature_size=feature_size)

    def make_state(self, samples: Tensor) -> Tensor:
        """The state that the model starts from by itself, or after earlier speech where it encodes that; (L, P, D, H).

        Args:
            samples: Speech of a speaker at the model's rate, (N,), float32.
        """
        encoder = self._acoustic.encoder
        with torch.inference_mode():
            if encoder.reference is not None:
                lengths = torch.tensor([len(samples)], device=self.device)
                state = self._acoustic.encode_reference(samples[None].to(self.device), lengths)
            else:
                state = encoder.stack.make_initial_state(1, like=torch.zeros(1, device=self.device))
        return state[:, :, :, 0].clone()

    def emissions(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        heard: Tensor | None = None,
        return_state: bool = False,
    ) -> Emission:
        """Compute log-probabilities without decoding them.

        Args:
            waveforms: (B, N), float32, at the model's sample rate; samples past a length are ignored.
            lengths: Valid samples, (B,), int64.
            state: The state that all of them start from, (L, P, D, H); None for the model's own.
            heard: What was heard of the speaker of all of them, (1 + F,), or of each one's, (B, 1 + F), as
                :class:`~speechrnn.recognition.speakers.Voice` has it; None: nothing.
            return_state: Also return the state after each.

        Returns:
            Log-probabilities (B, T', V) and their lengths (B,), on the recogniser's device; without gradients.

        Raises:
            AudioError: The shapes do not fit each other.
        """
        if state is not None:
            state = state.to(self.device)[:, :, :, None].expand(-1, -1, -1, len(waveforms), -1)
        if heard is not None:
            heard = heard.to(self.device).expand(len(waveforms), -1)
        with torch.inference_mode():
            return self._acoustic(
                waveforms.to(self.device),
                lengths.to(self.device),
                state=state,
                heard=heard,
                return_state=return_state,
            )

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Make sure that a recording is long enough for one encoder frame.

        Raises:
            AudioError: It is not; the message says how long it must be.
        """
        num_samples = resampled_length(len(waveform.samples), waveform.sample_rate, self.sample_rate)
        if self._acoustic.count_frames(num_samples) > 0:
            return
        least = bisect.bisect_left(range(60 * self.sample_rate), 1, key=self._acoustic.count_frames)
        raise AudioError(
            f"{name}: {waveform.seconds:.4f} s is too short, this model needs at least "
            f"{math.ceil(1e4 * least / self.sample_rate) / 1e4:.4f} s; record more, or leave it out"
        )

    @takes_decoding
    def choose_decoder(self, **decoding: Any) -> Decoder:
        """What turns log-probabilities (B, T', V) and their lengths into hypotheses.

        Args:
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            ConfigError: They do not fit each other, or the model.
            ModelError: The language model cannot be read.
        """
        return self._decoders.choose(DecodingConfig.read(decoding))

    def _read_all(
        self,
        sources: Iterable[Source],
        sample_rate: int | None,
        channel: int | None,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
    ) -> Iterator[_Recording]:
        for source in sources:
            try:
                yield self._read(source, sample_rate, channel)
            except SpeechRNNError as error:
                if on_error is None:
                    raise
                on_error(source, error)

    def _read(self, source: Source, sample_rate: int | None, channel: int | None) -> _Recording:
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        waveform = read_audio(
            source,
            input_rate=sample_rate,
            sample_rate=self.sample_rate,
            channel=channel,
            check_levels=not isinstance(source, Waveform),
        )
        self.check_length(waveform, name=path or "recording")
        return _Recording(path, waveform.samples)

    def _transcribe_in_turn(
        self, recordings: Iterable[_Recording], decoder: Decoder, voice: Voice
    ) -> Iterator[Transcript]:
        own = self.make_state(torch.zeros(0)) if voice.state is None else voice.state
        state = own
        for recording in recordings:
            voice = replace(voice, state=state)
            [transcript], final = self._transcribe_batch([recording], decoder, voice, return_state=True)
            assert final is not None
            state = own.clone()
            state[:, :, 0] = final[:, :, 0, 0]
            yield transcript

    def _transcribe_batch(
        self, batch: list[_Recording], decoder: Decoder, voice: Voice, *, return_state: bool = False
    ) -> tuple[list[Transcript], Tensor | None]:
        """Transcripts of a batch, and the state after each of its recordings, (L, P, D, B, H), if asked for."""
        padded = pad_sequences([torch.from_numpy(recording.samples) for recording in batch])
        found, state = self._decode(*padded, decoder, voice, return_state=return_state)
        calibration = self.calibrations.get(decoder.name)
        maker = TranscriptMaker(self.tokens, self.sample_rate, self.seconds_per_frame, self.language, self.name)
        transcripts = [
            maker.make(
                hypotheses,
                recording.samples,
                path=recording.path,
                calibration=calibration,
                min_confidence=decoder.min_confidence,
            )
            for recording, hypotheses in zip(batch, found, strict=True)
        ]
        return transcripts, state

    def _decode(
        self, waveforms: Tensor, lengths: Tensor, decoder: Decoder, voice: Voice, *, return_state: bool
    ) -> tuple[list[list[Hypothesis]], Tensor | None]:
        """Hypotheses of each recording of a padded batch, the best first, and the state after it if asked for."""
        emission = self.emissions(waveforms, lengths, state=voice.state, heard=voice.heard, return_state=return_state)
        return decoder.decode(emission.log_probs, emission.lengths), emission.state


@dataclass(frozen=True)
class _Recording:
    """A recording at the model's rate: its path, where it has one, and its samples, (N,), float32."""

    path: str | None
    samples: np.ndarray


def is_one_recording(sources: object) -> bool:
    """Whether somebody gave a recording where a list of them is expected."""
    return isinstance(sources, str | bytes | os.PathLike | Waveform) or getattr(sources, "ndim", 2) < 2
