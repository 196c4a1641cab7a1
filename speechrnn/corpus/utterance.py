"""One utterance of a corpus, which every reader yields and training, evaluation and recipes take; compact lists."""

from __future__ import annotations

import math
import pickle
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import eq
from pathlib import Path
from typing import Any, cast, overload

from speechrnn.audio.files import read_audio
from speechrnn.audio.resampling import resampled_length
from speechrnn.types import AudioInfo, Waveform

_BLOCK = 32  # rows; access by position decompresses one block
_LEVEL = 1  # of zlib: higher ones take a few per cent less memory and twice the time
_MOST_CHARACTERS = 200_000  # three hours of speech; what aligns texts takes the square of it
_SLACK_SECONDS = 0.05  # corpora round durations


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance: a recording or a part of one, and its text.

    Readers create it from the corpus's files. :func:`speechrnn.corpus.readers.read_corpus` adds the recording's header
    and the duration, and :func:`speechrnn.corpus.check.check_corpus` normalises the text and adds the tokens.

    Attributes:
        id: Name of the utterance, unique in its corpus.
        audio_path: The recording; a path into a tar archive is ``shard.tar/name.flac``.
        text: Transcript; may be empty.
        start: Start of the utterance in the recording, in seconds.
        seconds: Duration; infinite means up to the end of the recording.
        speaker: Name of the speaker, if known.
        corpus: Name of the corpus, in manifests that join several.
        header: Length, rate and channels of the recording; None until the header is read. Not compared.
        tokens: Token ids of the text; empty until the text is encoded, or if the model lacks a character.
    """

    id: str
    audio_path: Path
    text: str
    start: float = 0.0
    seconds: float = math.inf
    speaker: str | None = None
    corpus: str | None = None
    header: AudioInfo | None = field(default=None, compare=False)
    tokens: Sequence[int] = ()

    @property
    def speaker_key(self) -> str | None:
        """The result of :func:`make_speaker_key`."""
        return make_speaker_key(self.corpus, self.speaker)

    def explain_text(self) -> str | None:
        """Why the text is too long for one utterance; None if it is not."""
        if len(self.text) <= _MOST_CHARACTERS:
            return None
        return f"its text has {len(self.text):,} characters, at most {_MOST_CHARACTERS:,} are read; split the recording"

    def explain_misfit(self, header: AudioInfo) -> str | None:
        """Why the utterance is not inside a recording with this header; None if it is, up to rounding."""
        is_inside = self.start * header.sample_rate + 0.5 < header.frames
        end = self.start if math.isinf(self.seconds) else self.start + self.seconds
        if is_inside and end <= header.seconds + _SLACK_SECONDS:
            return None
        edge = "begin" if not is_inside and math.isinf(self.seconds) else "end"
        return (
            f"listed to {edge} at {end:.2f} s, but {self.audio_path} ends at {header.seconds:.2f} s; correct the times "
            "or the recording"
        )

    def with_header(self, header: AudioInfo) -> Utterance:
        """Add the recording's header; the duration becomes finite and ends at the latest with the recording."""
        is_whole = self.start == 0.0 and abs(self.seconds - header.seconds) <= _SLACK_SECONDS
        seconds = header.seconds if is_whole else min(self.seconds, header.seconds - self.start)
        return replace(self, seconds=seconds, header=header)

    def count_samples(self, sample_rate: int) -> int:
        """Number of samples at ``sample_rate`` in Hz, as :func:`read_utterance` returns them; needs the header."""
        assert self.header is not None
        rate = self.header.sample_rate
        first = math.floor(self.start * rate + 0.5)
        count = min(max(1, math.floor(self.seconds * rate + 0.5)), self.header.frames - first)
        return resampled_length(count, rate, sample_rate)


def make_speaker_key(corpus: str | None, speaker: str | None) -> str | None:
    """A speaker's name that is unique across corpora; None if the speaker is unknown."""
    return None if speaker is None else f"{corpus or ''}\x1f{speaker}"


def read_utterance(utterance: Utterance, *, sample_rate: int | None = None) -> Waveform:
    """Read the samples of an utterance.

    Args:
        utterance: With or without its header.
        sample_rate: Wanted rate, in Hz; None keeps the recording's own.

    Raises:
        AudioError: The recording cannot be read.
    """
    return read_audio(
        utterance.audio_path,
        sample_rate=sample_rate,
        start=utterance.start,
        seconds=None if math.isinf(utterance.seconds) else utterance.seconds,
        check_levels=False,
    )


class UtteranceList(Sequence[Utterance]):
    """A list of utterances that can only grow and stores them compressed.

    Each access creates a new object. All rows are in one buffer, which forked processes share, because reading changes
    no reference count in it. Equal to any sequence of equal utterances.

    Args:
        utterances: The first items.
    """

    def __init__(self, utterances: Iterable[Utterance] = ()) -> None:
        self._packed = bytearray()
        self._ends = array("Q", [0])  # where each block ends in it
        self._last: list[tuple[Any, ...]] = []  # rows of the incomplete block
        for utterance in utterances:
            self.append(utterance)

    def append(self, utterance: Utterance) -> None:
        """Add an utterance at the end."""
        self._last.append(_to_row(utterance))
        if len(self._last) == _BLOCK:
            self._packed += zlib.compress(pickle.dumps(self._last, pickle.HIGHEST_PROTOCOL), _LEVEL)
            self._ends.append(len(self._packed))
            self._last = []

    def _read(self, block: int) -> list[tuple[Any, ...]]:
        if block == len(self._ends) - 1:
            return self._last
        packed = self._packed[self._ends[block] : self._ends[block + 1]]
        return cast("list[tuple[Any, ...]]", pickle.loads(zlib.decompress(packed)))

    def __len__(self) -> int:
        return _BLOCK * (len(self._ends) - 1) + len(self._last)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Id, path as text, text, start, seconds, speaker, corpus, tokens and header; faster than utterances."""
        return (row for block in range(len(self._ends)) for row in self._read(block))

    def __iter__(self) -> Iterator[Utterance]:
        return (_from_row(*row) for row in self.rows())

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...

    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self[position] for position in positions]
        block, place = divmod(positions, _BLOCK)
        return _from_row(*self._read(block)[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


def _to_row(each: Utterance) -> tuple[Any, ...]:
    header = each.header
    values = () if header is None else (header.sample_rate, header.channels, header.frames)
    times = each.start, each.seconds
    return each.id, str(each.audio_path), each.text, *times, each.speaker, each.corpus, each.tokens, *values


def _from_row(id: str, path: str, *values: Any) -> Utterance:
    text, start, seconds, speaker, corpus, tokens, *header = values
    info = AudioInfo(*header) if header else None
    return Utterance(id, Path(path), text, start, seconds, speaker, corpus, info, tokens)
