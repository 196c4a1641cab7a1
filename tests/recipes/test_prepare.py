"""Corpora of single words, split by names or lists; what all recipes say of their corpora."""

import logging
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from preparation import REPOSITORY, load, put_tone, read_parts

from speechrnn.audio.files import audio_info
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import AudioError, CorpusError

fsdd, yesno, speech_commands = load("fsdd"), load("yesno"), load("speech_commands")
quickstart = load("quickstart")

NUMBERS = (0, 4, 5, 44, 45, 49)


def real(corpus: str) -> Path:
    root = os.environ.get("SPEECHRNN_CORPORA")
    if not root or not (Path(root) / corpus).is_dir():
        pytest.skip(f"SPEECHRNN_CORPORA does not name a folder that holds {corpus}")
    return Path(root) / corpus


def make_fsdd(folder: Path, speakers: tuple[str, ...] = ("ann", "bob")) -> Path:
    for digit in (0, 7):
        for speaker in speakers:
            for number in NUMBERS:
                put_tone(folder / "recordings" / f"{digit}_{speaker}_{number}.wav")
    return folder


def numbers(entries: list[Utterance]) -> set[int]:
    return {int(entry.id.split("_")[2]) for entry in entries}


# fsdd


def test_fsdd_is_split_by_clip_number(tmp_path):
    fsdd.prepare(make_fsdd(tmp_path / "fsdd"), tmp_path / "out", seed=0)
    parts = read_parts(tmp_path / "out")
    assert {part: numbers(entries) for part, entries in parts.items()} == {
        "train": {5, 44},
        "valid": {45, 49},
        "test": {0, 4},
    }
    expected = Utterance("7_ann_5", tmp_path / "fsdd/recordings/7_ann_5.wav", "seven", seconds=0.1, speaker="ann")
    assert expected in parts["train"]


def test_fsdd_fold_tests_all_clips_of_one_speaker_and_trains_on_none(tmp_path):
    source = make_fsdd(tmp_path / "fsdd", speakers=("ann", "bob", "cy"))
    assert fsdd.folds(source) == ["ann", "bob", "cy"]
    fsdd.prepare(source, tmp_path / "out", seed=0, fold="bob")
    parts = read_parts(tmp_path / "out")
    assert {entry.speaker for entry in parts["test"]} == {"bob"}
    assert "bob" not in {entry.speaker for entry in parts["train"]}
    assert {entry.speaker for entry in parts["valid"]} == {"ann", "cy"}
    assert numbers(parts["test"]) == set(NUMBERS)
    assert numbers(parts["valid"]) == {45, 49}
    people = [entry for entry in parts["train"] if entry.speaker in ("ann", "cy")]
    assert numbers(people) == {0, 4, 5, 44}


def test_fsdd_fold_adds_synthetic_voices_only_to_training(tmp_path):
    source = make_fsdd(tmp_path / "fsdd", speakers=("ann", "bob", "cy"))
    fsdd.prepare(source, tmp_path / "out", seed=0, fold="bob")
    parts = read_parts(tmp_path / "out")
    synthetic = [entry for entry in parts["train"] if entry.id.startswith("synthetic-")]
    assert len(synthetic) == fsdd.SYNTHETIC_CLIPS
    assert not any(entry.id.startswith("synthetic-") for entry in [*parts["valid"], *parts["test"]])
    words = Counter(entry.text for entry in synthetic)
    assert set(words) == set(fsdd.WORDS)
    assert max(words.values()) <= 1.1 * min(words.values())
    assert len({entry.speaker for entry in synthetic}) > 70
    assert all(0.1 < entry.seconds < 2.0 for entry in synthetic)
    assert max(Counter((entry.speaker, entry.text) for entry in synthetic).values()) == 1  # no voice says a word twice


def test_fsdd_fold_without_espeak_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(CorpusError, match=r"espeakng-loader is not installed; run pip install '\.\[quickstart\]'"):
        fsdd.prepare(make_fsdd(tmp_path / "fsdd"), tmp_path / "out", seed=0, fold="bob")


