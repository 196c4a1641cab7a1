"""A Kaldi data folder: ``wav.scp``, ``text``, and optionally ``utt2spk`` and ``segments``.

Each line is one record and starts with its name: ``wav.scp`` has a recording's path, ``text`` the words of an
utterance, ``utt2spk`` its speaker, ``segments`` its recording with start and end in seconds. Without ``segments`` each
recording is one utterance.

lhotse's own reader is not used: it runs the commands in ``wav.scp`` and requires one sample rate for all.

Source: Kaldi's documentation, "Data preparation".
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError, name_some

_Segment = tuple[str, float, float]  # recording, start and duration in seconds


def read_kaldi(folder: Path) -> Iterator[Utterance]:
    """Read a data folder.

    Args:
        folder: The folder of ``wav.scp`` and ``text``. Relative paths in ``wav.scp`` start at this folder, at one of
            the two folders above it, or at the working directory, wherever the first recording is found.

    Yields:
        The utterances, in the order of ``text``.

    Raises:
        CorpusError: A file is missing, a line is wrong, a recording is a command, or the files name different
            utterances. The message names the line or the utterance.
    """
    recordings = dict(_read_pairs(folder / "wav.scp"))
    base = _find_base(folder, recordings)
    names = dict.fromkeys(name for name, _ in _read_pairs(folder / "text", may_be_empty=True))
    speakers = dict(_read_pairs(folder / "utt2spk")) if (folder / "utt2spk").is_file() else None
    segments = _read_segments(folder / "segments", recordings)
    _check_same(folder, names, segments or recordings, "segments" if segments else "wav.scp")
    if speakers is not None:
        _check_same(folder, names, speakers, "utt2spk")
    del names
    for name, text in _read_pairs(folder / "text", may_be_empty=True):  # read again: texts take most of the memory
        recording, start, seconds = segments[name] if segments else (name, 0.0, math.inf)
        speaker = speakers[name] if speakers is not None else None
        yield Utterance(name, base / recordings[recording], text, start, seconds, speaker)


def _read_pairs(path: Path, *, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the rest of the line."""
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
        raise CorpusError(f"{path}: contains no line")


def _find_base(folder: Path, paths: Mapping[str, str]) -> Path:
    """The folder where the recordings' paths start."""
    scp = folder / "wav.scp"
    for name, path in paths.items():
        if path.endswith("|") or path.startswith("|"):
            raise CorpusError(
                f"{scp}: {name} is a command ({path[:60]}), and commands are not run; write its output to files and "
                "list those"
            )
    folder = folder.absolute()
    first = next(iter(paths.values()))
    for base in (folder, folder.parent, folder.parent.parent, Path.cwd()):
        if (base / first).is_file():
            return base
    raise CorpusError(f"{scp}: no file {first} in {folder}, the two folders above it or the working directory")


def _read_segments(path: Path, recordings: Mapping[str, str]) -> dict[str, _Segment] | None:
    if not path.is_file():
        return None
    segments: dict[str, _Segment] = {}
    for name, line in _read_pairs(path):
        try:
            recording, *times = line.split()
            start, end = map(float, times)
            if not start >= 0 or not (end == -1 or end > start):
                raise ValueError
        except ValueError:
            raise CorpusError(
                f"{path}: {name}: expected a recording and times in seconds, start before end; found {line}"
            ) from None
        if recording not in recordings:
            raise CorpusError(f"{path}: {name} is part of {recording}, which wav.scp does not have")
        segments[name] = recording, start, math.inf if end == -1 else end - start  # -1: the recording's end
    return segments


def _check_same(folder: Path, texts: Mapping[str, object], others: Mapping[str, object], name: str) -> None:
    """Check that ``text`` and another file name the same utterances."""
    for lacking, other, missing in (
        (name, "text", texts.keys() - others.keys()),
        ("text", name, others.keys() - texts.keys()),
    ):
        if missing:
            shown = name_some(sorted(missing), 3)
            raise CorpusError(f"{folder}: {lacking} lacks {shown}, which {other} has; add them or remove them")
