"""Small recordings in every format, and how a bad one is refused."""

import io

import numpy as np
import pytest
import soundfile

from speechrnn.audio.files import read_audio
from speechrnn.errors import AudioError

FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "float.wav": ("WAV", "FLOAT"),
    "pcm16.flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.opus": ("OGG", "OPUS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}


def tone(seconds, rate, hz=440.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(rng, count, amplitude=0.1):
    return (amplitude * rng.standard_normal(count)).clip(-0.9, 0.9).astype(np.float32)


def write(folder, file_name, samples, rate=16000, **options):
    container, subtype = FORMATS[file_name]
    path = folder / file_name
    soundfile.write(path, samples, rate, format=container, subtype=subtype, **options)
    return path


def wav_bytes(samples, rate=16000, subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def refuse(source, pattern, **options):
    """Check that the recording is refused in one line that matches."""
    with pytest.raises(AudioError, match=pattern) as caught:
        read_audio(source, **options)
    assert "\n" not in str(caught.value)
