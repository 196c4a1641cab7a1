"""Corpora that are damaged or made to do harm end in one line, at once and in little memory."""

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.cli.main import main
from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.errors import CorpusError
from speechrnn.model_folder import save_model

DEEP = "[" * 200_000


@pytest.fixture
def put(tmp_path):
    """Writes a second of noise."""

    def write(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(len(name)).normal(0, 0.1, 8000), 8000)
        return path

    return write


def refuse(path, format=None) -> str:
    with pytest.raises(CorpusError) as caught:
        read_corpus(path, format)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz", "recordings.jsonl", "t.jsonl", "metadata.jsonl"])
def test_json_nested_deeply_is_refused(tmp_path, name):
    with gzip.open(tmp_path / name, "wt") if name.endswith("gz") else (tmp_path / name).open("w") as file:
        file.write(DEEP)
    (tmp_path / "supervisions.jsonl").write_text(DEEP)
    formats = {"t.jsonl": "nemo", "metadata.jsonl": "table"}
    path = tmp_path / name if name == "t.jsonl" else tmp_path
    assert str(path) in refuse(path, formats.get(name, "lhotse")) or name == "t.jsonl"


def test_json_nested_deeply_in_a_shard_is_refused(tmp_path):
    (tmp_path / "recording.000000.tar").write_bytes(b"")
    (tmp_path / "cuts.000000.jsonl").write_text(DEEP)
    assert "cuts.000000.jsonl line 1: nested too deeply for JSON" in refuse(tmp_path, "shar")


@pytest.mark.parametrize("kind", ["device", "pipe", "link"])
@pytest.mark.parametrize("format", [None, "nemo", "table", "stm", "lhotse", "sidecar", "kaldi"])
def test_a_file_that_is_not_regular_is_refused(tmp_path, kind, format):
    path = Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path := tmp_path / "pipe.jsonl")
    elif kind == "link":
        (path := tmp_path / "link.jsonl").symlink_to("/dev/zero")
    assert refuse(path, format) == f"{path}: is neither a regular file nor a folder; check the path"


@pytest.mark.parametrize(
    ("format", "name"),
    [("nemo", "manifest.jsonl"), ("ljspeech", "metadata.csv"), ("kaldi", "wav.scp"), ("table", "metadata.csv")],
)
def test_a_device_within_a_corpus_is_refused(tmp_path, put, format, name):
    put("wavs/a.wav")
    (tmp_path / "text").write_text("a one\n")
    (tmp_path / name).symlink_to("/dev/zero")
    assert name in refuse(tmp_path, format)


def test_a_recording_that_is_a_pipe_or_a_device_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "zero.wav"):
        line = {"audio_filepath": name, "duration": 1.0, "text": "one", "id": "u1"}
        (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
        assert f"utterance u1: {tmp_path / name}" in refuse(tmp_path / "m.jsonl")


def test_an_endless_line_needs_little_memory(tmp_path):
    """A file of 8 GB that contains no line feed was read whole."""
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
    script = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, {resource.RLIM_INFINITY}))\n"
        "from speechrnn.corpus.manifest import read_manifest\n"
        "read_manifest(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("a line of the manifest is longer than 8 MiB; check the file")


def test_a_transcript_of_ten_megabytes_is_named_and_not_aligned(tmp_path, put, make_tiny_model, capsys):
    put("a.wav")
    (tmp_path / "a.txt").write_text("one two three\n" * 700_000)
    save_model(tmp_path / "model", make_tiny_model())
    assert main(["evaluate", str(tmp_path), "-m", str(tmp_path / "model"), "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "utterance a: its text has 9,799,999 characters, at most 200,000 are read; split the recording" in said


def test_metadata_files_of_macos_are_ignored(tmp_path, put):
    put("a/one.wav")
    (tmp_path / "a" / "one.txt").write_text("one")
    (tmp_path / "a" / "._one.wav").write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "._one.txt").write_bytes(b"\0\5\x16\7")
    assert find_format(tmp_path).name == "sidecar"
    assert [each.id for each in read_corpus(tmp_path)] == ["a/one"]
    put("wavs/two.wav")
    (tmp_path / "wavs" / "._two.wav").write_bytes(b"\0\5\x16\7")
    (tmp_path / "talk.stm").write_text("two 1 ann 0 1 two\n")
    (tmp_path / "._talk.stm").write_bytes(b"\0\5\x16\7")
    (tmp_path / "wavs").rename(tmp_path / "wav")
    assert [each.text for each in read_corpus(tmp_path, "stm")] == ["two"]


@pytest.mark.parametrize("written", ["../x.wav", "a/../../x.wav", "a/./../../x.wav", "a/.."])
def test_a_relative_path_does_not_leave_a_table_or_lhotses_manifests(tmp_path, put, written):
    put("x.wav")
    folder = put("corpus/a/y.wav").parent.parent
    (folder / "t.csv").write_text(f"path,text\n{written},one\n")
    assert f"t.csv line 2: {written} leads out of the corpus's folder" in refuse(folder / "t.csv")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": written, "text": "one"}) + "\n")
    assert f"{written} leads out of the corpus's folder" in refuse(folder, "table")
    source = {"type": "file", "channels": [0], "source": written}
    recording = {"id": "r", "sources": [source], "sampling_rate": 8000, "num_samples": 8000, "duration": 1.0}
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 0, "text": "one"}
    cut = {"id": "c", "start": 0.0, "duration": 1.0, "channel": 0, "recording": recording, "type": "MonoCut"}
    (folder / "cuts.jsonl").write_text(json.dumps({**cut, "supervisions": [supervision]}) + "\n")
    assert f"cut c: {written} leads out of the corpus's folder" in refuse(folder / "cuts.jsonl")


@pytest.mark.parametrize("name", ["../x", "a/../../x"])
def test_a_name_that_leads_elsewhere_names_no_recording_beside_a_text(tmp_path, put, name):
    put("x.wav")
    put("corpus/wavs/y.wav")
    for file, line in (
        ("metadata.csv", f"{name}|one"),
        ("t.stm", f"{name} 1 ann 0 1 one"),
        ("1.trans.txt", f"{name} ONE"),
    ):
        (tmp_path / "corpus" / file).write_text(line + "\n")
    for format in ("ljspeech", "stm", "librispeech"):
        assert f"no recording {name}" in refuse(tmp_path / "corpus", format)


def test_one_missing_recording_of_many_is_found_before_training(tmp_path, put, capsys):
    path = put("a.wav")
    lines = [{"audio_filepath": path.name, "duration": 1.0, "text": "one", "id": f"u{n}"} for n in range(300)]
    lines[211]["audio_filepath"] = "gone.wav"
    for name in ("train", "valid"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "config.yaml"
    config.write_text("data: {train: train.jsonl, valid: valid.jsonl}\n")
    assert main(["train", "--config", str(config), "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith(f"train.jsonl: utterance u211: {tmp_path / 'gone.wav'}: no such file")
