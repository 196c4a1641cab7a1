"""``speechrnn benchmark``: stages of each kind, as a table and as JSON; wrong requests in one line."""

import json

import pytest
import soundfile

from speechrnn.cli.main import main

STAGES = {
    "train": ["read", "resample", "features", "encoder forward", "loss", "encoder backward", "optimiser", "total"],
    "transcribe": ["read", "resample", "features", "encoder", "decode", "transcript", "total"],
    "decode": ["greedy", "beam 4"],
}


@pytest.fixture
def quick_rates(monkeypatch):
    monkeypatch.setattr("speechrnn.benchmarking.stages.measure_matrix_rates", lambda device: {"float32": 100.0})


@pytest.mark.parametrize("what", STAGES)
def test_each_kind_prints_its_stages_as_json(what, tiny_model_folder, make_recording, tmp_path, capsys, quick_rates):
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", make_recording(1.0 + number), 16000)
    options = ["--decoder", "beam", "--beam-size", "4"] if what == "decode" else []
    command = ["benchmark", what, str(tmp_path), "-m", str(tiny_model_folder), "--rounds", "1", "--json", *options]
    assert main([*command, "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in found["stages"]] == STAGES[what]
    assert all(row["seconds"] > 0 for row in found["stages"])
    assert found["audio_seconds"] == 1.5
    assert found["benchmark"] == what
    if what != "decode":
        assert 0 < found["encoder_shares"]["float32"] < 10


def test_without_model_and_audio_an_untrained_model_transcribes_noise(capsys, quick_rates):
    command = "benchmark transcribe --size tiny --cell lstm --audio-seconds 1 --rounds 1 --device cpu"
    assert main(command.split()) == 0
    table = capsys.readouterr().out
    assert table.startswith("lstm 128 × 2, bidirectional")
    assert "| encoder |" in table
    assert "the encoder reaches" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sleep"], "argument WHAT: invalid choice"),
        (["train", "--rounds", "0"], "--rounds 0: expected more than 0"),
        (["train", "--audio-seconds", "inf"], "--audio-seconds inf: expected more than 0"),
        (["train", "--decoder", "beam"], "--decoder: training does not decode"),
        (["decode", "--precision", "int8"], "--backend and --precision: decode measures the search alone"),
        (["train", "--precision", "int8"], "--backend and --precision: training is with torch"),
        (["transcribe", "--cell", "gru", "--precision", "int8"], "precision int8: is only for LSTMs"),
        (["transcribe", "--size", "huge"], "encoder.size: expected one of"),
        (["transcribe", "-m", "m", "--size", "tiny"], "--size and --cell describe an untrained model"),
        (["transcribe", "missing.wav"], "missing.wav: "),
    ],
)
def test_a_wrong_request_is_one_line(options, message, capsys):
    assert main(["benchmark", *options, "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
