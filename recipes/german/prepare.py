"""German: an hour of one speaker, to measure fine-tuning of an English model on another language.

Made for the single-speaker folders of the Rhasspy voice datasets (``metadata.csv`` with ``file_name,text``, recordings
beside it); any corpus that speechrnn reads will do. There is no published split: by the corpus's order the last
TEST_MINUTES test and VALID_MINUTES before them validate; from the beginning ``prepare.minutes`` train. Training leaves
out the sentences that are tested: the corpus has a few twice.
"""

from pathlib import Path

from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.splits import leave_out_texts, take_minutes, write_parts
from speechrnn.errors import CorpusError

ATTRIBUTION = [
    {
        "corpus": "Kerstin, Rhasspy voice dataset",
        "license": "CC0",
        "source": "https://github.com/rhasspy/dataset-voice-kerstin",
        "attribution": "Rhasspy, dataset-voice-kerstin",
    }
]
LANGUAGE = "de"

TEST_MINUTES, VALID_MINUTES = 15.0, 10.0


def prepare(source: Path | None, output: Path, *, seed: int, minutes: float = 60.0) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl.

    Args:
        source: The corpus.
        output: Output folder.
        seed: Not used: the split is fixed.
        minutes: Amount of training data.

    Raises:
        CorpusError: There is no source, it cannot be read, or there is too little of it.
    """
    if source is None:
        raise CorpusError(
            "no --source: pass a folder of German recordings with their texts, such as dataset-voice-kerstin of "
            "https://github.com/rhasspy"
        )
    entries = read_corpus(source)
    test = take_minutes(reversed(entries), TEST_MINUTES)
    valid = take_minutes(reversed(entries[: len(entries) - len(test)]), VALID_MINUTES)
    rest = leave_out_texts(entries[: len(entries) - len(test) - len(valid)], test)
    available = sum(entry.seconds for entry in rest) / 60
    if not 0 < minutes <= available:
        raise CorpusError(
            f"prepare.minutes: {minutes:g}, but {available:.0f} minutes are left to train on after {TEST_MINUTES:g} to "
            f"test and {VALID_MINUTES:g} to validate"
        )
    write_parts(output, {"train": take_minutes(rest, minutes), "valid": valid[::-1], "test": test[::-1]})
