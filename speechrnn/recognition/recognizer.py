"""One model or an ensemble, loaded and ready to transcribe."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from speechrnn.audio.blocks import check_is_list
from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.errors import AudioError, ConfigError, SpeechRNNError
from speechrnn.model_folder.content import ModelFolder
from speechrnn.model_folder.format import load_model
from speechrnn.model_folder.speakers import SpeakerProfile, read_speaker
from speechrnn.processes import choose_device
from speechrnn.recognition.cutting import Failure, Recording
from speechrnn.recognition.decoders import takes_decoding
from speechrnn.recognition.transcriber import Transcriber, check_speaker, explain_too_short
from speechrnn.types import Emission, Waveform, pad_sequences

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.recognition.cutting import Item
    from speechrnn.recognition.decoders import Decoder
    from speechrnn.recognition.endpoints import EndpointConfig
    from speechrnn.recognition.engines import Backend, Engine, Precision
    from speechrnn.recognition.ensemble import Ensemble
    from speechrnn.recognition.latency_control import LatencyControlConfig
    from speechrnn.recognition.stream import Stream
    from speechrnn.recognition.transcript import Transcript

_SECONDS_BEFORE_FASTER = 60.0
"""Audio that is transcribed with torch before another engine is prepared, unless the first batch has more."""


class Recognizer(Transcriber):
    """A model, ready to transcribe.

    Args:
        model: What a model folder holds. Its acoustic model is moved to the device and set to evaluation.
        device: As in :func:`~speechrnn.recognition.recognizer.load`, and so are the others.

    Raises:
        ConfigError: As there, or ``model`` is no :class:`~speechrnn.model_folder.ModelFolder`.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str | torch.device = "auto",
        backend: Backend = "auto",
        precision: Precision = "auto",
    ) -> None:
        if not isinstance(model, ModelFolder):
            raise ConfigError(f"model: expected the result of load_model, got {model!r:.80}; load takes a path")
        super().__init__(model)
        self.device = choose_device(device)
        self._acoustic = model.acoustic.to(self.device).eval()
        self._chosen: Engine | None = None  # for all that is not a stream
        self._faster: Engine | None = None  # of backend "auto": for transcription, once there is much of it
        self._seconds_before_faster = _SECONDS_BEFORE_FASTER
        if (backend, precision) != ("auto", "auto"):
            self._chosen = self._prepare_engine(backend, precision)

    def _prepare_engine(self, backend: Backend = "auto", precision: Precision = "auto") -> Engine | None:
        from speechrnn.recognition.engines import choose_engine

        self._seconds_before_faster = math.inf
        return choose_engine(self.model, self.device, backend=backend, precision=precision)

    def prepare(self) -> None:
        """Prepare the engine of ``backend="auto"`` now, not after a minute of audio."""
        if self._seconds_before_faster < math.inf:
            self._faster = self._prepare_engine()

    @property
    def num_parameters(self) -> int:  # type: ignore[override]
        """Number of weights."""
        return self._acoustic.num_parameters

    @property
    def uses_speaker_stats(self) -> bool:  # type: ignore[override]
        """Whether it normalises features by speaker statistics (``front_end.normalization``)."""
        return self._acoustic.front_end.config.normalization == "speaker"

    def count_frames(self, num_samples: int) -> int:
        """Count the rows of log-probabilities of a recording with so many samples."""
        return self._acoustic.count_frames(num_samples)

    def estimate_speaker(self, sources: Iterable[Source]) -> SpeakerProfile:
        """Estimate a speaker's profile from recordings, without learning, to be given as ``speaker``.

        That is the mean of the features and the initial state, for models that use either.

        Args:
            sources: Recordings of one speaker, each as :meth:`transcribe` takes it, but for arrays.

        Raises:
            AudioError: A recording cannot be read, or is too short for a single frame, or there is none.
            ConfigError: ``sources`` is one recording, not a list.
        """
        check_is_list(sources, "estimate_speaker takes recordings as a list, of one or more")
        accumulator, samples = StatisticsAccumulator(self._acoustic.front_end), []
        for source in sources:
            waveform = torch.from_numpy(self.read(source).samples)
            accumulator.add(waveform[None].to(self.device), torch.tensor([len(waveform)], device=self.device))
            if self._acoustic.encoder.reference is not None:
                samples.append(waveform)
        if not accumulator.num_frames:
            raise AudioError("no speech of the speaker; give one recording or more")
        state = self.make_state(torch.cat(samples)) if samples else None
        if not self.uses_speaker_stats:
            return SpeakerProfile(state)
        mean, _ = accumulator.compute()
        return SpeakerProfile(state, torch.cat([torch.tensor([float(accumulator.num_frames)]), mean]))

    def find_speaker(self, name: str) -> SpeakerProfile:
        """Read the stored profile of a speaker.

        Raises:
            ConfigError: The model was never adapted to a speaker of this name.
            ModelError: The speaker's file is damaged.
        """
        check_speaker(self, name)
        shape, feature_size = self._acoustic.encoder.stack.state_shape, self._acoustic.front_end.feature_size
        return read_speaker(self.speakers[name], shape=shape, feature_size=feature_size)

    def make_state(self, samples: Tensor) -> Tensor:
        """Return the model's own initial state, or the encoded one after earlier speech; (L, P, D, H).

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

    @takes_decoding
    def stream(
        self,
        *,
        sample_rate: int | None = None,
        endpoints: EndpointConfig | bool | None = None,
        speaker: str | SpeakerProfile | None = None,
        latency_controlled: LatencyControlConfig | bool = False,
        **decoding: Any,
    ) -> Stream:
        """Begin a stream: audio in pieces, with a unidirectional model's text of the whole recording.

        Args:
            sample_rate: Rate of the samples to come, in Hz; None: the model's.
            endpoints: When a segment is closed: True for the defaults of
                :class:`~speechrnn.recognition.endpoints.EndpointConfig`; None or False: never.
            speaker: Who speaks, as in :meth:`transcribe`.
            latency_controlled: For a bidirectional model: its text chunk by chunk, which has more errors than that of
                the whole recording. True for the defaults of
                :class:`~speechrnn.recognition.latency_control.LatencyControlConfig`.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            AudioError: ``sample_rate`` is not a sample rate.
            ConfigError: The model needs the whole recording, or an option is wrong.
        """
        from speechrnn.recognition.endpoints import EndpointConfig
        from speechrnn.recognition.stream import Stream, choose_acoustics

        if self._chosen is not None:
            raise ConfigError(f"stream: computes with torch in float32; {self._chosen.name} is for whole recordings")
        profile = self.find_speaker(speaker) if isinstance(speaker, str) else speaker or SpeakerProfile()
        if not isinstance(profile, SpeakerProfile):
            raise ConfigError(f"speaker: expected a name or the result of estimate_speaker, got {profile!r:.80}")
        if not isinstance(endpoints, EndpointConfig | bool | None):
            raise ConfigError(f"endpoints: expected True or an EndpointConfig, got {endpoints!r:.80}")
        acoustics = choose_acoustics(self.model, latency_controlled, **vars(profile))
        rules = EndpointConfig() if endpoints is True else endpoints or None
        decoder = self.choose_decoder(**decoding)
        return Stream(self, acoustics, decoder, sample_rate=sample_rate, endpoints=rules)

    def emissions(
        self,
        waveforms: Tensor | np.ndarray,
        lengths: Tensor | np.ndarray | Sequence[int],
        *,
        state: Tensor | None = None,
        speaker_stats: Tensor | None = None,
        return_state: bool = False,
    ) -> Emission:
        """Compute log-probabilities without decoding them.

        Args:
            waveforms: (B, N), floats, at the model's sample rate; samples past a length are ignored.
            lengths: Valid samples, (B,), whole numbers.
            state: The state that all of them start from, (L, P, D, H); None for the model's own.
            speaker_stats: Statistics of the speaker of all of them, (1 + F,), or of each one's, (B, 1 + F), as in
                :class:`~speechrnn.model_folder.speakers.SpeakerProfile`; None without.
            return_state: Also return the state after each.

        Returns:
            Log-probabilities (B, T', V) and their lengths (B,), on the recogniser's device; without gradients.

        Raises:
            AudioError: The shapes do not fit each other.
            ConfigError: An argument is no array of numbers, or ``state`` has another shape.
        """
        waves = _as_tensor("waveforms", waveforms, torch.float32, self.device)
        counts = _as_tensor("lengths", lengths, torch.int64, self.device)
        options: dict[str, Any] = {"return_state": return_state}
        if state is not None or speaker_stats is not None:
            options |= self._expand(len(waves), state, speaker_stats)
        with torch.inference_mode():
            if self._chosen is not None:
                return self._chosen.emit(self._acoustic, waves, counts, **options)
            return self._acoustic(waves, counts, **options)

    def _expand(self, count: int, state: Any, speaker_stats: Any) -> dict[str, Tensor]:
        """State and statistics of a speaker for so many utterances, without those that are None."""
        options = {}
        if state is not None:
            state = _as_tensor("state", state, torch.float32, self.device)
            if tuple(state.shape) != (shape := self._acoustic.encoder.stack.state_shape):
                raise ConfigError(f"state: expected the shape {shape}, got {tuple(state.shape)}")
            options["state"] = state[:, :, :, None].expand(-1, -1, -1, count, -1)
        if speaker_stats is not None:
            stats = _as_tensor("speaker_stats", speaker_stats, torch.float32, self.device)
            options["speaker_stats"] = stats.expand(count, -1)
        return options

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Check that a recording is long enough for one encoder frame.

        Raises:
            AudioError: It is not; the message gives the least length.
        """
        if self._acoustic.count_frames(len(waveform.samples)) == 0:
            raise explain_too_short(waveform, self._acoustic.least_samples, name=name)

    def _transcribe_in_turn(
        self,
        items: Iterable[Item],
        decoder: Decoder,
        profile: SpeakerProfile | None,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
    ) -> Iterator[Transcript]:
        profile = profile or SpeakerProfile()
        own = self.make_state(torch.zeros(0)) if profile.state is None else profile.state
        state = own
        for item in items:
            if isinstance(item, Failure):
                item.report(on_error)
                continue
            assert isinstance(item, Recording)
            [emission] = self._emit([item.samples], replace(profile, state=state), return_state=True)
            assert emission.state is not None
            state = own.clone()
            state[:, :, 0] = emission.state[:, :, 0, 0]
            [hypotheses] = self.search([emission], decoder)
            yield self.make_transcript(item, hypotheses, decoder)

    def _emit(self, samples: Sequence[np.ndarray], profile: Any, *, return_state: bool = False) -> list[Emission]:
        if not isinstance(profile, SpeakerProfile | None):
            raise ConfigError(f"speaker: expected a name or the result of estimate_speaker, got {profile!r:.80}")
        options = vars(profile) if profile is not None else {}
        waves, counts = pad_sequences([torch.from_numpy(each) for each in samples])
        self._seconds_before_faster -= waves.numel() / self.sample_rate
        if self._seconds_before_faster < 0:
            self._faster = self._prepare_engine()
        if self._faster is None:
            return [self.emissions(waves, counts, **options, return_state=return_state)]
        with torch.inference_mode():
            expanded = self._expand(len(waves), **options) if options else {}
            return [self._faster.emit(self._acoustic, waves, counts, **expanded, return_state=return_state)]


@overload
def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = ...,
    backend: Backend = ...,
    precision: Precision = ...,
) -> Recognizer: ...
@overload
def load(
    name_or_path: Sequence[str | os.PathLike[str]],
    *,
    device: str | torch.device = ...,
    backend: Backend = ...,
    precision: Precision = ...,
) -> Recognizer | Ensemble: ...
def load(
    name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    device: str | torch.device = "auto",
    backend: Backend = "auto",
    precision: Precision = "auto",
) -> Recognizer | Ensemble:
    """Load a recogniser.

    A process that is forked after this (``os.fork``, a pool with the ``fork`` method) transcribes with one torch
    thread, because torch's thread pool does not survive a fork. On a GPU use the ``spawn`` method.

    Args:
        name_or_path: A model folder, or a model of the Hugging Face Hub as ``owner/name`` (needs the extra ``hub``).
            Several, as a list, transcribe together (:class:`~speechrnn.recognition.ensemble.Ensemble`).
        device: ``auto`` (the first CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` …
        backend: What computes encoder and output layer on a CPU: ``torch``; ``onnx``: ONNX Runtime (needs the extra
            ``onnx``); ``auto``: ONNX Runtime for much audio with a GRU, if it is installed, else torch.
        precision: ``float32`` or ``auto``; for LSTMs on a CPU also ``bfloat16`` (torch) and ``int8`` (onnx), which are
            faster and change log-probabilities, and rarely words.

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: There is no such device, backend or precision, the model, processor or installation lacks what they
            need, the list is empty, or its models do not fit together.
    """
    if isinstance(name_or_path, str | os.PathLike):
        return Recognizer(load_model(name_or_path), device=device, backend=backend, precision=precision)
    if not isinstance(name_or_path, Sequence) or not name_or_path:
        raise ConfigError(f"load: expected a model folder, or a list of one or more, got {name_or_path!r:.80}")
    recognizers = [
        as_recognizer(each, "load", device=device, backend=backend, precision=precision) for each in name_or_path
    ]
    if len(recognizers) == 1:
        return recognizers[0]
    from speechrnn.recognition.ensemble import Ensemble

    return Ensemble(recognizers)


def as_recognizer(model: Any, caller: str, **options: Any) -> Recognizer:
    """Return a recogniser as it is, and load one from a path.

    Args:
        model: A recogniser, or a path as in :func:`load`.
        caller: Name of the function that needs it, for messages.
        **options: As in :func:`load`.

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: It is neither, or an ensemble.
    """
    if isinstance(model, Recognizer):
        return model
    if isinstance(model, str | os.PathLike):
        return load(model, **options)
    if isinstance(model, Transcriber):
        raise ConfigError(f"{caller}: several models together have no log-probabilities; give one of them")
    raise ConfigError(f"{caller}: expected a recogniser or the path of a model, got {model!r:.80}")


def _as_tensor(name: str, values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(values).to(device, dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name}: expected a tensor or an array of numbers, got {type(values).__name__}") from error
