"""What all readers share: utterances as they are listed, their recordings' headers, and lhotse's cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.audio.files import AudioInfo, audio_info
from speechrnn.corpus.compact import CompactList
from speechrnn.corpus.manifest import Entry
from speechrnn.errors import AudioError, CorpusError

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import MonoCut

_SLACK_SECONDS = 0.05
_THREADS = 4  # headers wait for the disk, not for the interpreter
_AT_ONCE = 1000  # utterances whose headers are asked for at a time


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

    def find_seconds(self, info: AudioInfo) -> float:
        """How long it is, in seconds, by its recording's header where no duration is listed."""
        return info.seconds - self.start if self.seconds is None else self.seconds


def compact_listings(listings: Iterable[Listing]) -> CompactList[Listing]:
    """Keep a corpus's utterances in little memory."""
    return CompactList(_from_row, listings, to_row=_to_row)


def _to_row(each: Listing) -> tuple[Any, ...]:
    info = each.info
    stated = () if info is None else (info.seconds, info.sample_rate, info.channels, info.frames)
    return each.id, str(each.audio_path), each.text, each.start, each.seconds, each.speaker, each.corpus, *stated


def _from_row(
    id: str,
    path: str,
    text: str,
    start: float,
    seconds: float | None,
    speaker: str | None,
    corpus: str | None,
    *stated: Any,
) -> Listing:
    return Listing(id, Path(path), text, start, seconds, speaker, corpus, AudioInfo(*stated) if stated else None)


def complete(
    listings: Sequence[Listing], *, where: str | Path, on_error: Callable[[Listing, str], None] | None = None
) -> tuple[list[Entry], list[AudioInfo]]:
    """Look at the recordings' headers, each once.

    Args:
        listings: A corpus's utterances.
        where: The corpus, as an error names it.
        on_error: Called with an utterance whose recording is missing, unreadable or too short for it, and the reason;
            it is then left out. Without it the first such utterance is an error.

    Returns:
        The utterances with their durations, in the same order; and what each one's header says.

    Raises:
        CorpusError: There is such an utterance, and no ``on_error``; the message names it.
    """
    entries, headers = [], []
    for each, found in _find_headers(listings):
        if isinstance(found, AudioInfo):
            seconds = each.find_seconds(found)
            entries.append(Entry(each.id, each.audio_path, seconds, each.text, each.start, each.speaker, each.corpus))
            headers.append(found)
        elif on_error is None:
            raise _refuse(each, found, where)
        else:
            on_error(each, found)
    return entries, headers


def _refuse(listing: Listing, reason: str, where: str | Path) -> CorpusError:
    return CorpusError(f"{where}: utterance {listing.id}: {reason}")


def _find_headers(listings: Iterable[Listing]) -> Iterator[tuple[Listing, AudioInfo | str]]:
    """Each utterance with its recording's header, or with why that cannot be used; every header is read once."""
    headers: dict[str, AudioInfo | str] = {}
    waiting = iter(listings)
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        while part := list(islice(waiting, _AT_ONCE)):
            paths = {str(each.audio_path): each.audio_path for each in part if each.info is None}
            unread = [path for path in paths if path not in headers]
            headers.update(zip(unread, pool.map(_read_header, [paths[path] for path in unread]), strict=True))
            for each in part:
                found = each.info or headers[str(each.audio_path)]
                problem = None if isinstance(found, str) else _explain_times(each, found)
                yield each, found if problem is None else problem


def _read_header(path: Path) -> AudioInfo | str:
    try:
        return audio_info(path)
    except AudioError as error:
        return str(error)


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


def open_cuts(listings: Sequence[Listing], *, where: str | Path) -> CutSet:
    """One cut an utterance, made when it is asked for.

    Args:
        listings: A corpus's utterances.
        where: The corpus, as an error names it.

    Raises:
        CorpusError: A recording is missing, unreadable or too short for its utterance; the message names it.
    """
    from lhotse import CutSet

    headers: CompactList[AudioInfo] = CompactList(AudioInfo)
    for listing, found in _find_headers(listings):
        if isinstance(found, str):
            raise _refuse(listing, found, where)
        if listing.info is None:
            headers.append(found)
    return CutSet(_CutsOf(listings, headers))


@dataclass(frozen=True)
class _CutsOf:
    """Cuts of listed utterances, none of them kept; headers in the order of the listings that do not have theirs."""

    listings: Sequence[Listing]
    headers: Sequence[AudioInfo]

    def __len__(self) -> int:
        return len(self.listings)

    def __iter__(self) -> Iterator[MonoCut]:
        headers = iter(self.headers)
        return (make_cut(listing, listing.info or next(headers)) for listing in self.listings)


def make_cut(listing: Listing, info: AudioInfo) -> MonoCut:
    """An utterance as lhotse describes it; what its recording's header says wins over what is listed."""
    import lhotse

    seconds = listing.find_seconds(info)
    whole = listing.start == 0.0 and abs(seconds - info.seconds) <= _SLACK_SECONDS
    seconds = info.seconds if whole else min(seconds, info.seconds - listing.start)
    source = lhotse.AudioSource(type="file", channels=list(range(info.channels)), source=str(listing.audio_path))
    recording = lhotse.Recording(
        id=listing.id,
        sources=[source],
        sampling_rate=info.sample_rate,
        num_samples=info.frames,
        duration=info.seconds,
    )
    supervision = lhotse.SupervisionSegment(
        id=listing.id, recording_id=listing.id, start=0.0, duration=seconds, text=listing.text, speaker=listing.speaker
    )
    return lhotse.MonoCut(
        id=listing.id,
        start=listing.start,
        duration=seconds,
        channel=0,
        supervisions=[supervision],
        recording=recording,
        custom={"corpus": listing.corpus} if listing.corpus is not None else None,
    )
