"""The recordings of a corpus: where they lie, and what their headers say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.audio.files import AudioInfo, audio_info
from speechrnn.corpus.utterance import CompactList, Utterance, compact_utterances
from speechrnn.errors import AudioError, CorpusError

_THREADS = 4  # headers wait for the disk, not for the interpreter
_RESOURCE_FORK = "._"
_AT_ONCE = 1000  # utterances whose headers are read at a time


def read_headers(
    utterances: Iterable[Utterance], *, where: str | Path, on_error: Callable[[Utterance, str], None] | None = None
) -> CompactList[Utterance]:
    """Read the recordings' headers, each once, and add them to the utterances.

    Args:
        utterances: A corpus's utterances; a header that is there already is kept.
        where: The corpus, as an error names it.
        on_error: Called with an utterance whose recording is missing, unreadable or too short for it, and the reason;
            the utterance is then left out. Without it the first such utterance is an error.

    Returns:
        The utterances with headers and durations, in the same order.

    Raises:
        CorpusError: There is such an utterance, and no ``on_error``; the message names it.
    """
    found = compact_utterances()
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
    """Each utterance with its recording's header, or with why that cannot be read."""
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
        return f"{path}: no regular file"  # a pipe or a device may never end
    try:
        return audio_info(path)
    except AudioError as error:
        return str(error)


def find_recordings(folder: Path) -> dict[str, Path]:
    """The recordings in a folder, those in folders below it not, by their names without ending."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.absolute() for path in sorted(folder.iterdir()) if is_recording(path)}


def is_recording(path: Path) -> bool:
    """Whether a file's name is that of a recording; ``._a.flac`` is what macOS keeps beside ``a.flac``."""
    return path.suffix.lower() in AUDIO_ENDINGS and not path.name.startswith(_RESOURCE_FORK)


def find_inside(bases: Sequence[Path], written: str, *, where: str) -> Path:
    """Find a recording by its path as a corpus writes it.

    Args:
        bases: Where a relative path may start; the first at which there is a file counts, else the first.
        written: The path. One that is relative must not leave its base.
        where: What an error begins with.

    Raises:
        CorpusError: It leads out of the corpus, or is no file's name.
    """
    path = Path(written)
    if path.is_absolute():
        return path
    if ".." in path.parts:
        raise CorpusError(
            f"{where}: {written} leads out of the corpus's folder; if that is meant, write the path in full"
        )
    try:
        return next((base / path for base in bases if (base / path).is_file()), bases[0] / path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{where}: {written!r} is no file's name ({error})") from error


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, sorted, but for macOS's ``._*``; a link back to a folder above it is not followed."""
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
