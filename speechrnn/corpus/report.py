"""A survey of a corpus as text and files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from speechrnn.atomic_io import write_json_lines
from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.survey import Survey
from speechrnn.errors import ConfigError, CorpusError

_SHOWN = 5
_CLEAN, _LEFT_OUT = "clean.jsonl", "left_out.jsonl"


def describe_survey(survey: Survey) -> str:
    """Describe the survey in lines of text."""
    found = survey.to_dict()
    shortest, _, median, _, longest = found["duration_quantiles"]
    lines = [
        f"{survey.path} ({survey.format}): {found['utterances']:,} utterances, {survey.seconds / 3600:.2f} h, "
        + (f"{found['speakers']:,} speakers" if found["speakers"] else "speakers unknown"),
        f"durations {shortest:.2f} to {longest:.2f} s, half of them below {median:.2f} s",
        "sample rates: " + ", ".join(f"{int(rate):,} Hz ({count:,})" for rate, count in found["sample_rates"].items()),
    ]
    if survey.band_limit_hz is not None:
        lines.append(
            f"no energy above {survey.band_limit_hz / 1000:.1f} kHz in any recording, as after a telephone or strong "
            "compression; a model with a lower sample rate is sufficient"
        )
    shown = "".join(symbol for symbol in sorted(survey.characters) if not symbol.isspace())
    lines.append(f"{len(shown)} characters: {shown}")
    for symbol, (count, proposal) in survey.unknown.items():
        lines.append(f"  the model does not have {symbol!r} ({count:,} times): {proposal}")
    lines += [*_describe_findings(survey), *(f"leak: {leak}" for leak in survey.leakage)]
    left = len(survey.left_out)
    lines.append(f"{f'{left:,} utterances' if left else 'nothing'} would be left out of training")
    return "\n".join(lines)


def _describe_findings(survey: Survey) -> list[str]:
    lines = []
    for kind, count in Counter(finding.kind for finding in survey.findings).most_common():
        members = [finding for finding in survey.findings if finding.kind == kind]
        lines.append(f"{kind}: {count:,}{', left out of training' if members[0].is_left_out else ''}")
        lines += [f"  {finding.id}: {finding.detail}" for finding in members[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"  and {count - _SHOWN:,} more (--json has all)")
    return lines


def check_clean_folder(folder: Path) -> None:
    """Refuse to replace files, which may be the corpus that is being checked.

    Raises:
        ConfigError: The files of :func:`write_clean` exist.
    """
    there = next((folder / name for name in (_CLEAN, _LEFT_OUT) if (folder / name).exists()), None)
    if there is not None:
        raise ConfigError(f"--write-clean {folder}: {there} exists already; choose a new folder")


def write_clean(survey: Survey, folder: Path) -> str:
    """Write a manifest of the utterances that can be trained on, and a list of the others with the reasons.

    Returns:
        The written files and their sizes, in one line.

    Raises:
        CorpusError: No utterance can be trained on.
    """
    if not survey.clean:
        raise CorpusError(f"{survey.path}: no utterance is left to write")
    write_manifest(folder / _CLEAN, survey.clean)
    left_out = [{"id": id, "reason": reason} for id, reason in survey.left_out.items()]
    write_json_lines(folder / _LEFT_OUT, left_out)
    return f"{folder / _CLEAN}: {len(survey.clean):,} utterances; {folder / _LEFT_OUT}: {len(left_out):,}"
