"""A model that ``speechrnn export --to onnx`` wrote, run by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from speechrnn.audio.feature_config import FrontEndConfig
from speechrnn.errors import ConfigError, ModelError
from speechrnn.export.metadata import Metadata, open_session
from speechrnn.export.running import ExportedStream
from speechrnn.lite.tokens import make_tokens
from speechrnn.model_folder.additions import Calibration, Context, TunedWeights
from speechrnn.model_folder.content import ModelFolder
from speechrnn.recognition.endpoints import EndpointConfig
from speechrnn.recognition.stream import Stream
from speechrnn.recognition.transcriber import Transcriber, explain_too_short
from speechrnn.settings import build
from speechrnn.text.normalize import TextConfig
from speechrnn.types import Emission, Waveform

if TYPE_CHECKING:
    import onnxruntime

    from speechrnn.errors import SpeechRNNError
    from speechrnn.recognition.cutting import Item
    from speechrnn.recognition.decoders import Decoder

_ENCODER = ("cell", "output", "bidirectional", "subsampling_factor", "lookahead_frames")
"""Settings of the encoder that cutting long recordings needs."""
_NO_SPEAKERS = "speaker: an exported model has no speakers; use the model folder"


def load(path: str | os.PathLike[str], *, device: str = "auto", threads: int = 1) -> LiteRecognizer:
    """Load an exported model.

    Args:
        path: A file that ``speechrnn export --to onnx`` wrote.
        device: ``auto`` or ``cpu``; there is no other.
        threads: Processor cores to use.

    Raises:
        ModelError: There is no such file, or it is damaged, of another program or of a newer version; or onnxruntime
            is not installed.
        ConfigError: ``device`` or ``threads`` is wrong.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads: expected a whole number above 0, got {threads!r}")
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device {device!s:.80}: an exported model runs on the CPU; for a GPU use the model folder")
    name = os.fspath(path)
    session, metadata = open_session(Path(path), threads=threads)
    return LiteRecognizer(session, metadata, name=name)


def read_model(metadata: Metadata, *, name: str) -> ModelFolder:
    """Read the description of an exported model.

    Args:
        metadata: The description.
        name: Of the file.

    Returns:
        What the original's folder holds, as far as an exported model has it; instead of an acoustic model the settings
        that recognition needs.

    Raises:
        ModelError: A setting is missing or wrong.
    """
    path = Path(name)
    for key in _ENCODER:
        if key not in metadata.encoder:
            raise ModelError(f"{name}: encoder.{key} is missing; export the model again")
    acoustic: Any = SimpleNamespace(
        sample_rate=int(metadata.sample_rate),
        seconds_per_frame=float(metadata.seconds_per_frame),
        front_end=SimpleNamespace(config=build(FrontEndConfig, metadata.front_end, path=path, section="front_end")),
        encoder=SimpleNamespace(config=SimpleNamespace(**metadata.encoder)),
    )
    optional = ("words", "corpus", "error", "raw_error")
    return ModelFolder(
        acoustic,
        make_tokens(metadata, name),
        build(TextConfig, metadata.text, path=path, section="text"),
        {"languages": metadata.languages, "corpora": metadata.corpora, "training": metadata.training},
        name=name,
        tuned={
            digest: build(TunedWeights, values, path=path, section=f"tuned.{digest}")
            for digest, values in metadata.tuned.items()
        },
        calibrations={
            decoder: build(Calibration, values, path=path, section=f"calibrations.{decoder}", optional=optional)
            for decoder, values in metadata.calibrations.items()
        },
        context=None if metadata.context_seconds is None else Context(metadata.context_seconds),
    )


