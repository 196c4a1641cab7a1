"""A Kaldi data folder: ``wav.scp``, ``text``, and where they are there ``utt2spk`` and ``segments``.

Each file has one record a line, its name first: ``wav.scp`` a recording's path, ``text`` an utterance's words,
``utt2spk`` its speaker, ``segments`` the recording that it is part of, with start and end in seconds. Without
``segments`` each recording is one utterance.

lhotse's own reader is not used: it runs the commands in ``wav.scp`` and requires one sample rate for all.

Source: Kaldi's documentation, "Data preparation".
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError, name_some


class _Segment(NamedTuple):
    recording: str
    start: float
    seconds: float  # infinite: to the recording's end


def fits(folder: Path) -> bool:
    """Whether a folder is a Kaldi data folder."""
    return (folder / "wav.scp").is_file()


def read_kaldi(folder: Path) -> Iterator[Utterance]:
    """Read a data folder.

    Args:
        folder: Where ``wav.scp`` and ``text`` lie. Relative paths in ``wav.scp`` start there, or at one of the two
            folders above it, or at the working directory: wherever the first recording is found.

    Yields:
        The utterances, in the order of ``text``.

    Raises:
        CorpusError: A file is missing or a line is wrong; a recording is a command; or the files do not name the same
            utterances. The message names the line or the utterance.
    """
    recordings = _read_table(folder / "wav.scp")
    base = _find_base(folder, recordings)
    names = dict.fromkeys(name for name, _ in _read_pairs(folder / "text", may_be_empty=True))
    speakers = _read_table(folder / "utt2spk") if (folder / "utt2spk").is_file() else None
    segments = _read_segments(folder / "segments", recordings)
    where = "segments" if segments else "wav.scp"
    _check_same(folder, names, segments or recordings, where)
    if speakers is not None:
        _check_same(folder, names, speakers, "utt2spk")
    del names
    for name, text in _read_pairs(folder / "text", may_be_empty=True):  # read again: texts take most of the memory
        recording, start, seconds = segments[name] if segments else _Segment(name, 0.0, math.inf)
        speaker = speakers[name] if speakers is not None else None
        yield Utterance(name, base / recordings[recording], text, start, seconds, speaker)


def _read_table(path: Path) -> dict[str, str]:
    """The rest of each line by its first word; as :func:`_read_pairs` in all else."""
    return dict(_read_pairs(path))


def _read_pairs(path: Path, *, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the rest, which may be empty in the file of texts alone.

    Raises:
        CorpusError: There is no such file, it is not UTF-8 or holds nothing, or a line is wrong.
    """
    names: set[str] = set()
    for number, line in read_lines(path, kind="file"):
        name, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
        if name in names:
            raise CorpusError(f"{path} line {number}: {name} is listed on an earlier line; use each name once")
        if not rest.strip() and not may_be_empty:
            raise CorpusError(f"{path} line {number}: nothing follows {name}")
        names.add(name := sys.intern(name))  # all files have the same ones
        yield name, rest.strip()
    if not names:
        raise CorpusError(f"{path}: holds no line")


def _find_base(folder: Path, paths: Mapping[str, str]) -> Path:
    """Where the recordings' paths start; what would have to be executed is refused."""
    for name, path in paths.items():
        if path.endswith("|") or path.startswith("|"):
            raise CorpusError(
                f"{folder / 'wav.scp'}: {name} is a command ({path[:60]}), and none is ever run; write what it makes "
                "to files and name those"
            )
    folder = folder.absolute()
    first = next(iter(paths.values()))
    bases = [folder, folder.parent, folder.parent.parent, Path.cwd()]
    base = next((base for base in bases if (base / first).is_file()), None)
    if base is None:
        raise CorpusError(
            f"{folder / 'wav.scp'}: there is no {first}, seen from {folder}, the two folders above it or the working "
            "directory"
        )
    return base


def _read_segments(path: Path, recordings: Mapping[str, str]) -> dict[str, _Segment] | None:
    if not path.is_file():
        return None
    segments = {}
    for name, line in _read_table(path).items():
        try:
            recording, start, end = line.split()
            segments[name] = _Segment(recording, float(start), _find_seconds(float(start), float(end)))
        except ValueError:
            raise CorpusError(
                f"{path}: {name}: expected a recording and times in seconds, start before end; got {line}"
            ) from None
        if recording not in recordings:
            raise CorpusError(f"{path}: {name} is part of {recording}, which wav.scp does not have")
    return segments


def _find_seconds(start: float, end: float) -> float:
    """The duration of a segment; an end of -1 is that of the recording."""
    if not start >= 0 or not (end == -1 or end > start):
        raise ValueError
    return math.inf if end == -1 else end - start


def _check_same(folder: Path, texts: Mapping[str, object], others: Mapping[str, object], name: str) -> None:
    """Whether two files of the folder name the same utterances.

    Raises:
        CorpusError: They do not; some of those that one lacks are named.
    """
    for lacking, missing in ((name, texts.keys() - others.keys()), ("text", others.keys() - texts.keys())):
        if missing:
            other = "text" if lacking == name else name
            shown = name_some(sorted(missing), 3)
            raise CorpusError(f"{folder}: {lacking} lacks {shown}, which {other} has; add them or take them out")
