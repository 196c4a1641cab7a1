"""Corpora of any known format as lists of utterances: one module per format, imported when the format is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers.recordings import (
    TEXT_ENDINGS,
    find_manifest,
    find_table,
    is_recording,
    is_table,
    read_column_names,
    read_headers,
    walk,
)
from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.errors import CorpusError

_MANIFEST = "manifest.jsonl"
_DEEP = ("librispeech", "sidecar")
"""Formats whose detection searches all subfolders; tried in this order if no other format fits."""


@dataclass(frozen=True)
class Format:
    """A format of corpora; the module of its name has the reader.

    Attributes:
        name: Value of ``--format``.
        description: The files that identify it.
        fits: Whether a path holds such a corpus, judged by file names and at most the first line of one file.
    """

    name: str
    description: str
    fits: Callable[[Path], bool]

    def read(self, path: Path) -> Iterable[Utterance]:
        """Read the utterances, without the headers of recordings."""
        if self.name == "nemo":
            return read_manifest(path / _MANIFEST if path.is_dir() else path)
        read = getattr(import_module(f"{__name__}.{self.name}"), f"read_{self.name}")
        return cast("Iterable[Utterance]", read(path))


def list_formats() -> dict[str, Format]:
    """All formats, by name."""
    return {name: Format(name, description, fits) for name, (description, fits) in _FORMATS.items()}


def find_format(path: str | Path, name: str | None = None) -> Format:
    """Detect the format of a corpus.

    Args:
        path: A file or a folder.
        name: Name of the format; None detects it.

    Raises:
        CorpusError: The path does not exist, no format or more than one fits, or no format has that name.
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
    quick = [each for each in formats.values() if each.name not in _DEEP and each.fits(path)]
    fitting = quick or [formats[each] for each in _DEEP if formats[each].fits(path)][:1]
    if not fitting:
        described = "; ".join(f"{each.name}: {each.description}" for each in formats.values())
        raise CorpusError(f"{path}: no known format ({described})")
    if len(fitting) > 1:
        names = " and ".join(each.name for each in fitting)
        raise CorpusError(f"{path}: could be {names}; choose one with --format (data.format in a configuration)")
    return fitting[0]


def read_corpus(
    path: str | Path, format: str | None = None, *, on_error: Callable[[Utterance, str], None] | None = None
) -> UtteranceList:
    """Read a corpus.

    Args:
        path: A file or a folder in one of the formats of :func:`list_formats`.
        format: Name of the format; None detects it.
        on_error: Called with each utterance whose recording cannot be used, and the reason; None raises an error.

    Returns:
        The utterances with their recordings' headers. Durations are those of the audio files, not of the manifest.

    Raises:
        CorpusError: The corpus cannot be read, or a line or a recording is not usable; the message names it.
    """
    found = find_format(path, format)
    utterances = UtteranceList(found.read(Path(path)))
    if not utterances:
        raise CorpusError(f"{path}: contains no utterance; expected {found.description}")
    return read_headers(utterances, where=path, on_error=on_error)


def _has(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def _is_nemo(path: Path) -> bool:
    """Whether a path is a manifest, or a folder with one; tables and lhotse's cuts can have the same file ending."""
    if path.is_dir():
        return (path / _MANIFEST).is_file()
    return path.suffix in (".json", ".jsonl") and not _is_lhotse(path) and not _is_table(path)


def _is_ljspeech(path: Path) -> bool:
    metadata = path / "metadata.csv"
    return metadata.is_file() and (path / "wavs").is_dir() and not is_table(metadata)


def _is_librispeech(path: Path) -> bool:
    return path.is_dir() and any(each.name.endswith(".trans.txt") for each in walk(path))


def _is_table(path: Path) -> bool:
    if path.is_dir():
        return find_table(path) is not None
    return path.suffix in (".csv", ".tsv") or (path.suffix == ".jsonl" and "file_name" in read_column_names(path))


def _is_stm(path: Path) -> bool:
    return path.suffix == ".stm" or _has(path, "[!.]*.stm") or _has(path, "stm/[!.]*.stm")


def _is_lhotse(path: Path) -> bool:
    """Whether a path is a file of cuts, or a folder with cuts that are not Shar's, or with lhotse's two manifests."""
    if path.is_file():
        return {"type", "recording"} <= read_column_names(path)
    is_pair = bool(find_manifest(path, "recordings") and find_manifest(path, "supervisions"))
    return (is_pair or find_manifest(path, "cuts") is not None) and not _is_shar(path)


def _is_shar(path: Path) -> bool:
    return _has(path, "cuts.*jsonl*") and _has(path, "recording.*tar")


def _is_sidecar(path: Path) -> bool:
    recordings = filter(is_recording, walk(path)) if path.is_dir() else ()
    return any(each.with_suffix(ending).is_file() for each in recordings for ending in TEXT_ENDINGS)


_FORMATS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "nemo": (f"a NeMo manifest (.jsonl), or {_MANIFEST} in a folder", _is_nemo),
    "kaldi": ("wav.scp in a folder", lambda path: _has(path, "wav.scp")),
    "ljspeech": ("metadata.csv without a header, and wavs", _is_ljspeech),
    "librispeech": ("*.trans.txt under a folder", _is_librispeech),
    "table": ("a .csv or .tsv with a header, or metadata.csv or .jsonl in a folder (audiofolder)", _is_table),
    "stm": (".stm, a file or in a folder or its stm", _is_stm),
    "lhotse": ("lhotse's cuts, or recordings and supervisions", _is_lhotse),
    "shar": ("lhotse's Shar, as speechrnn corpus pack writes it", _is_shar),
    "sidecar": ("recordings with .txt or .lab beside each", _is_sidecar),
}
