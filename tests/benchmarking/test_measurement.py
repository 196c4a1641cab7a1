"""Stages are timed and operations counted as worked out by hand; any audio is found and cut."""

import time
from pathlib import Path

import pytest
import soundfile
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.benchmarking.inputs import find_audio
from speechrnn.benchmarking.measurement import Measurement, Stopwatch, count_operations
from speechrnn.errors import CorpusError


def test_a_stage_is_its_median_over_rounds_and_the_first_round_does_not_count(monkeypatch):
    seconds = iter([100.0, 1.0, 2.0, 9.0])  # of each round
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch(torch.device("cpu"))

    def run():
        total = next(seconds)
        for share in (0.25, 0.75):  # the parts of a stage are added up
            with watch.stage("encoder"):
                now[0] += share * total

    assert watch.measure(run, 3) == {"encoder": 2.0}


def make_model(**encoder):
    front_end = FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13, deltas=0)
    return AcousticModel(front_end, EncoderConfig(hidden_size=8, num_layers=2, **encoder), 5)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        # 20 steps; a direction has 3 x 8 rows over 26 inputs and 8 states, then over 16 and 8; the head has 5 over 16.
        ({"cell": "gru"}, 2 * 20 * (2 * 24 * (26 + 8) + 2 * 24 * (16 + 8) + 5 * 16)),
        # Per step a convolution of 7 outputs over 13 features in 5 frames.
        (
            {"cell": "lstm", "bidirectional": False, "subsampling": "convolution", "subsampling_channels": 7},
            2 * 20 * (7 * 13 * 5 + 32 * (7 + 8) + 32 * (8 + 8) + 5 * 8),
        ),
    ],
)
def test_operations_are_those_of_the_matrix_products_on_valid_frames(encoder, expected):
    assert count_operations(make_model(**encoder), torch.tensor([30, 10])) == pytest.approx(expected, rel=0.02)


def test_share_and_speed_are_of_the_audio_and_the_total():
    found = Measurement(
        "transcribe", "m", "e", "cpu", 1, 60.0, 3, {"read": 1.0, "encoder": 3.0}, 30.0, {"float32": 40.0}
    )
    values = found.to_dict()
    assert values["stages"][1] == {"stage": "encoder", "seconds": 3.0, "share": 0.75, "times_real_time": 20.0}
    assert values["stages"][2]["stage"] == "total"
    assert values["encoder_gflop_per_second"] == 10.0
    assert values["encoder_shares"] == {"float32": 0.25}


def test_audio_is_found_in_files_folders_and_corpora_and_cut(tmp_path, make_recording):
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "a.wav", make_recording(70.0), 8000)
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus" / "b.flac", make_recording(2.0), 8000)
    (tmp_path / "corpus" / "b.txt").write_text("two")
    paths = [str(tmp_path / "corpus"), str(tmp_path / "corpus" / "b.flac"), str(tmp_path / "deep")]
    found = find_audio(paths, most_seconds=70.0)
    assert [(each.audio_path.name, each.start, each.seconds) for each in found] == [
        ("b.flac", 0.0, 2.0),
        ("b.flac", 0.0, 2.0),
        ("a.wav", 0.0, 30.0),
        ("a.wav", 30.0, 30.0),
        ("a.wav", 60.0, 6.0),
    ]


def test_a_file_that_is_no_audio_and_no_corpus_is_refused():
    with pytest.raises(CorpusError, match="no known format"):
        find_audio([str(Path(__file__))], most_seconds=1.0)
