"""Template for your own recordings, in any format that speechrnn reads.

Where ten or more speakers are known, every tenth tests and the one before it validates; else by the corpus's order the
last tenth tests and the tenth before it validates. Change what does not suit: this file is yours.
"""

from pathlib import Path

from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.splits import hold_out, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

# Source of the recordings, for the model card.
ATTRIBUTION = [{"corpus": "Recordings of our own", "license": "ours", "source": "-", "attribution": "-"}]
# LANGUAGE = "en"

EVERY = 10


def prepare(source: Path | None, output: Path, *, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The recordings and their texts.
        output: Output folder.
        seed: Not used: the split is fixed.

    Raises:
        CorpusError: There is no source, it cannot be read, or it is too small to split.
    """
    if source is None:
        raise CorpusError("no --source: pass the folder with your recordings, each with its text in a .txt beside it")
    write_parts(output, split(read_corpus(source), source))


def split(entries: list[Utterance], source: Path) -> dict[str, list[Utterance]]:
    """By speakers where there are enough of them, else by order.

    Raises:
        CorpusError: There are too few utterances.
    """
    if len(entries) < EVERY:
        raise CorpusError(f"{source}: {len(entries)} utterances are too few to split; {EVERY} or more will do")
    rest, test = hold_out(entries, every=EVERY, where=source)
    train, valid = hold_out(rest, every=EVERY - 1, where=source)
    return {"train": train, "valid": valid, "test": test}
