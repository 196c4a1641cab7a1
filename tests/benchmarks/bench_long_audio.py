"""Memory and speed of reading long recordings in blocks, by format.

    python tests/benchmarks/bench_long_audio.py
    python tests/benchmarks/bench_long_audio.py --formats wav m4a --hours 2

Each recording is noise of one minute, repeated, at 16 kHz. It is read with `open_blocks` in a process of its own; the
peak of that process's memory for the long one is divided by that for ten minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

RATE, SHORT_MINUTES = 16000, 10
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("ogg", "libopus"),
    "m4a": ("mp4", "aac"),
    "webm": ("webm", "libopus"),
    "mkv": ("matroska", "aac"),
    "wma": ("asf", "wmav2"),
    "amr": ("amr", "libopencore_amrnb"),
}
READ = """
import json, re, sys, time
from speechrnn.audio.blocks import open_blocks
start = time.perf_counter()
with open_blocks(sys.argv[1], sample_rate=16000) as blocks:
    seconds = sum(map(len, blocks)) / 16000
took_s = time.perf_counter() - start
# Of this program alone: ru_maxrss includes that of the parent before it started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "took_s": took_s}))
"""


def write_recording(path: Path, minutes: int) -> None:
    """Write noise of a minute, repeated; with PyAV its packets, encoded once, are repeated with later time stamps."""
    minute = (0.1 * np.random.default_rng(0).standard_normal(60 * RATE)).astype(np.float32)
    container, codec = FORMATS[path.suffix[1:]]
    if codec.startswith("PCM"):
        with soundfile.SoundFile(path, "w", RATE, 1, codec, format=container) as target:
            for _ in range(minutes):
                target.write(minute)
        return
    import av

    rate = 8000 if codec.endswith("amrnb") else RATE
    with av.open(path, "w", format=container) as target:
        stream = target.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 12200 if codec.endswith("amrnb") else 32000
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(minute[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        packets, num_frames = [], 0
        for piece in resampler.resample(frame):
            if piece.samples == size:
                piece.pts, piece.time_base = num_frames * size, Fraction(1, rate)
                num_frames += 1
                packets += stream.encode(piece)
        packets = packets[5:]  # without the encoder's delay
        times = [packet.pts for packet in packets]
        for number in range(minutes):
            for packet, pts in zip(packets, times, strict=True):
                packet.stream, packet.time_base = stream, Fraction(1, rate)
                packet.pts = packet.dts = pts + number * len(packets) * size
                packet.duration = size
                target.mux(packet)


def measure(path: Path) -> dict[str, float]:
    """Read a recording in a process of its own."""
    run = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def main() -> None:
    """Print a row for each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--hours", type=int, default=10)
    args = parser.parse_args()
    print(
        "| format | long, h | peak 10 min, MiB | peak long, MiB | ratio | times real time |\n| --- "
        + "| --- " * 5
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for ending in args.formats:
            rows = []
            for minutes in (SHORT_MINUTES, 60 * args.hours):
                path = Path(folder, f"{minutes}.{ending}")
                write_recording(path, minutes)
                rows.append(measure(path))
                path.unlink()
            short, long = rows
            ratio = long["peak_mib"] / short["peak_mib"]
            print(
                f"| {ending} | {long['seconds'] / 3600:.2f} | {short['peak_mib']:.1f} | {long['peak_mib']:.1f} "
                f"| {ratio:.3f} | {long['seconds'] / long['took_s']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
