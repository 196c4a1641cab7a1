"""Common Voice: volunteers read sentences in one of 130 languages; the TSV files of a release's language folder.

``train.tsv``, ``dev.tsv`` and ``test.tsv`` have disjoint speakers, and a sentence or two of each. What else was
validated (``validated.tsv``) can be trained on too, as long as its speaker and its sentence are in neither of the
other two.

Source: R. Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020.
"""

import logging
from pathlib import Path

from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.readers.table import read_table
from speechrnn.corpus.splits import leave_out_texts, write_parts
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

logger = logging.getLogger("speechrnn")

ATTRIBUTION = [
    {
        "corpus": "Common Voice",
        "license": "CC0",
        "source": "https://commonvoice.mozilla.org/datasets",
        "attribution": "Mozilla and the contributors of Common Voice",
    }
]

PARTS = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
VALIDATED = "validated.tsv"


def prepare(source: Path | None, output: Path, *, seed: int, use_validated: bool = False) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl; a clip that cannot be read is named and left out.

    Args:
        source: The folder of a language, such as ``cv-corpus-21.0-2025-03-14/gl``, with the TSV files and ``clips``.
        output: Output folder.
        seed: Not used: the split is the published one.
        use_validated: Train on all that was validated, but for speakers and sentences of dev and test.

    Raises:
        CorpusError: There is no source, a file is missing, or a line is wrong.
    """
    if source is None:
        raise CorpusError(
            "Common Voice is not fetched: download a language from https://commonvoice.mozilla.org/datasets, unpack it "
            "and pass the folder with its TSV files with --source"
        )
    for name in (*PARTS.values(), *([VALIDATED] if use_validated else [])):
        if not (source / name).is_file():
            raise CorpusError(f"{source}: no {name} there; pass the folder of a language, with its TSV files and clips")
    listed = {part: list(read_table(source / name)) for part, name in PARTS.items()}
    if use_validated:
        held = [*listed["valid"], *listed["test"]]
        speakers = {each.speaker for each in held} - {None}
        others = (each for each in read_table(source / VALIDATED) if each.speaker not in speakers)
        listed["train"] = leave_out_texts(others, held)

    def report(utterance: Utterance, reason: str) -> None:
        logger.warning("left out: %s: %s", utterance.id, reason)

    write_parts(output, {part: read_headers(each, where=source, on_error=report) for part, each in listed.items()})
