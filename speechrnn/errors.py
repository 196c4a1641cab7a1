"""What speechrnn raises when a request or an input is wrong.

The message is one line: the thing, what was expected and what arrived, and what to do. The command line prints that
line and exits with code 2.
"""

from collections.abc import Iterable


class SpeechRNNError(Exception):
    """A request or an input is wrong; the message says what to do about it."""


class AudioError(SpeechRNNError):
    """A recording cannot be read, or is not what a recording must be."""


class CorpusError(SpeechRNNError):
    """A corpus, a manifest or a transcript is not usable."""


class ConfigError(SpeechRNNError):
    """A setting is unknown, impossible, or contradicts another."""


class ModelError(SpeechRNNError):
    """A model folder is missing something, is damaged, or asks for what this version cannot do."""


def name_some(names: Iterable[str], most: int = 5) -> str:
    """Join names for a message: the first ``most``, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
