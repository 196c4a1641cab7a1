"""Confidences: laid beside what was said, measured, and made into probabilities."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from speechrnn.errors import CorpusError
from speechrnn.evaluation.calibration import calibrate
from speechrnn.evaluation.reliability import JudgedWord, draw_reliability, judge_words, measure_reliability
from speechrnn.model_folder.additions import Calibration, logit, read_named
from speechrnn.model_folder.format import add_calibration
from speechrnn.recognition.transcript import Word


def words(*recognised):
    return [Word(text, 0.0, 0.1, confidence) for text, confidence in recognised]


def too_sure(count, *, slope=0.4, offset=-0.7, seed=0):
    """Words whose true odds are known: raw confidences promise more."""
    rng = np.random.default_rng(seed)
    raw = rng.beta(5, 1, count)
    right = [rng.random() < Calibration(slope, offset).apply(confidence) for confidence in raw]
    return [[JudgedWord(float(confidence), bool(verdict))] for confidence, verdict in zip(raw, right, strict=True)]


def fit(utterances, corpus="valid.jsonl"):
    scored = [SimpleNamespace(id=f"{number:06}", words=words) for number, words in enumerate(utterances)]
    return calibrate(SimpleNamespace(utterances=scored), corpus=corpus)


def test_the_order_of_the_utterances_does_not_matter():
    """An evaluation lists the worst first; a recipe, fine-tuning and the command line fit the same."""
    scored = [SimpleNamespace(id=f"{n}", words=words) for n, words in enumerate(too_sure(60))]
    worst_first = sorted(scored, key=lambda each: each.words[0].is_right)
    one, other = (calibrate(SimpleNamespace(utterances=each), corpus="valid") for each in (scored, worst_first))
    assert one == other


def test_a_word_is_correct_if_the_reference_has_it_there():
    recognised = words(("Seven,", 0.9), ("tree", 0.4), ("--", 0.8), ("o'clock", 0.7), ("one", 0.6))
    judged = judge_words(recognised, "seven three o'clock")
    assert judged == [
        JudgedWord(0.9, True),
        JudgedWord(0.4, False),
        JudgedWord(0.7, True),
        JudgedWord(0.6, False),
    ]
    assert judge_words([], "seven") == []


def test_the_expected_calibration_error_by_hand():
    judged = [JudgedWord(0.95, True), JudgedWord(0.93, False), JudgedWord(0.45, True), JudgedWord(1.0, True)]
    found = measure_reliability(judged)
    assert found.counts == [0, 0, 0, 0, 1, 0, 0, 0, 0, 3]
    assert found.shares[9] == pytest.approx(2 / 3)
    expected = (3 * abs((0.95 + 0.93 + 1.0) / 3 - 2 / 3) + abs(0.45 - 1.0)) / 4
    assert found.error == pytest.approx(expected)
    assert measure_reliability([]).error == 0.0


def test_a_calibration_finds_the_true_odds():
    found = fit(too_sure(6_000), corpus="valid.jsonl")
    assert found.slope == pytest.approx(0.4, abs=0.04)
    assert found.offset == pytest.approx(-0.7, abs=0.08)
    assert (found.words, found.corpus) == (6_000, "valid.jsonl")
    assert found.error < 0.02 < 0.2 < found.raw_error


def test_the_calibration_error_is_measured_on_held_out_words():
    """Coin throws: two words are fitted well and mean nothing for the other two."""
    utterances = [[JudgedWord(0.9, True)], [JudgedWord(0.9, False)], [JudgedWord(0.9, True)], [JudgedWord(0.9, False)]]
    assert fit(utterances).error > 0.5


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_words_of_equal_confidence_give_a_bounded_calibration_that_keeps_the_order(is_right, count):
    utterances = [[JudgedWord(confidence, is_right)] for confidence in np.linspace(0, 1, count)]
    found = fit(utterances)
    applied = [found.apply(confidence) for confidence in np.linspace(0, 1, 20)]
    assert all(low < high for low, high in pairwise(applied))
    assert 0.0 < applied[0] < applied[-1] < 1.0
    assert (found.apply(1.0 if is_right else 0.0) > 0.5) == is_right


def test_if_all_words_are_correct_confidences_keep_their_differences():
    found = fit([[JudgedWord(confidence, True)] for confidence in np.linspace(0.9, 1.0, 400)])
    assert found.apply(0.5) < 0.97
    assert found.apply(0.999) > 0.999


def test_calibration_needs_recognised_words():
    with pytest.raises(CorpusError, match="silence: no word was recognised"):
        fit([[], []], corpus="silence")


def test_confidence_one_has_finite_logit():
    assert logit(1.0) == pytest.approx(np.log(1e6), rel=1e-3)
    assert logit(0.0) == pytest.approx(-logit(1.0))


def read_calibrations(folder):
    return read_named(folder / "confidence.json", Calibration)


def test_calibrations_are_kept_by_decoder(tmp_path):
    assert read_calibrations(tmp_path) == {}
    first, second = Calibration(0.5, 0.1, 10, "a", 0.01, 0.2), Calibration(0.7, 0.0, 20, "b", 0.02, 0.1)
    add_calibration(tmp_path, "greedy", first)
    add_calibration(tmp_path, "beam 0123", second)
    assert read_calibrations(tmp_path) == {"greedy": first, "beam 0123": second}
    add_calibration(tmp_path, "greedy", second)
    assert read_calibrations(tmp_path)["greedy"] == second


def test_the_picture_is_drawn_with_empty_bins(tmp_path):
    pytest.importorskip("matplotlib")
    draw_reliability(measure_reliability([JudgedWord(0.9, True)]), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
