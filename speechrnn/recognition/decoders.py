"""The decoders of a model and their options.

Every decoding option is declared once, as a field of :class:`DecodingConfig`: the signatures of ``transcribe`` and
``evaluate`` and the options of the command line derive from it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.recognition.cutting import CUT_OPTIONS, CutConfig
from speechrnn.settings import bounded, check_settings
from speechrnn.text.normalize import normalize_text

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from speechrnn.decoding.fusion import Fusion, FusionConfig
    from speechrnn.decoding.grammar import Grammar
    from speechrnn.decoding.incremental import Incremental
    from speechrnn.model_folder import ModelFolder
    from speechrnn.types import Hypothesis

logger = logging.getLogger("speechrnn")

DEFAULT_BEAM_SIZE = 16
DEFAULT_HOTWORD_BONUS = 6.0
OLD_NAMES = {"least_confidence": "min_confidence"}
"""Old and new names of renamed options; both are accepted."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding options.

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
        language_model: output of speechrnn lm build, or any ARPA file (beam or lexicon; default: the model's own, if it
            has one)
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
    language_model: Any = None  # a path or an open model, whose class is imported lazily
    language_weight: float | None = bounded(None, 0, 100)
    word_bonus: float | None = bounded(None, -100, 100)
    hotwords: Mapping[str, float] | Sequence[str] | None = bounded(None, -1000, 1000)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # a numpy number
                object.__setattr__(self, name, value.item())
        if isinstance(self.hotwords, list | tuple):
            object.__setattr__(self, "hotwords", dict.fromkeys(self.hotwords, DEFAULT_HOTWORD_BONUS))
        check_settings(self)
        for phrase in self.hotwords or {}:
            if not isinstance(phrase, str) or not phrase.strip():
                raise ConfigError(f"hotwords: expected phrases, got {phrase!r}")
        if self.words is not None and self.sentences is not None:
            raise ConfigError("words: cannot be combined with sentences; give one of them")
        model, is_closed = self.language_model, self.words is not None or self.sentences is not None
        if self.decoder is None:
            is_fused = model is not None or bool(self.hotwords)
            object.__setattr__(self, "decoder", "lexicon" if is_closed else "beam" if is_fused else "greedy")
        if is_closed != (self.decoder == "lexicon"):
            what = "allows any text; use lexicon" if is_closed else "needs words or sentences to choose from"
            raise ConfigError(f"decoder: {self.decoder} {what}")
        if not (model is None or isinstance(model, str | os.PathLike) or hasattr(model, "digest")):
            raise ConfigError(f"language_model: expected a path or an open language model, got {model!r}")
        for name in ("language_weight", "word_bonus"):
            if getattr(self, name) is not None and model is None:
                raise ConfigError(f"{name}: needs a language model, and none is given")
        beam_options = {"language_model": model, "hotwords": self.hotwords or None, "beam_size": self.beam_size}
        for name, value in {**beam_options, "nbest": None if self.nbest == 1 else self.nbest}.items():
            if value is not None and self.decoder == "greedy":
                raise ConfigError(f"{name}: needs a beam search, and the decoder is greedy; choose decoder beam")
        if self.nbest > 1 and self.nbest > self.width:
            raise ConfigError(f"nbest: expected at most the beam size, {self.width}, got {self.nbest}")

    @property
    def width(self) -> int:
        """Prefixes that a beam search keeps."""
        return DEFAULT_BEAM_SIZE if self.beam_size is None else self.beam_size

    @classmethod
    def read(cls, options: Mapping[str, Any], *, language_model: Path | None = None) -> DecodingConfig:
        """Make the configuration from keyword arguments; names of earlier versions are accepted.

        Args:
            options: Some of the fields.
            language_model: The model's own language model. It is used unless the options choose another one, a closed
                vocabulary or the greedy decoder.

        Raises:
            ConfigError: As the class, and an option is unknown.
        """
        options = {OLD_NAMES.get(name, name): value for name, value in options.items()}
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, [*known, *CUT_OPTIONS], n=1)
                hint = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
                raise ConfigError(f"{name}: unknown option; {hint}")
        is_open = options.get("decoder") in (None, "beam") and options.get("words") is options.get("sentences") is None
        if is_open and language_model is not None and options.get("language_model") is None:
            options["language_model"] = language_model
        return cls(**options)


