"""English from every corpus that the source holds: human transcripts, machine transcripts and synthetic speech.

| folder of the source | use | split |
| --- | --- | --- |
| ``speechocean762`` | train, valid, test | as in its own recipe |
| ``librispeech`` | train, valid, test | ``train-*``, ``dev-clean`` and ``test-clean``; without ``train-*``: by reader |
| ``ljspeech`` | train, valid, test | as in its own recipe |
| ``kathleen``, ``orders``, ``asterisk-prompts`` | train | |
| ``untranscribed`` with ``untranscribed-labels.jsonl`` | train | machine transcripts |
| ``synthetic*`` | train | |
| ``common-voice-samples/en`` | test | |

Each folder is optional. ``prepare.folders`` names further folders to train on, in any format that speechrnn reads.

Training texts are lower-case letters, apostrophes and spaces, with numbers and abbreviations spelled out, as in
LibriSpeech. Test sets keep their published texts. A training utterance is left out if its text equals a validation or
test text of another corpus or has six words in a row in common with one.
"""

import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from speechrnn.corpus.manifest import read_manifest, write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.recipe import load_prepare
from speechrnn.text.normalize import TextConfig, normalize_text

logger = logging.getLogger("speechrnn")

_RECIPES = Path(__file__).resolve().parents[1]
_speechocean762, _ljspeech, _librispeech = (
    load_prepare(_RECIPES / name) for name in ("speechocean762", "ljspeech", "librispeech")
)

ATTRIBUTION = [
    *_speechocean762.ATTRIBUTION,
    *_librispeech.ATTRIBUTION,
    *_ljspeech.ATTRIBUTION,
    {
        "corpus": "Kathleen",
        "license": "CC0",
        "source": "https://github.com/rhasspy/dataset-voice-kathleen",
        "attribution": "Kathleen and the Rhasspy project",
    },
    {
        "corpus": "Drink orders of the speech-to-intent benchmark (machine transcripts)",
        "license": "Apache-2.0",
        "source": "https://github.com/Picovoice/speech-to-intent-benchmark",
        "attribution": "Picovoice",
    },
    {
        "corpus": "Asterisk core sounds, English",
        "license": "CC BY-SA 3.0",
        "source": "https://downloads.asterisk.org/pub/telephony/sounds/",
        "attribution": "Allison Smith, with financial contributions by Digium, Inc.",
    },
    {
        "corpus": "Synthetic speech of the Kokoro synthesiser",
        "license": "Apache-2.0 (model); CC0 and public-domain texts",
        "source": "https://huggingface.co/hexgrad/Kokoro-82M",
        "attribution": "hexgrad",
    },
]
LANGUAGE = "en"

CORPORA = ("speechocean762", "librispeech", "ljspeech")
TRAINING_CORPORA = ("kathleen", "orders", "asterisk-prompts")
SYNTHETIC = "synthetic*"
UNTRANSCRIBED, LABELS = "untranscribed", "untranscribed-labels.jsonl"
COMMON_VOICE, COMMON_VOICE_TABLE = "common-voice-samples", "en/validated.tsv"

TEST_READER_EVERY = 5
TRAINING_PARTS = "train-*"
VALID_PART, TEST_PART = "dev-clean", "test-clean"

SHARED_WORDS = 6
TEXT = TextConfig(numbers="words", language="en")
ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor", "etc": "et cetera"}
_ABBREVIATION = re.compile(rf"\b({'|'.join(ABBREVIATIONS)})\b\.?", re.IGNORECASE)
_TARGET = re.compile(r"[a-z' ]*[a-z][a-z' ]*")

Parts = dict[str, list[Utterance]]