def test_fsdd_strings_join_the_clips_of_one_speaker_and_part(tmp_path):
    fsdd.prepare(make_fsdd(tmp_path / "fsdd"), tmp_path / "out", seed=0, digits=3)
    parts = read_parts(tmp_path / "out")
    for name, strings in parts.items():
        rounds = fsdd.STRING_ROUNDS[name]
        words = [word for string in strings for word in string.text.split()]
        assert Counter(words) == {"zero": 4 * rounds, "seven": 4 * rounds}  # two clips of each digit and speaker
        assert {len(string.text.split()) for string in strings} <= {1, 2, 3}
        for string in strings:
            digits = len(string.text.split())
            assert string.audio_path.parent == tmp_path / "out" / "strings" / name
            assert string.audio_path.name.startswith(f"{string.speaker}-")
            assert 0.1 * digits <= string.seconds <= (0.1 + 2 * fsdd.STRING_PAUSES.padding_seconds) * digits
            assert string.seconds == pytest.approx(audio_info(string.audio_path).seconds)
    assert max(len(string.text.split()) for string in parts["valid"]) > 1
    fsdd.prepare(tmp_path / "fsdd", tmp_path / "again", seed=0, digits=3)
    again = read_parts(tmp_path / "again")
    assert [each.text for each in again["train"]] == [each.text for each in parts["train"]]
    assert again["train"][0].audio_path.read_bytes() == parts["train"][0].audio_path.read_bytes()


@pytest.mark.parametrize(("digits", "fold"), [(0, None), (101, None), (2, "bob")])
def test_fsdd_refuses_other_strings(tmp_path, digits, fold):
    source = make_fsdd(tmp_path / "fsdd")
    with pytest.raises(CorpusError, match="prepare.digits: expected 1 to 100, and 1 with a fold"):
        fsdd.prepare(source, tmp_path / "out", seed=0, digits=digits, fold=fold)


def test_fsdd_is_found_by_any_of_its_folders(tmp_path):
    source = make_fsdd(tmp_path / "unpacked" / "free-spoken-digit-dataset-1.0.10")
    for folder in (source, source / "recordings", source.parent):
        fsdd.prepare(folder, tmp_path / "out", seed=0)
        assert len(read_parts(tmp_path / "out")["train"]) == 8


def test_fsdd_names_and_counts_files_it_does_not_understand_and_gaps(tmp_path, caplog):
    source = make_fsdd(tmp_path / "fsdd")
    for name in ("seven_ann_1.wav", "7_ann.wav"):
        put_tone(source / "recordings" / name)
    with caplog.at_level(logging.WARNING, logger="speechrnn"):
        fsdd.prepare(source, tmp_path / "out", seed=0)
    assert "2 wav files left out" in caplog.text
    assert "7_ann.wav, seven_ann_1.wav" in caplog.text
    assert f"{10 * 2 * 50 - 2 * 2 * len(NUMBERS)} clips are missing, the first is 0_ann_1.wav" in caplog.text


def test_fsdd_names_the_fault_of_a_folder(tmp_path):
    put_tone(tmp_path / "other" / "speech.wav")
    put_tone(tmp_path / "onlytest" / "1_ann_0.wav")
    (tmp_path / "empty").mkdir()
    for name, complaint in [
        ("none", "there is no such folder"),
        ("empty", "holds no wav file"),
        ("other", "1 wav files, none named like 7_jackson_32.wav"),
        ("onlytest", "no clips for train and valid"),
    ]:
        with pytest.raises(CorpusError, match=complaint):
            fsdd.prepare(tmp_path / name, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="no such speaker; choose one of ann, bob"):
        fsdd.prepare(make_fsdd(tmp_path / "fsdd"), tmp_path / "out", seed=0, fold="zoe")
    assert not (tmp_path / "out").exists()


