"""Transcribe a corpus, count errors, and pair every hypothesis with its reference."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.streams import CarryState, find_sequences
from speechrnn.corpus.utterance import Utterance, make_speaker_key, read_utterance
from speechrnn.errors import AudioError, CorpusError, name_some
from speechrnn.evaluation.reliability import JudgedWord, Reliability, judge_words, measure_reliability
from speechrnn.model_folder.speakers import SpeakerProfile
from speechrnn.recognition.cutting import Recording
from speechrnn.recognition.decoders import takes_decoding
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.transcript import Transcript
from speechrnn.text.normalize import SCORING_VERSION, normalize_for_scoring, normalize_text, replace_letters
from speechrnn.text.scores import ErrorCounts, Score, character_errors, difference_interval, score, word_errors
from speechrnn.types import Waveform

logger = logging.getLogger("speechrnn")


@dataclass(frozen=True)
class ScoredUtterance:
    """A transcribed utterance of a corpus.

    Attributes:
        id: Name in the corpus.
        audio: The recording.
        speaker: Who speaks, if known.
        corpus: Name of the corpus, if a manifest joins several.
        seconds: Duration.
        reference: Text of the corpus, unchanged.
        hypothesis: The model's text.
        wer: Word error rate after scoring normalisation, a fraction; infinite if only the hypothesis has words.
        cer: Character error rate, as a fraction too.
        errors: Word errors after scoring normalisation.
        confidence: Lowest word confidence, in [0, 1]; 0 without words.
        problem: Why it could not be transcribed, or None; its reference words then count as deletions.
        words: The recognised words, and whether each is correct.
        word_counts: Word errors by kind, and number of words.
        character_counts: The same for characters.
    """

    id: str
    audio: str
    speaker: str | None
    corpus: str | None
    seconds: float
    reference: str
    hypothesis: str
    wer: float
    cer: float
    errors: int
    confidence: float
    problem: str | None
    words: list[JudgedWord] = field(default_factory=list)
    word_counts: ErrorCounts = field(default_factory=ErrorCounts)
    character_counts: ErrorCounts = field(default_factory=ErrorCounts)

    @property
    def speaker_key(self) -> str | None:
        """Key of the speaker, unique across corpora; None if unknown."""
        return make_speaker_key(self.corpus, self.speaker)

    def to_dict(self) -> dict[str, Any]:
        """Convert to a line of hypotheses.jsonl; an infinite rate is null."""
        row = dict(vars(self))
        for name in ("words", "word_counts", "character_counts"):
            del row[name]
        for name in ("wer", "cer"):
            row[name] = round(row[name], 4) if row[name] != float("inf") else None
        row["confidence"] = round(row["confidence"], 4)
        row["seconds"] = round(row["seconds"], 3)
        return row


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a corpus.

    Attributes:
        score: After scoring normalisation, of version ``speechrnn.text.normalize.SCORING_VERSION``.
        raw: Of the unchanged texts, with capitals and punctuation.
        utterances: All utterances, worst first.
    """

    score: Score
    raw: Score
    utterances: list[ScoredUtterance]

    @property
    def has_words(self) -> bool:
        """Whether any word was recognised."""
        return any(utterance.words for utterance in self.utterances)

    @property
    def reliability(self) -> Reliability:
        """Compare the words' confidences with the share of correct words."""
        return measure_reliability([word for utterance in self.utterances for word in utterance.words])

    def to_dict(self) -> dict[str, Any]:
        """Convert to results.json: the normalised score, and the raw rates under ``raw``."""
        raw = self.raw.to_dict()
        return {
            **self.score.to_dict(),
            "scoring_normalization": SCORING_VERSION,
            "raw": {name: raw[name] for name in ("wer", "wer_low", "wer_high", "cer", "sentence_error_rate")},
            "confidence": self.reliability.to_dict(),
            "failed": sum(utterance.problem is not None for utterance in self.utterances),
        }