def prepare(
    source: Path | None,
    output: Path,
    *,
    seed: int,
    fold: str | None = None,
    folders: Sequence[str] = (),
    least_confidence: float = 0.65,
) -> None:
    """Write train.jsonl and valid.jsonl with all corpora in them, and for each corpus its test set, as in
    librispeech-test.jsonl.

    Args:
        source: The folder that holds the corpora's folders.
        output: Where the manifests go.
        seed: Not used: the splits are fixed.
        fold: None; this recipe has no folds.
        folders: Further folders to train on. The last part of a path is the corpus's name.
        least_confidence: Machine transcripts of ``untranscribed`` below this confidence are left out.

    Raises:
        CorpusError: No source, or none of the corpora is there; one of them is not as it was published; or a fold was
            asked for.
    """
    if fold is not None:
        raise CorpusError(f"fold {fold!r}: the english recipe has no folds; leave it out")
    corpora = _read_corpora(source, folders, least_confidence)
    joined: Parts = {"train": [], "valid": []}
    for name, parts in corpora.items():
        held_out = (each for other in corpora if other != name for each in _held_out(corpora[other]))
        train = _select(parts.get("train", []), HeldOutTexts(each.text for each in held_out), name)
        joined["train"] += [_label(each, name) for each in train]
        joined["valid"] += [_label(replace(each, text=to_target(each.text)), name) for each in parts.get("valid", [])]
        if "test" in parts:
            write_manifest(output / f"{name}-test.jsonl", [_label(each, name) for each in parts["test"]])
    for part, utterances in joined.items():
        if not utterances:
            raise CorpusError(
                f"{source}: nothing to {'train on' if part == 'train' else 'validate on'}; add one of "
                f"{', '.join(CORPORA)}"
            )
        write_manifest(output / f"{part}.jsonl", utterances)


def _read_corpora(source: Path | None, folders: Sequence[str], least_confidence: float) -> dict[str, Parts]:
    """The parts of each corpus that is there, by the corpus's name."""
    if source is None:
        raise CorpusError(_explain_sources("no --source"))
    splits: dict[str, Callable[[Path], Parts]] = {
        "speechocean762": _speechocean762.read_parts,
        "librispeech": split_librispeech,
        "ljspeech": _ljspeech.split_ljspeech,
    }
    corpora = {name: splits[name](source / name) for name in CORPORA if (source / name).is_dir()}
    extra = [source / name for name in TRAINING_CORPORA if (source / name).is_dir()]
    extra += sorted(path for path in source.glob(SYNTHETIC) if path.is_dir())
    for folder in (*extra, *map(Path, folders)):
        name = folder.resolve().name
        if name in corpora:
            raise CorpusError(f"{folder}: there is another corpus {name}; rename the folder")
        corpora[name] = {"train": list(read_corpus(folder))}
    if (source / LABELS).is_file() and (source / UNTRANSCRIBED).is_dir():
        readers = {each.speaker for part in corpora.get("librispeech", {}).values() for each in part}
        labelled = read_untranscribed(source, readers, least_confidence)
        corpora[UNTRANSCRIBED] = {"train": list(read_headers(labelled, where=source / LABELS))}
    if (source / COMMON_VOICE / COMMON_VOICE_TABLE).is_file():
        corpora[COMMON_VOICE] = {"test": list(read_corpus(source / COMMON_VOICE / COMMON_VOICE_TABLE))}
    if not corpora:
        raise CorpusError(_explain_sources(str(source)))
    return corpora


def _explain_sources(where: str) -> str:
    return (
        f"{where}: pass a folder that holds one or more of {', '.join(CORPORA)}, each as its own archive makes it; "
        "none is fetched"
    )


