import json
import os
import shutil

import pytest

from speechrnn.errors import ConfigError, ModelError
from speechrnn.recognition.output_folder import STATE_FILE, choose_names, fingerprint_model, open_output
from speechrnn.recognition.subtitles import SubtitleOptions
from speechrnn.recognition.transcript import Segment, Transcript, Word

SETTINGS = {"model": ["abc"], "decoder": "beam", "words": ["x" * 100]}


def make_transcript(text="one two"):
    words = tuple(Word(each, float(i), i + 0.5, 0.5) for i, each in enumerate(text.split()))
    return Transcript(text, (Segment(0.0, words[-1].end, text, words),), 3.0)


@pytest.fixture
def recordings(tmp_path):
    """Two recordings whose files share their name, and one in a sub-folder."""
    paths = {}
    for name, folder in (("a.wav", ""), ("other/a.flac", ""), ("calls/2024/b.wav", "2024")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        paths[str(path)] = folder
    return paths


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def write_all(output, recordings, *, formats=("txt",), is_resumed=True, settings=SETTINGS, stop_after=None):
    """Write what is not complete; returns its paths."""
    with open_output(output, formats=formats, settings=settings, is_resumed=is_resumed) as opened:
        unfinished = opened.add(recordings)
        for path in unfinished[:stop_after]:
            opened.write(path, make_transcript())
        return unfinished


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_names_never_meet():
    paths = ["x/a.wav", "y/A.wav", "a-2.wav", "a.flac", "b.tar.ogg", "-"]
    assert choose_names(dict.fromkeys(paths, "")) == {
        "x/a.wav": "a",
        "y/A.wav": "A-3",  # a-2 is another recording's own name
        "a-2.wav": "a-2",
        "a.flac": "a-4",
        "b.tar.ogg": "b.tar",
        "-": "stdin",
    }


def test_names_keep_subfolders_and_known_names():
    recordings = {"c/x/a.wav": "x", "d/x/a.wav": "x", "c/a.wav": ""}
    assert choose_names(recordings) == {"c/x/a.wav": "x/a", "d/x/a.wav": "x/a-2", "c/a.wav": "a"}
    assert choose_names(recordings, known={"d/x/a.wav": "x/a"})["c/x/a.wav"] == "x/a-2"


def test_a_later_run_does_only_what_is_not_complete(output, recordings):
    assert write_all(output, recordings, stop_after=1) == list(recordings)
    assert write_all(output, recordings) == list(recordings)[1:]
    assert write_all(output, recordings) == []
    assert list_files(output) == [STATE_FILE, "2024/b.txt", "a-2.txt", "a.txt"]


def test_a_changed_recording_a_missing_file_and_another_format_are_done_again(output, recordings):
    first, second, third = recordings
    write_all(output, recordings)
    os.utime(first, ns=(0, 0))
    (output / "a-2.txt").unlink()
    assert write_all(output, recordings) == [first, second]
    assert write_all(output, recordings, formats=("srt", "txt")) == [first, second, third]
    assert write_all(output, recordings) == []
    with open(third, "a") as file:
        file.write("more")
    assert write_all(output, recordings, formats=("srt",)) == [third]
    assert write_all(output, recordings) == [third]  # its text is that of the earlier content


def test_recordings_keep_their_names_when_others_are_added(output, recordings, tmp_path):
    first, second, _ = recordings
    write_all(output, {second: ""})
    assert write_all(output, {first: "", second: ""}) == [first]
    assert (output / "a-2.txt").exists()
    assert write_all(output, {first: "", second: ""}) == []


def test_a_name_that_another_recording_takes_is_not_complete_for_the_first(output, recordings):
    first, second, _ = recordings
    write_all(output, {first: ""})
    write_all(output, {second: ""}, is_resumed=False)  # a.txt is now of the second
    assert write_all(output, {first: ""}) == [first]


def test_without_resuming_everything_is_listed_again_and_nothing_is_forgotten(output, recordings):
    write_all(output, recordings)
    write_all(output, recordings, is_resumed=False, stop_after=1)
    assert write_all(output, recordings) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ["abd"]}, "was written with another model; leave out --resume to start again"),
        ({"beam_size": 4, "decoder": None}, "was written with other --beam-size, --decoder;"),
        ({"words": ["x" * 101]}, "was written with other --words;"),
        ({"model": [], "words": []}, "was written with another model and other --words;"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_starting_again_is_not(output, recordings, change, message):
    write_all(output, recordings)
    with pytest.raises(ConfigError, match=f"^--resume {output}: {message}"):
        write_all(output, recordings, settings={**SETTINGS, **change})
    assert write_all(output, recordings, settings={**SETTINGS, **change}, is_resumed=False) == list(recordings)
    assert write_all(output, recordings, settings={**SETTINGS, **change}) == []


@pytest.mark.parametrize(
    ("damage", "is_refused"),
    [
        (lambda text: text[:-20], False),  # killed while it wrote a line
        (lambda text: text + '{"recording": 1}\n[1]\nnull\n' + "[" * 100_000 + "\n\x00\n", False),
        (lambda text: text.replace('"name": "2024/b"', '"name": "../b"'), False),
        (lambda text: text.replace('"version": 1', '"version": 2'), True),
        (lambda text: "\n".join(text.splitlines()[1:]), True),
        (lambda text: "garbage", False),
    ],
)
def test_a_damaged_state_file_loses_no_more_than_its_damaged_lines(output, recordings, damage, is_refused):
    write_all(output, recordings)
    text = (output / STATE_FILE).read_text()
    (output / STATE_FILE).write_text(damage(text))
    if is_refused:
        with pytest.raises(ConfigError, match="is damaged or of another version; leave out --resume"):
            write_all(output, recordings)
    else:
        assert set(write_all(output, recordings)) < {*recordings, "x"}
    write_all(output, recordings, is_resumed=False)
    assert write_all(output, recordings) == []
    assert all(json.loads(line) for line in (output / STATE_FILE).read_text().splitlines())


def test_remains_of_a_killed_run_are_removed_other_files_are_not(output, recordings):
    write_all(output, recordings, stop_after=1)
    (output / "2024").mkdir()
    for name in (".a-2.txt.123.part", "2024/.b.json.9.part", ".mine.part", "a.txt.1.part"):
        (output / name).touch()
    write_all(output, recordings)
    assert [name for name in list_files(output) if name.endswith(".part")] == [".mine.part", "a.txt.1.part"]


def test_what_is_no_file_is_always_done(output):
    assert write_all(output, {"-": ""}) == ["-"]
    assert write_all(output, {"-": ""}) == ["-"]
    assert list_files(output) == [STATE_FILE, "stdin.txt"]
    assert len((output / STATE_FILE).read_text().splitlines()) == 1


def test_every_format_is_written_subtitles_with_their_options(output, recordings):
    [first, *_] = recordings
    options = SubtitleOptions(max_words_per_line=1)
    formats = ("txt", "json", "srt", "vtt", "tsv", "ctm")
    with open_output(output, formats=formats, settings={}, subtitles=options) as opened:
        opened.add({first: ""})
        opened.write(first, make_transcript())
    assert (output / "a.srt").read_text() == make_transcript().to_srt(options)
    assert (output / "a.vtt").read_text() == make_transcript().to_vtt(options)
    assert (output / "a.json").read_text() == make_transcript().to_json(indent=2)
    assert (output / "a.tsv").read_text() == make_transcript().to_tsv()


def test_a_model_has_another_fingerprint_when_a_file_of_it_changes(tiny_model_folder, tmp_path):
    copied = tmp_path / "model"
    shutil.copytree(tiny_model_folder, copied)
    original = fingerprint_model(str(copied))
    assert fingerprint_model(str(tiny_model_folder)) == original
    (copied / "README.md").write_text("another card")
    assert fingerprint_model(str(copied)) == original
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    assert fingerprint_model(str(copied)) != original
    with pytest.raises(ModelError, match="there is no such model"):
        fingerprint_model("/no/such/model")
