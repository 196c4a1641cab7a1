"""Result tables of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NO_SPEAKER_STATS = ", no speaker statistics"
"""After a set's name: scored without speaker statistics by a model that normalises by speaker."""


def describe_results(results: dict[str, Any], output: Path) -> str:
    """Describe the rates of every set in a table, and list the output files.

    Args:
        results: As :func:`speechrnn.recipe.run_recipe` returns them.
        output: The run's folder.
    """
    fold = f", {results['fold']} left out" if results["fold"] else ""
    lines = [
        f"# {results['recipe']}{fold}, seed {results['seed']}",
        "",
        "| set | utterances | words | WER % | 95 % interval | CER % | sentences wrong % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, scores in results["sets"].items():
        rates = [100 * scores[key] for key in ("wer", "wer_low", "wer_high", "cer", "sentence_error_rate")]
        lines.append(
            f"| {name} | {scores['utterances']} | {scores['words']} | {rates[0]:.2f} | {rates[1]:.2f}–{rates[2]:.2f} "
            f"| {rates[3]:.2f} | {rates[4]:.2f} |"
        )
    times, count = results["test_scorings"], results.get("utterances_left_out", 0)
    lines += [
        "",
        f"Interval: {results['interval_method']}. Test sets scored {'once' if times == 1 else f'{times} times'}.",
        f"{results['parameters']:,} parameters, trained in {results['training_seconds']:.0f} s on "
        f"{results['cores']} cores ({results['device']}).",
        *([f"{count} utterances left out of training, see {output / 'left_out.jsonl'}."] if count else []),
        "",
        f"- model: {output / 'model'}",
        f"- every hypothesis beside its reference, worst first: {output / 'hypotheses.jsonl'}",
        f"- results: {output / 'results.json'}",
        f"- logs: {output / 'logs'}",
    ]
    return "\n".join(lines)


def describe_folds(results: dict[str, dict[str, Any]]) -> str:
    """Describe folds in a table with one line per fold, and the mean of their test accuracies.

    Models that normalise by speaker have another column: exact without speaker statistics.

    Args:
        results: As :func:`speechrnn.recipe.run_recipe` returned them, by fold.
    """
    sets = [result["sets"] for result in results.values()]
    kinds = [name for name in ("test", "test" + NO_SPEAKER_STATS) if all(name in each for each in sets)]
    exact = [[100 * (1 - each[name]["sentence_error_rate"]) for each in sets] for name in kinds]
    has_both = len(kinds) > 1
    lines = [
        "| left out | utterances | exact % | WER % | 95 % interval |" + " exact %, no speaker statistics |" * has_both
    ]
    lines += ["|" + " --- |" * (5 + has_both)]
    for number, fold in enumerate(results):
        scores = sets[number]["test"]
        low, high = 100 * scores["wer_low"], 100 * scores["wer_high"]
        line = f"| {fold} | {scores['utterances']} | {exact[0][number]:.1f} | {100 * scores['wer']:.1f} "
        lines.append(f"{line}| {low:.1f}–{high:.1f} |" + "".join(f" {rates[number]:.1f} |" for rates in exact[1:]))
    means = [f"{sum(rates) / len(rates):.1f}" for rates in exact]
    lines.append(f"| mean | | {means[0]} | | |" + "".join(f" {mean} |" for mean in means[1:]))
    return "\n".join(lines)