def split_librispeech(folder: Path) -> Parts:
    """By parts where there is one to train on, else by readers: in the order of their names every fifth reader tests,
    and the first of the others validates.

    Raises:
        CorpusError: The recordings are not there, or too few readers or parts to split.
    """
    tree = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    training = sorted(path for path in tree.glob(TRAINING_PARTS) if path.is_dir())
    if training:
        for part in (VALID_PART, TEST_PART):
            if not (tree / part).is_dir():
                raise CorpusError(f"{tree}: no {part} beside {training[0].name}; it is needed to choose and to test")
        return {
            "train": [entry for part in training for entry in read_corpus(part, "librispeech")],
            "valid": list(read_corpus(tree / VALID_PART, "librispeech")),
            "test": list(read_corpus(tree / TEST_PART, "librispeech")),
        }
    entries = read_corpus(tree, "librispeech")
    readers = sorted({entry.speaker for entry in entries})
    tested = readers[TEST_READER_EVERY - 1 :: TEST_READER_EVERY]
    others = [reader for reader in readers if reader not in tested]
    if not tested or len(others) < 2:
        raise CorpusError(f"{tree}: {len(readers)} readers are too few to split; {TEST_READER_EVERY} or more will do")
    return {
        "train": [entry for entry in entries if entry.speaker in others[1:]],
        "valid": [entry for entry in entries if entry.speaker == others[0]],
        "test": [entry for entry in entries if entry.speaker in tested],
    }


def read_untranscribed(source: Path, known_readers: set[str | None], least_confidence: float) -> Iterator[Utterance]:
    """Recordings of ``untranscribed`` with their machine transcripts.

    Args:
        source: The folder that holds both.
        known_readers: Readers of LibriSpeech's own folder, who are left out: some of them test.
        least_confidence: Transcripts below it are left out.
    """
    labels = read_manifest(source / LABELS)
    lines = (source / LABELS).read_text(encoding="utf-8").splitlines()
    confidences = [json.loads(line).get("confidence", 0.0) for line in lines if line.strip()]
    for each, confidence in zip(labels, confidences, strict=True):
        if each.speaker not in known_readers and confidence >= least_confidence:
            yield replace(each, audio_path=source / UNTRANSCRIBED / each.audio_path.name)


def to_target(text: str) -> str:
    """A text as the acoustic model learns to write it: a-z, apostrophes and spaces; other letters stay as they are."""
    spoken = _ABBREVIATION.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)
    plain = "".join(each for each in unicodedata.normalize("NFKD", spoken) if not unicodedata.combining(each))
    return normalize_text(plain, TEXT)


class HeldOutTexts:
    """Texts that no training utterance of another corpus may repeat.

    Args:
        texts: As published.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        targets = {to_target(text) for text in texts}
        self._whole = targets
        self._runs = {run for target in targets for run in _runs(target)}

    def overlap(self, target: str) -> bool:
        """Whether a text equals one of them or has SHARED_WORDS words in a row in common with one."""
        return target in self._whole or any(run in self._runs for run in _runs(target))


def _runs(target: str) -> Iterator[tuple[str, ...]]:
    words = target.split()
    return (tuple(words[start : start + SHARED_WORDS]) for start in range(len(words) - SHARED_WORDS + 1))


def _held_out(parts: Parts) -> Iterator[Utterance]:
    return (each for part in ("valid", "test") for each in parts.get(part, []))


def _select(utterances: Iterable[Utterance], held_out: HeldOutTexts, corpus: str) -> list[Utterance]:
    """Utterances to train on, with their target texts; how many are left out is logged."""
    kept, left_out = [], Counter[str]()
    for each in utterances:
        target = to_target(each.text)
        if not _TARGET.fullmatch(target):
            left_out["other characters"] += 1
        elif held_out.overlap(target):
            left_out["held-out text"] += 1
        else:
            kept.append(replace(each, text=target))
    if kept or left_out:
        hours = sum(each.seconds for each in kept) / 3600
        reasons = "".join(f", {count} left out ({reason})" for reason, count in sorted(left_out.items()))
        logger.info("%s: %d utterances (%.2f h) to train on%s", corpus, len(kept), hours, reasons)
    return kept


def _label(entry: Utterance, corpus: str) -> Utterance:
    """The entry under a name that no other corpus has."""
    speaker = None if entry.speaker in (None, "unknown") else f"{corpus}-{entry.speaker}"
    return replace(entry, id=f"{corpus}-{entry.id}", corpus=corpus, speaker=speaker)
