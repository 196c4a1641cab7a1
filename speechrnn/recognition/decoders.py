"""Which decoder turns a model's log-probabilities into text, and with what options.

Every decoding option is declared once, as a field of :class:`DecodingConfig`: the signatures of ``transcribe`` and
``evaluate`` and the options of the command line derive from it. Nothing heavy is imported here before it is used.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.settings import bounded, check_settings

if TYPE_CHECKING:
    from torch import Tensor

    from speechrnn.decoding.fusion import Fusion, FusionConfig
    from speechrnn.decoding.grammar import Grammar
    from speechrnn.language.compiled import CompiledNgram
    from speechrnn.model_folder.additions import TunedWeights
    from speechrnn.text.normalize import TextConfig
    from speechrnn.text.tokens import Tokens
    from speechrnn.types import Hypothesis

logger = logging.getLogger("speechrnn")

DEFAULT_BEAM_SIZE = 16
DEFAULT_HOTWORD_BONUS = 6.0
OLD_NAMES = {"least_confidence": "min_confidence"}
"""Options that had another name in an earlier version; both names are accepted."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class DecodingConfig:
    """How log-probabilities become text.

    Attributes:
        decoder: greedy: the best token of every frame; beam: prefix beam search for the most probable text; lexicon:
            the same, restricted to words or sentences (default: lexicon with either of these, beam with a language
            model or hotwords, else greedy)
        words: closed vocabulary: allow only sequences of these words (lexicon; in a file one a line)
        sentences: closed set: allow only these sentences (lexicon; in a file one a line)
        beam_size: prefixes that a beam search keeps (default: 16)
        nbest: hypotheses in JSON output, the best first (beam or lexicon; default: 1)
        min_confidence: reject a recording that has a word of lower confidence, 0 to 1: its transcript is empty
            (default: 0)
        language_model: output of speechrnn lm build, or any ARPA file (beam or lexicon)
        language_weight: weight of the language model (default: as tuned, or 0.5)
        word_bonus: bonus for each unit that the language model scores (default: as tuned, or 1)
        hotwords: words and phrases to favour, each with a bonus in nats: "cuDNN:8,New York" (default: 6)

    Raises:
        ConfigError: An option has a wrong type or is out of range, or the options contradict each other; the message
            begins with the option's name.
    """

    decoder: Literal["greedy", "beam", "lexicon"] | None = None
    words: Sequence[str] | None = None
    sentences: Sequence[str] | None = None
    beam_size: int | None = bounded(None, 1, 10_000)
    nbest: int = bounded(1, 1, 10_000)
    min_confidence: float = bounded(0.0, 0, 1)
    language_model: Any = None  # a path, or the model opened, whose class is not imported before it is used
    language_weight: float | None = bounded(None, 0, 100)
    word_bonus: float | None = bounded(None, -100, 100)
    hotwords: Mapping[str, float] | Sequence[str] | None = bounded(None, -1000, 1000)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # a number of numpy
                object.__setattr__(self, name, value.item())
        if isinstance(self.hotwords, list | tuple):
            object.__setattr__(self, "hotwords", dict.fromkeys(self.hotwords, DEFAULT_HOTWORD_BONUS))
        check_settings(self)
        for phrase in self.hotwords or {}:
            if not isinstance(phrase, str) or not phrase.strip():
                raise ConfigError(f"hotwords: expected phrases, got {phrase!r}")
        if not (
            self.language_model is None
            or isinstance(self.language_model, str | os.PathLike)
            or hasattr(self.language_model, "digest")
        ):
            raise ConfigError(f"language_model: expected a path or an open language model, got {self.language_model!r}")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        if self.words is not None and self.sentences is not None:
            raise ConfigError("words: cannot be combined with sentences; give one of them")
        if self.is_closed != (self.kind == "lexicon"):
            what = "allows any text; use lexicon" if self.is_closed else "needs words or sentences to choose from"
            raise ConfigError(f"decoder: {self.kind} {what}")
        for name in ("language_weight", "word_bonus"):
            if getattr(self, name) is not None and self.language_model is None:
                raise ConfigError(f"{name}: needs a language model, and none is given")
        if self.kind == "greedy":
            for name in ("language_model", "hotwords", "beam_size", "nbest"):
                if getattr(self, name) not in (None, {}, 1) or (name == "beam_size" and self.beam_size is not None):
                    raise ConfigError(f"{name}: needs a beam search, and the decoder is greedy; choose decoder beam")
        elif self.nbest > self.width:
            raise ConfigError(f"nbest: expected at most the beam size, {self.width}, got {self.nbest}")

    @property
    def is_closed(self) -> bool:
        """Whether only given words or sentences are allowed."""
        return self.words is not None or self.sentences is not None

    @property
    def kind(self) -> str:
        """The decoder: as given, or what the other options need."""
        if self.decoder is not None:
            return self.decoder
        is_fused = self.language_model is not None or bool(self.hotwords)
        return "lexicon" if self.is_closed else "beam" if is_fused else "greedy"

    @property
    def width(self) -> int:
        """Prefixes that a beam search keeps."""
        return DEFAULT_BEAM_SIZE if self.beam_size is None else self.beam_size

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> DecodingConfig:
        """The configuration from keyword arguments; names of earlier versions are accepted.

        Raises:
            ConfigError: As the class, and an option is unknown.
        """
        options = {OLD_NAMES.get(name, name): value for name, value in options.items()}
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
                raise ConfigError(f"{name}: unknown decoding option; {hint}")
        return cls(**options)


