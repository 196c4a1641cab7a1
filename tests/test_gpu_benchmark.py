"""The script that measures on a GPU runs, in small, on a CPU."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"


def run(monkeypatch, tmp_path, *arguments):
    found = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--device", "cpu", "--tiny", "--json", str(found), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return json.loads(found.read_text())["rows"]


@pytest.mark.slow
def test_every_section_measures_every_system(monkeypatch, tmp_path, capsys):
    rows = run(monkeypatch, tmp_path)
    assert all(row["milliseconds"] > 0 and row["real_time"] > 0 for row in rows)
    assert len(rows) == 3 + 24 + 20 + 2 + 12 + 2
    systems = {row["system"] for row in rows if row["section"] == "training"}
    assert systems >= {"ours, lstm", "ours, minlstm", "nn.LSTM, packed", "nn.GRU, padded"}
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 4


def test_sections_for_which_no_time_is_left_are_named(monkeypatch, tmp_path):
    rows = run(monkeypatch, tmp_path, "--only", "ctc", "decoding", "--seconds", "0")
    assert [(row["section"], row["note"]) for row in rows] == [("ctc", "no time left"), ("decoding", "no time left")]
