"""Files in containers that only FFmpeg reads, encoded with PyAV."""

from fractions import Fraction

import numpy as np
import pytest


def write_container(path, format_name, tracks, *, rate=16000, video_seconds=0.0, options=None, delay=0.0):
    """Encode tracks, each an encoder's name and samples (N,) or (C, N), beside a video; skip without the encoder.

    Args:
        path: The file.
        format_name: FFmpeg's name of the container.
        tracks: Pairs of encoder and samples.
        rate: Of the samples, in Hz.
        video_seconds: Duration of the video; 0 for none.
        options: Of the container.
        delay: Time stamp of the first sample, in seconds.
    """
    av = pytest.importorskip("av")
    for codec in [*(codec for codec, _ in tracks), "mpeg4"]:
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no encoder {codec}")
    with av.open(path, "w", format=format_name, options=options or {}) as container:
        packets = [*_encode_video(container, video_seconds)] if video_seconds else []
        streams = [container.add_stream(codec, rate=rate, layout=_layout(samples)) for codec, samples in tracks]
        for stream, (codec, _) in zip(streams, tracks, strict=True):
            if codec == "wmav2":
                stream.bit_rate = 32000
        for stream, (_, samples) in zip(streams, tracks, strict=True):
            packets += _encode(av, stream, np.atleast_2d(samples), rate, delay)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def _layout(samples):
    return "mono" if np.ndim(samples) == 1 else "stereo"


def _encode_video(container, seconds):
    from av import VideoFrame

    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(round(10 * seconds)):
        frame = VideoFrame.from_ndarray(np.full((48, 64, 3), number % 255, np.uint8), format="rgb24")
        frame.pts = number
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _encode(av, stream, samples, rate, delay):
    stream.codec_context.open()
    context = stream.codec_context
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=stream.layout.name)
    frame.sample_rate = rate
    resampler = av.AudioResampler(context.format.name, stream.layout.name, rate, frame_size=context.frame_size or 1024)
    packets, first = [], round(delay * rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
        if piece is not None:
            piece.pts, piece.time_base, first = first, Fraction(1, rate), first + piece.samples
        packets += stream.encode(piece)
    return packets
