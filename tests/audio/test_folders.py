import os

import numpy as np
import pytest
import soundfile

from speechrnn.audio.folders import Workload, find_recordings
from speechrnn.errors import AudioError


@pytest.fixture
def calls(tmp_path):
    """A folder with recordings, sub-folders, hidden and other files, a pipe, broken links and links back."""
    folder = tmp_path / "calls"
    for name in (
        "b.wav",
        "a.FLAC",
        "notes.txt",
        "._b.wav",
        "sub/c.mp3",
        "sub/deep/d.ogg",
        ".hidden/e.wav",
        "out/f.wav",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "broken.wav").symlink_to("gone.wav")
    (folder / "sub" / "loop").symlink_to("..")
    (folder / "again").symlink_to("sub")
    return str(folder)


def find(folder, **options):
    return [os.path.relpath(path, folder) for path in find_recordings(folder, **options)]


def test_recordings_are_found_sorted_and_by_their_endings(calls):
    assert find(calls) == ["a.FLAC", "b.wav"]


def test_subfolders_are_searched_once_links_back_and_hidden_ones_are_not(calls):
    assert find(calls, is_recursive=True) == ["a.FLAC", "again/c.mp3", "again/deep/d.ogg", "b.wav", "out/f.wav"]


def test_the_output_folder_is_not_searched_unless_it_is_the_folder_itself(calls):
    inside = find(calls, is_recursive=True, skipped=os.path.join(calls, "sub", "loop", "out"))
    assert inside == ["a.FLAC", "again/c.mp3", "again/deep/d.ogg", "b.wav"]
    assert find(calls, skipped=calls) == ["a.FLAC", "b.wav"]
    assert find(calls, skipped=os.path.join(calls, "to", "come")) == ["a.FLAC", "b.wav"]


def test_a_folder_without_recordings_says_what_to_do(tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(AudioError, match=r"no recordings in this folder \(.*\.wav.*\); --recursive searches its sub"):
        find_recordings(str(tmp_path))
    with pytest.raises(AudioError, match=r"no recordings in this folder \([^)]*\)$"):
        find_recordings(str(tmp_path), is_recursive=True)


def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_searched(calls, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "out":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    reported = []
    found = find(calls, is_recursive=True, on_error=lambda path, error: reported.append((path, str(error))))
    assert found == ["a.FLAC", "again/c.mp3", "again/deep/d.ogg", "b.wav"]
    out = os.path.join(calls, "out")
    assert reported == [(out, f"{out}: cannot be searched (Permission denied); check its permissions")]
    with pytest.raises(AudioError, match="cannot be searched"):
        find_recordings(calls, is_recursive=True)


def test_the_amount_of_audio_is_estimated_from_sizes_by_ending(tmp_path):
    sizes = {"a.wav": 1000, "b.wav": 2000, "a.mp3": 100, "b.mp3": 300, "gone.wav": None}
    paths = {name: str(tmp_path / name) for name in sizes}
    for name, size in sizes.items():
        if size is not None:
            (tmp_path / name).write_bytes(bytes(size))
    workload = Workload(paths.values())
    assert workload.finish(paths["gone.wav"]) == (0.0, 3400.0)  # nothing is known yet: bytes
    assert workload.finish(paths["a.wav"], 1.0) == (1.0, pytest.approx(1.0 + 2400 / 1000))
    assert workload.finish(paths["a.mp3"], 2.0) == (3.0, pytest.approx(3.0 + 2.0 + 6.0))
    assert workload.finish(paths["b.mp3"], 6.0) == (9.0, pytest.approx(9.0 + 2.0))
    assert workload.finish(paths["b.wav"]) == (9.0, 9.0)


def test_a_recording_in_work_counts_by_its_header(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    for path, seconds in zip(paths, (1, 4, 2), strict=True):
        soundfile.write(path, np.zeros(8000 * seconds), 8000)
    workload = Workload(paths)
    assert workload.finish(paths[0], 1.0) == (1.0, pytest.approx(7.0, rel=0.01))
    assert workload.advance(paths[1], 1.5) == (2.5, pytest.approx(7.0, rel=0.01))
    assert workload.advance(paths[1], 4.0) == (5.0, pytest.approx(7.0, rel=0.01))
    assert workload.finish(paths[1], 4.0) == (5.0, pytest.approx(7.0, rel=0.01))
    assert workload.advance("-", 3.0) == (8.0, pytest.approx(10.0, rel=0.01))
