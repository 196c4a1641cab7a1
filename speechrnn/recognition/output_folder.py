"""Files of transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError
from speechrnn.recognition.transcript import FORMATS, Transcript


def choose_names(paths: Sequence[str]) -> dict[str, str]:
    """Choose a file name without ending for each recording: its own, with a number appended if that is taken.

    Args:
        paths: Recordings; equal paths get the same name.

    Returns:
        The name of each path; no two are equal, ignoring case.
    """
    own = {Path(path).stem.casefold() for path in paths}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        name, number = Path(path).stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in own):
            number += 1
            name = f"{Path(path).stem}-{number}"
        names[path] = name
        taken.add(name.casefold())
    return names


def write_files(transcript: Transcript, formats: Sequence[str], path: Path) -> None:
    """Write a transcript in several formats, each to the path with the format's name as ending.

    Raises:
        ConfigError: A file cannot be written.
    """
    for name in formats:
        content = transcript.to_json(indent=2) if name == "json" else FORMATS[name](transcript)
        write_atomic(path.with_name(f"{path.name}.{name}"), content, error=ConfigError)