def takes_decoding(function: _Function) -> _Function:
    """Show the fields of :class:`DecodingConfig` in a function's signature in the place of its ``**decoding``."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
        for each in fields(DecodingConfig)
    ]
    vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
    return function


@dataclass(frozen=True)
class Decoder:
    """What turns log-probabilities into hypotheses.

    Attributes:
        name: Its name among a model's calibrations: ``greedy``, ``beam`` or ``lexicon``, and the digest of the language
            model, where there is one.
        decode: From log-probabilities (B, T', V) and their lengths (B,) to the hypotheses of each, the best first, at
            least one.
        find_all: The same, with every hypothesis that the search keeps, for combination with other models.
        min_confidence: A recording with a word of lower confidence is rejected.
        nbest: How many hypotheses are asked for.
        score_language: What a language model and hotwords add to the log probability of a token sequence; None where
            only some sequences are allowed.
    """

    name: str
    decode: Callable[[Tensor, Tensor], list[list[Hypothesis]]]
    find_all: Callable[[Tensor, Tensor], list[list[Hypothesis]]]
    min_confidence: float = 0.0
    nbest: int = 1
    score_language: Callable[[Sequence[int]], float] | None = None


class Decoders:
    """The decoders of one model.

    Args:
        tokens: The model's tokens.
        text: How its transcripts are written; allowed texts and hotwords are normalised likewise.
        tuned: Weights of language models that were tuned for it, by their digests.
    """

    def __init__(self, tokens: Tokens, text: TextConfig, tuned: Mapping[str, TunedWeights]) -> None:
        self._tokens = tokens
        self._text = text
        self._tuned = dict(tuned)
        self._untuned: set[str] = set()

    def choose(self, config: DecodingConfig) -> Decoder:
        """The decoder that a configuration describes.

        Raises:
            ConfigError: The model cannot write an allowed text or a hotword.
            ModelError: The language model cannot be read.
        """
        if config.kind == "greedy":
            return Decoder("greedy", _decode_greedy, _decode_greedy, config.min_confidence, score_language=_add_nothing)
        grammar = self._make_grammar(config.words, config.sentences) if config.is_closed else None
        is_fused = config.language_model is not None or bool(config.hotwords)
        fusion = self._make_fusion(config) if is_fused else None
        decode, find_all = (
            make_beam_decoder(config.width, grammar, fusion, nbest=count) for count in (config.nbest, config.width)
        )
        digest = fusion.model.digest if fusion is not None and fusion.model is not None else ""
        score_language = None if config.is_closed else _add_nothing if fusion is None else fusion.score
        name = f"{config.kind} {digest}".strip()
        return Decoder(name, decode, find_all, config.min_confidence, config.nbest, score_language)

    def _make_fusion(self, config: DecodingConfig) -> Fusion:
        from speechrnn.decoding.fusion import Fusion, FusionConfig
        from speechrnn.language.compiled import CompiledNgram, read_language_model
        from speechrnn.text.normalize import normalize_text

        model = config.language_model
        if model is not None and not isinstance(model, CompiledNgram):
            model = read_language_model(model)
        weights = FusionConfig() if model is None else self._find_weights(model)
        chosen = {"language_weight": config.language_weight, "word_bonus": config.word_bonus}
        weights = replace(weights, **{name: value for name, value in chosen.items() if value is not None})
        phrases = config.hotwords if isinstance(config.hotwords, Mapping) else {}
        hotwords = {normalize_text(phrase, self._text): bonus for phrase, bonus in phrases.items()}
        return Fusion(self._tokens.spellings, model, weights, hotwords=hotwords, symbols=self._tokens.symbols)

    def _find_weights(self, model: CompiledNgram) -> FusionConfig:
        from speechrnn.decoding.fusion import FusionConfig

        tuned = self._tuned.get(model.digest)
        if tuned is not None:
            return FusionConfig(tuned.language_weight, tuned.word_bonus, tuned.unknown_cost)
        if model.digest not in self._untuned:
            self._untuned.add(model.digest)
            logger.warning(
                "the language model was not tuned with this model: its weights are defaults (%s); speechrnn lm tune "
                "finds better ones on validation data",
                ", ".join(f"{name} {value:g}" for name, value in vars(FusionConfig()).items()),
            )
        return FusionConfig()

    def _make_grammar(self, words: Sequence[str] | None, sentences: Sequence[str] | None) -> Grammar:
        """The allowed texts, normalised as the model writes."""
        from speechrnn.decoding.grammar import Grammar
        from speechrnn.text.normalize import normalize_text

        texts = (normalize_text(text, self._text) for text in (words if sentences is None else sentences) or ())
        try:
            encoded = [self._tokens.encode(text) for text in dict.fromkeys(texts) if text]
        except CorpusError as error:
            raise ConfigError(f"{'words' if sentences is None else 'sentences'}: {error}") from error
        if words is None:
            return Grammar.of_sentences(encoded)
        space = self._tokens.symbols.index(" ") if " " in self._tokens.symbols else None
        return Grammar.of_words(encoded, separator=space)


def _add_nothing(tokens: Sequence[int]) -> float:
    return 0.0


def _decode_greedy(log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
    from speechrnn.decoding.greedy import decode_greedy

    return [[best] for best in decode_greedy(log_probs, lengths)]


def make_beam_decoder(
    beam_size: int, grammar: Grammar | None = None, fusion: Fusion | None = None, *, nbest: int = 1
) -> Callable[[Tensor, Tensor], list[list[Hypothesis]]]:
    """A beam search for the best hypotheses, an empty one where none fits."""
    from speechrnn.decoding.beam import BeamConfig, decode_beam
    from speechrnn.types import Hypothesis

    config = BeamConfig(beam_size=beam_size, nbest=nbest)

    def decode(log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        found = decode_beam(log_probs, lengths, config, grammar=grammar, fusion=fusion)
        return [hypotheses or [Hypothesis([], [], -math.inf)] for hypotheses in found]

    return decode
