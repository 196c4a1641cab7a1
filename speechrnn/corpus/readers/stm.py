"""NIST's STM, as in TED-LIUM: each line is ``recording channel speaker start end <labels> text``.

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


def read_stm(path: Path) -> Iterator[Utterance]:
    """Read the utterances of an STM file, or of all STM files of a folder.

    Args:
        path: The file, or a folder with STM files in it or in its subfolder ``stm``. Recordings lie beside the file, or
            in ``sph``, ``wav`` or ``audio`` in its folder or the folder above, with any known ending.

    Yields:
        The utterances, in their order, without the segments that STM excludes from scoring. Labels in angle brackets
        before a text are removed.

    Raises:
        CorpusError: A line is wrong, or a recording is missing.
    """
    files = sorted(path.glob("[!.]*.stm")) or sorted(path.glob("stm/[!.]*.stm")) if path.is_dir() else [path]
    for file in files:
        recordings = _find_recordings(file)
        for number, line in read_lines(file, kind="file"):
            if not line.startswith(_COMMENT):
                yield from _read_line(f"{file} line {number}", line, recordings)


def _find_recordings(file: Path) -> dict[str, Path]:
    bases = (file.parent, file.parent.parent)
    found: dict[str, Path] = {}
    for folder in [file.parent, *(base / name for base in bases for name in ("sph", "wav", "audio"))]:
        found = find_recordings(folder) | found
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
