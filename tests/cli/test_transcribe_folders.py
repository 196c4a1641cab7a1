"""``speechrnn transcribe`` with folders, output folders that are continued, and standard input."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from speechrnn.cli.main import main
from speechrnn.recognition.output_folder import STATE_FILE
from speechrnn.recognition.recognizer import load


@pytest.fixture
def calls(make_recording, tmp_path):
    """A folder with two recordings, and one more in a sub-folder."""
    folder = tmp_path / "calls"
    for seed, name in enumerate(("a.wav", "b.flac", "2024/a.wav")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, make_recording(1.0, seed=seed), 8000)
    return folder


@pytest.fixture
def transcribe(tiny_model_folder):
    return lambda *arguments: main(
        ["transcribe", *map(str, arguments), "-m", str(tiny_model_folder), "--device", "cpu"]
    )


@pytest.fixture(scope="module")
def recognizer(tiny_model_folder):
    return load(str(tiny_model_folder), device="cpu")


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_stands_for_the_recordings_in_it(capsys, transcribe, calls, recognizer):
    assert transcribe(calls) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows == [f"{calls / name}\t{recognizer.transcribe(calls / name).text}" for name in ("a.wav", "b.flac")]
    assert transcribe(calls, calls / "a.wav", "-f", "json", "--recursive") == 0
    rows = [json.loads(line)["audio"] for line in capsys.readouterr().out.splitlines()]
    assert rows == [str(calls / name) for name in ("2024/a.wav", "a.wav", "b.flac")]


def test_subfolders_get_the_same_subfolders_and_the_output_is_not_searched(capsys, transcribe, calls, recognizer):
    output = calls / "out"
    for _ in range(2):
        assert transcribe(calls, "--recursive", "-o", output, "-f", "txt") == 0
        assert list_files(output) == [STATE_FILE, "2024/a.txt", "a.txt", "b.txt"]
        soundfile.write(output / "copy.wav", np.zeros(800), 8000)
        (output / "copy.wav").rename(output / "copy.WAV")
        assert "copy" not in capsys.readouterr().err
        (output / "copy.WAV").unlink()
    assert (output / "2024" / "a.txt").read_text() == recognizer.transcribe(calls / "2024" / "a.wav").text + "\n"


def test_an_interrupted_run_is_continued_and_a_complete_one_says_so(capsys, transcribe, calls, tmp_path):
    output = tmp_path / "out"
    assert transcribe(calls / "a.wav", "-o", output, "--resume") == 0
    assert capsys.readouterr().err == f"speechrnn: {output}: 0 of 1 recordings are complete\n"
    written = (output / "a.txt").stat().st_mtime_ns
    assert transcribe(calls, "--recursive", "-o", output, "--resume") == 0
    assert capsys.readouterr().err == f"speechrnn: {output}: 1 of 3 recordings are complete\n"
    assert (output / "a.txt").stat().st_mtime_ns == written
    assert list_files(output) == [STATE_FILE, "2024/a.txt", "a.txt", "b.txt"]
    assert transcribe(calls, "--recursive", "-o", output, "--resume") == 0
    assert capsys.readouterr().err == f"speechrnn: {output}: all 3 recordings are complete\n"


def test_a_recording_that_failed_is_tried_again(capsys, transcribe, calls, make_recording, tmp_path):
    (calls / "b.flac").write_text("not a recording")
    assert transcribe(calls, "-o", tmp_path / "out") == 1
    assert f"error: {calls / 'b.flac'}: " in capsys.readouterr().err
    assert transcribe(calls, "-o", tmp_path / "out", "--resume") == 1
    assert f"error: {calls / 'b.flac'}: " in capsys.readouterr().err
    soundfile.write(calls / "b.flac", make_recording(1.0), 8000)
    assert transcribe(calls, "-o", tmp_path / "out", "--resume") == 0
    assert list_files(tmp_path / "out") == [STATE_FILE, "a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "beam"], "was written with other --decoder; leave out --resume to start again, or choose"),
        (["--channel", "0"], "was written with other --channels;"),
        (["--vad-threshold", "0.6", "--max-seconds", "20"], "was written with other --max-seconds, --vad-threshold;"),
        (["--max-line-width", "30"], "was written with other --max-line-width;"),
    ],
)
def test_other_options_than_before_are_refused(capsys, transcribe, calls, tmp_path, arguments, message):
    assert transcribe(calls, "-o", tmp_path / "out") == 0
    assert transcribe(calls, "-o", tmp_path / "out", "--resume", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechrnn: error: --resume {tmp_path / 'out'}: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: needs -o DIR"),
        (["-o", "out", "--resume", "--consecutive"], "--resume: cannot follow --consecutive"),
        (["-f", "srt"], "-f srt: needs a folder for several files; add -o DIR"),
        (["--speaker-names", "Ann,Ben"], "--speaker-names: needs --channels separate"),
        (["--vad-threshold", "1"], "--vad-threshold: expected a number in (0, 1), got 1.0"),
        (["--max-seconds", "1"], "--max-seconds: expected a number of seconds in [5, 3600] or null, got 1.0"),
        (["--max-line-width", "0"], "--max-line-width: expected a whole number in [1, 10000], got 0"),
    ],
)
def test_a_wrong_request_for_a_folder_is_one_line(capsys, transcribe, calls, monkeypatch, arguments, message):
    monkeypatch.chdir(calls.parent)
    assert transcribe("calls", *arguments) == 2
    assert capsys.readouterr() == ("", f"speechrnn: error: {message}\n")


def test_a_folder_without_recordings_fails_and_the_others_go_on(capsys, transcribe, calls, tmp_path):
    (tmp_path / "empty").mkdir()
    assert transcribe(tmp_path / "empty") == 2
    assert f"{tmp_path / 'empty'}: no recordings in this folder" in capsys.readouterr().err
    assert transcribe(tmp_path / "empty", calls) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_folder_that_another_run_writes_to_is_refused(capsys, transcribe, calls, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    hold = "import pathlib, sys, time\nfrom speechrnn.processes import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1]), ''):\n    print(flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", hold, str(output)], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert transcribe(calls, "-o", output) == 2
    finally:
        process.kill()
        process.wait()
    message = "another run writes there; wait, or choose another folder with -o"
    assert capsys.readouterr().err == f"speechrnn: error: {output}: {message}\n"
    assert transcribe(calls, "-o", output) == 0


def test_standard_input_is_read(capsys, transcribe, calls, recognizer, tmp_path, monkeypatch):
    expected = recognizer.transcribe(calls / "b.flac").text + "\n"

    def give(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    give((calls / "b.flac").read_bytes())
    assert transcribe("-") == 0
    assert capsys.readouterr().out == expected
    give((calls / "b.flac").read_bytes())
    assert transcribe("-", calls / "b.flac", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "stdin.txt").read_text() == (tmp_path / "out" / "b.txt").read_text() == expected
    give(b"")
    assert transcribe("-") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(sys, "stdin", None)
    assert transcribe("-") == 2
    assert "-: standard input is not a recording; pipe one in" in capsys.readouterr().err


def test_subtitles_are_printed_with_their_options(capsys, transcribe, calls):
    assert transcribe(calls / "a.wav", "-f", "srt", "--max-words-per-line", "1", "--highlight-words") == 0
    assert "\n<u>" in capsys.readouterr().out


def test_separate_channels_are_speakers(capsys, transcribe, calls, make_recording, tmp_path):
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([make_recording(1.0, seed=seed) for seed in range(2)], axis=1), 8000)
    assert transcribe(path, "--channels", "separate", "--speaker-names", "Ann, Ben") == 0
    assert {line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()} == {"Ann", "Ben"}
    assert transcribe(calls, "--channels", "separate") == 0
    messages = capsys.readouterr().err.splitlines()
    assert messages == [f"speechrnn: warning: {calls / 'a.wav'}: one channel; such recordings have no speakers"]


def test_a_long_recording_shows_its_progress(capsys, transcribe, make_recording, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, make_recording(15.0), 8000)
    seen = []

    @contextmanager
    def record(name):
        yield lambda done, total: seen.append((done, total))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("speechrnn.cli.arguments.show_progress", record)
    assert transcribe(path, "--max-seconds", "5", "--cut", "windows") == 0
    assert len(seen) > 2
    assert [total for _, total in seen] == [15.0] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == 15.0
    capsys.readouterr()


KILLED = """
import os, signal, sys
from speechrnn.cli.main import main

