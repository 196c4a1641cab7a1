"""Any recording (path, bytes, open file, array, tensor) as a mono waveform at the wanted rate.

soundfile decodes and soxr resamples; both are imported where they are used, because start-up time counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.audio.blocks import name_source, open_blocks, open_recording
from speechrnn.audio.decoder import Wanted
from speechrnn.types import AudioInfo, Waveform

if TYPE_CHECKING:
    from speechrnn.audio.blocks import AudioSource as AudioSource

_BLOCK_SECONDS = 10.0


def read_audio(
    source: AudioSource,
    *,
    sample_rate: int | None = None,
    channel: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    input_rate: int | None = None,
    name: str | None = None,
    check_levels: bool = True,
) -> Waveform:
    """Read a recording, or a part of it, as one channel at the wanted rate.

    Arrays and tensors are (N,), (C, N) or (N, C): of two axes the shorter is the channels, the first if they are equal.
    Floats are expected in [-1, 1]; int8, int16 and int32 are scaled to it, and uint8 has its zero at 128.

    Args:
        source: Path (also into a tar archive: ``shard.tar/name.flac``), encoded bytes, binary file object (rewound
            first if it can be), numpy array, torch tensor or :class:`~speechrnn.types.Waveform`.
        sample_rate: Wanted rate, in Hz; None keeps the recording's own.
        channel: Channel to take, from 0; None takes the mean of all.
        start: Where to begin, in seconds.
        seconds: How much to read, in seconds; None reads to the end. A part is cut out before it is resampled.
        input_rate: Rate of an array or tensor, in Hz, for which it is required.
        name: The recording's name in messages; None takes the path.
        check_levels: Whether a silent or clipped recording causes a warning.

    Returns:
        The samples, (N,), float32, and their rate; they may share memory with an array that needed no conversion.

    Raises:
        AudioError: The recording cannot be read, is damaged, cut off or empty, holds NaN or infinite samples, lacks the
            channel or the part, or a rate is missing or outside 1 kHz to 1 MHz. A damaged Ogg file that is read whole
            causes a warning with the missing duration.
    """
    block_seconds = math.inf if isinstance(source, np.ndarray | Waveform) else _BLOCK_SECONDS
    with open_blocks(
        source,
        sample_rate=sample_rate,
        channel=channel,
        input_rate=input_rate,
        start=start,
        seconds=seconds,
        block_seconds=block_seconds,
        name=name,
        check_levels=check_levels,
    ) as blocks:
        pieces = list(blocks.samples)
    if len(pieces) == 1:
        return Waveform(pieces[0], blocks.sample_rate)
    return Waveform(np.concatenate([np.zeros(0, np.float32), *pieces]), blocks.sample_rate)


def audio_info(source: AudioSource) -> AudioInfo:
    """Read a recording's length, rate and channels from its header.

    Args:
        source: Path, encoded bytes or binary file object.

    Returns:
        The header; if it gives no length, the samples are decoded and counted.

    Raises:
        AudioError: The recording cannot be opened, is cut off or has no samples.
    """
    wanted = Wanted(name_source(source))
    with open_recording(source, wanted) as recording:
        info = recording.info
        wanted.locate(info)  # checks the header
        if not recording.is_length_estimated:
            return info
        decoded = recording.decode(0, info.frames, wanted, block_frames=round(_BLOCK_SECONDS * info.sample_rate))
        return AudioInfo(info.sample_rate, info.channels, sum(map(len, decoded)))
