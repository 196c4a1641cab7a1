"""Recordings with a speaker on each channel: each channel is transcribed separately, and the results are merged."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from speechrnn.audio.blocks import name_source, open_blocks
from speechrnn.audio.containers import open_source
from speechrnn.errors import AudioError, ConfigError, SpeechRNNError
from speechrnn.recognition.transcript import Segment, Transcript, Word

logger = logging.getLogger("speechrnn")

TURN_PAUSE_SECONDS = 0.5
"""At a silence this long in a channel another speaker may take over."""
_DIFFERENCE = 1e-4
"""Most energy of the difference of identical channels, as a share of theirs: −40 dB, more than lossy formats add."""
_NOISE = 1e-8
"""The same for each sample of silence: −80 dBFS, above the noise of dither."""


@dataclass
class _Job:
    """A recording in work: its name, how many of its channels are not done, and the transcripts of those that are."""

    source: Any
    has_speakers: bool
    waiting: int
    done: list[Transcript] = field(default_factory=list)
    is_failed: bool = False


@dataclass(frozen=True, eq=False)
class Channel:
    """A channel to transcribe.

    Attributes:
        source: The recording.
        number: The channel, from 0; None: the mean of all.
        job: The recording that it belongs to.
    """

    source: Any
    number: int | None
    job: _Job


class Unreadable:
    """A file that cannot be read: it raises the error that was found before."""

    def __init__(self, error: SpeechRNNError) -> None:
        self._error = error

    def read(self, size: int = -1) -> bytes:
        """Raise the error."""
        raise self._error


def transcribe_channels(
    transcribe: Callable[..., Iterator[Transcript]],
    sources: Iterable[Any],
    *,
    sample_rate: int | None = None,
    on_error: Callable[[Any, SpeechRNNError], None] | None = None,
    **options: Any,
) -> Iterator[Transcript]:
    """Transcribe each channel of each recording, and merge the channels; lazily and in order.

    A recording of one channel, or of channels that are all identical, is transcribed once and has no speakers; a
    warning says so, of recordings of one channel the first time.

    Args:
        transcribe: Transcribes :class:`Channel` objects as
            :meth:`~speechrnn.recognition.transcriber.Transcriber.transcribe_many` transcribes recordings.
        sources: Recordings.
        sample_rate: Rate of arrays and tensors, in Hz.
        on_error: As for ``transcribe``, but called once for a recording.
        **options: For ``transcribe``.

    Raises:
        ConfigError: The options do not fit separate channels.
    """
    if options.get("are_consecutive") or options.get("nbest", 1) != 1:
        name = "are_consecutive" if options.get("are_consecutive") else "nbest"
        raise ConfigError(f"{name}: cannot be combined with separate channels")
    jobs: deque[_Job] = deque()

    def report(channel: Channel, error: SpeechRNNError) -> None:
        if on_error is None:
            raise error
        is_first, channel.job.is_failed = not channel.job.is_failed, True
        channel.job.waiting -= 1
        if is_first:
            on_error(channel.job.source, error)

    found = transcribe(_list_channels(sources, jobs, sample_rate), sample_rate=sample_rate, on_error=report, **options)
    return _collect(found, jobs)


def merge_channels(transcripts: Sequence[Transcript], *, names: Sequence[str] | None = None) -> Transcript:
    """Merge transcripts of the channels of one recording, each channel a speaker.

    Segments are divided at silences of :data:`TURN_PAUSE_SECONDS` where the other channels have words in between, and
    sorted by their start. What was skipped is the mean over the channels.

    Args:
        transcripts: Of each channel.
        names: The speakers; None: ``Channel 1``, ``Channel 2`` and so on.
    """
    speakers = tuple(names or (f"Channel {number}" for number in range(1, len(transcripts) + 1)))
    parts = [
        (words, (speaker, number))
        for speaker, transcript in zip(speakers, transcripts, strict=True)
        for number, segment in enumerate(transcript.segments)
        for words in _cut_at_pauses(segment.words)
    ]
    turns: list[tuple[list[Word], tuple[str, int]]] = []
    for words, origin in sorted(parts, key=lambda part: part[0][0].start):
        if turns and turns[-1][1] == origin:
            turns[-1][0].extend(words)
        else:
            turns.append((words, origin))
    segments = tuple(
        Segment(words[0].start, words[-1].end, " ".join(word.text for word in words), tuple(words), speaker)
        for words, (speaker, _) in turns
    )
    return replace(
        transcripts[0],
        text=" ".join(segment.text for segment in segments),
        segments=segments,
        rejected=" ".join(each.rejected for each in transcripts if each.rejected),
        skipped_seconds=sum(each.skipped_seconds for each in transcripts) / len(transcripts),
        speakers=speakers,
    )


def _cut_at_pauses(words: Sequence[Word]) -> list[list[Word]]:
    parts = [[words[0]]]
    for word, following in pairwise(words):
        if following.start - word.end >= TURN_PAUSE_SECONDS:
            parts.append([])
        parts[-1].append(following)
    return parts


def _collect(found: Iterator[Transcript], jobs: deque[_Job]) -> Iterator[Transcript]:
    for transcript in found:
        yield from _finish(jobs)  # of those whose last channel failed
        jobs[0].done.append(transcript)
        jobs[0].waiting -= 1
        yield from _finish(jobs)
    yield from _finish(jobs)


def _finish(jobs: deque[_Job]) -> Iterator[Transcript]:
    while jobs and not jobs[0].waiting:
        job = jobs.popleft()
        if not job.is_failed:
            merged = merge_channels(job.done) if job.has_speakers else job.done[0]
            yield replace(merged, audio=os.fspath(job.source) if _is_path(job.source) else None)


def _list_channels(sources: Iterable[Any], jobs: deque[_Job], sample_rate: int | None) -> Iterator[Channel]:
    """The channels of each recording."""
    has_warned = False
    for source in sources:
        with ExitStack() as stack:
            again, count = source, 1
            try:
                again = stack.enter_context(_make_rereadable(source))
                count = _count_channels(again, sample_rate)
                if count == 1 and not has_warned:
                    has_warned = True
                    logger.warning("%s: one channel; such recordings have no speakers", name_source(source))
                elif count > 1 and _are_identical(again, count, sample_rate):
                    logger.warning("%s: %d identical channels; transcribed once", name_source(source), count)
                    count = 1
            except SpeechRNNError as error:
                again, count = Unreadable(error), 1
            jobs.append(job := _Job(source, count > 1, count))
            for number in range(count):
                yield Channel(again, number, job)


@contextmanager
def _make_rereadable(source: Any) -> Iterator[Any]:
    """A source that can be read several times at once; of pipes and open files a temporary copy."""
    is_special = _is_path(source) and os.path.exists(source) and not stat.S_ISREG(os.stat(source).st_mode)
    if not is_special and not hasattr(source, "read"):
        yield source
        return
    name = name_source(source)
    with open_source(source, name) as file, tempfile.NamedTemporaryFile() as copy:
        try:
            shutil.copyfileobj(file, copy)
            copy.flush()
        except OSError as error:
            raise AudioError(f"{name}: its copy {copy.name} cannot be written: {error.strerror}; free space") from error
        yield copy.name


def _count_channels(source: Any, sample_rate: int | None) -> int:
    with open_blocks(source, input_rate=sample_rate, check_levels=False) as opened:
        return opened.info.channels


def _are_identical(source: Any, count: int, sample_rate: int | None) -> bool:
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(open_blocks(source, channel=number, input_rate=sample_rate, check_levels=False))
            for number in range(count)
        )
        return all(
            np.square(block - other).sum() <= _DIFFERENCE * np.square(block).sum() + _NOISE * len(block)
            for block, *rest in zip(first, *others, strict=True)
            for other in rest
        )


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)