class LiteRecognizer(Transcriber):
    """An exported model, ready to transcribe, as a :class:`~speechrnn.recognition.recognizer.Recognizer` does.

    Args:
        session: The graph, from waveforms to log-probabilities.
        metadata: Its description.
        name: Of the file.

    Raises:
        ModelError: The description is damaged.
    """

    uses_speaker_stats = False

    def __init__(self, session: onnxruntime.InferenceSession, metadata: Metadata, *, name: str) -> None:
        super().__init__(read_model(metadata, name=name))
        self._session, self._metadata = session, metadata
        self._least_samples = metadata.least_samples
        self.num_parameters = metadata.num_parameters

    def emissions(self, samples: Sequence[np.ndarray]) -> Emission:
        """Compute log-probabilities without decoding them.

        Args:
            samples: Recordings at the model's sample rate, each (N,), float32.

        Returns:
            Log-probabilities (B, T', V), float32, and their lengths (B,), int64, as arrays.
        """
        if self._metadata.stream is not None:
            return self._emit_by_stream(samples)
        lengths = np.array([len(each) for each in samples], dtype=np.int64)
        waveforms = np.zeros((len(samples), lengths.max()), dtype=np.float32)
        for row, each in zip(waveforms, samples, strict=True):
            row[: len(each)] = each
        return Emission(*self._session.run(["log_probs", "frames"], {"waveforms": waveforms, "lengths": lengths}))

    def _emit_by_stream(self, samples: Sequence[np.ndarray]) -> Emission:
        """The same by a graph for streams, one recording after the other."""
        rows = []
        for each in samples:
            stream = ExportedStream(self._session, self._metadata)
            rows.append(np.concatenate([stream.feed(each), stream.finish()]))
        lengths = np.array([len(each) for each in rows], dtype=np.int64)
        log_probs = np.zeros((len(rows), lengths.max(), len(self.tokens)), dtype=np.float32)
        for target, each in zip(log_probs, rows, strict=True):
            target[: len(each)] = each
        return Emission(log_probs, lengths)

    def stream(
        self, *, sample_rate: int | None = None, endpoints: EndpointConfig | bool | None = None, **decoding: Any
    ) -> Stream:
        """Begin a stream: audio in pieces, with the text of the whole recording.

        Args:
            sample_rate: Rate of the samples to come, in Hz; None: the model's.
            endpoints: When a segment is closed: True for the defaults of
                :class:`~speechrnn.recognition.endpoints.EndpointConfig`; None or False: never.
            **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

        Raises:
            AudioError: ``sample_rate`` is not a sample rate.
            ConfigError: The model was exported without ``--streaming``, or an option is wrong.
        """
        if self._metadata.stream is None:
            raise ConfigError(f"stream: {self.name} was exported for whole recordings; export it with --streaming")
        if not isinstance(endpoints, EndpointConfig | bool | None):
            raise ConfigError(f"endpoints: expected True or an EndpointConfig, got {endpoints!r:.80}")
        rules = EndpointConfig() if endpoints is True else endpoints or None
        decoder = self.choose_decoder(**decoding)
        acoustics = ExportedStream(self._session, self._metadata)
        return Stream(self, acoustics, decoder, sample_rate=sample_rate, endpoints=rules)

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Check that a recording is long enough for one encoder frame."""
        if len(waveform.samples) < self._least_samples:
            raise explain_too_short(waveform, self._least_samples, name=name)

    def choose_decoder(self, **decoding: Any) -> Decoder:
        """As :meth:`Transcriber.choose_decoder`; a beam search needs numba."""
        try:
            decoder = super().choose_decoder(**decoding)
            if decoder.config.decoder != "greedy":
                import speechrnn.decoding.beam  # noqa: F401
        except ImportError:
            raise ConfigError(
                "decoder: a beam search needs numba: pip install numba, or choose decoder greedy"
            ) from None
        return decoder

    def estimate_speaker(self, sources: Iterable[Any]) -> NoReturn:
        """Refuse: an exported model has no speakers."""
        raise ConfigError(_NO_SPEAKERS)

    def find_speaker(self, name: str) -> NoReturn:
        """Refuse: an exported model has no speakers."""
        raise ConfigError(_NO_SPEAKERS)

    def _emit(self, samples: Sequence[np.ndarray], profile: Any, *, return_state: bool = False) -> list[Emission]:
        if profile is not None:
            raise ConfigError(_NO_SPEAKERS)
        return [self.emissions(samples)]

    def _transcribe_in_turn(
        self,
        items: Iterable[Item],
        decoder: Decoder,
        profile: Any,
        on_error: Callable[[Any, SpeechRNNError], None] | None,
    ) -> NoReturn:
        raise ConfigError("are_consecutive: an exported model has no state to carry on; use the model folder")