main([*sys.argv[1:], "-o", sys.argv[2] + "-first"])  # imports once for all children
events, is_counting = 0, False

def profile(frame, event, argument):
    global events, is_counting
    is_counting |= frame.f_code.co_name == "transcribe_many"
    events += is_counting
    if is_counting and events == limit:
        os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    limit, *arguments = line.rstrip("\\n").split("\\t")
    limit = int(limit)
    if not (child := os.fork()):
        sys.setprofile(profile)
        code = main(arguments)
        sys.setprofile(None)
        print(events, flush=True)
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs the command in a child, which kills itself at a given call or return after the model is loaded."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_run_killed_at_any_moment_is_continued_without_loss_or_half_files(
    make_recording, tiny_model_folder, tmp_path
):
    for number in range(12):
        soundfile.write(tmp_path / f"{number:02}.wav", make_recording(0.3, seed=number), 8000)
    command = ["transcribe", tmp_path, "-m", tiny_model_folder, "--device", "cpu", "--batch-seconds", "0.7"]
    command = [*map(str, command), "-f", "all", "--resume"]
    arguments = [sys.executable, "-c", KILLED, *command]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(output, limit=0):
        print(limit, *command, "-o", tmp_path / output, sep="\t", file=process.stdin, flush=True)
        return int(process.stdout.readline())

    events = run("whole")  # printed by the child; then its exit code follows
    assert int(process.stdout.readline()) == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir() if path.name != STATE_FILE}
    assert len(expected) == 72
    rng = random.Random(29)
    complete: dict[str, int] = {}
    for _ in range(5):
        assert run("killed", rng.randrange(1, events // 4)) == -signal.SIGKILL
        for path in (tmp_path / "killed").glob("[!.]*"):
            assert path.read_bytes() == expected[path.name]
        if (state := tmp_path / "killed" / STATE_FILE).exists():
            for row in map(json.loads, state.read_text().splitlines()[1:]):
                path = tmp_path / "killed" / f"{row['name']}.txt"
                assert complete.setdefault(row["name"], path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert 0 < len(complete) < 12
    run("killed")
    assert int(process.stdout.readline()) == 0
    process.stdin.close()
    process.wait()
    files = {path.name for path in (tmp_path / "killed").iterdir()}
    assert files == {*expected, STATE_FILE}
    assert all((tmp_path / "killed" / name).read_bytes() == content for name, content in expected.items())
    for name, written in complete.items():
        assert (tmp_path / "killed" / f"{name}.txt").stat().st_mtime_ns == written
