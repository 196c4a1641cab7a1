"""Survey of a corpus: one pass over its audio and texts for contents and faults. Nothing is changed."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.audio.blocks import describe_levels
from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.errors import AudioError
from speechrnn.processes import count_cores
from speechrnn.text.tokens import Tokens

LEFT_OUT = ("unreadable", "empty text", "unknown characters", "cannot be aligned")
"""Kinds of findings that exclude an utterance from training; all others are only reported."""

_LONG_SECONDS, _SHORT_SECONDS = 30.0, 0.2
_OUTLIER = 6.0  # median absolute deviations of the logarithm of the speaking rate
_FEWEST_RATES = 20
_FFT = 1024
_BAND_DB = -55.0
_BAND_SHARE = 0.85
_BAND_UTTERANCES = 200


@dataclass(frozen=True)
class Finding:
    """A finding about one utterance.

    Attributes:
        kind: Such as ``unreadable``, ``clipped``, ``duplicate``.
        id: Id of the utterance.
        detail: The measurement or the reason.
    """

    kind: str
    id: str
    detail: str

    @property
    def is_left_out(self) -> bool:
        """Whether training would leave the utterance out."""
        return self.kind in LEFT_OUT


@dataclass(frozen=True)
class _Measured:
    """Measurements of an utterance: a hash of its samples, and of some utterances the mean power spectrum."""

    utterance: Utterance
    sample_rate: int
    digest: str
    findings: list[Finding]
    power: np.ndarray | None = None


@dataclass(frozen=True)
class ModelView:
    """The properties of a model, or of a configuration, by which texts and lengths are judged.

    Attributes:
        normalize: Its text normalisation.
        tokens: Its tokens.
        sample_rate: In Hz.
        explain_infeasible: Why CTC cannot align tokens with a number of samples; None if it can.
    """

    normalize: Callable[[str], str]
    tokens: Tokens
    sample_rate: int
    explain_infeasible: Callable[[Sequence[int], int], str | None]


@dataclass
class Survey:
    """The result of a survey.

    Attributes:
        path: The corpus.
        format: Its format's name.
        utterances: All utterances that could be read.
        findings: All findings about single utterances.
        sample_rates: Hz → utterances.
        characters: Characters of the texts as written → number.
        unknown: Characters that the model does not have → number, and a proposal.
        band_limit_hz: Frequency above which no recording has energy; None: there is energy up to the top.
        leakage: Overlaps of training and test corpus; empty without a test corpus.
        digests: Hash of each utterance's samples, by id.
    """

    path: str
    format: str
    utterances: list[Utterance] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sample_rates: Counter[int] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    unknown: dict[str, tuple[int, str]] = field(default_factory=dict)
    band_limit_hz: float | None = None
    leakage: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of all utterances together."""
        return sum(each.seconds for each in self.utterances)

    @property
    def left_out(self) -> dict[str, str]:
        """Utterances that training would leave out, by id, with the reason."""
        return {finding.id: f"{finding.kind}: {finding.detail}" for finding in self.findings if finding.is_left_out}

    @property
    def clean(self) -> list[Utterance]:
        """The utterances that can be trained on."""
        left_out = self.left_out
        return [each for each in self.utterances if each.id not in left_out]

    def to_dict(self) -> dict[str, Any]:
        """Stable names and plain values, for programs."""
        quantiles = np.quantile([each.seconds for each in self.utterances] or [0.0], [0, 0.05, 0.5, 0.95, 1])
        return {
            "path": self.path,
            "format": self.format,
            "utterances": len(self.utterances) + sum(finding.kind == "unreadable" for finding in self.findings),
            "seconds": round(self.seconds, 3),
            "speakers": len({each.speaker_key for each in self.utterances} - {None}),
            "duration_quantiles": np.round(quantiles, 3).tolist(),
            "sample_rates": {str(rate): count for rate, count in self.sample_rates.most_common()},
            "band_limit_hz": self.band_limit_hz,
            "characters": dict(self.characters.most_common()),
            "unknown_characters": {
                symbol: {"count": count, "proposal": proposal} for symbol, (count, proposal) in self.unknown.items()
            },
            "findings": [{"kind": each.kind, "id": each.id, "detail": each.detail} for each in self.findings],
            "left_out": len(self.left_out),
            "leakage": self.leakage,
        }


