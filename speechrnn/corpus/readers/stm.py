"""NIST's STM, as TED-LIUM has it: ``recording channel speaker start end <labels> text`` a line.

Source: NIST SCTK's documentation, "STM segment time marked file"; F. Hernandez et al., "TED-LIUM 3", 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from speechrnn.corpus.manifest import read_lines
from speechrnn.corpus.readers.recordings import find_recordings
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

_LABELS = re.compile(r"<[^>]*>\s*")
_NOT_SCORED = "ignore_time_segment_in_scoring"
_COMMENT = ";;"


def find_stm(folder: Path) -> list[Path]:
    """The STM files of a folder, or of ``stm`` in it."""
    return sorted(folder.glob("[!.]*.stm")) or sorted((folder / "stm").glob("[!.]*.stm"))


def fits(path: Path) -> bool:
    """Whether a path is such a file, or a folder with some."""
    return bool(find_stm(path)) if path.is_dir() else path.suffix == ".stm"


def read_stm(path: Path) -> Iterator[Utterance]:
    """The utterances of an STM file, or of all those of a folder.

    Args:
        path: The file, or a folder with STM files in it or in its ``stm``. Recordings lie beside them, or in ``sph``,
            ``wav`` or ``audio`` beside their folder, with any ending that is read.

    Yields:
        The utterances, in their order. Segments that STM leaves out of scoring are left out here too; so are the labels
        in angle brackets before a text.

    Raises:
        CorpusError: A line is wrong, or there is no recording of its name.
    """
    for file in find_stm(path) if path.is_dir() else [path]:
        recordings = _find_recordings(file)
        for number, line in read_lines(file, kind="file"):
            if not line.startswith(_COMMENT):
                yield from _read_line(f"{file} line {number}", line, recordings)


def _find_recordings(file: Path) -> dict[str, Path]:
    folders = [
        file.parent,
        *(base / name for base in (file.parent, file.parent.parent) for name in ("sph", "wav", "audio")),
    ]
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        found |= find_recordings(folder)
    return found


def _read_line(where: str, line: str, recordings: dict[str, Path]) -> list[Utterance]:
    parts = line.strip().split(maxsplit=5)
    if len(parts) < 5:
        raise CorpusError(f"{where}: expected recording, channel, speaker, start, end and text")
    name, _, speaker, start_text, end_text = parts[:5]
    try:
        start, end = float(start_text), float(end_text)
    except ValueError:
        raise CorpusError(f"{where}: expected seconds, found {start_text} and {end_text}") from None
    if not 0 <= start < end < 1e9:
        raise CorpusError(f"{where}: begins at {start_text} s and ends at {end_text} s; correct its times")
    text = _LABELS.sub("", parts[5]).strip() if len(parts) == 6 else ""
    if text == _NOT_SCORED:
        return []
    if name not in recordings:
        raise CorpusError(f"{where}: no recording {name} beside it, nor in sph, wav or audio there")
    id = f"{name}-{round(1000 * start):08d}-{round(1000 * end):08d}"
    return [Utterance(id, recordings[name], text, start, end - start, speaker)]
