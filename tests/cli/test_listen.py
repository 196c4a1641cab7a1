"""``speechrnn listen``: a recording played, and a microphone that is a stand-in for sounddevice."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechrnn import LatencyControlConfig
from speechrnn.audio import microphone
from speechrnn.cli.main import main
from speechrnn.model_folder import save_model
from speechrnn.recognition.recognizer import load

RATE = 8000


@pytest.fixture(scope="module")
def model(make_tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming") / "model"
    save_model(folder, make_tiny_model(normalization="sliding", bidirectional=False, lookahead_frames=1))
    return folder


@pytest.fixture
def listen(model, monkeypatch):
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)
    return lambda *arguments: main(["listen", "-m", str(model), "--device", "cpu", *arguments])


@pytest.fixture(scope="module")
def samples(make_recording):
    return make_recording(2.0, seed=9)


@pytest.fixture
def wav(samples, tmp_path):
    path = tmp_path / "tones.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return str(path)


@pytest.fixture(scope="module")
def expected(model, samples):
    """The transcript as a stream of one segment, whose endpoints none of these recordings reaches."""
    return load(model, device="cpu").transcribe(samples, sample_rate=RATE)


NO_ENDPOINTS = ("--silence-seconds", "0", "--pause-seconds", "0", "--longest-seconds", "0")


def test_a_recording_is_played_and_its_text_printed(capsys, listen, wav, expected):
    assert listen("--file", wav, "--speed", "0", *NO_ENDPOINTS) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (expected.text + "\n", "")


def test_a_recording_is_played_at_its_own_pace(listen, wav):
    begin = time.monotonic()
    assert listen("--file", wav, "--speed", "4") == 0
    assert time.monotonic() - begin > 0.5


def test_segments_are_printed_one_a_line_as_soon_as_they_are_closed(capsys, listen, wav, monkeypatch):
    printed = []
    monkeypatch.setattr("speechrnn.cli.arguments.print_text", lambda text, end="\n": printed.append(text))
    shown = []
    monkeypatch.setattr(
        "speechrnn.cli.listen._Screen.show",
        lambda screen, partial, show=None: (screen._print(partial, partial.num_closed), shown.append(len(printed))),
    )
    assert listen("--file", wav, "--speed", "0", "--longest-seconds", "0.5") == 0
    assert len([text for text in printed if text]) >= 3
    assert 0 < shown[10] < shown[-1]


@pytest.mark.parametrize("name", ["json", "srt", "ctm"])
def test_other_formats_are_printed_at_the_end(capsys, listen, wav, expected, name):
    assert listen("--file", wav, "--speed", "0", "-f", name, *NO_ENDPOINTS) == 0
    found, whole = capsys.readouterr().out, getattr(expected, f"to_{name}")()
    if name == "json":
        assert json.loads(found)["text"] == expected.text
        assert json.loads(found)["audio"] == wav
    else:
        assert found == whole.replace("recording 1", "tones 1")


def test_a_file_gets_the_transcript_and_the_text_is_printed(capsys, listen, wav, expected, tmp_path):
    output = tmp_path / "out.srt"
    assert listen("--file", wav, "--speed", "0", "-f", "srt", "-o", str(output), *NO_ENDPOINTS) == 0
    assert output.read_text() == expected.to_srt()
    assert capsys.readouterr().out == expected.text + "\n"


def test_a_terminal_shows_the_text_so_far_in_place(capsys, listen, wav, expected, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    assert listen("--file", wav, "--speed", "0", *NO_ENDPOINTS) == 0
    parts = capsys.readouterr().out.split("\r\x1b[K")
    assert len(parts) > 3
    assert parts[-1] == expected.text + "\n"
    assert max(len(part) for part in parts[:-1]) == 19
    assert all(part in expected.text for part in parts[:-1])


def test_interrupting_ends_the_stream_and_prints_the_last_words(capsys, listen, wav, expected, monkeypatch):
    waits = iter(range(100))

    def interrupt_at_the_eighth(seconds):
        if next(waits) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("speechrnn.cli.listen.time.sleep", interrupt_at_the_eighth)
    before = signal.getsignal(signal.SIGINT)
    assert listen("--file", wav, *NO_ENDPOINTS) == 0
    assert signal.getsignal(signal.SIGINT) is before
    printed = capsys.readouterr().out.strip()
    assert expected.text.startswith(printed[:-2])
    assert 0 < len(printed) < len(expected.text)


class PortAudioError(Exception):
    pass


class InputStream:
    """Gives the samples of the class to its callback; ``after`` says what happens then."""

    samples = np.zeros(0, np.float32)
    after = "interrupt"
    overflows = ()
    opened: dict

    def __init__(self, *, callback, finished_callback, blocksize, **options):
        if self.after == "refuse":
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        type(self).opened = options
        self.callback, self.finished, self.size = callback, finished_callback, blocksize

    def start(self):
        for number, at in enumerate(range(0, len(self.samples), self.size)):
            status = SimpleNamespace(input_overflow=number in self.overflows)
            self.callback(self.samples[at : at + self.size, None], self.size, None, status)
        if self.after == "vanish":
            self.finished()
        elif self.after == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)

    def abort(self, ignore_errors):
        pass

    close = abort


DEVICES = [
    {"name": "Speaker", "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "Built-in Microphone", "max_input_channels": 2, "default_samplerate": 44100.0},
    {"name": "Headset", "max_input_channels": 1, "default_samplerate": 16000.0},
]


@pytest.fixture
def device(monkeypatch, make_recording):
    """A stand-in for sounddevice with two input devices; returns the class of its streams."""
    stream = type("Recording", (InputStream,), {"samples": make_recording(2.0, seed=3, sample_rate=16000)})
    library = SimpleNamespace(
        query_devices=lambda: DEVICES,
        default=SimpleNamespace(device=(2, 0)),
        InputStream=stream,
        PortAudioError=PortAudioError,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    return stream


def test_a_microphone_is_opened_at_its_own_rate_and_resampled(capsys, listen, device, model):
    assert listen(*NO_ENDPOINTS) == 0
    assert device.opened == {"device": 2, "samplerate": 16000, "channels": 1, "dtype": "float32"}
    expected = load(model, device="cpu").transcribe(device.samples, sample_rate=16000)
    captured = capsys.readouterr()
    assert captured.out == expected.text + "\n"
    assert captured.err == "speechrnn: listening to Headset at 16000 Hz; Ctrl-C ends\n"


def test_a_device_is_chosen_by_number_or_name(listen, device):
    for chosen in ("1", "built-in"):
        assert listen("--input", chosen) == 0
        assert device.opened["device"] == 1
        assert device.opened["samplerate"] == 44100


def test_overflows_are_counted_aloud(capsys, listen, device):
    device.overflows = (3, 7)
    assert listen() == 1
    assert "warning: the microphone overflowed 2 times: audio was lost" in capsys.readouterr().err


def test_blocks_that_the_program_is_too_slow_for_are_counted(capsys, listen, device, monkeypatch):
    monkeypatch.setattr(microphone, "WAITING_SECONDS", 48 * microphone.BLOCK_SECONDS)  # the device gives 50 at once
    device.after = "vanish"
    assert listen() == 1
    assert "warning: the microphone overflowed 2 times: audio was lost" in capsys.readouterr().err


def test_what_a_vanished_device_gave_is_kept(capsys, listen, device, model, tmp_path):
    device.after = "vanish"
    output = tmp_path / "kept.txt"
    assert listen("-o", str(output), *NO_ENDPOINTS) == 1
    expected = load(model, device="cpu").transcribe(device.samples, sample_rate=16000).text + "\n"
    captured = capsys.readouterr()
    assert captured.out == output.read_text() == expected
    message = "speechrnn: error: microphone Headset: it gives no more audio; check its cable and begin again"
    assert captured.err.splitlines()[1:] == [message]


def test_a_device_that_hangs_is_given_up(capsys, listen, device, monkeypatch):
    device.after = "hang"
    monkeypatch.setattr(microphone, "STALLED_SECONDS", 0.2)
    assert listen() == 1
    assert "microphone Headset: it gives no more audio" in capsys.readouterr().err


def test_what_a_recording_that_is_cut_off_holds_is_kept(capsys, listen, wav, samples, model):
    flac = Path(wav).with_suffix(".flac")
    soundfile.write(flac, np.tile(samples, 3), RATE)
    content = flac.read_bytes()
    flac.write_bytes(content[: len(content) // 2])
    assert listen("--file", str(flac), "--speed", "0", *NO_ENDPOINTS) == 1
    captured = capsys.readouterr()
    assert captured.out.strip()
    assert "tones.flac: damaged or cut off" in captured.err


def test_devices_are_listed(capsys, device):
    assert main(["listen", "--list-devices"]) == 0
    assert capsys.readouterr().out == "1\tBuilt-in Microphone\t44100 Hz\n2\tHeadset\t16000 Hz\tdefault\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "7"], "microphone 7: no input device has this number or name; choose one of 1 Built-in"),
        (["--input", "e"], "microphone e: several input devices have this number or name; choose one of"),
        (["--speed", "-1"], "--speed -1: expected 0 or more"),
        (["--speed", "nan"], "--speed nan: expected 0 or more"),
        (["--file", "missing.wav"], "missing.wav: "),
        (["--file", "a.wav", "--input", "1"], "--input: cannot be combined with --file; give one of them"),
        (["--pause-seconds", "-3"], "--pause-seconds: "),
        (["--blank-threshold", "2"], "--blank-threshold: "),
        (["--nbest", "3"], "--nbest: needs a beam search"),
    ],
)
def test_wrong_requests_are_named_in_one_line(capsys, listen, device, arguments, message):
    assert listen(*arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechrnn: error: {message}")


def test_a_device_that_cannot_be_opened_is_named(capsys, listen, device):
    device.after = "refuse"
    assert listen() == 2
    assert "microphone Headset: cannot be opened at 16000 Hz (Invalid sample rate" in capsys.readouterr().err


def test_a_missing_library_is_named(capsys, listen, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert listen() == 2
    assert capsys.readouterr().err == (
        "speechrnn: error: microphone: needs sounddevice; run pip install 'speechrnn[mic]'\n"
    )


def test_missing_portaudio_names_the_package(capsys, listen, monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert listen() == 2
    assert "on Debian and Ubuntu run apt install libportaudio2" in capsys.readouterr().err


def test_a_machine_without_microphone_says_so(capsys, listen, device, monkeypatch):
    monkeypatch.setattr(sys.modules["sounddevice"], "query_devices", lambda: DEVICES[:1])
    assert listen() == 2
    assert "microphone: this machine has no input device" in capsys.readouterr().err


def test_models_that_cannot_stream_and_no_model_are_refused(capsys, wav, tiny_model_folder, monkeypatch):
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)
    assert main(["listen", "--file", wav, "-m", str(tiny_model_folder), "--device", "cpu"]) == 2
    assert "stream: encoder.bidirectional true needs the whole recording" in capsys.readouterr().err
    assert main(["listen", "--file", wav]) == 2
    assert "no model: give -m M, or set SPEECHRNN_MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [("--latency-controlled",), ("--chunk-seconds", "0.3", "--right-context-seconds", "0.2")]
)
def test_a_bidirectional_model_is_latency_controlled_if_asked_for(
    capsys, make_tiny_model, wav, samples, tmp_path, options
):
    save_model(tmp_path / "model", make_tiny_model(normalization="sliding"))
    recognizer = load(tmp_path / "model", device="cpu")
    config = LatencyControlConfig(0.3, 0.2) if len(options) > 1 else True
    stream = recognizer.stream(sample_rate=RATE, latency_controlled=config)
    stream.feed(samples)
    command = ["listen", "-m", str(tmp_path / "model"), "--device", "cpu", "--file", wav, "--speed", "0", *NO_ENDPOINTS]
    assert main([*command, *options]) == 0
    assert capsys.readouterr().out == stream.final().text + "\n"
    assert main(command) == 2
    assert "give latency_controlled" in capsys.readouterr().err
    assert main([*command, "--chunk-seconds", "0"]) == 2
    assert "error: --chunk-seconds: expected" in capsys.readouterr().err
