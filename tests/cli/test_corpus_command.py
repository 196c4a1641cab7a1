"""``speechrnn corpus``: what is printed and written, exit codes, one line for every slip."""

import json
import re
from pathlib import Path

import pytest
from conftest import make_tone_corpus

from speechrnn.cli.main import main
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers import list_formats
from speechrnn.model_folder import save_model
from speechrnn.text.tokens import WordTokens


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tone_corpus(folder / "train.jsonl", 60, seed=0)
    return folder / "train.jsonl"


def spoil(train, folder):
    """Ten utterances of the corpus, one of them gone and one without a text."""
    lines = [json.loads(line) for line in train.read_text().splitlines()[:10]]
    for line in lines:
        line["audio_filepath"] = str(train.parent / line["audio_filepath"])
    lines[3]["audio_filepath"] = "gone.wav"
    lines[5]["text"] = ""
    (folder / "spoilt.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "spoilt.jsonl", lines


def test_a_corpus_without_problems_ends_with_0(train, make_tiny_model, tmp_path, capsys):
    save_model(tmp_path / "model", make_tiny_model(tokens=WordTokens(["<blank>", "high", "low", "middle"])))
    assert main(["corpus", "check", str(train), "-m", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    assert "(nemo): 60 utterances" in said
    assert "8,000 Hz (60)" in said
    assert said.splitlines()[-1] == "nothing would be left out of training"


def test_utterances_that_would_be_left_out_end_with_1(train, tmp_path, capsys):
    path, lines = spoil(train, tmp_path)
    assert main(["corpus", "check", str(path), "--write-clean", str(tmp_path / "clean")]) == 1
    said = capsys.readouterr().out
    assert "unreadable: 1, left out of training" in said
    assert "empty text: 1, left out of training" in said
    assert "2 utterances would be left out of training" in said
    again = main(["corpus", "check", str(tmp_path / "clean" / "clean.jsonl"), "--write-clean", str(tmp_path / "clean")])
    assert again == 2  # it would replace what it reads
    assert "exists already; choose a new folder" in capsys.readouterr().err
    kept = read_manifest(tmp_path / "clean" / "clean.jsonl")
    assert len(kept) == 8
    reasons = [json.loads(line) for line in (tmp_path / "clean" / "left_out.jsonl").read_text().splitlines()]
    assert [reason["reason"].split(":")[0] for reason in reasons] == ["unreadable", "empty text"]
    assert reasons[1]["id"] == Path(lines[5]["audio_filepath"]).stem


def test_json_has_everything_by_stable_names(train, tmp_path, capsys):
    path, _ = spoil(train, tmp_path)
    assert main(["corpus", "check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "path", "format", "utterances", "seconds", "speakers", "duration_quantiles", "sample_rates", "band_limit_hz",
        "characters", "unknown_characters", "findings", "left_out", "leakage",
    }  # fmt: skip
    assert (found["utterances"], found["left_out"]) == (10, 2)


def test_overlap_with_a_test_corpus_is_reported(train, capsys):
    assert main(["corpus", "check", str(train), "--test", str(train)]) == 1
    said = capsys.readouterr().out
    assert said.count("leak: ") == 3
    assert "60 recordings" in said


def test_check_uses_the_settings_of_a_configuration(train, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(
        "front_end: {sample_rate: 8000}\nencoder: {hidden_size: 8, num_layers: 1, subsampling_factor: 60}\n"
    )
    assert main(["corpus", "check", str(train), "--config", str(tmp_path / "config.yaml")]) == 1
    assert "cannot be aligned: " in capsys.readouterr().out


def test_durations_are_drawn(train, tmp_path):
    assert main(["corpus", "check", str(train), "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["b.csv", "b.tsv", "b.jsonl", "b.jsonl.gz", "folder"])
def test_the_output_name_chooses_the_format_of_a_conversion(train, tmp_path, capsys, name):
    assert main(["corpus", "convert", str(train), str(tmp_path / name)]) == 0
    assert "60 utterances as " in capsys.readouterr().out
    assert main(["corpus", "check", str(tmp_path / name)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "gone"], "no such file or folder"),
        (["check", "."], "no known format"),
        (["check", "TRAIN", "--format", "wav"], "unknown format 'wav'"),
        (["check", "TRAIN", "-m", "x", "--config", "y"], "-m and --config: give one of them"),
        (["check", "TRAIN", "-m", "gone"], "gone"),
        (["check", "TRAIN", "--config", "gone.yaml"], "gone.yaml"),
        (["convert", "TRAIN", "a.txt"], "unknown ending"),
        (["convert", "TRAIN", "a.csv", "--to", "stm"], "unknown format"),
        (["convert", "TRAIN"], "DST"),
        (["pack", "TRAIN", "."], "exists already"),
        (["pack", "TRAIN", "a", "--encoding", "mp4"], "choose from flac, wav, opus"),
        (["pack", "gone", "a"], "no such file or folder"),
        (["mend", "TRAIN"], "corpus mend: expected one of the commands corpus check, corpus convert, corpus pack"),
        ([], "corpus: expected one of the commands corpus check, corpus convert, corpus pack"),
    ],
)
def test_errors_end_with_one_line_and_exit_code_2(train, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)
    assert main(["corpus", *(str(train) if part == "TRAIN" else part for part in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_corpus_is_packed_and_unreadable_recordings_are_named(train, tmp_path, capsys):
    assert main(["corpus", "pack", str(train), str(tmp_path / "shards"), "--shard-size", "25"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("shards: 60 utterances (0.01 h) in 3 shards\n")
    assert main(["corpus", "check", str(tmp_path / "shards")]) == 0
    assert "(shar): 60 utterances" in capsys.readouterr().out
    path, _ = spoil(train, tmp_path)
    assert main(["corpus", "pack", str(path), str(tmp_path / "rest"), "--encoding", "opus"]) == 1
    said = capsys.readouterr()
    assert "is left out: " in said.err
    assert "gone.wav" in said.err
    assert "rest: 9 utterances" in said.out


def test_a_packed_corpus_is_not_converted(train, tmp_path, capsys):
    assert main(["corpus", "pack", str(train), str(tmp_path / "shards")]) == 0
    assert main(["corpus", "convert", str(tmp_path / "shards"), str(tmp_path / "kaldi")]) == 2
    assert "convert the corpus that it was packed from" in capsys.readouterr().err
    assert not (tmp_path / "kaldi").exists()


def test_help_names_every_format_and_every_reader_has_a_name(capsys):
    assert main(["corpus", "check", "--help"]) == 0
    named = re.search(r"format of the corpus: (.*?) \(default", " ".join(capsys.readouterr().out.split()))[1]
    assert re.findall(r"[a-z]+(?![\w)])", re.sub(r"\(.*?\)", "", named).replace(" or ", " ")) == list(list_formats())
