"""One model, ready to transcribe."""

from __future__ import annotations

import bisect
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.audio.files import read_audio
from speechrnn.errors import AudioError, ConfigError
from speechrnn.model_folder import ModelFolder
from speechrnn.model_folder.speakers import SpeakerProfile, read_speaker
from speechrnn.recognition.transcriber import Recording, Transcriber, check_is_list
from speechrnn.types import Emission, Hypothesis, Waveform

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.recognition.decoders import Decoder
    from speechrnn.recognition.transcript import Transcript


class Recognizer(Transcriber):
    """A model, ready to transcribe.

    Args:
        model: What a model folder holds. Its acoustic model is moved to the device and set to evaluation.
        device: As in :func:`~speechrnn.recognition.loading.load`.

    Raises:
        ConfigError: There is no such device, or ``model`` is no :class:`~speechrnn.model_folder.ModelFolder`.
    """

    def __init__(self, model: ModelFolder, *, device: str | torch.device = "auto") -> None:
        if not isinstance(model, ModelFolder):
            raise ConfigError(f"model: expected what load_model returns, got {model!r:.80}; load takes a path")
        super().__init__(model, choose_device(device))
        self._acoustic = model.acoustic.to(self.device).eval()

    @property
    def num_parameters(self) -> int:  # type: ignore[override]
        """Number of weights."""
        return self._acoustic.num_parameters

    @property
    def uses_speaker_stats(self) -> bool:  # type: ignore[override]
        """Whether it normalises features by speaker statistics (``front_end.normalization``)."""
        return self._acoustic.front_end.config.normalization == "speaker"

    def count_frames(self, num_samples: int) -> int:
        """Rows of log-probabilities of a recording with so many samples."""
        return self._acoustic.count_frames(num_samples)

    def estimate_speaker(self, sources: Iterable[Source]) -> SpeakerProfile:
        """Estimate what the model needs of a speaker from recordings, without learning, to be given as ``speaker``.

        That is the mean of the features and the initial state, for models that use either.

        Args:
            sources: Recordings of one speaker, each as :meth:`transcribe` takes it, but for arrays.

        Raises:
            AudioError: A recording cannot be read, or is too short for a single frame, or there is none.
            ConfigError: ``sources`` is one recording, not a list.
        """
        check_is_list(sources, "estimate_speaker takes recordings as a list, of one or more")
        accumulator, samples = StatisticsAccumulator(self._acoustic.front_end), []
        for recording in self._read_all(sources, None, None, None):
            waveform = torch.from_numpy(recording.samples)
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
        """What the model stores of a speaker.

        Raises:
            ConfigError: The model was never adapted to a speaker of this name.
            ModelError: The speaker's file is damaged.
        """
        shape, feature_size = self._acoustic.encoder.stack.state_shape, self._acoustic.front_end.feature_size
        return read_speaker(self._find_speaker_file(name), shape=shape, feature_size=feature_size)

    def make_state(self, samples: Tensor) -> Tensor:
        """The model's own initial state, or the encoded one after earlier speech; (L, P, D, H).

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
        if state is not None:
            state = _as_tensor(
                "state", state, torch.float32, self.device, shape=self._acoustic.encoder.stack.state_shape
            )
            state = state[:, :, :, None].expand(-1, -1, -1, len(waves), -1)
        if speaker_stats is not None:
            speaker_stats = _as_tensor("speaker_stats", speaker_stats, torch.float32, self.device).expand(
                len(waves), -1
            )
        with torch.inference_mode():
            return self._acoustic(waves, counts, state=state, speaker_stats=speaker_stats, return_state=return_state)

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Make sure that a recording is long enough for one encoder frame.

        Raises:
            AudioError: It is not; the message says how long it must be.
        """
        if self._acoustic.count_frames(len(waveform.samples)) > 0:
            return
        least = bisect.bisect_left(range(60 * self.sample_rate), 1, key=self._acoustic.count_frames)
        raise AudioError(
            f"{name}: {waveform.seconds:.4f} s is too short, this model needs at least "
            f"{math.ceil(1e4 * least / self.sample_rate) / 1e4:.4f} s; record more, or leave it out"
        )

    def read(self, source: Source, *, sample_rate: int | None = None, channel: int | None = None) -> Waveform:
        """Read a recording at the model's rate, and make sure that it is long enough.

        Args:
            source: And the others: as in :meth:`transcribe`.

        Raises:
            AudioError: The recording cannot be read, or is too short for a single frame.
        """
        waveform = read_audio(source, input_rate=sample_rate, sample_rate=self.sample_rate, channel=channel)
        self.check_length(waveform, name=os.fspath(source) if isinstance(source, str | os.PathLike) else "recording")
        return waveform

    def _transcribe_in_turn(
        self, recordings: Iterable[Recording], decoder: Decoder, profile: SpeakerProfile | None
    ) -> Iterator[Transcript]:
        profile = profile or SpeakerProfile()
        own = self.make_state(torch.zeros(0)) if profile.state is None else profile.state
        state = own
        for recording in recordings:
            profile = replace(profile, state=state)
            [transcript], final = self._transcribe_batch([recording], decoder, profile, return_state=True)
            assert final is not None
            state = own.clone()
            state[:, :, 0] = final[:, :, 0, 0]
            yield transcript

    def _decode(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        decoder: Decoder,
        profile: SpeakerProfile | None,
        *,
        return_state: bool,
    ) -> tuple[list[list[Hypothesis]], Tensor | None]:
        if not isinstance(profile, SpeakerProfile | None):
            raise ConfigError(f"speaker: expected a name or what estimate_speaker returns, got {profile!r:.80}")
        options = {} if profile is None else {"state": profile.state, "speaker_stats": profile.speaker_stats}
        emission = self.emissions(waveforms, lengths, **options, return_state=return_state)
        return decoder.decode(emission.log_probs, emission.lengths), emission.state


def choose_device(device: str | torch.device) -> torch.device:
    """Find the device that a name stands for, as in :func:`~speechrnn.recognition.loading.load`.

    Raises:
        ConfigError: The name is none of them, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,4}))?", str(device), re.ASCII)
    if found is None:
        raise ConfigError(f"device {str(device)[:80]!r}: expected auto, cpu, cuda or cuda:N")
    if found[0] != "cpu" and int(found[1] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device}: torch finds {torch.cuda.device_count()} CUDA GPUs here; use auto or cpu, "
            "or install torch for CUDA"
        )
    return torch.device(found[0])


def _as_tensor(
    name: str, values: Any, dtype: torch.dtype, device: torch.device, *, shape: tuple[int, ...] | None = None
) -> Tensor:
    try:
        tensor = torch.as_tensor(values).to(device, dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name}: expected a tensor or an array of numbers, got {type(values).__name__}") from error
    if shape is not None and tuple(tensor.shape) != shape:
        raise ConfigError(f"{name}: expected the shape {shape}, got {tuple(tensor.shape)}")
    return tensor
