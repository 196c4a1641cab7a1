"""The model card: training data and licences, results, use and limits of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def make_model_card(provenance: Mapping[str, Any], *, num_parameters: int, sample_rate: int, name: str = "") -> str:
    """Write a model card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
        provenance: As in :class:`speechrnn.model_folder.ModelFolder`.
        num_parameters: Number of parameters.
        sample_rate: Of the model's input, in Hz.
        name: Title; empty for a general one.

    Returns:
        The card, ending in a line break.
    """
    languages = [str(language) for language in provenance.get("languages") or []]
    spoken = f"{', '.join(languages)} " if languages else ""
    sections = [
        _write_header(languages),
        f"# {name or 'A speech recogniser'}\n\nA recurrent CTC model with {num_parameters:,} parameters, made with "
        f"speechrnn. It transcribes {spoken}speech; audio of any rate is resampled to {sample_rate:,} Hz.",
        _describe_training(provenance),
        _describe_results(provenance.get("results")),
        _USE,
        _LIMITS,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_USE = """## Use

```
pip install speechrnn
speechrnn transcribe recording.wav -m FOLDER
```

```python
import speechrnn

model = speechrnn.load("FOLDER")  # this folder
result = model.transcribe("recording.wav")
result.text
result.words  # each with start and end in seconds and a confidence in [0, 1]
```"""

_LIMITS = """## Limits

Expect more errors than stated here on languages, speakers, microphones and rooms that differ from the training data;
measure on your own recordings: `speechrnn evaluate CORPUS -m FOLDER`. The model outputs text for any sound, speech or
not. Confidences are calibrated probabilities if this folder has `confidence.json`, for speech like the validation data;
without it they only rank words."""


def _write_header(languages: list[str]) -> str:
    lines = ["---", "library_name: speechrnn", "pipeline_tag: automatic-speech-recognition"]
    lines += ["language:", *(f"- {language}" for language in languages)] if languages else []
    return "\n".join([*lines, "---"])


def _describe_training(provenance: Mapping[str, Any]) -> str:
    corpora = provenance.get("corpora") or []
    rows = [[corpus.get(key) for key in ("corpus", "license", "source", "attribution")] for corpus in corpora]
    table = (
        _make_table(["Corpus", "Licence", "Source", "Attribution"], rows) if rows else "The corpora are not recorded."
    )
    training = provenance.get("training") or {}
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in training.items()]
    return "\n\n".join(["## Training", table, *(["\n".join(facts)] if facts else [])])


def _describe_results(results: Any) -> str:
    if not results:
        return "## Results\n\nNo results are recorded."
    rows = []
    for name, scores in results.get("sets", {}).items():
        counts = ("–" if scores.get(key) is None else f"{scores[key]:,}" for key in ("utterances", "words"))
        ends = [_percent(scores.get(key)) for key in ("wer_low", "wer_high")]
        rows.append([name, *counts, _percent(scores.get("wer")), "–" if "–" in ends else " to ".join(ends)])
    table = _make_table(["Set", "Utterances", "Words", "WER", "95 % interval"], rows)
    method = results.get("interval_method")
    return f"## Results\n\n{table}" + (f"\n\nIntervals: {method}." if method else "")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _make_table(header: list[str], rows: Iterable[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_make_cell(cell) for cell in line) + " |" for line in lines)


def _make_cell(cell: Any) -> str:
    """One cell: a single line with escaped column separators."""
    return " ".join(str(cell).split()).replace("|", "\\|") if cell else "not stated"
