"""What one model and an ensemble share: reading, batching, decoding, and making transcripts of hypotheses."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio.files import read_audio
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder import ModelFolder
from speechrnn.recognition.decoders import Decoder, DecodingConfig, make_beam_decoder, takes_decoding
from speechrnn.recognition.transcript import Alternative, Segment, Transcript, Word
from speechrnn.recognition.word_times import has_sound, place_words
from speechrnn.types import Hypothesis, Waveform, pad_sequences

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.model_folder.speakers import SpeakerProfile

DEFAULT_BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class Recording:
    """A recording at the model's rate: its name or path, where it has one, and its samples, (N,), float32."""

    name: str | None
    samples: np.ndarray


class Transcriber(ABC):
    """One model or an ensemble, ready to transcribe.

    Args:
        model: The model, or the first of the ensemble.
        device: Where it runs.

    Attributes:
        sample_rate: Of the model, in Hz; recordings of any rate are resampled to it.
        seconds_per_frame: From one row of log-probabilities to the next.
        language: The language it was trained on, such as "en"; None for several or unknown ones.
        calibrations: Of word confidences, by the name of the decoder.
        speakers: Names that the model was adapted to, and the files of their profiles.
    """

    num_parameters: int
    uses_speaker_stats: bool

    def __init__(self, model: ModelFolder, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.name = model.name
        self.tokens = model.tokens
        self.provenance = model.provenance
        self.sample_rate = model.acoustic.sample_rate
        self.seconds_per_frame = model.acoustic.seconds_per_frame
        languages = self.provenance.get("languages") or []
        self.language: str | None = languages[0] if len(languages) == 1 else None
        self.calibrations = dict(model.calibrations)
        self.speakers = dict(model.speakers)
        self._untuned: set[str] = set()

    def __repr__(self) -> str:
        name, cell = (self.name or "unnamed")[-80:], self.model.acoustic.encoder.config.cell
        return f"<{type(self).__name__} {name}, {cell}, {self.num_parameters:,} parameters, {self.sample_rate} Hz>"

    @abstractmethod
    def estimate_speaker(self, sources: Iterable[Source]) -> SpeakerProfile | tuple[SpeakerProfile, ...]:
        """Estimate a speaker's profile from recordings, to be given as ``speaker``."""

    @abstractmethod
    def find_speaker(self, name: str) -> SpeakerProfile | tuple[SpeakerProfile, ...]:
        """Read the stored profile of a speaker."""

    @abstractmethod
    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Check that a recording is long enough for one encoder frame.

        Raises:
            AudioError: It is not; the message gives the least length.
        """

    @abstractmethod
    def _decode(
        self, waveforms: Tensor, lengths: Tensor, decoder: Decoder, profile: Any, *, return_state: bool
    ) -> tuple[list[list[Hypothesis]], Tensor | None]:
        """Hypotheses of each recording of a padded batch, best first, and, if asked for, the state after it."""

    @abstractmethod
    def _transcribe_in_turn(
        self, recordings: Iterable[Recording], decoder: Decoder, profile: Any
    ) -> Iterator[Transcript]:
        """Transcribe pieces of one recording, each from the state after the one before it."""

    @takes_decoding
    def choose_decoder(self, **decoding: Any) -> Decoder:
        """Choose the decoder from log-probabilities (B, T', V) and their lengths (B,) to hypotheses.

        Args:
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            ConfigError: The options contradict each other or the model.
            ModelError: The language model cannot be read.
        """
        config = DecodingConfig.read(decoding, language_model=self.model.language_model)
        return Decoder(config) if config.decoder == "greedy" else make_beam_decoder(config, self.model, self._untuned)

    @takes_decoding
    def transcribe(
        self,
        audio: Source,
        *,
        sample_rate: int | None = None,
        channel: int | None = None,
        speaker: str | SpeakerProfile | tuple[SpeakerProfile, ...] | None = None,
        **decoding: Any,
    ) -> Transcript:
        """Transcribe one recording.

        Words in digital silence (:func:`~speechrnn.recognition.word_times.has_sound`) are left out.

        Args:
            audio: Path, encoded bytes, binary file object, :class:`~speechrnn.types.Waveform`, or numpy array or torch
                tensor with its ``sample_rate``.
            sample_rate: Rate of an array or tensor, in Hz; files state their own.
            channel: Channel to take, from 0; None: the mean of all.
            speaker: Who speaks: a name that the model was adapted to (``speechrnn adapt``), or the result of
                :meth:`estimate_speaker` for other recordings.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            AudioError: The recording cannot be read, or is too short for a single frame.
            ConfigError: An option is wrong, or does not fit the model.
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
        speaker: str | SpeakerProfile | tuple[SpeakerProfile, ...] | None = None,
        are_consecutive: bool = False,
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
            are_consecutive: Whether they are consecutive parts of one recording: each starts from the forward
                direction's hidden state at the end of the one before it, and they are computed one by one.
            batch_seconds: Most audio in a batch, padding included, in seconds; a longer recording goes alone.
            on_error: Called with a source that cannot be transcribed, and the error; the source is then left out.
                Without it the error is raised at that source's turn, after the transcripts of all sources before it.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Yields:
            A transcript for each source.

        Raises:
            AudioError: A recording cannot be read or is too short, and there is no ``on_error``.
            ConfigError: An option is wrong or does not fit the model, or ``sources`` is one recording.
        """
        decoder = self.choose_decoder(**decoding)
        profile = self.find_speaker(speaker) if isinstance(speaker, str) else speaker
        if not isinstance(batch_seconds, int | float) or not batch_seconds > 0:
            raise ConfigError(f"batch_seconds: expected more than 0 seconds, got {batch_seconds!r}")
        check_is_list(sources, "transcribe_many takes several recordings, as a list; for one there is transcribe")
        recordings = self._read_all(sources, sample_rate, channel, on_error)
        if are_consecutive:
            return self._transcribe_in_turn(recordings, decoder, profile)
        batches = collect_batches(recordings, most_samples=batch_seconds * self.sample_rate)
        return (transcript for batch in batches for transcript in self._transcribe_batch(batch, decoder, profile)[0])

    def read(self, source: Source, *, sample_rate: int | None = None, channel: int | None = None) -> Waveform:
        """Read a recording at the model's rate, and check that it is long enough for one frame.

        Args:
            source: As in :meth:`transcribe`, and so are the others.

        Raises:
            AudioError: The recording cannot be read, or is too short.
        """
        waveform = read_audio(
            source,
            input_rate=sample_rate,
            sample_rate=self.sample_rate,
            channel=channel,
            check_levels=not isinstance(source, Waveform),
        )
        self.check_length(waveform, name=os.fspath(source) if isinstance(source, str | os.PathLike) else "recording")
        return waveform

    def _read_all(
        self,
        sources: Iterable[Source],
        sample_rate: int | None,
        channel: int | None,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
    ) -> Iterator[Recording]:
        for source in sources:
            try:
                samples = self.read(source, sample_rate=sample_rate, channel=channel).samples
            except SpeechRNNError as error:
                if on_error is None:
                    raise
                on_error(source, error)
            else:
                yield Recording(os.fspath(source) if isinstance(source, str | os.PathLike) else None, samples)

    def _transcribe_batch(
        self, batch: list[Recording], decoder: Decoder, profile: Any, *, return_state: bool = False
    ) -> tuple[list[Transcript], Tensor | None]:
        """Transcripts of a batch, and, if asked for, the state after each recording, (L, P, D, B, H)."""
        padded = pad_sequences([torch.from_numpy(recording.samples) for recording in batch])
        found, state = self._decode(*padded, decoder, profile, return_state=return_state)
        pairs = zip(batch, found, strict=True)
        return [self._make_transcript(recording, hypotheses, decoder) for recording, hypotheses in pairs], state

    def _make_transcript(self, recording: Recording, hypotheses: list[Hypothesis], decoder: Decoder) -> Transcript:
        """The transcript of one recording, from one hypothesis or more, the best first."""
        readings: dict[str, Alternative] = {}  # hypotheses that differ in spaces alone have the same text
        for each in hypotheses:
            words = self._make_words(each, recording.samples, decoder)
            text = " ".join(word.text for word in words)
            readings.setdefault(text, Alternative(text, each.acoustic_score + each.language_score, words))
        text, words = (best := next(iter(readings.values()))).text, best.words
        made = Transcript(
            text,
            (Segment(words[0].start, words[-1].end, text, words),) if words else (),
            len(recording.samples) / self.sample_rate,
            audio=recording.name,
            language=self.language,
            model=self.name,
            alternatives=tuple(readings.values()) if len(hypotheses) > 1 else (),
        )
        if all(word.confidence >= decoder.config.min_confidence for word in words):
            return made
        return replace(made, text="", segments=(), rejected=text)

    def _make_words(
        self, hypothesis: Hypothesis, samples: np.ndarray, decoder: Decoder, *, are_placed: bool = True
    ) -> tuple[Word, ...]:
        """Words with their times, or with those of their peaks."""
        frame = self.seconds_per_frame
        calibration = self.calibrations.get(decoder.name) if self.calibrations else None
        words, peaks = [], []
        for text, first, last in self.tokens.words(hypothesis.tokens):
            peak = hypothesis.frames[first][0] * frame, (hypothesis.frames[last][1] + 1) * frame
            if has_sound(samples, self.sample_rate, *peak):
                confidence = math.prod(hypothesis.confidences[first : last + 1]) ** (1 / (last + 1 - first))
                words.append((text, confidence if calibration is None else calibration.apply(confidence)))
                peaks.append(peak)
        times = place_words(peaks, samples, self.sample_rate) if are_placed else peaks
        return tuple(Word(text, *time, confidence) for (text, confidence), time in zip(words, times, strict=True))


def check_is_list(sources: object, message: str) -> None:
    """Check that a list of recordings was given, not a single one.

    Raises:
        ConfigError: With this message.
    """
    is_one = isinstance(sources, str | bytes | os.PathLike | Waveform) or getattr(sources, "ndim", 2) < 2
    if is_one or not isinstance(sources, Iterable):
        raise ConfigError(message)


def collect_batches(recordings: Iterable[Recording], *, most_samples: float) -> Iterator[list[Recording]]:
    """Batch neighbours while their padded size is within the budget; an error is raised after all recordings before it.

    Args:
        recordings: In order; read as far as the next batch needs.
        most_samples: Budget of a batch, padding included; a longer recording goes alone.
    """
    batch: list[Recording] = []
    longest = 0
    recordings = iter(recordings)
    while True:
        try:
            recording = next(recordings)
        except Exception as error:  # StopIteration is one of them
            failure = error
            break
        longest = max(longest, len(recording.samples))
        if batch and longest * (len(batch) + 1) > most_samples:
            yield batch
            batch, longest = [], len(recording.samples)
        batch.append(recording)
    if batch:
        yield batch
    if not isinstance(failure, StopIteration):
        raise failure