@takes_decoding
def evaluate(
    recognizer: Recognizer,
    corpus: str | Path | Sequence[Utterance],
    *,
    batch_seconds: float = 120.0,
    format: str | None = None,
    speaker: str | SpeakerProfile | None = None,
    use_speaker_stats: bool = True,
    carry_state: CarryState = "no",
    **decoding: Any,
) -> Evaluation:
    """Score a model on a corpus.

    Args:
        recognizer: The model.
        corpus: Path of a corpus, or the result of :func:`speechrnn.corpus.readers.read_corpus`.
        batch_seconds: Budget of a batch, padding included, in seconds.
        format: Format of the corpus; None: detected.
        speaker: Who speaks in all recordings: a name that the model was adapted to, or the result of
            :meth:`Recognizer.estimate_speaker`.
        use_speaker_stats: For models that normalise by speaker: estimate the statistics of each speaker whom the corpus
            names from all their recordings, without their texts, unless ``speaker`` is given. False: normalise each
            recording by itself. What ``carry_state`` joins of several speakers is normalised utterance by utterance.
        carry_state: Which utterances are consecutive and pass on their hidden state
            (:func:`speechrnn.corpus.streams.find_sequences`).
        **decoding: Fields of :class:`~speechrnn.recognition.decoders.DecodingConfig`.

    Raises:
        CorpusError: The corpus cannot be read, holds no words to score against, or no recording can be transcribed.
    """
    where = str(corpus) if isinstance(corpus, str | Path) else "corpus"
    utterances = list(read_corpus(corpus, format) if isinstance(corpus, str | Path) else corpus)
    references = [_write_reference(recognizer, utterance.text) for utterance in utterances]
    if not any(normalize_for_scoring(text) for text in references):
        raise CorpusError(f"{where}: no utterance has a word in its reference; nothing to score against")
    _warn_of_unwritable(recognizer, [utterance.text for utterance in utterances])
    transcripts: dict[str, Transcript] = {}
    problems: dict[str, str] = {}
    options: dict[str, Any] = {"batch_seconds": batch_seconds, "are_consecutive": carry_state != "no"}
    profiles = estimate_speakers(recognizer, utterances) if use_speaker_stats and speaker is None else {}
    for part in _find_parts(utterances, carry_state, by_speaker=bool(profiles)):
        speakers = {utterance.speaker_key for utterance in part}
        profile = profiles.get(speakers.pop() or "", speaker) if len(speakers) == 1 else speaker
        transcripts |= _transcribe(recognizer, part, problems, speaker=profile, **options, **decoding)
    if not transcripts:
        problem = problems[utterances[0].id]
        raise CorpusError(f"{where}: none of {len(utterances)} recordings can be transcribed; {problem}")
    return _score(utterances, references, transcripts, problems)


def estimate_speakers(recognizer: Recognizer, utterances: Iterable[Utterance]) -> dict[str, SpeakerProfile]:
    """Estimate each speaker's profile from all their recordings, where the model normalises by speaker; {} otherwise.

    Recordings without a speaker, and those that cannot be read, are not used.

    Returns:
        Profiles, by :attr:`Utterance.speaker_key`.
    """
    if not recognizer.uses_speaker_stats:
        return {}
    recordings: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.speaker_key is not None:
            recordings[utterance.speaker_key].append(utterance)
    profiles = {}
    for name, own in recordings.items():
        with suppress(AudioError):  # none can be read
            profiles[name] = recognizer.estimate_speaker(_read_readable(recognizer, own))
    return profiles


def stack_speaker_stats(profiles: Mapping[str, SpeakerProfile], speakers: Sequence[str | None]) -> torch.Tensor | None:
    """Speaker statistics of a batch, (B, 1 + F), zeros for unknown speakers; None if all are unknown."""
    known = {name: profile.speaker_stats for name, profile in profiles.items() if profile.speaker_stats is not None}
    if not known:
        return None
    nothing = torch.zeros_like(next(iter(known.values())))
    return torch.stack([known.get(name or "", nothing) for name in speakers])


def _read_readable(recognizer: Recognizer, utterances: Iterable[Utterance]) -> Iterator[Waveform]:
    """Skip recordings that cannot be read, without a warning: they are reported when they are transcribed."""
    for utterance in utterances:
        with suppress(AudioError):
            yield _read(recognizer, utterance)


def _read(recognizer: Recognizer, utterance: Utterance) -> Waveform:
    waveform = read_utterance(utterance, sample_rate=recognizer.sample_rate)
    recognizer.check_length(waveform, name=utterance.id)
    return waveform


def _write_reference(recognizer: Recognizer, text: str) -> str:
    """The reference as the model should write it: with replaced letters, or as phones."""
    if recognizer.tokens.kind == "phones":
        return recognizer.tokens.written(normalize_text(text, recognizer.model.text))
    return replace_letters(text, recognizer.model.text)


def _warn_of_unwritable(recognizer: Recognizer, references: list[str]) -> None:
    """Warn of symbols in the references that the model cannot write: they count as errors."""
    lacking = [_find_unwritable(recognizer, reference) for reference in references]
    symbols = sorted(set().union(*lacking))
    if symbols:
        logger.warning(
            "%d of %d references have symbols that the model cannot write, which count as errors: %s",
            sum(map(bool, lacking)),
            len(references),
            name_some(map(repr, symbols)),
        )


def _find_unwritable(recognizer: Recognizer, reference: str) -> set[str]:
    """Characters (words, for word tokens) that are no tokens in upper or lower case either: scoring ignores case."""
    text = normalize_text(reference, recognizer.model.text)
    unknown = recognizer.tokens.unknown
    return set(unknown(text)) if all(unknown(same) for same in (text, text.lower(), text.upper())) else set()


