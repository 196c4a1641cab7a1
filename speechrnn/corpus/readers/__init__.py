"""Corpora of any known format as lists of utterances: one file a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers.recordings import read_headers
from speechrnn.corpus.utterance import CompactList, Utterance, compact_utterances
from speechrnn.errors import CorpusError

_MANIFEST = "manifest.jsonl"
_DEEP = ("librispeech", "sidecar")
"""Formats that need a walk through all folders; tried where no other format fits, in this order."""


@dataclass(frozen=True)
class Format:
    """A format of corpora.

    Attributes:
        name: What ``--format`` calls it.
        description: What it is known by.
        fits: Whether a path holds such a corpus, by a look at names and at most the first lines of one file.
        read: Reads the utterances; headers of recordings are not read.
    """

    name: str
    description: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], Iterable[Utterance]]


def list_formats() -> dict[str, Format]:
    """All formats, by name."""
    from speechrnn.corpus.readers import kaldi, lhotse, librispeech, ljspeech, shar, sidecar, stm, table

    transcripts = librispeech.TRANSCRIPTS
    known = (
        Format("nemo", f"a NeMo manifest (.jsonl), or {_MANIFEST} in a folder", _is_nemo, _read_nemo),
        Format("kaldi", "wav.scp in a folder", kaldi.fits, kaldi.read_kaldi),
        Format("ljspeech", "metadata.csv without a header, and wavs", ljspeech.is_ljspeech, ljspeech.read_ljspeech),
        Format("librispeech", f"{transcripts} under a folder", librispeech.fits, librispeech.read_librispeech),
        Format(
            "table",
            "a .csv or .tsv with a header, or metadata.csv or .jsonl in a folder (audiofolder)",
            table.fits,
            table.read_table,
        ),
        Format("stm", ".stm, a file or in a folder or its stm", stm.fits, stm.read_stm),
        Format("lhotse", "lhotse's cuts, or recordings and supervisions", lhotse.fits, lhotse.read_lhotse),
        Format("shar", "lhotse's Shar, as speechrnn corpus pack writes it", shar.fits, shar.read_shar),
        Format("sidecar", "recordings with .txt or .lab beside each", sidecar.fits, sidecar.read_sidecars),
    )
    return {each.name: each for each in known}


def find_format(path: str | Path, name: str | None = None) -> Format:
    """Find a corpus's format by looking.

    Args:
        path: A file or a folder.
        name: Name of the format; None detects it.

    Raises:
        CorpusError: There is nothing, nothing known or more than one thing there, or no format of that name.
    """
    path, formats = Path(path), list_formats()
    if name is not None and name not in formats:
        raise CorpusError(f"unknown format {name!r}; choose from {', '.join(formats)}")
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder; check the path")
    if not (path.is_file() or path.is_dir()):
        raise CorpusError(f"{path}: is neither a regular file nor a folder; check the path")
    if name is not None:
        return formats[name]
    fitting = [each for each in formats.values() if each.name not in _DEEP and each.fits(path)]
    fitting = fitting or [each for each in formats.values() if each.name in _DEEP and each.fits(path)][:1]
    if not fitting:
        described = "; ".join(f"{each.name}: {each.description}" for each in formats.values())
        raise CorpusError(f"{path}: no known format ({described})")
    if len(fitting) > 1:
        names = " and ".join(each.name for each in fitting)
        raise CorpusError(f"{path}: could be {names}; say which with --format (data.format in a configuration)")
    return fitting[0]


def read_corpus(
    path: str | Path, format: str | None = None, *, on_error: Callable[[Utterance, str], None] | None = None
) -> CompactList[Utterance]:
    """Read a corpus.

    Args:
        path: A file or a folder in one of the formats that :func:`list_formats` lists.
        format: Which of them; None: detected.
        on_error: Called with an utterance whose recording cannot be used, and the reason, instead of an error.

    Returns:
        The utterances with their recordings' headers. Durations are those of the audio files, not of the manifest.

    Raises:
        CorpusError: There is nothing to read there, or a line or a recording is not usable; the message names it.
    """
    found = find_format(path, format)
    utterances = compact_utterances(found.read(Path(path)))
    if not utterances:
        raise CorpusError(f"{path}: holds no utterance; expected {found.description}")
    return read_headers(utterances, where=path, on_error=on_error)


def _is_nemo(path: Path) -> bool:
    """Whether a path may be a manifest, or is a folder with one; other formats have JSON lines, too."""
    from speechrnn.corpus.readers import lhotse, table

    if path.is_dir():
        return (path / _MANIFEST).is_file()
    return path.suffix in (".json", ".jsonl") and not lhotse.is_cuts(path) and not table.is_huggingface(path)


def _read_nemo(path: Path) -> Iterable[Utterance]:
    return read_manifest(path / _MANIFEST if path.is_dir() else path)