def survey_corpus(
    path: str | Path,
    *,
    format: str | None = None,
    view: Callable[[Sequence[str]], ModelView] | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """Read a whole corpus and report its contents and faults.

    Args:
        path: The corpus.
        format: As in :func:`speechrnn.corpus.readers.find_format`.
        view: From all texts, the properties of a model; None: texts and lengths are not judged.
        advance: Called after each utterance with the number done and the total.

    Raises:
        CorpusError: The corpus cannot be read, for example a table without columns. Faults of single recordings are
            findings.
    """
    survey = Survey(str(path), find_format(path, format).name)

    def note(utterance: Utterance, reason: str) -> None:
        survey.findings.append(Finding("unreadable", utterance.id, reason))

    measured = list(_measure_all(read_corpus(path, format, on_error=note), advance))
    survey.findings += [finding for each in measured for finding in each.findings]
    measured = [each for each in measured if each.digest]
    survey.utterances = [each.utterance for each in measured]
    survey.sample_rates = Counter(each.sample_rate for each in measured)
    survey.digests = {each.utterance.id: each.digest for each in measured}
    if measured:
        commonest_rate = survey.sample_rates.most_common(1)[0][0]
        survey.band_limit_hz = _find_band_limit(measured, commonest_rate)
        survey.findings += _judge(measured, commonest_rate)
    survey.findings += _find_rate_outliers(survey.utterances)
    survey.characters = Counter(character for each in survey.utterances for character in each.text)
    if view is not None:
        _apply_model(survey, view([each.text for each in survey.utterances]))
    return survey


def compare(train: Survey, test: Survey) -> list[str]:
    """Describe the speakers, audio and texts that two corpora share."""
    found = []
    speakers = _find_shared_speakers(train.utterances, test.utterances)
    if speakers:
        found.append(f"{len(speakers)} speakers are in both, such as {min(speakers)}")
    ours = set(train.digests.values())
    same = sorted(id for id, digest in test.digests.items() if digest in ours)
    if same:
        found.append(f"{len(same)} recordings of {test.path} are in {train.path} too, such as {same[0]}")
    texts = {each.text.casefold() for each in train.utterances}
    shared = sorted(each.id for each in test.utterances if each.text and each.text.casefold() in texts)
    if shared:
        count = f"{len(shared)} of {len(test.utterances)} texts"
        found.append(f"{count} of {test.path} are in {train.path} too, such as {shared[0]}'s")
    return found


def _find_shared_speakers(train: Iterable[Utterance], test: Iterable[Utterance]) -> set[str]:
    """Speakers of equal name in the same corpus, or in corpora of which one has no name."""
    known = {(each.speaker, each.corpus) for each in train}
    names = {speaker for speaker, _ in known}
    shared = set()
    for each in test:
        same = {(each.speaker, each.corpus), (each.speaker, None)} & known
        if each.speaker is not None and (each.speaker in names if each.corpus is None else same):
            shared.add(each.speaker)
    return shared


def propose_rule(symbol: str, tokens: Tokens) -> str:
    """Propose how to handle a character that a model does not have."""
    known = set(tokens.symbols)
    for what, other in (("lower-case it", symbol.lower()), ("upper-case it", symbol.upper())):
        if other != symbol and set(other) <= known:
            return f"{what} (text.case)"
    base = "".join(part for part in unicodedata.normalize("NFKD", symbol) if not unicodedata.combining(part))
    for other in (base, base.lower(), base.upper()):
        if other and other != symbol and set(other) <= known:
            return f"write {other}"
    if unicodedata.category(symbol)[0] in "PS":
        return "leave it out (text.punctuation: remove)"
    if unicodedata.category(symbol)[0] == "N":
        return "spell numbers out (text.numbers: words, and text.language)"
    return "give the model a token for it, or leave these utterances out"


def _measure_all(utterances: Sequence[Utterance], advance: Callable[[int, int], None]) -> Iterator[_Measured]:
    every = max(1, len(utterances) // _BAND_UTTERANCES)
    with ThreadPoolExecutor(max_workers=count_cores()) as pool:
        jobs = pool.map(lambda pair: _measure(pair[1], with_power=pair[0] % every == 0), enumerate(utterances))
        for done, measured in enumerate(jobs, start=1):
            yield measured
            advance(done, len(utterances))


def _measure(utterance: Utterance, *, with_power: bool) -> _Measured:
    try:
        waveform = read_utterance(utterance)
    except AudioError as error:
        return _Measured(utterance, 0, "", [Finding("unreadable", utterance.id, str(error))])
    samples, rate = waveform.samples, waveform.sample_rate
    levels = describe_levels(samples)
    findings = [Finding(kind, utterance.id, words.removeprefix(f"{kind}: ")) for kind, words in levels.items()]
    digest = hashlib.sha256(np.round(samples * 32767).astype("<i2").tobytes() + str(rate).encode()).hexdigest()
    power = None
    if with_power and (frames := len(samples) // _FFT) >= 2:
        blocks = samples[: frames * _FFT].reshape(frames, _FFT) * np.hanning(_FFT).astype(np.float32)
        power = np.square(np.abs(np.fft.rfft(blocks, axis=1))).mean(axis=0)
    return _Measured(utterance, rate, digest, findings, power)


def _find_band_limit(measured: Sequence[_Measured], rate: int) -> float | None:
    """The highest frequency with energy in recordings of a rate; None if it is near the top."""
    limits = []
    for each in measured:
        if each.power is not None and each.sample_rate == rate and each.power.max() > 0:
            level = 10 * np.log10(np.maximum(each.power, 1e-30) / each.power.max())
            limits.append(float(np.flatnonzero(level > _BAND_DB)[-1]) * rate / _FFT)
    highest = float(np.quantile(limits, 0.95)) if limits else math.inf
    return round(highest, 1) if highest < _BAND_SHARE * rate / 2 else None


def _judge(measured: Sequence[_Measured], commonest_rate: int) -> Iterator[Finding]:
    """Findings about sample rates, durations, empty texts and duplicates."""
    first: dict[str, Utterance] = {}
    for each in measured:
        utterance, id = each.utterance, each.utterance.id
        if each.sample_rate != commonest_rate:
            yield Finding("odd sample rate", id, f"{each.sample_rate} Hz")
        if utterance.seconds > _LONG_SECONDS:
            yield Finding("long", id, f"{utterance.seconds:.1f} s")
        elif utterance.seconds < _SHORT_SECONDS:
            yield Finding("short", id, f"{utterance.seconds:.3f} s")
        if not utterance.text.strip():
            yield Finding("empty text", id, "its transcript is empty")
        other = first.setdefault(each.digest, utterance)
        if other is not utterance:
            texts = "and the same text" if other.text == utterance.text else "and another text"
            yield Finding("duplicate", id, f"the same sound as {other.id}, {texts}")


def _find_rate_outliers(utterances: Sequence[Utterance]) -> Iterator[Finding]:
    """Utterances much faster or slower than the others, which often have the text of another utterance."""
    rated = [each for each in utterances if each.text.strip()]
    if len(rated) < _FEWEST_RATES:
        return
    rates = np.log([len(utterance.text) / utterance.seconds for utterance in rated])
    middle = float(np.median(rates))
    spread = max(0.05, float(np.median(np.abs(rates - middle))))
    for utterance, rate in zip(rated, rates, strict=True):
        if abs(rate - middle) > _OUTLIER * spread:
            usual = f"where {math.exp(middle):.1f} is usual"
            yield Finding("speaking rate", utterance.id, f"{math.exp(rate):.1f} characters a second {usual}")


def _apply_model(survey: Survey, view: ModelView) -> None:
    """Find characters that a model does not know, and utterances that it cannot align."""
    unknown: Counter[str] = Counter()
    for utterance in survey.utterances:
        text = view.normalize(utterance.text)
        if not text:
            if utterance.text.strip():
                survey.findings.append(Finding("empty text", utterance.id, f"nothing is left of {utterance.text!r}"))
            continue
        missing = view.tokens.unknown(text)
        if missing:
            unknown.update(symbol for symbol in missing for _ in range(max(1, text.count(symbol))))
            named = " ".join(map(repr, sorted(set(missing))))
            survey.findings.append(Finding("unknown characters", utterance.id, named))
            continue
        reason = view.explain_infeasible(view.tokens.encode(text), utterance.count_samples(view.sample_rate))
        if reason is not None:
            survey.findings.append(Finding("cannot be aligned", utterance.id, reason))
    survey.unknown = {
        symbol: (count, propose_rule(symbol, view.tokens) if len(symbol) == 1 else "give the model a token for it")
        for symbol, count in unknown.most_common()
    }
