"""Reports of an evaluation: text and files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from speechrnn.atomic_io import write_json, write_json_lines
from speechrnn.evaluation.evaluate import Evaluation, ScoredUtterance
from speechrnn.evaluation.reliability import draw_reliability
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import Score, align_words

logger = logging.getLogger("speechrnn")


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write ``hypotheses.jsonl`` (worst first), ``results.json`` and, with matplotlib, ``reliability.png``.

    Raises:
        SpeechRNNError: A file cannot be written.
    """
    write_json_lines(folder / "hypotheses.jsonl", (utterance.to_dict() for utterance in evaluation.utterances))
    write_json(folder / "results.json", evaluation.to_dict())
    try:
        draw_reliability(evaluation.reliability, folder / "reliability.png")
    except ImportError:
        logger.info("reliability.png not drawn: it needs matplotlib (pip install 'speechrnn[pictures]')")


def describe_evaluation(evaluation: Evaluation, name: str) -> str:
    """Describe rates, confidences and the worst utterances."""
    lines = [
        describe_score(name, evaluation.score),
        f"as written, capitals and punctuation included: WER {100 * evaluation.raw.wer:.2f} %, "
        f"CER {100 * evaluation.raw.cer:.2f} %",
    ]
    if any(evaluation.reliability.counts):
        lines.append(f"confidences: expected calibration error {100 * evaluation.reliability.error:.1f} %")
    wrong = sum(utterance.errors > 0 for utterance in evaluation.utterances)
    errors = describe_errors(evaluation.utterances)
    if errors:
        shown = "all" if len(errors) == wrong else f"the worst {len(errors)}"
        lines += [f"{wrong} utterances with errors, {shown} here (-reference +recognised):", *errors]
    return "\n".join(lines)


def describe_score(name: str, score: Score) -> str:
    """Describe in one line: rates with their interval, and its method."""
    return (
        f"{name}: WER {100 * score.wer:.2f} % (95 % interval {100 * score.wer_low:.2f}–{100 * score.wer_high:.2f}), "
        f"CER {100 * score.cer:.2f} %, sentences wrong {100 * score.sentence_error_rate:.2f} %; "
        f"{score.utterances} utterances, {score.words} words; {score.interval_method}"
    )


def describe_errors(utterances: Iterable[ScoredUtterance], *, most: int = 5) -> list[str]:
    """Describe the worst utterances: ``-word`` of the reference was missed, ``+word`` was recognised instead."""
    lines: list[str] = []
    for utterance in utterances:
        if utterance.errors == 0 or len(lines) == most:
            break
        pairs = align_words(normalize_for_scoring(utterance.reference), normalize_for_scoring(utterance.hypothesis))
        lines.append(f"{utterance.id}: {' '.join(_mark(*pair) for pair in pairs)}")
    return lines


def _mark(operation: str, reference: str | None, hypothesis: str | None) -> str:
    if operation == "equal":
        return str(reference)
    return " ".join([*([f"-{reference}"] if reference else []), *([f"+{hypothesis}"] if hypothesis else [])])
