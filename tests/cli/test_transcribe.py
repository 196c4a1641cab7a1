import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.cli.main import main
from speechrnn.recognition.recognizer import load


@pytest.fixture(autouse=True)
def _no_model_from_outside(monkeypatch):
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)


@pytest.fixture
def recordings(make_recording, tmp_path):
    """Two mono recordings and a stereo one; a.wav and other/a.flac share their stem."""
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "other" / "a.flac"]
    soundfile.write(paths[0], make_recording(1.0, seed=1), 8000)
    soundfile.write(paths[1], make_recording(2.0, seed=2), 8000)
    soundfile.write(paths[2], np.stack([make_recording(1.0, seed=3), make_recording(1.0, seed=4)], axis=1), 8000)
    return [str(path) for path in paths]


@pytest.fixture
def transcribe(tiny_model_folder):
    return lambda *arguments: main(["transcribe", *arguments, "-m", str(tiny_model_folder), "--device", "cpu"])


@pytest.fixture(scope="module")
def recognizer(tiny_model_folder):
    return load(str(tiny_model_folder), device="cpu")


def test_one_recording_prints_its_text(capsys, transcribe, recordings, recognizer):
    assert transcribe(recordings[0]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (recognizer.transcribe(recordings[0]).text + "\n", "")


def test_several_recordings_print_path_and_text(capsys, transcribe, recordings, recognizer):
    assert transcribe(*recordings, "--batch-seconds", "3") == 0
    expected = [f"{path}\t{recognizer.transcribe(path).text}" for path in recordings]
    assert capsys.readouterr().out.splitlines() == expected


def test_json_prints_one_object_a_line(capsys, transcribe, recordings, recognizer):
    assert transcribe(*recordings, "-f", "json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["audio"] for row in rows] == recordings
    assert [row["text"] for row in rows] == [recognizer.transcribe(path).text for path in recordings]


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "ctm", "json"])
def test_one_recording_prints_any_format(capsys, transcribe, recordings, recognizer, name):
    assert transcribe(recordings[1], "-f", name) == 0
    assert capsys.readouterr().out == getattr(recognizer.transcribe(recordings[1]), f"to_{name}")()


def test_the_channel_option_selects_the_channel(capsys, transcribe, recordings, recognizer):
    assert transcribe(recordings[2], "--channel", "1") == 0
    assert capsys.readouterr().out == recognizer.transcribe(recordings[2], channel=1).text + "\n"