def test_fsdd_names_a_recording_that_is_damaged(tmp_path):
    source = make_fsdd(tmp_path / "fsdd")
    (source / "recordings" / "7_bob_5.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"7_bob_5\.wav"):
        fsdd.prepare(source, tmp_path / "out", seed=0)


def test_real_fsdd_has_the_official_sizes_and_the_stated_content(tmp_path):
    source = real("fsdd")
    fsdd.prepare(source, tmp_path, seed=0)
    parts = read_parts(tmp_path)
    assert {part: len(entries) for part, entries in parts.items()} == {"train": 2400, "valid": 300, "test": 300}
    assert len({entry.audio_path for entries in parts.values() for entry in entries}) == 3000
    for part in ("valid", "test"):
        assert set(Counter((entry.text, entry.speaker) for entry in parts[part]).values()) == {5}
    assert fsdd.folds(source) == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]


@pytest.mark.parametrize(("recipe", "recordings"), [(fsdd, "fsdd/recordings"), (yesno, "yesno/waves_yesno")])
def test_stated_content_hash_is_that_of_the_real_recordings(recipe, recordings):
    from speechrnn.corpus.download import content_hash

    corpus, folder = recordings.split("/")
    assert content_hash(real(corpus) / folder, "*.wav") == recipe.CONTENT_SHA256


@pytest.mark.parametrize(("recipe", "inside"), [(fsdd, "v1.0.10/recordings"), (yesno, "waves_yesno")])
def test_without_a_source_the_original_is_downloaded_and_checked(recipe, inside, tmp_path, monkeypatch):
    seen = {}

    def fetch(url: str, folder: Path, **checks: str) -> Path:
        seen.update(url=url, folder=folder, **checks)
        return tmp_path / "fetched"

    make_fsdd(tmp_path) if recipe is fsdd else make_yesno(tmp_path)
    shutil.move(tmp_path / ("recordings" if recipe is fsdd else "waves_yesno"), tmp_path / "fetched")
    monkeypatch.setattr(recipe, "fetch_corpus", fetch)
    recipe.prepare(None, tmp_path / "out", seed=0)
    assert seen["url"] == recipe.URL
    assert seen["content_sha256"] == recipe.CONTENT_SHA256
    assert seen["folder"].parent == REPOSITORY / "data"
    assert Path(inside).match(seen["inside"])


# yesno


def make_yesno(folder: Path, count: int = 24) -> Path:
    for number in range(count):
        put_tone(folder / "waves_yesno" / ("_".join(f"{number:08b}") + ".wav"))
    return folder


def test_yesno_file_names_are_transcripts_and_every_second_file_is_in_the_test_set(tmp_path):
    yesno.prepare(make_yesno(tmp_path / "yesno"), tmp_path / "out", seed=0)
    parts = read_parts(tmp_path / "out")
    values = {part: [int(entry.id.replace("_", ""), 2) for entry in entries] for part, entries in parts.items()}
    assert values["test"] == list(range(1, 24, 2))
    assert values["valid"] == [10, 22]  # the 6th and the 12th of 0, 2, 4, ...
    assert values["train"] == [0, 2, 4, 6, 8, 12, 14, 16, 18, 20]
    assert parts["valid"][0].text == "no no no no yes no yes no"


def test_yesno_names_ignored_files_and_reports_missing_ones(tmp_path, caplog):
    source = make_yesno(tmp_path / "yesno")
    put_tone(source / "waves_yesno" / "0_1_0.wav")
    with caplog.at_level(logging.WARNING, logger="speechrnn"):
        yesno.prepare(source / "waves_yesno", tmp_path / "out", seed=0)
    assert "1 wav files left out, not eight times 0 or 1: 0_1_0.wav" in caplog.text
    assert "24 recordings of 60" in caplog.text


def test_yesno_names_the_fault_of_a_folder(tmp_path):
    put_tone(tmp_path / "other" / "speech.wav")
    (tmp_path / "empty").mkdir()
    make_yesno(tmp_path / "few", count=10)
    for name, complaint in [
        ("none", "there is no such folder"),
        ("empty", "holds no wav file"),
        ("other", "1 wav files, none named like"),
        ("few", "10 recordings are too few"),
    ]:
        with pytest.raises(CorpusError, match=complaint):
            yesno.prepare(tmp_path / name, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="has no folds"):
        yesno.prepare(tmp_path / "few", tmp_path / "out", seed=0, fold="ann")


