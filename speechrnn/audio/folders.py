"""Recordings in folders."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.errors import AudioError


def find_recordings(
    folder: str,
    *,
    is_recursive: bool = False,
    skipped: str | None = None,
    on_error: Callable[[str, AudioError], None] | None = None,
) -> list[str]:
    """Find the recordings in a folder by their endings (:data:`~speechrnn.audio.containers.AUDIO_ENDINGS`).

    Hidden files and folders are left out. Links are followed, and each folder is searched once.

    Args:
        folder: Where to search.
        is_recursive: Whether to search its sub-folders.
        skipped: A folder that is not searched: that of the results, which may lie in this one.
        on_error: Called with a sub-folder that cannot be read, and the error; without it the error is raised.

    Returns:
        Paths that begin with ``folder``, sorted.

    Raises:
        AudioError: A folder cannot be read, or there are no recordings.
    """

    def report(problem: OSError) -> None:
        error = AudioError(f"{problem.filename}: cannot be searched ({problem.strerror}); check its permissions")
        if on_error is None or problem.filename == folder:
            raise error from problem
        on_error(problem.filename, error)

    found, searched = [], set()
    if skipped is not None and os.path.isdir(skipped) and not os.path.samefile(folder, skipped):
        searched.add(_identify(skipped))
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=report):
        if (identity := _identify(parent)) in searched:
            folders.clear()
            continue
        searched.add(identity)
        folders[:] = sorted(name for name in folders if is_recursive and not name.startswith("."))
        paths = (os.path.join(parent, name) for name in files if _is_recording(name))
        found += [path for path in paths if os.path.isfile(path)]  # no pipes, no broken links
    if not found:
        hint = "" if is_recursive else "; --recursive searches its sub-folders"
        raise AudioError(f"{folder}: no recordings in this folder ({', '.join(AUDIO_ENDINGS)}){hint}")
    return sorted(found)


def _identify(folder: str) -> tuple[int, int]:
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def _is_recording(name: str) -> bool:
    return _find_ending(name) in AUDIO_ENDINGS and not name.startswith(".")


class Workload:
    """How much audio is done, and how much there is: what is not yet read is estimated from the sizes of files.

    Files of one ending are taken to have as many bytes a second as those that are done.

    Args:
        paths: Recordings; what is no file has no size.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._sizes = {path: os.path.getsize(path) if os.path.isfile(path) else 0 for path in paths}
        self._left: dict[str, int] = defaultdict(int)
        self._done: dict[str, tuple[int, float]] = {}  # bytes and seconds, by ending
        self._begun: dict[str, float] = {}  # seconds according to the header
        for path, size in self._sizes.items():
            self._left[_find_ending(path)] += size

    def advance(self, path: str, seconds: float) -> tuple[float, float]:
        """Count a part of a recording.

        Args:
            path: The recording.
            seconds: How much of it is done.

        Returns:
            As :meth:`finish`.
        """
        if path not in self._begun:
            self._begun = {path: _read_seconds(path)}
        done, total = self._count(without=self._sizes.get(path, 0), ending=_find_ending(path))
        return done + seconds, total + max(seconds, self._begun[path])

    def finish(self, path: str, seconds: float | None = None) -> tuple[float, float]:
        """Count a recording as done, with its duration, or without as failed.

        Returns:
            Seconds of audio that are done, and the estimated seconds of all; bytes while no duration is known.
        """
        ending, size = _find_ending(path), self._sizes.pop(path, 0)
        self._left[ending] -= size
        if seconds is not None:
            earlier_size, earlier_seconds = self._done.get(ending, (0, 0.0))
            self._done[ending] = earlier_size + size, earlier_seconds + seconds
        return self._count()

    def _count(self, *, without: int = 0, ending: str = "") -> tuple[float, float]:
        """Seconds done, and of all but for bytes of a file in work."""
        sizes, durations = (sum(each) for each in zip((0, 0.0), *self._done.values(), strict=True))
        mean = durations / sizes if sizes else 1.0
        known = {each: done / size for each, (size, done) in self._done.items() if size}
        left = {each: size - (without if each == ending else 0) for each, size in self._left.items()}
        return durations, durations + sum(size * known.get(each, mean) for each, size in left.items())


def _read_seconds(path: str) -> float:
    """A recording's duration according to its header; 0 if it gives none."""
    from speechrnn.audio.blocks import open_blocks

    with suppress(AudioError), open_blocks(path, check_levels=False) as opened:
        return opened.seconds or 0.0
    return 0.0


def _find_ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
