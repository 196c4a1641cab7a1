"""What a decoder found in a recording, as a transcript: words with their times and confidences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from speechrnn.recognition.confidence import Calibration
from speechrnn.recognition.transcript import Alternative, Segment, Transcript, Word
from speechrnn.recognition.word_times import place_words
from speechrnn.text.tokens import Tokens
from speechrnn.types import Hypothesis


@dataclass(frozen=True)
class TranscriptMaker:
    """Makes the transcripts of one model.

    Attributes:
        tokens: What its symbols spell.
        sample_rate: That it hears, in Hz.
        seconds_per_frame: From one row of its log-probabilities to the next.
        language: That it writes, such as "en"; None where it is not known, or not one.
        model: Its name.
    """

    tokens: Tokens
    sample_rate: int
    seconds_per_frame: float
    language: str | None
    model: str | None

    def make(
        self,
        hypotheses: list[Hypothesis],
        samples: np.ndarray,
        *,
        path: str | None = None,
        calibration: Calibration | None = None,
        min_confidence: float = 0.0,
    ) -> Transcript:
        """The transcript of one recording.

        Args:
            hypotheses: What it may say, the best first; one at least.
            samples: At the model's rate, (N,), float32.
            path: Of its file.
            calibration: Of the words' confidences.
            min_confidence: With a word of lower confidence the text is kept as ``rejected``.
        """
        seconds = len(samples) / self.sample_rate
        readings = [self._make_words(hypothesis, samples, calibration) for hypothesis in hypotheses]
        texts = [" ".join(word.text for word in words) for words in readings]
        scores = [hypothesis.acoustic_score + hypothesis.language_score for hypothesis in hypotheses]
        distinct = {text: place for place, text in reversed(list(enumerate(texts)))}  # spaces are not all seen
        places = sorted(distinct.values()) if len(texts) > 1 else []
        text, words = texts[0], readings[0]
        made = Transcript(
            text,
            (Segment(words[0].start, words[-1].end, text, words),) if words else (),
            seconds,
            audio=path,
            language=self.language,
            model=self.model,
            alternatives=tuple(Alternative(texts[place], scores[place], readings[place]) for place in places),
        )
        if all(word.confidence >= min_confidence for word in words):
            return made
        return replace(made, text="", segments=(), rejected=text)

    def _make_words(
        self, hypothesis: Hypothesis, samples: np.ndarray, calibration: Calibration | None
    ) -> tuple[Word, ...]:
        found = self.tokens.words(hypothesis.tokens)
        frame = self.seconds_per_frame
        peaks = [
            (hypothesis.frames[first][0] * frame, (hypothesis.frames[last][1] + 1) * frame) for _, first, last in found
        ]
        times = place_words(peaks, samples, self.sample_rate)
        confidences = [_mean_confidence(hypothesis.confidences[first : last + 1]) for _, first, last in found]
        if calibration is not None:
            confidences = list(map(calibration.apply, confidences))
        return tuple(
            Word(text, start, end, confidence)
            for (text, _, _), (start, end), confidence in zip(found, times, confidences, strict=True)
        )


def _mean_confidence(confidences: list[float]) -> float:
    return math.prod(confidences) ** (1 / len(confidences))