def test_real_yesno_is_split_as_lhotse_splits_it(tmp_path):
    from lhotse.recipes.yesno import prepare_yesno

    source = real("yesno")
    yesno.prepare(source, tmp_path, seed=0)
    parts = read_parts(tmp_path)
    theirs = prepare_yesno(source / "waves_yesno")
    their_texts = {part: {s.id: s.text.lower() for s in theirs[part]["supervisions"]} for part in ("train", "test")}
    assert {entry.id: entry.text for entry in parts["test"]} == their_texts["test"]
    assert {entry.id: entry.text for entry in [*parts["train"], *parts["valid"]]} == their_texts["train"]
    assert parts["test"][0].id == "0_0_0_1_0_0_0_1"
    assert {part: len(entries) for part, entries in parts.items()} == {"train": 25, "valid": 5, "test": 30}
    assert {entry.text.split()[0] for entry in parts["valid"]} == {"no", "yes"}


# speech_commands


def make_speech_commands(folder: Path) -> Path:
    for word in ("go", "stop"):
        for speaker in ("0a7c", "1b88", "2c99"):
            for number in range(2):
                put_tone(folder / word / f"{speaker}_nohash_{number}.wav")
    put_tone(folder / "_background_noise_" / "white_nohash_0.wav")
    (folder / "validation_list.txt").write_text("go/1b88_nohash_0.wav\nstop/1b88_nohash_1.wav\n")
    (folder / "testing_list.txt").write_text("stop/2c99_nohash_0.wav\n")
    return folder


def test_speech_commands_is_split_by_its_lists(tmp_path):
    speech_commands.prepare(make_speech_commands(tmp_path / "sc"), tmp_path / "out", seed=0)
    parts = read_parts(tmp_path / "out")
    assert [entry.id for entry in parts["valid"]] == ["go-1b88_nohash_0", "stop-1b88_nohash_1"]
    expected = Utterance(
        "stop-2c99_nohash_0", tmp_path / "sc/stop/2c99_nohash_0.wav", "stop", seconds=0.1, speaker="2c99"
    )
    assert parts["test"] == [expected]
    assert len(parts["train"]) == 12 - 3
    assert {entry.text for entry in parts["train"]} == {"go", "stop"}


def test_speech_commands_errors_are_named(tmp_path, caplog):
    with pytest.raises(CorpusError, match=r"no validation_list.txt there; pass the folder of Speech Commands"):
        speech_commands.prepare(tmp_path, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="has no folds"):
        speech_commands.prepare(tmp_path, tmp_path / "out", seed=0, fold="ann")
    folder = make_speech_commands(tmp_path / "sc")
    put_tone(folder / "go" / "mine.wav")
    with caplog.at_level(logging.WARNING):
        speech_commands.prepare(folder, tmp_path / "out", seed=0)
    assert "1 recordings left out, not named SPEAKER_nohash_N.wav: go/mine.wav" in caplog.text
    (folder / "testing_list.txt").write_text("go/far_nohash_0.wav\ngo/off_nohash_0.wav\n")
    with pytest.raises(CorpusError, match=r"2 of its recordings are not there, such as go/far_nohash_0.wav"):
        speech_commands.prepare(folder, tmp_path / "out", seed=0)
    (folder / "testing_list.txt").write_text("")
    with pytest.raises(CorpusError, match="no recordings for test; is the copy whole"):
        speech_commands.prepare(folder, tmp_path / "out", seed=0)


# What every recipe says


@pytest.mark.parametrize("recipe", [fsdd, yesno, quickstart])
def test_attributions_have_what_a_model_card_needs(recipe):
    for attribution in recipe.ATTRIBUTION:
        assert set(attribution) == {"corpus", "license", "source", "attribution"}
        assert all(attribution.values())
    assert len(recipe.LANGUAGE) == 2
