"""Tune the weights of a language model on validation data: computed once, decoded many times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from speechrnn.corpus.readers import read_corpus
from speechrnn.decoding.fusion import Fusion, FusionConfig, Unit
from speechrnn.errors import CorpusError
from speechrnn.evaluation.evaluate import estimate_speakers, read_all, stack_speaker_stats
from speechrnn.language.compiled import CompiledNgram
from speechrnn.model_folder import add_weights
from speechrnn.model_folder.additions import TunedWeights
from speechrnn.recognition.batches import collect_batches
from speechrnn.recognition.decoders import Decoder, DecodingConfig
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import word_errors
from speechrnn.types import pad_sequences

_WEIGHTS: dict[Unit, tuple[Sequence[float], Sequence[float]]] = {
    "words": ((0.2, 0.4, 0.7, 1.0, 1.4, 2.0), (-1.0, 0.5, 2.0, 3.5, 5.0)),
    "characters": ((0.1, 0.2, 0.35, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 1.0, 1.5)),
    "tokens": ((0.1, 0.2, 0.35, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 1.0, 1.5)),
}
_UNKNOWN_COSTS = (2.0, 5.0, 8.0, 12.0, 20.0)
_SHRINK = 2  # searches around the best setting, at half the distance each time


@dataclass(frozen=True)
class Tuning:
    """The result of tuning.

    Attributes:
        config: The weights with the lowest word error rate.
        wer: That rate, a fraction.
        beam_wer: The rate of the same beam without the language model.
        greedy_wer: The rate of greedy decoding.
        unit: Unit of the language model.
        utterances: Number of utterances.
        tried: Number of settings tried.
    """

    config: FusionConfig
    wer: float
    beam_wer: float
    greedy_wer: float
    unit: Unit
    utterances: int
    tried: int

    @property
    def wer_without(self) -> float:
        """Lowest rate without the language model."""
        return min(self.beam_wer, self.greedy_wer)

    @property
    def gain(self) -> float:
        """Reduction of the word error rate by the language model, a fraction."""
        return self.wer_without - self.wer


def tune_weights(
    recognizer: Recognizer,
    corpus: str | Path,
    model: CompiledNgram,
    *,
    beam_size: int | None = None,
    format: str | None = None,
    batch_seconds: float = 120.0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Tune the weights of a language model for an acoustic model.

    Args:
        recognizer: The acoustic model.
        corpus: Validation data, used neither for training nor for testing.
        model: The language model.
        beam_size: Prefixes kept in the beam; None: the default of decoding.
        format: Format of the corpus; None: detected.
        batch_seconds: Budget of a batch, padding included, in seconds.
        advance: Called with the number of settings tried, and the approximate total.

    Raises:
        ConfigError: The language model does not match the acoustic model.
        CorpusError: The corpus cannot be read, or holds no words to score against.
    """
    decoding = DecodingConfig(decoder="beam", beam_size=beam_size)
    fusion = Fusion(recognizer.tokens.spellings, model, symbols=recognizer.tokens.symbols)
    assert fusion.unit is not None
    search = _Search(recognizer, fusion, *_compute(recognizer, corpus, format, batch_seconds), decoding, advance)
    weights, bonuses = _WEIGHTS[fusion.unit]
    best = search.try_out([FusionConfig(weight, bonus) for weight, bonus in product(weights, bonuses)])
    step = (weights[1] - weights[0], (bonuses[1] - bonuses[0]) / 2)
    for _ in range(_SHRINK):
        at = best.language_weight, best.word_bonus
        around = product(*((one - width, one, one + width) for one, width in zip(at, step, strict=True)))
        best = search.try_out([replace(best, language_weight=max(0.0, one), word_bonus=two) for one, two in around])
        step = (step[0] / 2, step[1] / 2)
    if fusion.unit == "words":
        best = search.try_out([replace(best, unknown_cost=cost) for cost in _UNKNOWN_COSTS])
    return Tuning(
        config=best,
        wer=search.tried[best],
        beam_wer=search.rate(Decoder(decoding)),
        greedy_wer=search.rate(Decoder(DecodingConfig())),
        unit=fusion.unit,
        utterances=len(search.references),
        tried=len(search.tried),
    )


