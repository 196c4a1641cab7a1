"""Runs that end before they are done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from speechrnn.training.module import SpeechModule


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@contextmanager
def stopped_in_call(number: int, method: str = "training_step") -> Iterator[None]:
    """The run within ends in this call of one of the module's methods, counted from 1."""
    original, calls = getattr(SpeechModule, method), []

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == number:
            raise StoppedError
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpeechModule, method, stopping)
        with pytest.raises(StoppedError):
            yield