def test_model_is_read_from_the_environment(capsys, recordings, tiny_model_folder, monkeypatch):
    monkeypatch.setenv("SPEECHRNN_MODEL", str(tiny_model_folder))
    assert main(["transcribe", recordings[0], "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip()


def test_the_output_folder_gets_every_format_without_name_collisions(
    capsys, transcribe, recordings, recognizer, tmp_path
):
    output = tmp_path / "made" / "here"
    assert transcribe(*recordings, "-o", str(output), "-f", "all") == 0
    assert capsys.readouterr().out == ""
    endings = ("txt", "json", "srt", "vtt", "tsv", "ctm")
    written = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert written == {f"{n}.{e}" for n in ("a", "b", "a-2") for e in endings}
    for name, path in zip(("a", "b", "a-2"), recordings, strict=True):
        expected = recognizer.transcribe(path)
        assert (output / f"{name}.txt").read_text(encoding="utf-8") == expected.text + "\n"
        assert (output / f"{name}.srt").read_text(encoding="utf-8") == expected.to_srt()
        assert json.loads((output / f"{name}.json").read_text(encoding="utf-8"))["text"] == expected.text


def test_one_failing_file_does_not_stop_the_others(capsys, transcribe, recordings, recognizer, tmp_path):
    broken = tmp_path / "text.wav"
    broken.write_text("not a recording")
    assert transcribe(recordings[0], str(broken), str(tmp_path / "no.wav"), recordings[1]) == 1
    captured = capsys.readouterr()
    expected = [f"{path}\t{recognizer.transcribe(path).text}" for path in recordings[:2]]
    assert captured.out.splitlines() == expected
    first, second = captured.err.splitlines()
    assert first.startswith(f"speechrnn: error: {broken}: ")
    assert second == f"speechrnn: error: {tmp_path / 'no.wav'}: no such file"


def test_damaged_recording_is_transcribed_with_a_warning_and_exit_code_1(capsys, transcribe, recordings, tmp_path):
    path = tmp_path / "damaged.ogg"
    soundfile.write(path, np.random.default_rng(3).normal(0, 0.1, 80000), 8000, format="OGG", subtype="OPUS")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert transcribe(str(path)) == 1
    captured = capsys.readouterr()
    assert captured.out.strip()
    assert captured.err.startswith(f"speechrnn: warning: {path}: damaged: about ")
    assert transcribe(recordings[0]) == 0  # the next call in this process starts anew


@pytest.mark.parametrize("count", [1, 2])
def test_exit_code_2_if_no_recording_was_transcribed(capsys, transcribe, tmp_path, count):
    assert transcribe(*[str(tmp_path / f"{number}.wav") for number in range(count)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.rsplit(": ", 1)[1] for line in captured.err.splitlines()] == ["no such file"] * count


def test_a_recording_that_is_too_short_is_one_line(capsys, transcribe, tmp_path):
    path = tmp_path / "click.wav"
    soundfile.write(path, np.full(100, 0.1), 8000)
    assert transcribe(str(path)) == 2
    assert f"{path}: 0.0125 s is too short, this model needs at least 0.0250 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", "doc"], "argument -f/--format: invalid choice: 'doc'"),
        (["--channel", "1"], "a.wav: no channel 1; it has 1, counted from 0"),
        (["--channel", "left"], "argument --channel: expected mix, separate or a number from 0, got 'left'"),
        (["--decoder", "psychic"], "--decoder: expected one of greedy, beam, lexicon or null, got 'psychic'"),
        (["--decoder", "lexicon"], "--decoder: lexicon needs words or sentences to choose from"),
        (["--decoder", "lexicon", "--words", "gone.txt"], "--words gone.txt: no such file; expected a text file"),
        (["--words", "."], "--words .: is a folder; expected a text file"),
        (["--batch-seconds", "0"], "batch_seconds: expected more than 0 seconds"),
        (["--batch", "60"], "unrecognized arguments: --batch"),
        (["--out", "x"], "unrecognized arguments: --out"),
        (["--device", "gpu"], "device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (["-f", "all"], "-f all: needs a folder for several files; add -o DIR"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys, recordings, tiny_model_folder, arguments, message):
    assert main(["transcribe", recordings[0], "-m", str(tiny_model_folder), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("speechrnn: error: ")
    assert message in line


def test_several_subtitles_need_a_folder(capsys, transcribe, recordings):
    assert transcribe(*recordings, "-f", "srt") == 2
    assert "-f srt: needs a folder for several files; add -o DIR" in capsys.readouterr().err


def test_options_may_stand_between_recordings(capsys, transcribe, recordings):
    assert transcribe(recordings[0], "-f", "json", *recordings[1:]) == 0
    assert [json.loads(line)["audio"] for line in capsys.readouterr().out.splitlines()] == recordings


def test_no_audio(capsys, transcribe):
    assert transcribe() == 2
    assert "the following arguments are required: AUDIO" in capsys.readouterr().err


def test_no_model(capsys, recordings):
    assert main(["transcribe", recordings[0]]) == 2
    expected = "speechrnn: error: no model: give -m M, or set SPEECHRNN_MODEL; see speechrnn transcribe --help\n"
    assert capsys.readouterr().err == expected


def test_missing_model(capsys, recordings):
    assert main(["transcribe", recordings[0], "-m", "/no/such/model"]) == 2
    assert capsys.readouterr().err.startswith("speechrnn: error: /no/such/model: there is no such model folder")


def test_output_that_is_a_file(capsys, transcribe, recordings):
    assert transcribe(recordings[0], "-o", recordings[1]) == 2
    assert f"-o {recordings[1]}: cannot be created" in capsys.readouterr().err


def test_warnings_state_the_measured_values(capsys, transcribe, tmp_path):
    path = tmp_path / "quiet.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    assert transcribe(str(path)) == 0
    assert capsys.readouterr().err.startswith(f"speechrnn: warning: {path}: silent")


@pytest.mark.parametrize("has_output", [True, False])
def test_the_progress_bar_is_not_on_standard_output(capsys, transcribe, recordings, tmp_path, monkeypatch, has_output):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    output = ["-o", str(tmp_path / "out")] if has_output else []
    assert transcribe(str(tmp_path / "no.wav"), *recordings, *output) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == (0 if has_output else 3)
    assert "transcribing" in captured.err
    assert "no such file" in " ".join(captured.err.split())  # the bar breaks long lines


def test_a_recording_whose_name_begins_with_a_dash_follows_two_dashes(
    capsys, tiny_model_folder, recordings, tmp_path, monkeypatch, recognizer
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recordings[0], "-dash.wav")
    assert main(["transcribe", "-m", str(tiny_model_folder), "b.wav", "--", "-dash.wav"]) == 0
    expected = [
        f"{name}\t{recognizer.transcribe(path).text}"
        for name, path in zip(("b.wav", "-dash.wav"), recordings[1::-1], strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_the_folder_of_a_run_selects_its_model(capsys, tiny_model_folder, recordings, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "run" / "model")
    assert main(["transcribe", recordings[0], "-m", str(tmp_path / "run"), "--device", "cpu", "-f", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "run")


def test_a_model_name_of_5000_letters_is_one_short_line(capsys, recordings):
    assert main(["transcribe", recordings[0], "-m", "x" * 5000]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("cannot be opened (File name too long); check the path")
    assert len(line) < 300


def test_an_output_that_cannot_be_written_does_not_end_the_run(capsys, transcribe, recordings, tmp_path, recognizer):
    long = tmp_path / f"{'n' * 245}.wav"
    shutil.copy(recordings[0], long)
    assert transcribe(str(long), recordings[1], "-o", str(tmp_path / "out"), "-f", "json") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechrnn: error: {tmp_path / 'out' / long.stem}.json: cannot be written (")
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["b.json"]
    assert transcribe(str(long), "-o", str(tmp_path / "out"), "-f", "json") == 2


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails to be read")
def test_a_read_error_of_one_recording_does_not_end_the_run(capsys, transcribe, recordings, recognizer):
    assert transcribe("/proc/self/mem", recordings[1]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{recordings[1]}\t{recognizer.transcribe(recordings[1]).text}\n"
    assert captured.err.startswith("speechrnn: error: /proc/self/mem: cannot be read")


def test_a_file_name_with_tabs_keeps_the_columns(capsys, transcribe, recordings, tmp_path, recognizer):
    path = tmp_path / "ta\tb\nnew \x1b[31m.wav"
    shutil.copy(recordings[0], path)
    assert transcribe(str(path), recordings[1]) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/ta\\tb\\nnew \\x1b[31m.wav\t{recognizer.transcribe(recordings[0]).text}"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file")
@pytest.mark.parametrize("option", ["--words", "--sentences"])
def test_an_endless_list_of_texts_is_refused(capsys, transcribe, recordings, option):
    assert transcribe(recordings[0], option, "/dev/zero") == 2
    reason = "is not a regular file; expected a text file in UTF-8, one entry per line"
    assert capsys.readouterr().err == f"speechrnn: error: {option} /dev/zero: {reason}\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused_in_one_line(capsys, transcribe, path):
    assert transcribe(path) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechrnn: error: {path}: ")