@dataclass
class _Search:
    """Word error rates of settings on stored log-probabilities."""

    recognizer: Recognizer
    fusion: Fusion
    batches: list[tuple[Tensor, Tensor]]
    references: list[str]
    decoding: DecodingConfig
    advance: Callable[[int, int], None]
    tried: dict[FusionConfig, float] = field(default_factory=dict)

    def rate(self, decoder: Decoder) -> float:
        texts = [
            self.recognizer.tokens.decode(best.tokens) for batch in self.batches for best, *_ in decoder.decode(*batch)
        ]
        counts = [word_errors(*pair) for pair in zip(self.references, map(normalize_for_scoring, texts), strict=True)]
        return sum(count.errors for count in counts) / sum(count.length for count in counts)

    def try_out(self, configs: Sequence[FusionConfig]) -> FusionConfig:
        """Decode with new settings; return the best of all."""
        assert self.fusion.unit is not None
        total = math.prod(map(len, _WEIGHTS[self.fusion.unit])) + 8 * _SHRINK + len(_UNKNOWN_COSTS)
        for config in configs:
            if config not in self.tried:
                self.tried[config] = self.rate(Decoder(self.decoding, fusion=self.fusion.with_config(config)))
                self.advance(len(self.tried), max(total, len(self.tried)))
        return min(self.tried, key=lambda config: self.tried[config])


def _compute(
    recognizer: Recognizer, corpus: str | Path, format: str | None, batch_seconds: float
) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
    """Compute log-probabilities with their lengths, and the references in the same order."""
    utterances = list(read_corpus(corpus, format))
    references = {each.id: normalize_for_scoring(each.text) for each in utterances}
    if not any(references.values()):
        raise CorpusError(f"{corpus}: no utterance has a word in its reference; nothing to tune on")
    profiles = estimate_speakers(recognizer, utterances)
    speakers = {each.id: each.speaker_key for each in utterances}
    problems: dict[str, str] = {}
    batches, order = [], []
    recordings = read_all(recognizer, utterances, problems)
    budget = batch_seconds * recognizer.sample_rate
    for batch in collect_batches(recordings, most_samples=budget):
        speaker_stats = stack_speaker_stats(profiles, [speakers[str(each.name)] for each in batch])
        emission = recognizer.emissions(
            *pad_sequences([torch.from_numpy(each.samples) for each in batch]), speaker_stats=speaker_stats
        )
        batches.append((emission.log_probs.cpu(), emission.lengths.cpu()))
        order += [str(each.name) for each in batch]
    if not order:
        raise CorpusError(f"{corpus}: no recording can be transcribed; {next(iter(problems.values()))}")
    return batches, [references[id] for id in order]


def describe_tuning(found: Tuning) -> str:
    """Describe the weights and the error rates with and without the language model, in one line."""
    config = found.config
    return (
        f"language_weight {config.language_weight:g}, word_bonus {config.word_bonus:g}, unknown_cost "
        f"{config.unknown_cost:g}: WER {100 * found.wer:.2f} % on {found.utterances:,} utterances; beam without it "
        f"{100 * found.beam_wer:.2f} %, greedy {100 * found.greedy_wer:.2f} % ({found.unit}, {found.tried} settings)"
    )


def store_weights(folder: Path, model: CompiledNgram, found: Tuning, *, corpus: str, file: str | Path) -> None:
    """Store tuned weights in the folder of the acoustic model, under the digest of the language model."""
    weights = TunedWeights(
        **vars(found.config),
        wer=found.wer,
        wer_without=found.wer_without,
        corpus=corpus,
        utterances=found.utterances,
        file=Path(file).name,
    )
    add_weights(folder, model.digest, weights)
