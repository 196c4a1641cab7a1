"""LibriSpeech trees: chapters with their transcripts, whatever the recordings' format."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.audio.containers import AUDIO_ENDINGS
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two readers; the second one's recordings are wav files."""
    for name, ending in (("84-121550-0000", "flac"), ("84-121550-0001", "flac"), ("174-50561-0000", "wav")):
        speaker, chapter, _ = name.split("-")
        folder = tmp_path / "LibriSpeech" / "dev-clean" / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}.{ending}", np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a", encoding="utf-8") as transcripts:
            transcripts.write(f"{name} TEXT OF {name[-1]}\n")
    return tmp_path


def test_every_chapter_is_read_with_its_speaker(tree):
    folder = tree / "LibriSpeech" / "dev-clean"
    assert read_corpus(tree, "librispeech") == [
        Utterance("174-50561-0000", folder / "174/50561/174-50561-0000.wav", "TEXT OF 0", seconds=0.5, speaker="174"),
        Utterance("84-121550-0000", folder / "84/121550/84-121550-0000.flac", "TEXT OF 0", seconds=0.5, speaker="84"),
        Utterance("84-121550-0001", folder / "84/121550/84-121550-0001.flac", "TEXT OF 1", seconds=0.5, speaker="84"),
    ]


@pytest.mark.parametrize(
    ("part", "count"),
    [("", 3), ("LibriSpeech", 3), ("LibriSpeech/dev-clean/84", 2), ("LibriSpeech/dev-clean/84/121550", 2)],
)
def test_the_whole_tree_or_a_part_of_it_is_detected(tree, part, count):
    cuts = list(read_corpus(tree / part))
    assert len(cuts) == count
    assert {cut.seconds for cut in cuts} == {0.5}


def test_a_line_without_a_recording_is_named(tree):
    chapter = tree / "LibriSpeech" / "dev-clean" / "84" / "121550"
    (chapter / "84-121550-0001.flac").unlink()
    with pytest.raises(CorpusError) as caught:
        read_corpus(tree, "librispeech")
    assert str(caught.value) == (
        f"{chapter / '84-121550.trans.txt'} line 2: no recording 84-121550-0001 beside it ({', '.join(AUDIO_ENDINGS)})"
    )


def test_the_sound_is_preferred_to_a_video_of_the_same_name(tree):
    chapter = tree / "LibriSpeech" / "dev-clean" / "84" / "121550"
    (chapter / "84-121550-0001.mp4").write_bytes(b"no video")
    (chapter / "84-121550-0000.aac").write_bytes(b"no sound")
    assert {cut.seconds for cut in read_corpus(chapter)} == {0.5}


def test_a_broken_recording_or_transcript_is_named(tree):
    chapter = tree / "LibriSpeech" / "dev-clean" / "84" / "121550"
    (chapter / "84-121550-0001.flac").write_bytes(b"fLaC")
    with pytest.raises(CorpusError, match="utterance 84-121550-0001: "):
        read_corpus(tree, "librispeech")
    (chapter / "84-121550.trans.txt").write_bytes(b"84-121550-0000 CAF\xc9\n")
    with pytest.raises(CorpusError, match=r"84-121550.trans.txt: not UTF-8 at byte 18"):
        read_corpus(tree, "librispeech")


def test_a_folder_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"contains no utterance; expected \*.trans.txt under a folder"):
        read_corpus(tmp_path, "librispeech")
    with pytest.raises(CorpusError, match=r"no known format \(nemo: .* \*.trans.txt"):
        read_corpus(tmp_path)
