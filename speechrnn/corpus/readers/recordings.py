"""The files of a corpus: its tables and recordings, and what the recordings' headers say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from speechrnn.audio.containers import AUDIO_ENDINGS, CONTAINER_ENDINGS
from speechrnn.audio.files import audio_info
from speechrnn.corpus.manifest import read_lines, read_records
from speechrnn.corpus.utterance import Utterance, UtteranceList
from speechrnn.errors import AudioError, CorpusError
from speechrnn.types import AudioInfo

TEXT_ENDINGS = (".txt", ".lab")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")
AUDIO_COLUMNS = (
    *("wav_filename", "file_name", "audio_filepath", "path", "wav"),
    *("audio", "filename", "file", "audio_path"),
)
TEXT_COLUMNS = ("transcript", "transcription", "sentence", "text", "wrd", "words")

_THREADS = 4  # headers wait for the disk, not for the interpreter
_RESOURCE_FORK = "._"
_AT_ONCE = 1000  # utterances whose headers are read at a time


def read_headers(
    utterances: Iterable[Utterance], *, where: str | Path, on_error: Callable[[Utterance, str], None] | None = None
) -> UtteranceList:
    """Read each recording's header once and add it to the utterances.

    Args:
        utterances: A corpus's utterances; headers that are present are kept.
        where: The corpus, for the error message.
        on_error: Called with each utterance whose recording is missing, unreadable or too short for it, and the reason;
            the utterance is then left out. None raises an error.

    Returns:
        The utterances with headers and durations, in the same order.

    Raises:
        CorpusError: A recording cannot be used, and ``on_error`` is None; the message names the utterance.
    """
    found = UtteranceList()
    for each, header in _find_headers(utterances):
        problem = header if isinstance(header, str) else each.explain_text() or each.explain_misfit(header)
        if not isinstance(header, str) and problem is None:
            found.append(each.with_header(header))
        elif on_error is None:
            raise CorpusError(f"{where}: utterance {each.id}: {problem}")
        else:
            on_error(each, str(problem))
    return found


def _find_headers(utterances: Iterable[Utterance]) -> Iterator[tuple[Utterance, AudioInfo | str]]:
    """Each utterance with its recording's header, or with the reason why it cannot be read."""
    headers: dict[str, AudioInfo | str] = {}
    waiting = iter(utterances)
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        while part := list(islice(waiting, _AT_ONCE)):
            paths = {str(each.audio_path): each.audio_path for each in part if each.header is None}
            unread = [path for path in paths if path not in headers]
            headers.update(zip(unread, pool.map(_read_header, [paths[path] for path in unread]), strict=True))
            yield from ((each, each.header or headers[str(each.audio_path)]) for each in part)


def _read_header(path: Path) -> AudioInfo | str:
    if not path.is_file() and not path.is_dir() and path.exists():
        return f"{path}: not a regular file"  # a pipe or a device may never end
    try:
        return audio_info(path)
    except AudioError as error:
        return str(error)


def find_table(folder: Path) -> Path | None:
    """A folder's metadata file, if it is a table of utterances."""
    return next((folder / name for name in METADATA if is_table(folder / name)), None)


def is_table(path: Path) -> bool:
    """Whether a file's first line names a column of recordings and one of texts."""
    names = read_column_names(path)
    return not names.isdisjoint(AUDIO_COLUMNS) and not names.isdisjoint(TEXT_COLUMNS)


def read_column_names(path: Path) -> set[str]:
    """Names in a table's header, or the keys of the first JSON object of a file; empty if it cannot be read."""
    try:
        if ".json" in path.name:
            return set(next(read_records(path, kind="table"), (0, dict[str, str]()))[1])
        _, header = next(read_lines(path, kind="table"), (0, ""))
        return {name.strip(' "\r').casefold() for name in re.split(r"[,;|\t]", header)}
    except CorpusError:
        return set()


def find_manifest(folder: Path, name: str) -> Path | None:
    """A JSON file of this name in a folder, compressed or not."""
    paths = (folder / (name + ending) for ending in (".jsonl", ".jsonl.gz", ".json", ".json.gz"))
    return next((path for path in paths if path.is_file()), None)


def find_recordings(folder: Path) -> dict[str, Path]:
    """The recordings in a folder, not in its subfolders, by their names without ending; the sound before the video."""
    if not folder.is_dir():
        return {}
    found = sorted(filter(is_recording, folder.iterdir()), key=lambda path: (not is_container(path), path))
    return {path.stem: path.absolute() for path in found}


def is_container(path: Path) -> bool:
    """Whether a file has the name of one that only FFmpeg reads, such as a video."""
    return path.suffix.lower() in CONTAINER_ENDINGS


def is_recording(path: Path) -> bool:
    """Whether a file has the name of a recording; macOS stores metadata of ``a.flac`` in ``._a.flac``."""
    return path.suffix.lower() in AUDIO_ENDINGS and not path.name.startswith(_RESOURCE_FORK)


def find_inside(bases: Sequence[Path], written: str, *, where: str) -> Path:
    """Find a recording by its path in the corpus's files.

    Args:
        bases: Folders where a relative path may start; the first with such a file, else the first.
        written: The path. A relative path must not leave its base.
        where: Start of the error message.

    Raises:
        CorpusError: The path leads out of the corpus, or is not a file name.
    """
    path = Path(written)
    if path.is_absolute():
        return path
    if ".." in path.parts:
        raise CorpusError(
            f"{where}: {written} leads out of the corpus's folder; if that is intended, write the path in full"
        )
    try:
        return next((base / path for base in bases if (base / path).is_file()), bases[0] / path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{where}: {written!r} is not a file name ({error})") from error


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, sorted, without macOS's ``._*``; links back to a parent folder are not followed."""
    yield from _walk(folder.absolute(), frozenset())


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _walk(path, above | {real})
        elif path.is_file() and not path.name.startswith(_RESOURCE_FORK):
            yield path
