"""``speechrnn evaluate``: what is printed, written and returned, and one line for every slip."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file

import speechrnn
from speechrnn.cli.main import main

SCORE_KEYS = {
    "utterances", "words", "wer", "wer_low", "wer_high", "cer", "sentence_error_rate", "interval_method",
    "substitutions", "deletions", "insertions", "scoring_normalization", "raw", "confidence", "failed",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_model_from_outside(monkeypatch):
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)


@pytest.fixture
def evaluate(tone_run):
    def run(corpus: object, *arguments: str) -> int:
        return main(["evaluate", str(corpus), "-m", str(tone_run.model), "--device", "cpu", *arguments])

    return run


@pytest.fixture
def test_set(tone_run) -> Path:
    return tone_run.folder / "test.jsonl"


@pytest.fixture
def corpus(test_set, tmp_path):
    """A copy of the test set to spoil: (manifest, its lines)."""
    shutil.copytree(test_set.with_suffix(""), tmp_path / "test")
    return tmp_path / "test.jsonl", [json.loads(line) for line in test_set.read_text().splitlines()]


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def error_of(capsys) -> str:
    """What an error that is the only thing said says."""
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("speechrnn: error: ")
    return line.removeprefix("speechrnn: error: ")


def test_scores_are_printed_as_a_table(capsys, evaluate, test_set):
    assert evaluate(test_set) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    score, raw, confidences = captured.out.splitlines()
    assert re.fullmatch(r"confidences: expected calibration error \d+\.\d %", confidences)
    assert score.startswith("test: WER 0.00 % (95 % interval 0.00–")
    assert "15 utterances" in score
    assert "exact binomial bound" in score
    assert raw.startswith("as written, capitals and punctuation included: WER ")


def test_the_worst_utterances_are_shown_with_their_errors(capsys, evaluate, corpus):
    path, lines = corpus
    for number in range(3):
        lines[number]["text"] += " low" * (number + 1)
    assert evaluate(write_lines(path, lines)) == 0
    shown = capsys.readouterr().out.splitlines()[3:]
    assert shown[0] == "3 utterances with errors, all here (-reference +recognised):"
    assert {line.split(":")[0]: line.count("-low") for line in shown[1:]} == {"test-0": 1, "test-1": 2, "test-2": 3}
    for line in lines:
        line["text"] = "high low high low"
    assert evaluate(write_lines(path, lines)) == 0
    shown = capsys.readouterr().out.splitlines()[3:]
    assert shown[0] == "15 utterances with errors, the worst 5 here (-reference +recognised):"
    assert len(shown) == 6


def test_json_has_exactly_the_documented_keys(capsys, evaluate, test_set):
    assert evaluate(test_set, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    scores = json.loads(captured.out)
    assert set(scores) == SCORE_KEYS
    assert set(scores["raw"]) == {"wer", "wer_low", "wer_high", "cer", "sentence_error_rate"}
    assert (scores["utterances"], scores["wer"], scores["failed"]) == (15, 0.0, 0)
    assert scores["raw"]["sentence_error_rate"] == 1.0
    assert 0.0 < scores["wer_high"] < 1.0  # a fraction, not per cent


def test_output_folder_gets_every_hypothesis_worst_first_and_the_results(capsys, evaluate, corpus, tmp_path):
    path, lines = corpus
    lines[7]["text"] += " low low"
    output = tmp_path / "made" / "here"
    assert evaluate(write_lines(path, lines), "-o", str(output), "--json") == 0
    assert {file.name for file in output.iterdir()} == {"hypotheses.jsonl", "results.json", "reliability.png"}
    assert json.loads((output / "results.json").read_text()) == json.loads(capsys.readouterr().out)
    assert len((output / "results.json").read_text().splitlines()) > len(SCORE_KEYS)  # for people, too
    rows = [json.loads(line) for line in (output / "hypotheses.jsonl").read_text().splitlines()]
    assert len(rows) == 15
    assert (rows[0]["id"], rows[0]["errors"], rows[0]["reference"]) == ("test-7", 2, lines[7]["text"])
    assert [row["errors"] for row in rows[1:]] == [0] * 14
    assert all(row["hypothesis"] for row in rows)


def test_the_same_results_replace_old_ones(evaluate, test_set, tmp_path):
    for _ in range(2):
        assert evaluate(test_set, "-o", str(tmp_path)) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"hypotheses.jsonl", "results.json", "reliability.png"}


def test_confidences_are_calibrated_for_the_decoder_that_is_given(capsys, corpus, tone_run, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tone_run.model, model)
    path, lines = corpus
    for line in lines[::2]:
        line["text"] = "high"  # most recognised words are wrong then
    arguments = ["evaluate", str(write_lines(path, lines)), "-m", str(model), "--device", "cpu"]
    assert main([*arguments, "--calibrate", "--decoder", "beam"]) == 0
    said = capsys.readouterr().err
    after, before = map(float, re.findall(r"(?:error|before) (\d+\.\d) %", said))
    assert "confidences of beam are calibrated on" in said
    assert "warning" not in said
    assert after < before
    recognizer, audio = speechrnn.load(model), path.parent / lines[0]["audio_filepath"]
    confidences = {
        name: [word.confidence for word in recognizer.transcribe(audio, decoder=name).words]
        for name in ("greedy", "beam")
    }
    assert min(confidences["greedy"]) > 0.9 > max(confidences["beam"])

    assert main([*arguments, "--calibrate"]) == 0  # from raw confidences, whatever stands there
    first = (model / "confidence.json").read_text()
    assert main([*arguments, "--calibrate"]) == 0
    assert (model / "confidence.json").read_text() == first
    assert set(json.loads(first)) == {"beam", "greedy"}


def test_model_is_read_from_the_environment(capsys, test_set, tone_run, monkeypatch):
    monkeypatch.setenv("SPEECHRNN_MODEL", str(tone_run.model))
    assert main(["evaluate", str(test_set)]) == 0
    assert "WER 0.00 %" in capsys.readouterr().out


def test_a_folder_with_a_manifest_is_a_corpus(capsys, evaluate, corpus):
    path, lines = corpus
    write_lines(path.with_name("manifest.jsonl"), lines)
    assert evaluate(path.parent) == 0
    assert "15 utterances" in capsys.readouterr().out


def test_a_recording_that_cannot_be_transcribed_is_named_counted_and_exit_code_1(capsys, evaluate, corpus, tmp_path):
    path, lines = corpus
    soundfile.write(path.parent / "click.wav", np.full(50, 0.1), 8000)
    lines.append({"audio_filepath": "click.wav", "duration": 50 / 8000, "text": "low high"})
    assert evaluate(write_lines(path, lines), "--json", "-o", str(tmp_path / "out")) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("speechrnn: warning: counts as not recognised: click: 0.0063 s is too short")
    scores = json.loads(captured.out)
    assert (scores["failed"], scores["deletions"], scores["utterances"]) == (1, 2, 16)
    worst = json.loads((tmp_path / "out" / "hypotheses.jsonl").read_text().splitlines()[0])
    assert (worst["id"], worst["hypothesis"]) == ("click", "")
    assert worst["problem"]


def test_a_recording_that_is_cut_off_inside_is_named(capsys, evaluate, corpus):
    path, lines = corpus
    wave, _ = soundfile.read(path.parent / lines[0]["audio_filepath"])
    flac = path.parent / "broken.flac"
    soundfile.write(flac, wave, 8000)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    lines[0]["audio_filepath"] = "broken.flac"
    assert evaluate(write_lines(path, lines)) == 1
    assert "counts as not recognised: " in capsys.readouterr().err


def test_references_that_the_model_cannot_write_are_named_and_count_as_errors(capsys, evaluate, corpus):
    path, lines = corpus
    lines[2]["text"], lines[5]["text"] = "seven", "LOW seven high!"
    assert evaluate(write_lines(path, lines), "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "speechrnn: warning: 2 of 15 references have symbols that the model cannot write, which count as errors: "
        "'seven'\n"
    )
    assert json.loads(captured.out)["sentence_error_rate"] == pytest.approx(2 / 15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "psychic"], "--decoder: expected one of greedy, beam, lexicon"),
        (["--batch-seconds", "0"], "batch_seconds: expected more than 0 seconds, got 0.0"),
        (["--batch-seconds", "many"], "argument --batch-seconds: invalid float value: 'many'"),
        (["--batch", "60"], "unrecognized arguments: --batch 60"),
        (["--jso"], "unrecognized arguments: --jso"),
        (["--encoder.hidden_size", "3"], "unrecognized arguments: --encoder.hidden_size 3"),
        (["--device", "gpu"], "device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (["another.jsonl"], "unrecognized arguments: another.jsonl"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys, evaluate, test_set, arguments, message):
    assert evaluate(test_set, *arguments) == 2
    assert error_of(capsys).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jsonl", "gone.jsonl: no such file or folder"),
        ("test", "no known format"),
        ("test/test-0.wav", "no known format"),
    ],
)
def test_an_invalid_corpus_is_one_line(capsys, evaluate, tone_run, name, message):
    assert evaluate(tone_run.folder / name) == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{low", "test.jsonl line 1: cannot be read as JSON"),
        ('{"audio_filepath": "gone.wav", "duration": 1, "text": "low"}', "gone.wav: no such file"),
        (
            '{"audio_filepath": "test/test-0.wav", "duration": 99, "text": "low"}',
            "listed to end at 99.00 s",
        ),
        ('{"audio_filepath": "test/test-0.wav", "duration": 0.3, "text": "…"}', "no utterance has a word"),
    ],
)
def test_a_corpus_with_a_fault_is_one_line(capsys, evaluate, corpus, line, message):
    path, _ = corpus
    path.write_text(line + "\n", encoding="utf-8")
    assert evaluate(path) == 2
    assert message in error_of(capsys)


def test_a_corpus_without_usable_recordings_is_refused(capsys, evaluate, tmp_path):
    soundfile.write(tmp_path / "click.wav", np.full(50, 0.1), 8000)
    line = {"audio_filepath": "click.wav", "duration": 50 / 8000, "text": "low"}
    assert evaluate(write_lines(tmp_path / "test.jsonl", [line])) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "none of 1 recordings can be transcribed; click: 0.0063 s" in captured.err.splitlines()[-1]
    assert captured.err.count("speechrnn: error: ") == 1


def test_output_that_cannot_be_made_is_refused_before_anything_is_transcribed(capsys, test_set, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert main(["evaluate", str(test_set), "-m", "/no/such/model", "-o", str(output)]) == 2
        assert error_of(capsys).startswith(f"-o {output}: cannot be created (")


def test_output_that_cannot_be_written_is_one_line(capsys, evaluate, test_set, tmp_path):
    (tmp_path / "results.json").mkdir()
    assert evaluate(test_set, "-o", str(tmp_path)) == 2
    assert error_of(capsys).startswith(f"{tmp_path / 'results.json'}: cannot be written (")


def test_a_missing_model_and_a_missing_corpus_are_one_line(capsys, test_set):
    assert main(["evaluate", str(test_set)]) == 2
    assert error_of(capsys) == "no model: give -m M, or set SPEECHRNN_MODEL; see speechrnn evaluate --help"
    assert main(["evaluate", "-m", "runs/model"]) == 2
    assert error_of(capsys).startswith("the following arguments are required: CORPUS")


@pytest.fixture
def model(tone_run, tmp_path) -> Path:
    """A copy of the model to spoil."""
    return shutil.copytree(tone_run.model, tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokens.json"])
def test_a_model_folder_that_is_missing_a_file_is_one_line(capsys, test_set, model, name):
    (model / name).unlink()
    assert main(["evaluate", str(test_set), "-m", str(model)]) == 2
    assert error_of(capsys).startswith(f"{model}: no model folder, {name} is missing")


def test_a_model_of_a_newer_format_or_with_wrong_shapes_is_one_line(capsys, test_set, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    assert main(["evaluate", str(test_set), "-m", str(model)]) == 2
    assert "made by a newer speechrnn, format 99" in error_of(capsys)
    (model / "config.json").write_text(json.dumps(config))
    weights = load_file(model / "model.safetensors")
    weights["head.projection.bias"] = weights["head.projection.bias"][:-1].clone()
    save_file(weights, model / "model.safetensors")
    assert main(["evaluate", str(test_set), "-m", str(model)]) == 2
    assert "head.projection.bias: expected (4,) float32 by config.json, got (3,) float32" in error_of(capsys)


def test_help_describes_the_output_and_shows_an_example(capsys):
    assert main(["evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    for words in (
        "hypotheses.jsonl (worst first), results.json",
        "SPEECHRNN_MODEL",
        "--json",
        "speechrnn evaluate r",
    ):
        assert words in " ".join(out.split())


def test_escapes_in_names_do_not_reach_the_terminal(capsys, evaluate, corpus):
    path, lines = corpus
    for line in lines:
        line["text"], line["id"] = "high low high low", f"\x1b[31m{line['audio_filepath']}"
    assert evaluate(write_lines(path, lines)) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[31mtest/" in printed
    assert "\x1b" not in printed
