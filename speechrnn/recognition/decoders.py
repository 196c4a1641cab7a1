"""Which decoder turns a model's log-probabilities into text, and with what."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from torch import Tensor

from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.recognition.language_weights import TunedWeights
from speechrnn.text.normalize import TextConfig, normalize_text
from speechrnn.text.tokens import Tokens
from speechrnn.types import Hypothesis

if TYPE_CHECKING:
    from speechrnn.decoding.fusion import Fusion, FusionConfig
    from speechrnn.decoding.grammar import Grammar
    from speechrnn.language.compiled import CompiledNgram

logger = logging.getLogger("speechrnn")

DECODERS = ("greedy", "beam", "lexicon")
DEFAULT_BEAM_SIZE = 16


@dataclass(frozen=True)
class Decoder:
    """What turns log-probabilities into hypotheses.

    Attributes:
        name: What it goes by among a model's calibrations: ``greedy``, ``beam`` or ``lexicon``, and the digest of the
            language model, where there is one.
        decode: From log-probabilities (B, T', V) and their lengths (B,) to the hypotheses of each, the best first, at
            least one.
        find_all: The same, but all that the search has kept at its end, for others to judge.
        least_confidence: Words that are less sure are not taken for heard.
        nbest: How many hypotheses are asked for.
        score_language: What a language model and hotwords add to the log probability of any token sequence; None where
            not anything may be said.
    """

    name: str
    decode: Callable[[Tensor, Tensor], list[list[Hypothesis]]]
    find_all: Callable[[Tensor, Tensor], list[list[Hypothesis]]]
    least_confidence: float = 0.0
    nbest: int = 1
    score_language: Callable[[Sequence[int]], float] | None = None


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
        least_confidence: A recording with a word that is less sure than this, in [0, 1], is rejected: its transcript is
            empty and says what was rejected. For closed tasks, where anything sounds like something that may be said.
        nbest: How many readings a transcript has at most, itself and its alternatives together; 1. Needs a beam.
    """

    decoder: str | None
    beam_size: int
    words: Sequence[str] | None
    sentences: Sequence[str] | None
    language_model: str | os.PathLike[str] | CompiledNgram | None
    language_weight: float | None
    word_bonus: float | None
    hotwords: Mapping[str, float] | None
    nbest: int
    least_confidence: float


class Decoders:
    """The decoders of one model.

    Args:
        tokens: What its outputs stand for.
        text: How its transcripts are written; what may be said and what is favoured is written so too.
        tuned: Weights of language models that were tuned for it, by their digests.
    """

    def __init__(self, tokens: Tokens, text: TextConfig, tuned: Mapping[str, TunedWeights]) -> None:
        self._tokens = tokens
        self._text = text
        self._tuned = dict(tuned)
        self._untuned: set[str] = set()

    def choose(
        self,
        decoder: str | None = None,
        beam_size: int = DEFAULT_BEAM_SIZE,
        words: Sequence[str] | None = None,
        sentences: Sequence[str] | None = None,
        language_model: str | os.PathLike[str] | CompiledNgram | None = None,
        language_weight: float | None = None,
        word_bonus: float | None = None,
        hotwords: Mapping[str, float] | None = None,
        nbest: int = 1,
        least_confidence: float = 0.0,
    ) -> Decoder:
        """The decoder that is asked for.

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
        _check(decoder, len(given), least_confidence)
        if language_model is None and (language_weight is not None or word_bonus is not None):
            raise ConfigError("language_weight and word_bonus: are for a language_model, and none is given")
        if decoder == "greedy":
            if is_fused or nbest != 1:
                raise ConfigError("decoder greedy: takes no language model, no hotwords and no nbest; use beam")
            return Decoder(decoder, _decode_greedy, _decode_greedy, least_confidence, score_language=lambda _: 0.0)
        grammar = self._make_grammar(words, sentences) if given else None
        fusion = self._make_fusion(language_model, language_weight, word_bonus, hotwords or {}) if is_fused else None
        decode, find_all = (make_beam_decoder(beam_size, grammar, fusion, nbest=count) for count in (nbest, beam_size))
        digest = fusion.model.digest if fusion is not None and fusion.model is not None else ""
        score_language = None if given else (lambda _: 0.0) if fusion is None else fusion.score
        return Decoder(f"{decoder} {digest}".strip(), decode, find_all, least_confidence, nbest, score_language)

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
            self._tokens.spellings,
            model,
            config,
            hotwords={normalize_text(phrase, self._text): bonus for phrase, bonus in hotwords.items()},
            symbols=self._tokens.symbols,
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

        texts = (normalize_text(text, self._text) for text in (words if sentences is None else sentences) or ())
        try:
            encoded = [self._tokens.encode(text) for text in dict.fromkeys(texts) if text]
        except CorpusError as error:
            raise ConfigError(f"what may be said: {error}") from error
        if words is None:
            return Grammar.of_sentences(encoded)
        space = self._tokens.symbols.index(" ") if " " in self._tokens.symbols else None
        return Grammar.of_words(encoded, separator=space)


def _check(decoder: str, allowed: int, least_confidence: float) -> None:
    """Refuse what is no decoder, and a number of word and sentence lists that does not suit it."""
    if decoder not in DECODERS:
        raise ConfigError(f"decoder {decoder!r}: there is no such one; use {', '.join(DECODERS)}")
    if allowed != (decoder == "lexicon"):
        raise ConfigError(
            f"decoder {decoder}: give the words or the sentences that may be said to lexicon, one of the two, and to "
            "no other"
        )
    if not 0.0 <= least_confidence <= 1.0:
        raise ConfigError(f"least_confidence: expected a probability in [0, 1], got {least_confidence}")


def _decode_greedy(log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
    return [[best] for best in decode_greedy(log_probs, lengths)]


def make_beam_decoder(
    beam_size: int, grammar: Grammar | None = None, fusion: Fusion | None = None, *, nbest: int = 1
) -> Callable[[Tensor, Tensor], list[list[Hypothesis]]]:
    """A beam search for the best hypotheses, an empty one where none fits.

    Raises:
        ConfigError: The beam holds nothing, or less than is asked for.
    """
    from speechrnn.decoding.beam import BeamConfig, decode_beam

    config = BeamConfig(beam_size=beam_size, nbest=nbest)
    if nbest > beam_size:
        raise ConfigError(f"nbest: expected at most beam_size ({beam_size}), got {nbest}")

    def decode(log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        found = decode_beam(log_probs, lengths, config, grammar=grammar, fusion=fusion)
        return [hypotheses or [Hypothesis([], [], -math.inf)] for hypotheses in found]

    return decode
