"""Public corpora that lhotse can prepare, by their names in lhotse.

``speechrnn recipe recipes/lhotse_corpus --source DIR --prepare.corpus NAME`` lists the corpus's parts if a requested
part does not exist.
"""

import importlib
import inspect
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.splits import hold_out_speakers, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.types import AudioInfo

HOLD_OUT_EVERY = 10
WHOLE = "all"
"""The part of a corpus that lhotse does not split."""


def prepare(
    source: Path | None,
    output: Path,
    *,
    seed: int,
    corpus: str | None = None,
    train: Sequence[str] | None = None,
    valid: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The corpus's folder, as lhotse's ``prepare_NAME`` expects it.
        output: The folder of the manifests.
        seed: Not used: the split is the published one, or by speakers.
        corpus: Its name in lhotse.
        train: Parts to train on; None: ``train``, or everything if the corpus is not split.
        valid: Parts to choose checkpoints on; None: ``dev`` or ``valid``, or a tenth of the training speakers.
        test: Parts to test on; None: ``test``, or a tenth of the training speakers.
        options: Further arguments of ``prepare_NAME``.

    Raises:
        ConfigError: lhotse does not know the corpus, or an option.
        CorpusError: There is no source, it cannot be prepared, or a part is missing.
    """
    if corpus is None:
        raise CorpusError(f"no --prepare.corpus: name one of {', '.join(list_corpora())}")
    if source is None:
        raise CorpusError(
            f"{corpus} is not fetched: download it (`lhotse download {corpus}`) and pass its folder as --source"
        )
    parts = read_lhotse_corpus(corpus, source, options)
    training = _choose(parts, train, ["train", "training", WHOLE], corpus)
    if not training:
        raise CorpusError(f"{source}: {corpus} has the parts {', '.join(parts)}; choose with --prepare.train")
    chosen = {"valid": _choose(parts, valid, ["dev", "valid", "validation"], corpus)}
    chosen["test"] = _choose(parts, test, ["test"], corpus)
    for name in ("test", "valid"):
        if not chosen[name]:
            training, chosen[name] = hold_out_speakers(training, every=HOLD_OUT_EVERY, where=source)
    write_parts(output, {"train": training, **chosen})


def _choose(
    parts: Mapping[str, Sequence[Utterance]], wanted: Sequence[str] | None, usual: Sequence[str], corpus: str
) -> list[Utterance]:
    """The utterances of the requested parts, or of the first usual one that exists."""
    if wanted is None:
        found = [part for name in usual for part in parts if part.lower() == name]
        wanted = found[:1]
    for part in wanted:
        if part not in parts:
            raise CorpusError(f"prepare: {corpus} has no part {part}; it has {', '.join(parts)}")
    return [entry for part in wanted for entry in parts[part]]


def list_corpora() -> list[str]:
    """Names of the corpora that lhotse prepares."""
    recipes = importlib.import_module("lhotse.recipes")
    return sorted(name.removeprefix("prepare_") for name in vars(recipes) if name.startswith("prepare_"))


def read_lhotse_corpus(
    name: str, source: Path, options: Mapping[str, Any] | None = None
) -> dict[str, Sequence[Utterance]]:
    """Prepare a corpus with lhotse.

    Args:
        name: As in lhotse's ``prepare_NAME``: ``aishell``, ``vctk``, ``yesno`` …
        source: The corpus's folder.
        options: Further arguments of that function.

    Returns:
        The utterances of each part, by lhotse's names of the parts; :data:`WHOLE` if there are none.

    Raises:
        ConfigError: lhotse does not know the corpus, or an option.
        CorpusError: The corpus cannot be prepared, or a recording is not usable.
    """
    known = list_corpora()
    if name not in known:
        raise ConfigError(f"corpus {name!r}: lhotse knows {', '.join(known)}")
    prepare = getattr(importlib.import_module("lhotse.recipes"), f"prepare_{name}")
    _, *others = inspect.signature(prepare).parameters
    for option in options or {}:
        if option not in others:
            raise ConfigError(f"options.{option}: lhotse's prepare_{name} has {', '.join(others)}")
    try:
        prepared = prepare(source, **(options or {}))
    except Exception as error:  # lhotse's functions raise exceptions of any type
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        reason = " ".join(str(error).split()) or f"{type(error).__name__} at: {line}"
        raise CorpusError(f"{source}: lhotse cannot prepare {name} from it ({reason})") from error
    return {part: _read_part(where, each) for part, where, each in _walk_parts(prepared, source)}


def _walk_parts(prepared: Any, source: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Parts at any depth, their names joined by slashes."""
    if not isinstance(prepared, Mapping):
        raise CorpusError(f"{source}: lhotse returns a {type(prepared).__name__}, no manifests")
    if "supervisions" in prepared or "recordings" in prepared:
        return [(WHOLE, str(source), prepared)]
    parts = []
    for part, below in prepared.items():
        for name, _, manifests in _walk_parts(below, source):
            whole = str(part) if name == WHOLE else f"{part}/{name}"
            parts.append((whole, f"{source}, {whole}", manifests))
    return parts


def _read_part(where: str, manifests: Mapping[str, Any]) -> Sequence[Utterance]:
    if "supervisions" not in manifests or "recordings" not in manifests:
        raise CorpusError(f"{where}: lhotse finds no recordings with texts there")
    recordings = {recording.id: recording for recording in manifests["recordings"]}
    utterances = (_list(where, recordings[each.recording_id], each) for each in manifests["supervisions"])
    return read_headers(utterances, where=where)


def _list(where: str, recording: Any, supervision: Any) -> Utterance:
    sources: Sequence[Any] = recording.sources
    if len(sources) != 1 or sources[0].type != "file":
        raise CorpusError(f"{where}: recording {recording.id} is not a single file")
    start = max(0.0, supervision.start)
    return Utterance(
        id=supervision.id,
        audio_path=Path(sources[0].source).absolute(),
        text=supervision.text or "",
        start=start,
        seconds=min(supervision.duration, recording.duration - start),
        speaker=supervision.speaker,
        header=AudioInfo(recording.sampling_rate, recording.num_channels, recording.num_samples),
    )
