"""What all readers share: recordings' headers, and utterances as lhotse's cuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.audio.files import AudioInfo, audio_info
from speechrnn.corpus.manifest import Entry
from speechrnn.errors import AudioError, CorpusError

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import MonoCut

_SLACK_SECONDS = 0.05
AUDIO_ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".sph")
"""Endings of recordings that a reader looks for where the corpus names them without."""

_THREADS = 4  # headers wait for the disk, not for the interpreter


def read_headers(recordings: Mapping[Path, str], *, where: str | Path) -> dict[Path, AudioInfo]:
    """Read the headers of recordings, each once.

    Args:
        recordings: By path, what an error calls each one ("utterance u1").
        where: The corpus, as an error names it.

    Raises:
        CorpusError: One is missing or unreadable; the message names it.
    """

    def read(path: Path) -> AudioInfo:
        try:
            return audio_info(path)
        except AudioError as error:
            raise CorpusError(f"{where}: {recordings[path]}: {error}") from error

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return dict(zip(recordings, pool.map(read, recordings), strict=True))


def find_recordings(folder: Path) -> dict[str, Path]:
    """The recordings in a folder, those in folders below it not, by their names without ending."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.absolute() for path in sorted(folder.iterdir()) if path.suffix.lower() in AUDIO_ENDINGS}


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
    """All files under a folder, sorted; a link that leads back to a folder above it is not followed."""
    yield from _walk(folder.absolute(), frozenset())


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _walk(path, above | {real})
        elif path.is_file():
            yield path


def make_cuts(
    entries: Sequence[Entry], *, where: str | Path, headers: Mapping[Path, AudioInfo] | None = None
) -> CutSet:
    """Make one cut an utterance; what a recording's header says wins over what its entry says.

    Args:
        entries: The utterances.
        where: The corpus, as an error names it.
        headers: Of the recordings, where they have been read already.

    Raises:
        CorpusError: A recording is missing, unreadable or shorter than its entry says.
    """
    from lhotse import CutSet

    if headers is None:
        recordings: dict[Path, str] = {}
        for entry in entries:
            recordings.setdefault(entry.audio_path, f"utterance {entry.id}")
        headers = read_headers(recordings, where=where)
    return CutSet.from_cuts([_make_cut(entry, headers[entry.audio_path], where) for entry in entries])


def _make_cut(entry: Entry, info: AudioInfo, where: str | Path) -> MonoCut:
    from lhotse import AudioSource, Recording, SupervisionSegment
    from lhotse.cut import MonoCut

    is_inside = entry.offset * info.sample_rate + 0.5 < info.frames
    if not is_inside or entry.offset + entry.seconds > info.seconds + _SLACK_SECONDS:
        raise CorpusError(
            f"{where}: utterance {entry.id}: it is said to end at {entry.offset + entry.seconds:.2f} s, "
            f"{entry.audio_path} ends at {info.seconds:.2f} s; mend the duration or the recording"
        )
    whole = entry.offset == 0.0 and abs(entry.seconds - info.seconds) <= _SLACK_SECONDS
    seconds = info.seconds if whole else min(entry.seconds, info.seconds - entry.offset)
    recording = Recording(
        id=entry.id,
        sources=[AudioSource(type="file", channels=list(range(info.channels)), source=str(entry.audio_path))],
        sampling_rate=info.sample_rate,
        num_samples=info.frames,
        duration=info.seconds,
    )
    supervision = SupervisionSegment(
        id=entry.id, recording_id=entry.id, start=0.0, duration=seconds, text=entry.text, speaker=entry.speaker
    )
    return MonoCut(
        id=entry.id,
        start=entry.offset,
        duration=seconds,
        channel=0,
        supervisions=[supervision],
        recording=recording,
        custom={"corpus": entry.corpus} if entry.corpus is not None else None,
    )