def _find_parts(utterances: list[Utterance], carry_state: CarryState, *, by_speaker: bool) -> list[list[Utterance]]:
    """Parts of the corpus to transcribe separately: by speaker, or sequences that pass on their state."""
    if carry_state != "no":
        return [[utterances[position] for position in sequence] for sequence in find_sequences(utterances, carry_state)]
    parts: dict[str | None, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        parts[utterance.speaker_key if by_speaker else None].append(utterance)
    return list(parts.values())


def _transcribe(
    recognizer: Recognizer, utterances: list[Utterance], problems: dict[str, str], **options: Any
) -> dict[str, Transcript]:
    """Transcripts by id; reasons of failures go to ``problems``."""
    read: list[str | None] = []

    def waveforms() -> Iterator[Waveform]:
        for recording in read_all(recognizer, utterances, problems):
            read.append(recording.name)
            yield Waveform(recording.samples, recognizer.sample_rate)

    transcripts = list(recognizer.transcribe_many(waveforms(), max_seconds=None, **options))
    return {str(id): transcript for id, transcript in zip(read, transcripts, strict=True)}


def read_all(recognizer: Recognizer, utterances: Iterable[Utterance], problems: dict[str, str]) -> Iterator[Recording]:
    """Read recordings, named by their utterance ids; the reason why one cannot be read goes to ``problems``, by id."""
    for utterance in utterances:
        try:
            waveform = _read(recognizer, utterance)
        except AudioError as error:
            problems[utterance.id] = str(error)
            logger.warning("counts as not recognised: %s", error)
            continue
        yield Recording(utterance.id, waveform.samples)


def _score(
    utterances: Sequence[Utterance],
    references: Sequence[str],
    transcripts: dict[str, Transcript],
    problems: dict[str, str],
) -> Evaluation:
    hypotheses = [transcripts[each.id].text if each.id in transcripts else "" for each in utterances]
    speakers = [utterance.speaker_key for utterance in utterances]
    normalized = [normalize_for_scoring(text) for text in references]
    scored = [
        _score_utterance(utterance, reference, transcripts.get(utterance.id), problems.get(utterance.id))
        for utterance, reference in zip(utterances, normalized, strict=True)
    ]
    scored.sort(key=lambda utterance: (-utterance.wer, -utterance.errors, utterance.id))
    return Evaluation(
        score(normalized, [normalize_for_scoring(text) for text in hypotheses], speakers=speakers),
        score(references, hypotheses, speakers=speakers),
        scored,
    )


def _score_utterance(
    utterance: Utterance, reference: str, transcript: Transcript | None, problem: str | None
) -> ScoredUtterance:
    hypothesis = transcript.text if transcript else ""
    pair = reference, normalize_for_scoring(hypothesis)
    words, characters = word_errors(*pair), character_errors(*pair)
    confidences = [word.confidence for word in transcript.words] if transcript else []
    return ScoredUtterance(
        id=utterance.id,
        audio=str(utterance.audio_path),
        speaker=utterance.speaker,
        corpus=utterance.corpus,
        seconds=utterance.seconds,
        reference=utterance.text,
        hypothesis=hypothesis,
        wer=words.rate,
        cer=characters.rate,
        errors=words.errors,
        confidence=min(confidences, default=0.0),
        problem=problem,
        words=judge_words(transcript.words, reference) if transcript else [],
        word_counts=words,
        character_counts=characters,
    )


@dataclass(frozen=True)
class Comparison:
    """Error rates of two models on a corpus, before and after fine-tuning; fractions.

    Attributes:
        utterances: Number of utterances.
        words: Number of words in the references.
        wer_before: Word error rate before.
        wer: Word error rate after.
        cer_before: Character error rate before.
        cer: Character error rate after.
        low: Lower end of the 95 % interval of the change of the word error rate.
        high: Upper end.
        method: Method of the interval.
    """

    utterances: int
    words: int
    wer_before: float
    wer: float
    cer_before: float
    cer: float
    low: float
    high: float
    method: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no significant difference``."""
        return "better" if self.high < 0 else "worse" if self.low > 0 else "no significant difference"


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """Compare two evaluations of one corpus, utterance by utterance."""
    first, second = ({each.id: each for each in evaluation.utterances} for evaluation in (before, after))
    ids = sorted(first)
    interval = difference_interval(
        [first[id].word_counts for id in ids],
        [second[id].word_counts for id in ids],
        [first[id].speaker_key for id in ids],
    )
    return Comparison(
        utterances=len(ids),
        words=after.score.words,
        wer_before=before.score.wer,
        wer=after.score.wer,
        cer_before=before.score.cer,
        cer=after.score.cer,
        low=interval.low,
        high=interval.high,
        method=interval.method,
    )
