"""Two corpora call a speaker by the same name: for intervals they are two speakers."""

from speechrnn.evaluation.evaluate import Evaluation, ScoredUtterance, compare
from speechrnn.text.scores import score, word_errors

SPEAKERS = [("a", "anna"), ("a", "otto"), ("b", "anna"), ("b", "otto")]


def make_evaluation(hypothesis):
    utterances = [
        ScoredUtterance(
            id=f"{corpus}-{speaker}",
            audio="",
            speaker=speaker,
            corpus=corpus,
            seconds=1.0,
            reference="one two",
            hypothesis=hypothesis,
            wer=0.5,
            cer=0.5,
            errors=1,
            confidence=1.0,
            problem=None,
            word_counts=word_errors("one two", hypothesis),
        )
        for corpus, speaker in SPEAKERS
    ]
    rates = score(["one two"] * 4, [hypothesis] * 4, speakers=[each.speaker_key for each in utterances])
    return Evaluation(rates, rates, utterances)


def test_speakers_of_the_same_name_in_different_corpora_are_several_units():
    before, after = make_evaluation("one"), make_evaluation("one two")
    assert before.score.interval_method == "Korn-Graubard over 4 speakers"
    assert compare(before, after).method == "paired t over 4 speakers"
