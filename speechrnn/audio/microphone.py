"""Microphones, through sounddevice and PortAudio (extra ``mic``)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.errors import AudioError

BLOCK_SECONDS = 0.04
WAITING_SECONDS = 30.0  # audio that waits while the program is busy; more is lost
STALLED_SECONDS = 5.0


@dataclass(frozen=True)
class Microphone:
    """An input device.

    Attributes:
        index: Its number.
        name: Its name.
        sample_rate: Its own rate, in Hz, at which it is opened.
        is_default: Whether it is the system's choice.
    """

    index: int
    name: str
    sample_rate: int
    is_default: bool = False


def list_microphones() -> list[Microphone]:
    """All input devices.

    Raises:
        AudioError: sounddevice or PortAudio is missing.
    """
    library = _import_sounddevice()
    default = library.default.device[0]
    return [
        Microphone(number, str(each["name"]), round(each["default_samplerate"]), number == default)
        for number, each in enumerate(library.query_devices())
        if each["max_input_channels"] > 0
    ]


def find_microphone(wanted: str | None = None) -> Microphone:
    """The input device of this number or part of a name; None: the system's choice, else the first.

    Raises:
        AudioError: There is none, or several have such a name; or sounddevice or PortAudio is missing.
    """
    known = list_microphones()
    if wanted is None:
        found = [each for each in known if each.is_default] or known[:1]
    elif wanted.isdecimal():
        found = [each for each in known if each.index == int(wanted)]
    else:
        found = [each for each in known if wanted.casefold() in each.name.casefold()]
        found = [each for each in found if each.name == wanted] or found
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{each.index} {each.name}" for each in found or known)
    if not known:
        raise AudioError("microphone: this machine has no input device; connect one, or play a recording with --file")
    problem = "no input device has" if not found else "several input devices have"
    raise AudioError(f"microphone {wanted}: {problem} this number or name; choose one of {names}")


@contextmanager
def open_microphone(
    microphone: Microphone, *, on_overflow: Callable[[int], None], is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[Iterator[np.ndarray]]:
    """Record from a device at its own rate.

    Args:
        microphone: The device.
        on_overflow: Called with the number of overflows so far at each one: audio was lost.
        is_stopped: Whether to end; what was recorded until then is still given.

    Yields:
        Mono samples in blocks of :data:`BLOCK_SECONDS`, (N,), float32; an empty block while none arrives, so that the
        caller can stop.

    Raises:
        AudioError: The device cannot be opened, or it stops; the blocks before are complete.
    """
    library, recording = _import_sounddevice(), _Recording()
    try:
        stream = library.InputStream(
            device=microphone.index,
            samplerate=microphone.sample_rate,
            channels=1,
            dtype="float32",
            blocksize=round(BLOCK_SECONDS * microphone.sample_rate),
            callback=recording.take,
            finished_callback=recording.end,
        )
        stream.start()
    except (library.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AudioError(
            f"microphone {microphone.name}: cannot be opened at {microphone.sample_rate} Hz ({reason}); choose another "
            "with --input, and check that no other program uses it"
        ) from error
    try:
        yield recording.give(microphone.name, on_overflow, is_stopped)
    finally:
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)


class _Recording:
    """Blocks on their way from PortAudio's thread to the program."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[np.ndarray] = queue.Queue(round(WAITING_SECONDS / BLOCK_SECONDS))
        self._overflows = 0
        self._is_ended = self._is_stopped = False

    def take(self, data: np.ndarray, frames: int, time: Any, status: Any) -> None:
        """Take a block, (N, 1), in PortAudio's thread."""
        if self._is_stopped:
            return
        self._overflows += bool(status.input_overflow)
        try:
            self._blocks.put_nowait(data[:, 0].copy())
        except queue.Full:
            self._overflows += 1

    def end(self) -> None:
        """Note that the device gives no more."""
        self._is_ended = True

    def give(
        self, name: str, on_overflow: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Iterator[np.ndarray]:
        """As :func:`open_microphone`; the device has this name."""
        reported, waited = 0, 0.0
        while waited < STALLED_SECONDS:
            self._is_stopped = self._is_stopped or is_stopped()
            try:
                block, waited = self._blocks.get(timeout=0.1), 0.0
            except queue.Empty:
                if self._is_stopped:
                    return
                if self._is_ended:
                    break
                block, waited = np.zeros(0, np.float32), waited + 0.1
            if self._overflows > reported:
                reported = self._overflows
                on_overflow(reported)
            yield block
        raise AudioError(f"microphone {name}: it gives no more audio; check its cable and begin again")


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise AudioError("microphone: needs sounddevice; run pip install 'speechrnn[mic]'") from error
    except OSError as error:
        raise AudioError(
            "microphone: PortAudio is missing; on Debian and Ubuntu run apt install libportaudio2"
        ) from error
    return sounddevice
