"""``speechrnn transcribe --ray``: what is refused without a cluster, and which recordings are found."""

import json
import socket
from argparse import Namespace

import pytest
import soundfile

from speechrnn import cluster
from speechrnn.audio.folders import find_recordings
from speechrnn.cli import transcribe_cluster
from speechrnn.cli.main import main
from speechrnn.cli.transcribe_cluster import find_sources
from speechrnn.errors import AudioError, ConfigError, CorpusError


@pytest.fixture
def calls(make_recording, tmp_path):
    for seed, name in enumerate(("a.wav", "2024/a.wav")):
        path = tmp_path / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_recording(0.5, seed=seed), 8000)
    return tmp_path / "calls"


@pytest.fixture
def transcribe(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(cluster, "check_installed", lambda: None)
    return lambda *arguments: main(["transcribe", *map(str, arguments), "-m", str(tiny_model_folder)])


REFUSED = {
    "--ray local": "--ray: needs -o DIR, a folder that all machines of the cluster share",
    "--ray local -o out -f srt": "-f srt: with --ray choose jsonl, parquet or all (both)",
    "--ray local -o out --consecutive": "--consecutive: cannot follow --ray; consecutive recordings are computed one",
    "--ray local -o out -m other": "--ray: takes one model; several -m transcribe together on one machine only",
    "--ray local -o out -": "-: standard input is not visible to a cluster; give files, folders or a corpus",
    "--ray local -o out --device cuda:1": "--device cuda:1: with --ray give auto, cpu or cuda; Ray chooses the GPUs",
    "--ray head -o out": "--ray head: expected auto, local or HOST:PORT of the head node, such as 10.0.0.5:6379",
    "--ray ray://head:10001 -o out": "--ray ray://head:10001: expected auto, local or HOST:PORT of the head node",
    "--ray local -o out --nbest 0": "--nbest: expected a whole number",
    "--ray local -o out --beam-size 4": "--beam-size: needs a beam search",
    "--ray local -o out --speaker Ann": "speaker Ann: the model was not adapted to one of that name",
    "-f jsonl": "-f jsonl: needs --ray; -f json prints one line for each of several recordings",
}


@pytest.mark.parametrize(("options", "message"), REFUSED.items())
def test_a_wrong_request_is_one_line(capsys, transcribe, calls, monkeypatch, options, message):
    monkeypatch.chdir(calls.parent)
    assert transcribe("calls", *options.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechrnn: error: {message}")


def test_ray_that_is_not_installed_is_one_line(capsys, calls, tiny_model_folder, monkeypatch):
    find = cluster.importlib.util.find_spec
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    assert main(["transcribe", str(calls), "-m", str(tiny_model_folder), "--ray", "local", "-o", str(calls)]) == 2
    assert capsys.readouterr().err == "speechrnn: error: --ray: needs Ray; run pip install 'speechrnn[cluster]'\n"


def test_a_folder_without_recordings_and_a_damaged_manifest_are_one_line_each(capsys, transcribe, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.jsonl").write_text('{"audio_filepath": "a.wav", "duration": 1, "text": ""}\n{"audio')
    assert transcribe(tmp_path / "empty", tmp_path / "damaged.jsonl", "--ray", "local", "-o", tmp_path / "out") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"error: {tmp_path / 'empty'}: no recordings in this folder" in first
    assert "error: damaged.jsonl line 2: " in second
    assert not (tmp_path / "out").exists()


def test_an_address_where_nothing_answers_is_one_line_at_once(capsys, transcribe, calls, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        assert transcribe(calls, "--ray", address, "-o", tmp_path / "out") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"speechrnn: error: --ray {address}: does not answer (Connection refused); check the address"
    )


def test_a_port_of_another_program_is_given_up_after_a_time(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="something answers there, but not as a Ray cluster"):
            cluster._check_address(f"127.0.0.1:{other.getsockname()[1]}")


def write_manifest(path, calls):
    rows = [
        {"audio_filepath": str(calls / "a.wav"), "duration": 0.3, "offset": 0.1, "text": "", "id": "first"},
        {"audio_filepath": str(calls / "2024" / "a.wav"), "duration": 0.5, "text": "", "id": "second"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_recordings_are_those_of_the_folder_and_else_of_the_corpus(calls, tmp_path):
    found = find_sources(str(calls), is_recursive=True)
    assert [source.name for source in found] == find_recordings(str(calls), is_recursive=True)
    assert all(source.is_whole and source.size > 8000 for source in found)
    for path in (tmp_path / "mine.jsonl", tmp_path / "corpus" / "manifest.jsonl"):
        path.parent.mkdir(exist_ok=True)
        write_manifest(path, calls)
        first, second = find_sources(str(path if path.parent == tmp_path else path.parent))
        assert (first.id, first.start, first.seconds) == ("first", 0.1, 0.3)
        assert (second.id, second.path) == ("second", str(calls / "2024" / "a.wav"))
        assert first.key != found[1].key
    (tmp_path / "mine.jsonl").write_text((tmp_path / "mine.jsonl").read_text()[:-9])
    with pytest.raises(CorpusError, match="line 2"):
        find_sources(str(tmp_path / "mine.jsonl"))
    with pytest.raises(AudioError, match="no recordings in this folder"):
        find_sources(str(tmp_path))


def test_each_part_of_a_recording_counts_once(calls, tmp_path):
    write_manifest(tmp_path / "mine.jsonl", calls)
    row = {"audio_filepath": str(calls / "a.wav"), "duration": 0.1, "text": "", "id": "third"}
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    args = Namespace(audio=[str(tmp_path / "mine.jsonl")] * 2, recursive=False, output=None, channels=None)
    sources, num_unused = transcribe_cluster._find_sources(args, lambda path, error: None)
    assert ([source.id for source in sources], num_unused) == (["first", "second", "third"], 0)


def test_separate_channels_of_parts_of_recordings_are_refused(capsys, transcribe, calls, tmp_path):
    write_manifest(tmp_path / "mine.jsonl", calls)
    options = ["--ray", "local", "-o", tmp_path / "out", "--channels", "separate"]
    assert transcribe(tmp_path / "mine.jsonl", *options) == 2
    assert "--channels separate: needs whole recordings, not parts of them" in capsys.readouterr().err
