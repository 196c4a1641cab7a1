"""LJ Speech's layout, as its archive makes it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wavs").mkdir()
    for name in ("LJ001-0001", "LJ001-0002"):
        soundfile.write(tmp_path / "wavs" / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 11025), 22050)
    (tmp_path / "metadata.csv").write_text(
        'LJ001-0001|In 1455, "so"|In fourteen fifty-five, "so"\nLJ001-0002|Only once.\n', encoding="utf-8"
    )
    return tmp_path


def test_numbers_are_spelled_if_the_metadata_spells_them(folder):
    assert read_corpus(folder, "ljspeech") == [
        Utterance(
            "LJ001-0001", folder / "wavs/LJ001-0001.wav", 'In fourteen fifty-five, "so"', seconds=0.5, speaker="LJ"
        ),
        Utterance("LJ001-0002", folder / "wavs/LJ001-0002.wav", "Only once.", seconds=0.5, speaker="LJ"),
    ]


def test_the_format_is_detected(folder):
    assert [(cut.id, cut.seconds) for cut in read_corpus(folder)] == [("LJ001-0001", 0.5), ("LJ001-0002", 0.5)]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b"LJ001-0001\n", "line 1: expected name|text or name|text|normalised text"),
        (b"LJ001-0001|a|b|c\n", "line 1: expected name|text or name|text|normalised text"),
        (b"LJ001-0001|a\n\nLJ009-0001|a\n", "line 3: no recording LJ009-0001 in "),
        (b"LJ001-0001|\xe9\n", "not UTF-8 at byte 11"),
        (b"\n", "contains no utterance"),
        (None, "no such file; check the path"),
    ],
)
def test_faults_are_reported_in_one_line(folder, metadata, expected):
    path = folder / "metadata.csv"
    path.unlink() if metadata is None else path.write_bytes(metadata)
    with pytest.raises(CorpusError) as caught:
        read_corpus(folder, "ljspeech")
    assert str(caught.value).startswith((str(path), f"{folder}: contains no utterance"))
    assert expected in str(caught.value)


def test_a_broken_recording_is_named(folder):
    (folder / "wavs" / "LJ001-0002.wav").write_bytes(b"RIFF")
    with pytest.raises(CorpusError, match="utterance LJ001-0002: "):
        read_corpus(folder, "ljspeech")
