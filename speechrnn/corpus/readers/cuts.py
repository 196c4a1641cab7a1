"""What all readers share: utterances as they are listed, their recordings' headers, and lhotse's cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.audio.files import AudioInfo, audio_info
from speechrnn.corpus.manifest import Entry
from speechrnn.errors import AudioError, CorpusError

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import MonoCut

_SLACK_SECONDS = 0.05
_THREADS = 4  # headers wait for the disk, not for the interpreter


@dataclass(frozen=True, slots=True)
class Listing:
    """An utterance as a corpus lists it, before anybody has looked at its recording.

    Attributes:
        id: Name of the utterance, unique in its corpus.
        audio_path: The recording.
        text: What was said; may be empty.
        start: Where the utterance begins in the recording, in seconds.
        seconds: How long it is; None: to the recording's end.
        speaker: Who spoke, where that is known.
        corpus: Which corpus it comes from, where a manifest joins several.
        info: What the recording's header says, where the corpus was written with it; the header is then not read.
    """

    id: str
    audio_path: Path
    text: str
    start: float = 0.0
    seconds: float | None = None
    speaker: str | None = None
    corpus: str | None = None
    info: AudioInfo | None = None

    @classmethod
    def of(cls, entry: Entry) -> Listing:
        """An entry, its recording not looked at."""
        return cls(
            entry.id, entry.audio_path, entry.text, entry.offset, entry.seconds, entry.speaker, entry.corpus
        )  # fmt: skip


def complete(
    listings: Sequence[Listing], *, where: str | Path, on_error: Callable[[Listing, str], None] | None = None
) -> tuple[list[Entry], dict[Path, AudioInfo]]:
    """Look at the recordings' headers, each once.

    Args:
        listings: A corpus's utterances.
        where: The corpus, as an error names it.
        on_error: Called with an utterance whose recording is missing, unreadable or too short for it, and the reason;
            it is then left out. Without it the first such utterance is an error.

    Returns:
        The utterances with their durations, in the same order; and the headers by path.

    Raises:
        CorpusError: There is such an utterance, and no ``on_error``; the message names it.
    """
    known = {listing.audio_path: listing.info for listing in listings if listing.info is not None}
    unknown = dict.fromkeys(listing.audio_path for listing in listings if listing.audio_path not in known)
    headers, problems = _read_headers(list(unknown))
    headers |= known
    entries = []
    for each in listings:
        info = headers.get(each.audio_path)
        problem = problems[each.audio_path] if info is None else _explain_times(each, info)
        if info is None or problem is not None:
            if on_error is None:
                raise CorpusError(f"{where}: utterance {each.id}: {problem}")
            on_error(each, str(problem))
            continue
        seconds = info.seconds - each.start if each.seconds is None else each.seconds
        entries.append(Entry(each.id, each.audio_path, seconds, each.text, each.start, each.speaker, each.corpus))
    return entries, headers


def _read_headers(paths: Sequence[Path]) -> tuple[dict[Path, AudioInfo], dict[Path, str]]:
    """Headers, and why others cannot be read."""

    def read(path: Path) -> AudioInfo | str:
        try:
            return audio_info(path)
        except AudioError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        found = dict(zip(paths, pool.map(read, paths), strict=True))
    headers = {path: info for path, info in found.items() if not isinstance(info, str)}
    return headers, {path: reason for path, reason in found.items() if isinstance(reason, str)}


def _explain_times(listing: Listing, info: AudioInfo) -> str | None:
    """Why an utterance does not lie in its recording; None where it does, give or take some rounding."""
    is_inside = listing.start * info.sample_rate + 0.5 < info.frames
    end = listing.start if listing.seconds is None else listing.start + listing.seconds
    if is_inside and end <= info.seconds + _SLACK_SECONDS:
        return None
    edge = "begin" if not is_inside and listing.seconds is None else "end"
    return (
        f"it is said to {edge} at {end:.2f} s, {listing.audio_path} ends at {info.seconds:.2f} s; mend the duration or "
        "the recording"
    )


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


def make_cuts(entries: Sequence[Entry], headers: Mapping[Path, AudioInfo]) -> CutSet:
    """One cut an utterance, made when it is asked for; what a recording's header says wins over what its entry says."""
    from lhotse import CutSet

    return CutSet(_CutsOf(entries, headers))


@dataclass(frozen=True)
class _CutsOf:
    """Cuts of entries, none of them kept: a cut takes up ten times the memory of its entry."""

    entries: Sequence[Entry]
    headers: Mapping[Path, AudioInfo]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[MonoCut]:
        return (_make_cut(entry, self.headers[entry.audio_path]) for entry in self.entries)


def _make_cut(entry: Entry, info: AudioInfo) -> MonoCut:
    from lhotse import AudioSource, Recording, SupervisionSegment
    from lhotse.cut import MonoCut

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
