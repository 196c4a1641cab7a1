"""Exceptions for a wrong request or input.

The message is one line: the thing, what was expected and what was found, and what to do. The command line prints it and
exits with code 2.
"""

from collections.abc import Iterable


class SpeechRNNError(Exception):
    """A request or an input is wrong."""


class AudioError(SpeechRNNError):
    """A recording cannot be read or used."""


class CorpusError(SpeechRNNError):
    """A corpus, a manifest or a transcript cannot be used."""


class ConfigError(SpeechRNNError):
    """A setting is unknown, impossible, or contradicts another."""


class ModelError(SpeechRNNError):
    """A model folder is incomplete, damaged, or needs another version."""


def name_some(names: Iterable[str], most: int = 5) -> str:
    """Join names for a message: the first ``most``, and the number of others."""
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
