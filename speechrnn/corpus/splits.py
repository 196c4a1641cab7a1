"""Splits for recipes: held-out parts, by speakers if they are known, and manifests of the parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from speechrnn.corpus.manifest import write_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.text.normalize import normalize_for_scoring


def hold_out_speakers(
    utterances: Sequence[Utterance], *, every: int, where: str | Path
) -> tuple[list[Utterance], list[Utterance]]:
    """Split by speakers: in the order of their names, every n-th one is held out.

    Args:
        utterances: A corpus's utterances, all with speakers.
        every: 10 holds out a tenth of the speakers.
        where: The corpus, for the error message.

    Returns:
        The remaining and the held-out utterances, each in the corpus's order.

    Raises:
        CorpusError: There are too few speakers.
    """
    speakers = sorted({each.speaker_key or "" for each in utterances})
    chosen = set(speakers[every - 1 :: every])
    if not chosen:
        raise CorpusError(f"{where}: {len(speakers)} speakers are too few to split; at least {every} are needed")
    return (
        [each for each in utterances if each.speaker_key not in chosen],
        [each for each in utterances if each.speaker_key in chosen],
    )


def hold_out(
    utterances: Sequence[Utterance], *, every: int, where: str | Path
) -> tuple[list[Utterance], list[Utterance]]:
    """Split as :func:`hold_out_speakers` does, if enough speakers are known; else hold out the end of the corpus.

    Args:
        utterances: A corpus's utterances.
        every: 10 holds out a tenth.
        where: The corpus, for the error message.

    Returns:
        The remaining and the held-out utterances, each in the corpus's order.

    Raises:
        CorpusError: There is only one utterance.
    """
    speakers = {each.speaker_key for each in utterances}
    if None not in speakers and len(speakers) >= every:
        return hold_out_speakers(utterances, every=every, where=where)
    if len(utterances) < 2:
        raise CorpusError(f"{where}: {len(utterances)} utterance cannot be split; record more, or provide each part")
    first = len(utterances) - max(1, len(utterances) // every)
    return list(utterances[:first]), list(utterances[first:])


def leave_out_texts(utterances: Iterable[Utterance], held: Iterable[Utterance]) -> list[Utterance]:
    """The utterances whose texts, after scoring normalisation, are not among those held out."""
    texts = {normalize_for_scoring(each.text) for each in held}
    return [each for each in utterances if normalize_for_scoring(each.text) not in texts]


def take_minutes(utterances: Iterable[Utterance], minutes: float) -> list[Utterance]:
    """The first utterances with a total of this many minutes."""
    taken, seconds = [], 0.0
    for each in utterances:
        if seconds >= 60 * minutes:
            break
        taken.append(each)
        seconds += each.seconds
    return taken


def write_parts(output: Path, parts: Mapping[str, Sequence[Utterance]]) -> None:
    """Write NAME.jsonl for each part.

    Raises:
        CorpusError: A part has no utterances, or two of them share an id.
    """
    for name, utterances in parts.items():
        if not utterances:
            raise CorpusError(f"{output}: no utterance is left for {name}")
    for name, utterances in parts.items():
        write_manifest(output / f"{name}.jsonl", utterances)


def find_parts(source: Path | None, parts: Sequence[str], *, names: Sequence[str] = (), fetch: str) -> list[Path]:
    """Folders of a corpus's parts.

    Args:
        source: The unpacked corpus; None if it was not given.
        parts: Names of the folders, which may contain slashes.
        names: Folders of the source in which the parts may be.
        fetch: How to get the corpus, for the error message.

    Raises:
        CorpusError: There is no source, or a part is missing.
    """
    if source is None:
        raise CorpusError(f"no --source: {fetch}")
    if isinstance(parts, str):
        raise CorpusError(f"prepare: expected a list of parts, got {parts!r}; write [{parts}]")
    bases = [source, *(source / name for name in names)]
    found = []
    for part in parts:
        folder = next((base / part for base in bases if (base / part).is_dir()), None)
        if folder is None:
            raise CorpusError(f"{source}: no {part} in it; {fetch}")
        found.append(folder)
    return found
