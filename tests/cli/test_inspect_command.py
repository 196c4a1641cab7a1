"""``speechrnn inspect``: what it writes, and one line for every slip."""

import numpy as np
import pytest
import soundfile
from conftest import say_tones

from speechrnn.cli.main import main


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, say_tones(["low", "high"], np.random.default_rng(5)), 8000)
    return path


@pytest.fixture
def inspect(tone_run, recording):
    def run(*arguments: str, audio=recording) -> int:
        return main(["inspect", str(audio), "-m", str(tone_run.model), "--device", "cpu", *map(str, arguments)])

    return run


def test_page_picture_and_states_are_written_and_named(inspect, tmp_path, capsys):
    assert inspect("--text", "low high", "--state", "-o", tmp_path / "look") == 0
    names = ["clip.inspect.html", "clip.inspect.png", "clip.inspect.npz"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "look" / name) for name in names]
    assert "0 of 2 words wrong" in (tmp_path / "look" / "clip.inspect.html").read_text(encoding="utf-8")
    states = np.load(tmp_path / "look" / "clip.inspect.npz", allow_pickle=False)
    assert set(states.files) == {"layer_1_forward", "layer_1_backward", "seconds", "posteriors"}


def test_by_default_two_files_are_written_here_and_none_is_replaced(inspect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.png").write_bytes(b"cover")
    assert inspect() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.inspect.html",
        "clip.inspect.png",
        "clip.png",
        "clip.wav",
    ]
    assert (tmp_path / "clip.png").read_bytes() == b"cover"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "lów"], "ó"),
        (["--start", "5", "--end", "3"], "expected 0 <= start < end"),
        (["--start", "nine"], "--start"),
        (["--start", "nan"], "expected 0 <= start < end"),
        (["--channel", "7"], "channel"),
        (["--text", "low " * 300], "cannot be aligned"),
        (["-o", "clip.wav/x"], "clip.wav"),
        (["--device", "tpu9"], "device"),
    ],
)
def test_errors_end_with_one_line_and_exit_code_2(inspect, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert inspect(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_file_that_is_not_a_recording_is_named(inspect, tmp_path, capsys):
    (tmp_path / "page.html").write_text("no sound", encoding="utf-8")
    assert inspect(audio=tmp_path / "page.html") == 2
    assert "page.html" in capsys.readouterr().err
    assert inspect(audio=tmp_path / "gone.wav") == 2


def test_without_matplotlib_one_line_says_what_to_install(inspect, monkeypatch, capsys):
    monkeypatch.setattr("speechrnn.inspection.pictures.has_matplotlib", lambda: False)
    assert inspect() == 2
    assert "pip install matplotlib" in capsys.readouterr().err
