"""Write a corpus as lhotse's Shar: shards that are read sequentially, however many small recordings there are."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.audio.channel import OPUS_RATES
from speechrnn.audio.resampling import resample
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.corpus.writers import make_cut
from speechrnn.errors import AudioError, ConfigError, CorpusError
from speechrnn.types import AudioInfo, Waveform

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

ENCODINGS = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "opus": ("OGG", "OPUS")}
"""Encodings of packed recordings, and soundfile's names for them."""

_DIGITS = "%06d"


@dataclass
class Packed:
    """A packed corpus.

    Attributes:
        folder: The folder of the shards.
        shards: Number of shards.
        utterances: Number of utterances.
        seconds: Duration of the audio.
        failed: Id and reason of each utterance that could not be read and was left out.
    """

    folder: Path
    shards: int
    utterances: int
    seconds: float
    failed: dict[str, str]


def pack_corpus(
    utterances: Sequence[Utterance],
    folder: str | Path,
    *,
    encoding: str = "flac",
    shard_size: int = 1000,
    sample_rate: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Cut utterances out of their recordings, average their channels, and write them to shards in the corpus's order.

    Args:
        utterances: The utterances.
        folder: The folder to write; it must not exist, and appears only when it is complete.
        encoding: ``flac`` (16 bits), ``wav`` (16 bits) or ``opus`` (about a tenth of the size, lossy).
        shard_size: Utterances in a shard.
        sample_rate: Of the packed audio, in Hz; None: as recorded.
        advance: Called after each utterance with the number done and the total.

    Raises:
        ConfigError: The folder exists, or a setting is invalid.
        CorpusError: The shards cannot be written, or no utterance can be read.
    """
    folder = Path(folder)
    _check(folder, encoding, shard_size, sample_rate)
    beside = folder.with_name(f".part.{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    packed = Packed(folder, 0, 0, 0.0, {})
    try:
        beside.mkdir(parents=True)
        _write_shards(packed, utterances, beside, encoding, shard_size, sample_rate, advance)
        if not packed.utterances:
            reason = next(iter(packed.failed.values()), "it contains no utterance")
            raise CorpusError(f"nothing can be packed: {reason}")
        beside.rename(folder)
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return packed


def _check(folder: Path, encoding: str, shard_size: int, sample_rate: int | None) -> None:
    if encoding not in ENCODINGS:
        raise ConfigError(f"encoding {encoding!r}: unknown; choose from {', '.join(ENCODINGS)}")
    if shard_size < 1:
        raise ConfigError(f"shard size: expected 1 utterance or more, got {shard_size}")
    if sample_rate is not None and sample_rate < 1:
        raise ConfigError(f"sample rate: expected Hz above 0, got {sample_rate}")
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; choose a new name")
    if "%" in str(folder):
        raise ConfigError(f"{folder}: lhotse replaces % by a shard's number; choose a path without it")


def _write_shards(
    packed: Packed,
    utterances: Sequence[Utterance],
    folder: Path,
    encoding: str,
    shard_size: int,
    sample_rate: int | None,
    advance: Callable[[int, int], None],
) -> None:
    from lhotse.shar.writers import JsonlShardWriter, TarWriter

    with (
        TarWriter(str(folder / f"recording.{_DIGITS}.tar"), shard_size=shard_size) as archive,
        JsonlShardWriter(str(folder / f"cuts.{_DIGITS}.jsonl.gz"), shard_size=shard_size) as cuts,
    ):
        for number, utterance in enumerate(utterances, start=1):
            try:
                waveform = _read(utterance, encoding, sample_rate)
            except AudioError as error:
                packed.failed[utterance.id] = str(error)
            else:
                cut = _make_cut(utterance, waveform)
                archive.write(f"{utterance.id}.{encoding}", encode(waveform, encoding))
                described = json.dumps(cut.recording.to_dict(), ensure_ascii=False).encode()
                archive.write(f"{utterance.id}.json", io.BytesIO(described), count=False)
                cuts.write(cut)
                packed.seconds, packed.utterances = packed.seconds + cut.duration, packed.utterances + 1
            advance(number, len(utterances))
    packed.shards = -(-packed.utterances // shard_size)


def _read(utterance: Utterance, encoding: str, sample_rate: int | None) -> Waveform:
    waveform = read_utterance(utterance, sample_rate=sample_rate)
    rate = waveform.sample_rate
    if encoding != "opus" or rate in OPUS_RATES:
        return waveform
    higher = next((known for known in OPUS_RATES if known > rate), OPUS_RATES[-1])
    return Waveform(resample(waveform.samples, rate, higher), higher)


def _make_cut(utterance: Utterance, waveform: Waveform) -> MonoCut:
    from lhotse.shar.utils import to_shar_placeholder

    header = AudioInfo(waveform.sample_rate, 1, len(waveform.samples))
    cut = make_cut(replace(utterance, start=0.0, seconds=header.seconds, header=header))
    cut.recording = to_shar_placeholder(cut.recording)  # its audio is in the archive, under its own name
    return cut


def encode(waveform: Waveform, encoding: str) -> io.BytesIO:
    """Encode a waveform, clipped to [-1, 1], in one of :data:`ENCODINGS`; the stream is at its end."""
    import soundfile

    stream = io.BytesIO()
    kind, subtype = ENCODINGS[encoding]
    samples = np.clip(waveform.samples, -1.0, 1.0)
    soundfile.write(stream, samples, waveform.sample_rate, format=kind, subtype=subtype)
    return stream
