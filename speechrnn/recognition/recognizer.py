"""The recogniser: recordings in, transcripts out."""

from __future__ import annotations

import bisect
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio.files import read_audio
from speechrnn.audio.resampling import resampled_length
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import AudioError, ConfigError, CorpusError, SpeechRNNError
from speechrnn.model_folder import ModelFolder, load_model
from speechrnn.recognition.hub import find_folder
from speechrnn.recognition.transcript import Segment, Transcript, Word
from speechrnn.recognition.tuning import TunedWeights, read_weights
from speechrnn.text.normalize import normalize_text
from speechrnn.types import Emission, Hypothesis, Waveform

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource
    from speechrnn.decoding.fusion import Fusion, FusionConfig
    from speechrnn.decoding.grammar import Grammar
    from speechrnn.language.compiled import CompiledNgram

    Source = AudioSource | Waveform

logger = logging.getLogger("speechrnn")

DECODERS = ("greedy", "beam", "lexicon")
DEFAULT_BATCH_SECONDS = 120.0
DEFAULT_BEAM_SIZE = 16


class DecodingOptions(TypedDict, total=False):
    """How log-probabilities become text; what is left out has its default.

    Attributes:
        decoder: ``greedy``: the best token of every frame; ``beam``: the text with the most probability over all of
            its paths, by prefix beam search; ``lexicon``: the same among what ``words`` or ``sentences`` allow. None:
            ``lexicon`` where one of these is given, ``beam`` where a language model or hotwords are, else ``greedy``.
        beam_size: Prefixes that a beam search keeps; 16.
        words: For ``lexicon``: only sequences of these words can be said.
        sentences: For ``lexicon``: only one of these can be said.
        language_model: What ``speechrnn lm build`` writes, or any ARPA file; its path, or the model opened.
        language_weight: How much the language model counts; None: as tuned with the model, or 0.5.
        word_bonus: For each word that it scores; None: as tuned with the model, or 1.
        hotwords: Words and phrases to be favoured, and by how many nats; 8 is much.
    """

    decoder: str | None
    beam_size: int
    words: Sequence[str] | None
    sentences: Sequence[str] | None
    language_model: str | os.PathLike[str] | CompiledNgram | None
    language_weight: float | None
    word_bonus: float | None
    hotwords: Mapping[str, float] | None


