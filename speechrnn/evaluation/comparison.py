"""The same corpus by two models: how much the error rate changed, and whether that is an accident of the recordings."""

from __future__ import annotations

from dataclasses import dataclass

from speechrnn.evaluation.evaluate import Evaluation
from speechrnn.text.scores import difference_interval


@dataclass(frozen=True)
class Comparison:
    """A model's error rates on a corpus before and after; fractions.

    Attributes:
        utterances: How many the corpus has.
        words: Words of their references.
        wer_before: Word error rate of the model that was begun from.
        wer: Of the fine-tuned one.
        cer_before: Character error rate of the model that was begun from.
        cer: Of the fine-tuned one.
        low: Lower end of the 95 % interval of the change of the word error rate.
        high: Upper end.
        method: How the interval was found.
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
