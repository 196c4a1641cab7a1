"""Speak texts with espeak-ng and write 16 kHz wav files. Run this file as a program: ``python espeak_program.py JOBS``.

JOBS is a file of JSON lines, one recording each:

    {"path": "audio/0.wav", "text": "seven three", "accent": "en-us", "variant": "f2", "rate": 170, "pitch": 50}

``rate`` is in words per minute (80 to 450); ``pitch`` is 0 to 99, and 50 is the voice's own. Folders are created. A job
that fails is reported on standard error, one line each, and the program goes on and ends with exit code 1.

espeak-ng is licensed under the GPL. This program loads it, through the package espeakng-loader, into a process of its
own; the rest of speechrnn never imports this file.

espeak-ng keeps state between recordings (flutter, random numbers), so the samples of a recording depend on the jobs
before it. The same file of jobs gives the same recordings.
"""

import ctypes
import json
import sys
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE = 1
_PITCH = 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """The synthesiser. It has global state: create one per process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._take)  # kept: espeak-ng holds only a pointer to it
        data = espeakng_loader.get_data_path()
        self._variants = Path(data) / "voices" / "!v"
        self.sample_rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng does not start with the data in {data}")
        self._library.espeak_SetSynthCallback(self._callback)
        # It seeds itself with the time of day otherwise.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def speak(self, text: str, *, accent: str, variant: str, rate: int, pitch: int) -> np.ndarray:
        """Speak a text.

        Args:
            text: Plain text.
            accent: A voice of espeak-ng, such as "en-us".
            variant: A timbre: a file in espeak-ng's voices/!v, such as "f2".
            rate: Words a minute.
            pitch: 0 to 99.

        Returns:
            Samples, (N,), int16, at `sample_rate`.

        Raises:
            RuntimeError: There is no such voice, or the recording is silent.
        """
        # espeak-ng ignores an unknown variant without a message.
        found = (self._variants / variant).is_file()
        if not found or self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {accent}+{variant}")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._chunks.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        samples = np.frombuffer(b"".join(self._chunks), dtype=np.int16)
        if status != 0 or not samples.any():
            raise RuntimeError(f"espeak-ng produced no sound for {text!r} with {accent}+{variant}")
        return samples

    def _take(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        return 0


def resample(samples: np.ndarray, *, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample int16 audio, (N,) to (M,); peaks above full scale are clipped."""
    resampled = soxr.resample(samples.astype(np.float64), from_rate, to_rate)
    return np.clip(np.round(resampled), -32768, 32767).astype(np.int16)


def main(jobs: Path) -> bool:
    """Speak every job of a file; return whether all succeeded."""
    voice = Voice()
    is_complete = True
    for line in jobs.read_text(encoding="utf-8").split("\n")[:-1]:
        job = json.loads(line)
        path = Path(job.pop("path"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # some file systems take thirty times as long to overwrite
        try:
            samples = resample(voice.speak(**job), from_rate=voice.sample_rate, to_rate=SAMPLE_RATE)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            is_complete = False
        else:
            soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return is_complete


if __name__ == "__main__":
    try:
        sys.exit(not main(Path(sys.argv[1])))
    except (RuntimeError, OSError) as error:
        sys.exit(str(error))