def load(name_or_path: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Recognizer:
    """Load a recogniser.

    Args:
        name_or_path: A model folder, or a model of the Hugging Face Hub as ``owner/name`` (needs the extra ``hub``).
        device: ``auto`` (the first CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` …

    Raises:
        ModelError: There is no such model, or it is damaged.
        ConfigError: There is no such device.
    """
    folder = find_folder(name_or_path)
    return Recognizer(
        load_model(folder), device=device, name=os.fspath(name_or_path), tuned=read_weights(folder)
    )  # fmt: skip


class Recognizer:
    """A model ready to transcribe.

    Args:
        model: What a model folder holds. Its acoustic model is moved to the device and set to evaluation.
        device: As in :func:`load`.
        name: What transcripts call the model.
        tuned: Weights of language models that were tuned for it, by their digests.

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
    ) -> None:
        self._tuned = dict(tuned or {})
        self._untuned: set[str] = set()
        self.device = choose_device(device)
        self.name = name
        self.model = model
        self.tokens = model.tokens
        self.provenance = model.provenance
        self._acoustic = model.acoustic.to(self.device).eval()

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

    def transcribe(
        self,
        audio: Source,
        *,
        sample_rate: int | None = None,
        channel: int | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            audio: Path, encoded bytes, binary file object, :class:`~speechrnn.types.Waveform`, or numpy array or torch
                tensor with its ``sample_rate``.
            sample_rate: Rate of an array or tensor, in Hz; files say their own.
            channel: Channel to take, from 0; None: the mean of all.
            **decoding: How log-probabilities become text: :class:`DecodingOptions`.

        Raises:
            AudioError: The recording cannot be read, or is too short for a single frame.
            ConfigError: There is no such decoder, the beam holds nothing, it is not said what may be said, or the model
                cannot write it.
        """
        [transcript] = self.transcribe_many([audio], sample_rate=sample_rate, channel=channel, **decoding)
        return transcript

    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        sample_rate: int | None = None,
        channel: int | None = None,
        batch_seconds: float = DEFAULT_BATCH_SECONDS,
        on_error: Callable[[Any, SpeechRNNError], None] | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Iterator[Transcript]:
        """Transcribe recordings in batches of neighbours, lazily and in order.

        Args:
            sources: Each as in :meth:`transcribe`. They are read as far as the next batch needs.
            sample_rate: Rate of arrays and tensors, in Hz.
            channel: Channel to take, from 0; None: the mean of all.
            batch_seconds: Most audio in a batch, padding included, in seconds; a longer recording goes alone.
            on_error: Called with a source that cannot be transcribed, and the error; the source is then left out.
                Without it the error is raised at that source's turn, after the transcripts of all sources before it.
            **decoding: How log-probabilities become text: :class:`DecodingOptions`.

        Yields:
            A transcript for each source.

        Raises:
            AudioError: A recording cannot be read or is too short, and there is no ``on_error``.
            ConfigError: There is no such decoder, ``batch_seconds`` is not positive, or ``sources`` is one recording.
        """
        decode = self.choose_decoder(**decoding)
        if not batch_seconds > 0:
            raise ConfigError(f"batch_seconds: expected more than 0 seconds, got {batch_seconds}")
        if isinstance(sources, str | bytes | os.PathLike | Waveform) or getattr(sources, "ndim", 2) < 2:
            raise ConfigError("transcribe_many takes several recordings, as a list; for one there is transcribe")
        recordings = self._read_all(sources, sample_rate, channel, on_error)
        batches = _collect_batches(recordings, most_samples=batch_seconds * self.sample_rate)
        return (transcript for batch in batches for transcript in self._transcribe_batch(batch, decode))

    def emissions(self, waveforms: Tensor, lengths: Tensor) -> Emission:
        """Compute log-probabilities without decoding them.

        Args:
            waveforms: (B, N), float32, at the model's sample rate; samples past a length are ignored.
            lengths: Valid samples, (B,), int64.

        Returns:
            Log-probabilities (B, T', V) and their lengths (B,), on the recogniser's device; without gradients.

        Raises:
            AudioError: The shapes do not fit each other.
        """
        with torch.inference_mode():
            return self._acoustic(waveforms.to(self.device), lengths.to(self.device))

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

    def choose_decoder(
        self,
        decoder: str | None = None,
        beam_size: int = DEFAULT_BEAM_SIZE,
        words: Sequence[str] | None = None,
        sentences: Sequence[str] | None = None,
        language_model: str | os.PathLike[str] | CompiledNgram | None = None,
        language_weight: float | None = None,
        word_bonus: float | None = None,
        hotwords: Mapping[str, float] | None = None,
    ) -> Callable[[Tensor, Tensor], list[Hypothesis]]:
        """What turns log-probabilities (B, T', V) and their lengths into one hypothesis each.

        Args:
            decoder: And all others: as in :class:`DecodingOptions`.

        Raises:
            ConfigError: They do not fit each other, or the model.
            ModelError: The language model cannot be read.
        """
        given = [texts for texts in (words, sentences) if texts is not None]
        is_fused = language_model is not None or bool(hotwords)
        if decoder is None:
            decoder = "lexicon" if given else "beam" if is_fused else "greedy"
        if decoder not in DECODERS:
            raise ConfigError(f"decoder {decoder!r}: there is no such one; use {', '.join(DECODERS)}")
        if len(given) != (decoder == "lexicon"):
            raise ConfigError(
                f"decoder {decoder}: give the words or the sentences that may be said to lexicon, one of the two, and "
                "to no other"
            )
        if language_model is None and (language_weight is not None or word_bonus is not None):
            raise ConfigError("language_weight and word_bonus: are for a language_model, and none is given")
        if decoder == "greedy":
            if is_fused:
                raise ConfigError("decoder greedy: takes no language model and no hotwords; use beam")
            return decode_greedy
        grammar = self._make_grammar(words, sentences) if given else None
        fusion = self._make_fusion(language_model, language_weight, word_bonus, hotwords or {}) if is_fused else None
        return make_beam_decoder(beam_size, grammar, fusion)

    def _make_fusion(
        self,
        language_model: str | os.PathLike[str] | CompiledNgram | None,
        language_weight: float | None,
        word_bonus: float | None,
        hotwords: Mapping[str, float],
    ) -> Fusion:
        from speechrnn.decoding.fusion import Fusion, FusionConfig
        from speechrnn.language.compiled import CompiledNgram, read_language_model

        model = language_model
        if model is not None and not isinstance(model, CompiledNgram):
            model = read_language_model(model)
        config = FusionConfig() if model is None else self._find_weights(model)
        chosen = {"language_weight": language_weight, "word_bonus": word_bonus}
        config = replace(config, **{name: value for name, value in chosen.items() if value is not None})
        return Fusion(
            self.tokens.spellings,
            model,
            config,
            hotwords={normalize_text(phrase, self.model.text): bonus for phrase, bonus in hotwords.items()},
            symbols=self.tokens.symbols,
        )

    def _find_weights(self, model: CompiledNgram) -> FusionConfig:
        from speechrnn.decoding.fusion import FusionConfig

        tuned = self._tuned.get(model.digest)
        if tuned is not None:
            return FusionConfig(tuned.language_weight, tuned.word_bonus, tuned.unknown_cost)
        if model.digest not in self._untuned:
            self._untuned.add(model.digest)
            logger.warning(
                "the language model was not tuned with this model: its weights are a guess (%s); speechrnn lm tune "
                "finds better ones on validation data",
                ", ".join(f"{name} {value:g}" for name, value in vars(FusionConfig()).items()),
            )
        return FusionConfig()

    def _make_grammar(self, words: Sequence[str] | None, sentences: Sequence[str] | None) -> Grammar:
        """What may be said, as the model writes it."""
        from speechrnn.decoding.grammar import Grammar

        texts = (normalize_text(text, self.model.text) for text in (words if sentences is None else sentences) or ())
        try:
            encoded = [self.tokens.encode(text) for text in dict.fromkeys(texts) if text]
        except CorpusError as error:
            raise ConfigError(f"what may be said: {error}") from error
        if words is None:
            return Grammar.of_sentences(encoded)
        space = self.tokens.symbols.index(" ") if " " in self.tokens.symbols else None
        return Grammar.of_words(encoded, separator=space)

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
        if isinstance(source, Waveform):
            waveform = read_audio(
                source.samples, input_rate=source.sample_rate, sample_rate=self.sample_rate, check_levels=False
            )
        else:
            waveform = read_audio(source, input_rate=sample_rate, sample_rate=self.sample_rate, channel=channel)
        self.check_length(waveform, name=path or "recording")
        return _Recording(path, waveform.samples)

    def _transcribe_batch(
        self, batch: list[_Recording], decode: Callable[[Tensor, Tensor], list[Hypothesis]]
    ) -> Iterator[Transcript]:
        lengths = torch.tensor([len(recording.samples) for recording in batch])
        waveforms = torch.zeros(len(batch), int(lengths.max()))
        for row, recording in zip(waveforms, batch, strict=True):
            row[: len(recording.samples)] = torch.from_numpy(recording.samples)
        emission = self.emissions(waveforms, lengths)
        hypotheses = decode(emission.log_probs, emission.lengths)
        for recording, hypothesis in zip(batch, hypotheses, strict=True):
            yield self._make_transcript(recording, hypothesis)

    def _make_transcript(self, recording: _Recording, hypothesis: Hypothesis) -> Transcript:
        seconds = len(recording.samples) / self.sample_rate
        words = tuple(
            self._make_word(text, slice(first, last + 1), hypothesis, seconds)
            for text, first, last in self.tokens.words(hypothesis.tokens)
        )
        text = " ".join(word.text for word in words)
        segments = (Segment(words[0].start, words[-1].end, text, words),) if words else ()
        return Transcript(text, segments, seconds, audio=recording.path, language=self.language, model=self.name)

    def _make_word(self, text: str, tokens: slice, hypothesis: Hypothesis, seconds: float) -> Word:
        frames, confidences = hypothesis.frames[tokens], hypothesis.confidences[tokens]
        # The last frame may reach past the end of the recording.
        start = min(frames[0][0] * self._acoustic.seconds_per_frame, seconds)
        end = min((frames[-1][1] + 1) * self._acoustic.seconds_per_frame, seconds)
        return Word(text, start, end, math.prod(confidences) ** (1 / len(confidences)))


@dataclass(frozen=True)
class _Recording:
    """A recording at the model's rate: its path, where it has one, and its samples, (N,), float32."""

    path: str | None
    samples: np.ndarray


def _collect_batches(recordings: Iterator[_Recording], *, most_samples: float) -> Iterator[list[_Recording]]:
    """Put neighbours together while their padded size keeps to the budget; an error comes after all read before it."""
    batch: list[_Recording] = []
    longest = 0
    failure: Exception | None = None
    while True:
        try:
            recording = next(recordings)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        longest = max(longest, len(recording.samples))
        if batch and longest * (len(batch) + 1) > most_samples:
            yield batch
            batch, longest = [], len(recording.samples)
        batch.append(recording)
    if batch:
        yield batch
    if failure is not None:
        raise failure


def make_beam_decoder(
    beam_size: int, grammar: Grammar | None, fusion: Fusion | None = None
) -> Callable[[Tensor, Tensor], list[Hypothesis]]:
    """A beam search for the best hypothesis, an empty one where none fits.

    Raises:
        ConfigError: The beam holds nothing.
    """
    from speechrnn.decoding.beam import BeamConfig, decode_beam

    config = BeamConfig(beam_size=beam_size)

    def decode(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        found = decode_beam(log_probs, lengths, config, grammar=grammar, fusion=fusion)
        return [hypotheses[0] if hypotheses else Hypothesis([], [], -math.inf) for hypotheses in found]

    return decode


def choose_device(device: str | torch.device) -> torch.device:
    """Find the device that a name stands for, as in :func:`load`.

    Raises:
        ConfigError: The name is none of torch's, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device {device!r}: there is no such one; use auto, cpu or cuda") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device}: torch finds {torch.cuda.device_count()} CUDA GPUs here; use auto or cpu, "
            "or install torch for CUDA"
        )
    return chosen
