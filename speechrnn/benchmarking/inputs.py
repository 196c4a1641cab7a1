"""What is measured: recordings of files, folders and corpora, or noise; a trained model, or an untrained one."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.audio.folders import find_recordings
from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.corpus.readers.recordings import is_recording, read_headers
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.model_folder import ModelFolder
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import CharacterTokens

LONGEST_SECONDS = 30.0
"""Longer recordings are cut."""

_NOISE_SECONDS = 10.0
_BLANK_BIAS = 6.0


def make_untrained(size: str = "small", cell: str = "gru") -> ModelFolder:
    """Make a model of the default kind that was never trained; on noise it emits some ten tokens a second.

    Raises:
        ConfigError: There is no such size or cell.
    """
    config = EncoderConfig(size=size, cell=cell)  # type: ignore[arg-type]
    tokens = CharacterTokens.build(["abcdefghijklmnopqrstuvwxyz '"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AcousticModel(FrontEndConfig(), config, len(tokens), blank_bias=_BLANK_BIAS).eval()
        with torch.no_grad():
            model.head.projection.weight.normal_(0.0, 0.2)
    return ModelFolder(model, tokens, TextConfig(), {}, name="untrained")


def find_audio(paths: Sequence[str], *, most_seconds: float) -> list[Utterance]:
    """Find recordings, in the order of the paths, until they have so much audio.

    Args:
        paths: Recordings, folders of recordings, and corpora in any known format.
        most_seconds: The last recording is cut there.

    Returns:
        Utterances of at most :data:`LONGEST_SECONDS`, with their recordings' headers.

    Raises:
        AudioError: A folder cannot be read.
        CorpusError: A corpus or a recording cannot be read; the message names it.
    """
    found, left = [], most_seconds
    for path in paths:
        for utterance in _read_utterances(path):
            end = min(utterance.seconds, left)
            left -= end
            for start in range(math.ceil(end / LONGEST_SECONDS)):
                first = start * LONGEST_SECONDS
                seconds = min(LONGEST_SECONDS, end - first)
                found.append(replace(utterance, start=utterance.start + first, seconds=seconds))
            if left <= 0:
                return found
    return found


def _read_utterances(path: str) -> Sequence[Utterance]:
    if not os.path.isdir(path) and is_recording(Path(path)):
        return read_headers([Utterance(path, Path(path), "")], where=path)
    try:
        find_format(path)
    except CorpusError:
        if not os.path.isdir(path):
            raise
        recordings = find_recordings(path, is_recursive=True)
        return read_headers((Utterance(each, Path(each), "") for each in recordings), where=path)
    return read_corpus(path)


@contextmanager
def make_noise(sample_rate: int, *, seconds: float) -> Iterator[list[Utterance]]:
    """Write recordings of noise to a temporary folder, of ten seconds each.

    Args:
        sample_rate: In Hz.
        seconds: Of all together, rounded up to whole recordings.
    """
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        generator, paths = torch.Generator().manual_seed(0), []
        for number in range(math.ceil(seconds / _NOISE_SECONDS)):
            paths.append(Path(folder) / f"{number}.wav")
            noise = 0.1 * torch.randn(round(_NOISE_SECONDS * sample_rate), generator=generator)
            soundfile.write(paths[-1], noise.clamp(-1, 1).numpy(), sample_rate)
        yield list(read_headers((Utterance(path.stem, path, "") for path in paths), where=folder))
