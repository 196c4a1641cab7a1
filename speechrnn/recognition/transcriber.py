"""What one model and an ensemble share: reading, batching, decoding, and making transcripts of hypotheses."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from speechrnn.audio.blocks import check_is_list, open_blocks
from speechrnn.audio.files import read_audio
from speechrnn.errors import AudioError, ConfigError, SpeechRNNError
from speechrnn.recognition.channels import Channel, transcribe_channels
from speechrnn.recognition.cutting import CUT_OPTIONS, CutConfig, Failure, Item, Piece, Recording
from speechrnn.recognition.decoders import (
    Decoder,
    DecodingConfig,
    make_beam_decoder,
    takes_cutting_and_decoding,
    takes_decoding,
)
from speechrnn.recognition.transcript import Alternative, Segment, Transcript, Word
from speechrnn.recognition.word_times import has_sound, place_words
from speechrnn.types import Emission, Hypothesis, Waveform

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.model_folder import ModelFolder
    from speechrnn.model_folder.speakers import SpeakerProfile
    from speechrnn.recognition.joining import Assembly

DEFAULT_BATCH_SECONDS = 120.0
_OF_MANY = {"are_consecutive", "batch_seconds", "on_error", "on_progress"}


class Transcriber(ABC):
    """One model or an ensemble, ready to transcribe.

    Args:
        model: The model, or the first of the ensemble.

    Attributes:
        sample_rate: Of the model, in Hz; recordings of any rate are resampled to it.
        seconds_per_frame: From one row of log-probabilities to the next.
        language: The language it was trained on, such as "en"; None for several or unknown ones.
        calibrations: Of word confidences, by the name of the decoder.
        speakers: Names that the model was adapted to, and the files of their profiles.
    """

    num_parameters: int
    uses_speaker_stats: bool

    def __init__(self, model: ModelFolder) -> None:
        self.model = model
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
    def _emit(self, samples: Sequence[np.ndarray], profile: Any, *, return_state: bool = False) -> list[Emission]:
        """Log-probabilities of a batch of recordings, (N,) each, of each model."""

    def search(self, emissions: Sequence[Emission], decoder: Decoder) -> list[list[Hypothesis]]:
        """Hypotheses of each recording of a batch, best first, from the log-probabilities of each model."""
        [emission] = emissions
        return decoder.decode(emission.log_probs, emission.lengths)

    @abstractmethod
    def _transcribe_in_turn(
        self,
        items: Iterable[Item],
        decoder: Decoder,
        profile: Any,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
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

    @takes_cutting_and_decoding
    def transcribe(
        self,
        audio: Source,
        *,
        sample_rate: int | None = None,
        channel: int | Literal["mix", "separate"] | None = None,
        speaker: str | SpeakerProfile | tuple[SpeakerProfile, ...] | None = None,
        **options: Any,
    ) -> Transcript:
        """Transcribe one recording.

        Words in digital silence (:func:`~speechrnn.recognition.word_times.has_sound`) are left out.

        A recording longer than ``max_seconds`` is cut into pieces, in memory that does not grow with its length; its
        transcript has a segment for each piece with words. Then ``min_confidence`` rejects pieces, each piece is one
        of ``sentences``, and ``nbest`` above 1 is refused. Models with ``encoder.output: final_state`` are never cut.

        Args:
            audio: Path, encoded bytes, binary file object, :class:`~speechrnn.types.Waveform`, or numpy array or torch
                tensor with its ``sample_rate``.
            sample_rate: Rate of an array or tensor, in Hz; files state their own.
            channel: Channel to take, from 0; None or ``mix``: the mean of all; ``separate``: each channel
                separately, as one speaker (:func:`~speechrnn.recognition.channels.transcribe_channels`).
            speaker: Who speaks: a name that the model was adapted to (``speechrnn adapt``), or the result of
                :meth:`estimate_speaker` for other recordings.
            **options: Fields of :class:`~speechrnn.recognition.cutting.CutConfig`, how a long recording is cut, and of
                :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            AudioError: The recording cannot be read, or is too short for a single frame.
            ConfigError: An option is wrong, or does not fit the model or the recording.
        """
        for name in options.keys() & _OF_MANY:
            raise ConfigError(f"{name}: an option of transcribe_many; transcribe takes one recording")
        [transcript] = self.transcribe_many(
            [audio], sample_rate=sample_rate, channel=channel, speaker=speaker, **options
        )
        return transcript

    @takes_cutting_and_decoding
    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        sample_rate: int | None = None,
        channel: int | Literal["mix", "separate"] | None = None,
        speaker: str | SpeakerProfile | tuple[SpeakerProfile, ...] | None = None,
        are_consecutive: bool = False,
        batch_seconds: float = DEFAULT_BATCH_SECONDS,
        on_error: Callable[[Any, SpeechRNNError], None] | None = None,
        on_progress: Callable[[str | None, float], None] | None = None,
        **options: Any,
    ) -> Iterator[Transcript]:
        """Transcribe recordings in batches of similar length, lazily and in order.

        Recordings are read in a thread. Long ones are cut as in :meth:`transcribe`, and their pieces are batched with
        those of other recordings. Neither the batches nor the look-ahead change a text.

        Args:
            sources: Each as in :meth:`transcribe`. Some four batches are read ahead.
            sample_rate: Rate of arrays and tensors, in Hz.
            channel: Channel to take, as in :meth:`transcribe`.
            speaker: Who speaks in all of them, as in :meth:`transcribe`.
            are_consecutive: Whether they are consecutive parts of one recording: each starts from the forward
                direction's hidden state at the end of the one before it, and they are computed one by one. They are
                not cut.
            batch_seconds: Most audio in a batch, padding included, in seconds; a longer recording goes alone.
            on_error: Called with a source that cannot be transcribed, and the error, at that source's turn; the source
                is then left out. Without it the error is raised, after the transcripts of all sources before it.
            on_progress: Called after each piece of a long recording with its name or path, None without, and the
                seconds of it that are done.
            **options: As in :meth:`transcribe`.

        Yields:
            A transcript for each source.

        Raises:
            AudioError: A recording cannot be read or is too short, and there is no ``on_error``.
            ConfigError: An option is wrong or does not fit the model, or ``sources`` is one recording.
        """
        check_is_list(sources, "transcribe_many takes several recordings, as a list; for one there is transcribe")
        if channel == "separate":
            given = {"sample_rate": sample_rate, "speaker": speaker, "batch_seconds": batch_seconds, **options}
            given |= {"on_error": on_error, "on_progress": on_progress, "are_consecutive": are_consecutive}
            return transcribe_channels(self.transcribe_many, sources, **given)
        cutting = {}
        for name in options.keys() & CUT_OPTIONS:
            cutting[name] = options.pop(name)
        config = CutConfig(**cutting)
        decoder = self.choose_decoder(**options)
        profile = self.find_speaker(speaker) if isinstance(speaker, str) else speaker
        if not isinstance(batch_seconds, int | float) or not batch_seconds > 0:
            raise ConfigError(f"batch_seconds: expected more than 0 seconds, got {batch_seconds!r}")
        if config != CutConfig(config.max_seconds):
            config.needs_vad()
        if are_consecutive or self.model.acoustic.encoder.config.output == "final_state":
            if config.vad_filter:
                raise ConfigError("vad_filter: consecutive recordings, and those of a class each, are not cut")
            config = replace(config, max_seconds=None)
        number = None if channel == "mix" else channel
        items = self._read_items(sources, sample_rate, number, config, decoder.config.nbest)
        if are_consecutive:
            return self._transcribe_in_turn(items, decoder, profile, on_error)
        is_single = isinstance(sources, list | tuple) and len(sources) == 1
        return self._transcribe_items(
            items, decoder, profile, is_single, batch_seconds=batch_seconds, on_error=on_error, on_progress=on_progress
        )

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

    def _read_items(
        self, sources: Iterable[Source], sample_rate: int | None, channel: int | None, config: CutConfig, nbest: int
    ) -> Iterator[Item]:
        """Recordings, the pieces of long ones, and failures."""
        most = math.inf if config.max_seconds is None else config.max_seconds * self.sample_rate
        for source in sources:
            audio, number = (source.source, source.number) if isinstance(source, Channel) else (source, channel)
            name = os.fspath(audio) if isinstance(audio, str | os.PathLike) else None
            try:
                with open_blocks(
                    audio,
                    sample_rate=self.sample_rate,
                    channel=number,
                    input_rate=sample_rate,
                    check_levels=not isinstance(audio, Waveform),
                ) as opened:
                    samples: list[np.ndarray] = []
                    while sum(map(len, samples)) <= most and (block := next(opened.samples, None)) is not None:
                        samples.append(block)
                    whole = samples[0] if len(samples) == 1 else np.concatenate(samples)
                    self.check_length(Waveform(whole, self.sample_rate), name=name or "recording")
                    if len(whole) <= most and not config.vad_filter:
                        yield Recording(name, whole)
                        continue
                    from speechrnn.recognition.longform import cut_recording

                    yield from cut_recording(self, name, chain([whole], opened), config, nbest=nbest)
            except SpeechRNNError as error:
                yield Failure(source, error)

    def _transcribe_items(
        self,
        items: Iterator[Item],
        decoder: Decoder,
        profile: Any,
        is_single: bool,
        *,
        batch_seconds: float,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
        on_progress: Callable[[str | None, float], None] | None,
    ) -> Iterator[Transcript]:
        """Transcribe in batches; a single short recording without the machinery for many."""
        first = list(islice(items, 1)) if is_single else []
        if first and isinstance(first[0], Recording) and not isinstance(first[0], Piece):
            yield from self._transcribe_batch([first[0]], decoder, profile)
            return
        from speechrnn.recognition.batches import assemble, prefetch, transcribe_pooled

        pairs = transcribe_pooled(
            prefetch(chain(first, items)),
            lambda batch: self._transcribe_batch(batch, decoder, profile),
            most_samples=batch_seconds * self.sample_rate,
        )
        yield from assemble(pairs, lambda: self._begin_assembly(decoder), on_error, on_progress)

    def _begin_assembly(self, decoder: Decoder) -> Assembly:
        from speechrnn.recognition.joining import Assembly

        return Assembly(self, decoder)

    def _transcribe_batch(self, batch: Sequence[Recording], decoder: Decoder, profile: Any) -> list[Any]:
        """The transcript of each, but of a window the log-probabilities of its used frames, of each model, (T', V)."""
        emissions = self._emit([recording.samples for recording in batch], profile)
        if any(isinstance(each, Piece) and each.used is not None for each in batch):
            from speechrnn.recognition.joining import take_windows

            return take_windows(self, batch, emissions, decoder)
        found = self.search(emissions, decoder)
        return [self.make_transcript(each, best, decoder) for each, best in zip(batch, found, strict=True)]

    def make_transcript(self, recording: Recording, hypotheses: list[Hypothesis], decoder: Decoder) -> Transcript:
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


def explain_too_short(waveform: Waveform, least_samples: int, *, name: str) -> AudioError:
    """The error for a recording that has no encoder frame; it gives the least length.

    Args:
        waveform: The recording, at the model's rate.
        least_samples: Samples of the shortest one that has a frame.
        name: Of the recording.
    """
    least = math.ceil(1e4 * least_samples / waveform.sample_rate) / 1e4
    return AudioError(
        f"{name}: {waveform.seconds:.4f} s is too short, this model needs at least {least:.4f} s; record more, or "
        "leave it out"
    )


def check_speaker(recognizer: Transcriber, name: str) -> None:
    """Refuse the name of a speaker that a model was not adapted to."""
    if name not in recognizer.speakers:
        known = f"it knows {', '.join(recognizer.speakers)}" if recognizer.speakers else "it knows none yet"
        raise ConfigError(f"speaker {name!s:.80}: the model was not adapted to one of that name; {known}")
