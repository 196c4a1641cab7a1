"""Recordings inside tar archives are read like files, and what is wrong with an archive is said in one line."""

import io
import tarfile

import numpy as np
import pytest
import soundfile

from speechrnn.audio.archives import list_members, open_member
from speechrnn.audio.containers import find_archive
from speechrnn.audio.files import audio_info, read_audio
from speechrnn.errors import AudioError


def write_archive(path, recordings):
    with tarfile.open(path, "w") as tar:
        for name, samples in recordings.items():
            stream = io.BytesIO()
            soundfile.write(stream, samples, 8000, format="FLAC", subtype="PCM_16")
            member = tarfile.TarInfo(name)
            member.size = len(stream.getvalue())
            stream.seek(0)
            tar.addfile(member, stream)
    return path


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    recordings = {f"a/u.{number}.flac": rng.normal(0, 0.1, 4000 + number) for number in range(3)}
    return write_archive(tmp_path / "x.tar", recordings), recordings


def test_a_path_into_an_archive_is_read_like_a_file(archive):
    path, recordings = archive
    for name, samples in recordings.items():
        waveform = read_audio(path / name)
        np.testing.assert_allclose(waveform.samples, samples, atol=2**-15)
        assert audio_info(str(path / name)).frames == len(samples)
    part = read_audio(path / "a/u.2.flac", start=0.1, seconds=0.2).samples
    np.testing.assert_allclose(part, recordings["a/u.2.flac"][800:2400], atol=2**-15)


def test_paths_into_archives_are_recognised():
    assert find_archive("a/b.tar/c/d.flac")[1] == "c/d.flac"
    assert find_archive("a/b.tar") is None
    assert find_archive("a/b/c.flac") is None


def test_a_changed_archive_is_read_again(archive):
    path, _ = archive
    assert len(list_members(path)) == 3
    assert list_members(path) is list_members(path)
    write_archive(path, {"new.flac": np.zeros(9000)})
    assert list(list_members(path)) == ["new.flac"]


def test_members_are_found_by_their_whole_names_and_listed_in_the_archives_order(tmp_path):
    path = tmp_path / "x.tar"
    names = ["b", "a", "ab", "ä/ü.flac", "b.flac", "a", "\udcff.wav", "0" * 150]
    with tarfile.open(path, "w") as tar:
        for size, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    members = list_members(path)
    assert list(members) == ["b", "a", "ab", "ä/ü.flac", "b.flac", "\udcff.wav", "0" * 150]
    assert {name: size for name, (_, size) in members.items()} == {name: size for size, name in enumerate(names)}
    assert members["a"] == (members["b.flac"][0] + 1024, 5)  # the later of two
    for other in ("", "aa", "c", "b.fla", "b.flac2", "1" * 200, "\ud800"):
        assert other not in members
        with pytest.raises(KeyError):
            members[other]
    with tarfile.open(path, "w"):
        pass
    assert len(list_members(path)) == 0
    assert "a" not in list_members(path)


def test_faults_of_archives_are_reported(archive, tmp_path):
    path, _ = archive
    with pytest.raises(AudioError, match=r"x\.tar: has no b\.flac"):
        read_audio(path / "b.flac")
    (tmp_path / "text.tar").write_text("no archive " * 100)
    with pytest.raises(AudioError, match=r"text\.tar: a damaged tar archive .* copy or pack it again"):
        read_audio(tmp_path / "text.tar" / "u.flac")
    with pytest.raises(AudioError, match=r"no such file"):
        read_audio(tmp_path / "gone.tar" / "u.flac")
    plain = tmp_path / "plain.wav"
    soundfile.write(plain, np.zeros(100), 8000)
    with pytest.raises(AudioError, match="a part of the path is not a folder"):
        read_audio(plain / "u.flac")


def test_a_cut_off_archive_loses_its_last_recording_only(archive):
    path, _ = archive
    position, size = list_members(path)["a/u.2.flac"]
    content = path.read_bytes()
    path.write_bytes(content[: position + size // 2])
    assert len(read_audio(path / "a/u.1.flac").samples) == 4001
    with pytest.raises(AudioError, match=r"x\.tar"):
        open_member(path, "a/u.2.flac")


def test_failed_read_of_an_archive_is_refused_with_its_reason(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("b.wav")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"RIFF"))
    assert open_member(archive, "b.wav").read() == b"RIFF"

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.open", fail)
    with pytest.raises(AudioError, match=r"a\.tar: b\.wav cannot be read: Input/output error"):
        open_member(archive, "b.wav")
