"""Any public corpus that lhotse knows how to prepare, by its name: its parts as lhotse names them.

``speechrnn recipe recipes/lhotse_corpus --source DIR --prepare.corpus NAME`` says, where a part is asked for that the
corpus does not have, which it has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechrnn.corpus.lhotse_corpora import WHOLE, list_corpora, read_lhotse_corpus
from speechrnn.corpus.splits import hold_out_speakers, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

HOLD_OUT_EVERY = 10


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
        source: The corpus's folder, as lhotse's ``prepare_NAME`` wants it.
        output: Where the manifests go.
        seed: Not used: the split is the published one, or by speakers.
        corpus: Its name in lhotse.
        train: Parts to train on; None: ``train``, or all that is not split.
        valid: Parts to choose checkpoints on; None: ``dev`` or ``valid``, or a tenth of the training speakers.
        test: Parts to test on; None: ``test``, or a tenth of the training speakers.
        options: What else ``prepare_NAME`` takes.

    Raises:
        ConfigError: lhotse does not know the corpus, or an option.
        CorpusError: There is no source, it cannot be prepared, or a part is not there.
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
        raise CorpusError(f"{source}: {corpus} has the parts {', '.join(parts)}; say which with --prepare.train")
    chosen = {"valid": _choose(parts, valid, ["dev", "valid", "validation"], corpus)}
    chosen["test"] = _choose(parts, test, ["test"], corpus)
    for name in ("test", "valid"):
        if not chosen[name]:
            training, chosen[name] = hold_out_speakers(training, every=HOLD_OUT_EVERY, where=source)
    write_parts(output, {"train": training, **chosen})


def _choose(
    parts: Mapping[str, list[Utterance]], wanted: Sequence[str] | None, usual: Sequence[str], corpus: str
) -> list[Utterance]:
    """The utterances of the parts that are wanted, or of the first usual one that is there."""
    if wanted is None:
        found = [part for name in usual for part in parts if part.lower() == name]
        wanted = found[:1]
    for part in wanted:
        if part not in parts:
            raise CorpusError(f"prepare: {corpus} has no part {part}; it has {', '.join(parts)}")
    return [entry for part in wanted for entry in parts[part]]