def _show_fields(function: _Function, *, configs: Sequence[type]) -> _Function:
    """Show the fields of configuration dataclasses in a function's signature instead of its ``**options``."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
        for config in configs
        for each in fields(config)
    ]
    vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
    return function


takes_decoding = partial(_show_fields, configs=(DecodingConfig,))
takes_cutting_and_decoding = partial(_show_fields, configs=(CutConfig, DecodingConfig))


@dataclass(frozen=True)
class Decoder:
    """Turns log-probabilities into hypotheses.

    Attributes:
        config: The options.
        grammar: The allowed texts; None: any.
        fusion: Language model and hotwords; None without.
    """

    config: DecodingConfig
    grammar: Grammar | None = None
    fusion: Fusion | None = None

    @property
    def name(self) -> str:
        """Name among a model's calibrations: ``greedy``, ``beam`` or ``lexicon``, and the language model's digest."""
        model = None if self.fusion is None else self.fusion.model
        return str(self.config.decoder) if model is None else f"{self.config.decoder} {model.digest}"

    def decode(
        self, log_probs: Tensor | np.ndarray, lengths: Tensor | np.ndarray, *, nbest: int | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: (B, T', V), natural log.
            lengths: Valid frames, (B,), int64.
            nbest: Most hypotheses of each; None: as configured.

        Returns:
            Hypotheses of each utterance, the best first, at least one: an empty one where no allowed text fits.
        """
        if self.config.decoder == "greedy":
            from speechrnn.decoding.greedy import decode_greedy

            return [[best] for best in decode_greedy(log_probs, lengths)]
        from speechrnn.decoding.beam import BeamConfig, decode_beam
        from speechrnn.types import Hypothesis

        beam = BeamConfig(beam_size=self.config.width, nbest=nbest or self.config.nbest)
        found = decode_beam(log_probs, lengths, beam, grammar=self.grammar, fusion=self.fusion)
        return [hypotheses or [Hypothesis([], [], -math.inf)] for hypotheses in found]

    def start(self, vocabulary_size: int) -> Incremental:
        """Begin a search that is fed in pieces, with the hypotheses of :meth:`decode` at its end.

        Args:
            vocabulary_size: V, the blank included.
        """
        if self.config.decoder == "greedy":
            from speechrnn.decoding.incremental import IncrementalGreedy

            return IncrementalGreedy(vocabulary_size)
        from speechrnn.decoding.beam import BeamConfig
        from speechrnn.decoding.incremental_beam import IncrementalBeam

        beam = BeamConfig(beam_size=self.config.width, nbest=self.config.nbest)
        return IncrementalBeam(vocabulary_size, beam, grammar=self.grammar, fusion=self.fusion)

    @property
    def score_language(self) -> Callable[[Sequence[int]], float] | None:
        """What language model and hotwords add to a token sequence's log probability; None for a closed vocabulary."""
        if self.grammar is not None:
            return None
        return self.fusion.score if self.fusion is not None else lambda tokens: 0.0


def make_beam_decoder(config: DecodingConfig, model: ModelFolder, untuned: set[str]) -> Decoder:
    """Make a model's decoder with a beam search.

    Args:
        config: The options.
        model: The model.
        untuned: Digests of language models that a warning has named as not tuned; changed in place.

    Raises:
        ConfigError: The model cannot write an allowed text or a hotword.
        ModelError: The language model cannot be read.
    """
    is_fused = config.language_model is not None or bool(config.hotwords)
    fusion = _make_fusion(config, model, untuned) if is_fused else None
    return Decoder(config, _make_grammar(config, model) if config.decoder == "lexicon" else None, fusion)


def _make_fusion(config: DecodingConfig, model: ModelFolder, untuned: set[str]) -> Fusion:
    from speechrnn.decoding.fusion import Fusion, FusionConfig
    from speechrnn.language.compiled import CompiledNgram, read_language_model

    language_model = config.language_model
    if language_model is not None and not isinstance(language_model, CompiledNgram):
        language_model = read_language_model(language_model)
    weights = FusionConfig() if language_model is None else _find_weights(language_model.digest, model, untuned)
    chosen = {"language_weight": config.language_weight, "word_bonus": config.word_bonus}
    weights = replace(weights, **{name: value for name, value in chosen.items() if value is not None})
    phrases = config.hotwords if isinstance(config.hotwords, Mapping) else {}
    hotwords = {normalize_text(phrase, model.text): bonus for phrase, bonus in phrases.items()}
    return Fusion(model.tokens.spellings, language_model, weights, hotwords=hotwords, symbols=model.tokens.symbols)


def _find_weights(digest: str, model: ModelFolder, untuned: set[str]) -> FusionConfig:
    """The weights tuned for a language model, else the defaults, with one warning per language model."""
    from speechrnn.decoding.fusion import FusionConfig

    tuned = model.tuned.get(digest)
    if tuned is not None:
        return FusionConfig(tuned.language_weight, tuned.word_bonus, tuned.unknown_cost)
    if digest not in untuned:
        untuned.add(digest)
        logger.warning(
            "the language model was not tuned with this model: its weights are defaults (%s); speechrnn lm tune "
            "finds better ones on validation data",
            ", ".join(f"{name} {value:g}" for name, value in vars(FusionConfig()).items()),
        )
    return FusionConfig()


def _make_grammar(config: DecodingConfig, model: ModelFolder) -> Grammar:
    """The allowed texts, normalised as the model writes."""
    from speechrnn.decoding.grammar import Grammar

    kind, allowed = ("words", config.words) if config.sentences is None else ("sentences", config.sentences)
    texts = (normalize_text(text, model.text) for text in allowed or ())
    try:
        encoded = [model.tokens.encode(text) for text in dict.fromkeys(texts) if text]
    except CorpusError as error:
        raise ConfigError(f"{kind}: {error}") from error
    if kind == "sentences":
        return Grammar.of_sentences(encoded)
    symbols = model.tokens.symbols
    return Grammar.of_words(encoded, separator=symbols.index(" ") if " " in symbols else None)
