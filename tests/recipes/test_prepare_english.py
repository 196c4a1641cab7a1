"""speechocean762 and its phones; what is joined with it to English."""

import json
import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from preparation import load, put_tone, read_parts

from speechrnn.corpus.manifest import read_manifest, write_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError

speechocean762, english = load("speechocean762"), load("english")


# speechocean762


def make_speechocean762(folder: Path, *, speakers: int = 20) -> Path:
    """Two utterances a speaker; the second half of the speakers is the test part."""
    for number in range(speakers):
        part = folder / ("train" if number < speakers // 2 else "test")
        part.mkdir(parents=True, exist_ok=True)
        for take in (1, 2):
            name, speaker = f"{number:05d}{take}", f"{number:04d}"
            put_tone(folder / "WAVE" / f"SPEAKER{speaker}" / f"{name}.wav")
            for table, value in (
                ("wav.scp", f"WAVE/SPEAKER{speaker}/{name}.wav"),
                ("text", "A BEAR" if take == 1 else "BEAR"),
                ("utt2spk", speaker),
            ):
                with (part / table).open("a") as file:
                    file.write(f"{name}\t{value}\n")
    (folder / "resource").mkdir()
    (folder / "resource" / "lexicon.txt").write_text("A\tAH0\nA\tEY0\n\nBEAR\tB EH1 R\nBEAR\tB IH1 R\n")
    return folder


@pytest.mark.parametrize("inside", ["", "speechocean762"])
def test_speechocean762_keeps_its_split_and_validates_on_every_tenth_speaker(tmp_path, inside):
    make_speechocean762(tmp_path / "source" / inside, speakers=40)
    speechocean762.prepare(tmp_path / "source", tmp_path / "out", seed=0)
    parts = read_parts(tmp_path / "out")
    speakers = {part: {int(entry.speaker) for entry in entries} for part, entries in parts.items()}
    assert speakers == {"train": {*range(20)} - {9, 19}, "valid": {9, 19}, "test": {*range(20, 40)}}
    assert {part: len(entries) for part, entries in parts.items()} == {"train": 36, "valid": 4, "test": 40}
    assert [entry.text for entry in parts["test"][:2]] == ["A BEAR", "BEAR"]


def test_speechocean762s_lexicon_has_the_first_pronunciations_without_stress(tmp_path):
    speechocean762.prepare(make_speechocean762(tmp_path / "source"), tmp_path / "out", seed=0)
    assert (tmp_path / "out" / "lexicon.txt").read_text() == "A AH\nBEAR B EH R\n"


@pytest.mark.parametrize(
    ("lexicon", "expected"),
    [
        ("A\tAH0\nBEAR\n", "lexicon.txt line 2: 'BEAR' has no phones"),
        (None, "lexicon.txt: no such file; expected a lexicon"),
    ],
)
def test_speechocean762_names_words_missing_in_the_lexicon(tmp_path, lexicon, expected):
    path = make_speechocean762(tmp_path / "source") / "resource" / "lexicon.txt"
    path.unlink() if lexicon is None else path.write_text(lexicon)
    with pytest.raises(CorpusError) as caught:
        speechocean762.prepare(tmp_path / "source", tmp_path / "out", seed=0)
    assert expected in str(caught.value)


def test_speechocean762_names_the_source_of_the_corpus(tmp_path):
    with pytest.raises(
        CorpusError, match=r"download https://\S+/speechocean762.tar.gz .* pass --source speechocean762"
    ):
        speechocean762.prepare(None, tmp_path, seed=0)
    with pytest.raises(CorpusError, match=r"no train/wav.scp and test/wav.scp there"):
        speechocean762.prepare(tmp_path, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="9 speakers are too few to split"):
        speechocean762.prepare(make_speechocean762(tmp_path / "few", speakers=18), tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="has no folds"):
        speechocean762.prepare(tmp_path, tmp_path / "out", seed=0, fold="0001")


# english


def make_librispeech(folder: Path, parts: dict[str, list[str]]) -> Path:
    """One utterance a reader."""
    for part, readers in parts.items():
        for reader in readers:
            chapter = folder / "LibriSpeech" / part / reader / "7"
            put_tone(chapter / f"{reader}-7-0000.wav")
            (chapter / f"{reader}-7.trans.txt").write_text(f"{reader}-7-0000 SOME WORDS\n")
    return folder


def make_ljspeech(folder: Path, *, count: int = 40) -> Path:
    names = [f"LJ001-{number:04d}" for number in range(count)]
    for name in names:
        put_tone(folder / "wavs" / f"{name}.wav")
    (folder / "metadata.csv").write_text("".join(f"{name}|Words.|Words.\n" for name in names))
    return folder


def speakers_of(entries: list[Utterance]) -> list[str]:
    return sorted({entry.speaker for entry in entries})


def test_english_joins_present_corpora_and_tests_each_separately(tmp_path):
    source = tmp_path / "source"
    make_speechocean762(source / "speechocean762")
    make_librispeech(source / "librispeech", {"dev-clean": list("123456")})
    make_ljspeech(source / "ljspeech")
    english.prepare(source, tmp_path / "out", seed=0)
    train, valid = (read_manifest(tmp_path / "out" / f"{part}.jsonl") for part in ("train", "valid"))
    assert Counter(entry.corpus for entry in train) == {"speechocean762": 18, "librispeech": 4, "ljspeech": 34}
    assert Counter(entry.corpus for entry in valid) == {"speechocean762": 2, "librispeech": 1, "ljspeech": 2}
    tests = {name: read_manifest(tmp_path / "out" / f"{name}-test.jsonl") for name in english.CORPORA}
    assert {name: len(entries) for name, entries in tests.items()} == {
        "speechocean762": 20,
        "librispeech": 1,
        "ljspeech": 4,
    }
    assert {entry.corpus for entries in tests.values() for entry in entries} == set(english.CORPORA)
    everything = [*train, *valid, *(entry for entries in tests.values() for entry in entries)]
    assert len({entry.id for entry in everything}) == len(everything) == 86
    readers = [speakers_of([e for e in part if e.corpus == "librispeech"]) for part in (train, valid)]
    assert readers == [[f"librispeech-{reader}" for reader in "2346"], ["librispeech-1"]]
    assert speakers_of(tests["librispeech"]) == ["librispeech-5"]
    assert [entry.id for entry in tests["ljspeech"]] == [f"ljspeech-LJ001-00{number}" for number in range(36, 40)]


def test_english_takes_a_subset(tmp_path):
    source = make_librispeech(tmp_path / "source" / "librispeech", {"dev-clean": list("12345")}).parent
    english.prepare(source, tmp_path / "out", seed=0)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"train.jsonl", "valid.jsonl", "librispeech-test.jsonl"}


def make_manifest(folder: Path, texts: list[str], **fields: str) -> Path:
    """A NeMo manifest with a recording for each text."""
    folder.mkdir(parents=True)
    rows = [{"audio_filepath": f"{number}.wav", "duration": 0.1, "text": text} for number, text in enumerate(texts)]
    for row in rows:
        put_tone(folder / row["audio_filepath"])
    (folder / "manifest.jsonl").write_text("".join(json.dumps({**row, **fields}) + "\n" for row in rows))
    return folder


def make_common_voice(folder: Path, text: str) -> None:
    put_tone(folder / "en" / "clips" / "common_voice_en_1.wav")
    table = f"client_id\tpath\tsentence\nsomeone\tcommon_voice_en_1.wav\t{text}\n"
    (folder / "en" / "validated.tsv").write_text(table)


def make_untranscribed(source: Path, readers: dict[str, float]) -> None:
    """An utterance of each reader, with the confidence of its machine transcript."""
    rows = []
    for reader, confidence in readers.items():
        put_tone(source / "untranscribed" / f"{reader}-1-0000.wav")
        row = {"audio_filepath": f"{reader}-1-0000.wav", "duration": 0.1, "text": f"by {reader}", "speaker": reader}
        rows.append({**row, "confidence": confidence, "text_source": "machine"})
    (source / "untranscribed-labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts_of(output: Path, corpus: str) -> list[str]:
    return [each.text for each in read_manifest(output / "train.jsonl") if each.corpus == corpus]


def make_english(tmp_path: Path) -> Path:
    """A source with one corpus that has a validation set."""
    return make_librispeech(tmp_path / "source" / "librispeech", {"dev-clean": list("12345")}).parent


def test_english_trains_on_corpora_without_a_split_and_on_further_folders(tmp_path):
    source = make_english(tmp_path)
    for name in ("kathleen", "orders", "asterisk-prompts", "synthetic-english", "synthetic-more"):
        make_manifest(source / name, [f"Said in {name}."], speaker="unknown" if name == "orders" else "a")
    make_manifest(source / "another", ["Not named, not used."])
    mine = make_manifest(tmp_path / "mine", ["Of one's own."])
    english.prepare(source, tmp_path / "out", seed=0, folders=[str(mine)])
    train = read_manifest(tmp_path / "out" / "train.jsonl")
    assert Counter(each.corpus for each in train) == {
        **dict.fromkeys(["kathleen", "orders", "asterisk-prompts", "synthetic-english", "synthetic-more", "mine"], 1),
        "librispeech": 3,
    }
    assert {each.speaker for each in train if each.corpus in ("orders", "kathleen")} == {None, "kathleen-a"}
    with pytest.raises(CorpusError, match="another corpus kathleen; rename the folder"):
        english.prepare(source, tmp_path / "out", seed=0, folders=[str(source / "kathleen")])


def test_english_takes_machine_transcripts_of_other_readers_that_are_confident_enough(tmp_path):
    source = make_english(tmp_path)
    make_untranscribed(source, {"5": 0.9, "2": 0.9, "70": 0.9, "71": 0.5})  # 5 tests and 2 trains
    english.prepare(source, tmp_path / "out", seed=0)
    assert texts_of(tmp_path / "out", "untranscribed") == ["by seventy"]
    english.prepare(source, tmp_path / "out", seed=0, least_confidence=0.4)
    assert texts_of(tmp_path / "out", "untranscribed") == ["by seventy", "by seventy one"]


def test_english_only_tests_on_common_voices_samples(tmp_path):
    source = make_english(tmp_path)
    make_common_voice(source / "common-voice-samples", "As published, No. 1")
    english.prepare(source, tmp_path / "out", seed=0)
    [tested] = read_manifest(tmp_path / "out" / "common-voice-samples-test.jsonl")
    assert (tested.text, tested.corpus) == ("As published, No. 1", "common-voice-samples")
    parts = [read_manifest(tmp_path / "out" / f"{part}.jsonl") for part in ("train", "valid")]
    assert {each.corpus for part in parts for each in part} == {"librispeech"}


def test_english_leaves_out_held_out_texts_of_other_corpora(tmp_path):
    source = make_english(tmp_path)
    make_common_voice(source / "common-voice-samples", "Mr. Brown has two dogs, a cat and nine hens")
    kept = ["Mister Brown has two dogs, one bird", "A cat and nine hens", "Brown has 2 dogs"]
    dropped = ["So Brown has 2 dogs a cat!", "some words"]
    make_manifest(source / "synthetic", [*kept, *dropped])
    english.prepare(source, tmp_path / "out", seed=0)
    assert texts_of(tmp_path / "out", "synthetic") == [
        "mister brown has two dogs one bird",
        "a cat and nine hens",
        "brown has two dogs",
    ]
    assert texts_of(tmp_path / "out", "librispeech") == ["some words"] * 3  # a corpus's own split stays


def test_english_writes_training_texts_in_one_form_and_leaves_out_other_scripts(tmp_path, caplog):
    source = make_english(tmp_path)
    texts = ["Dr. Müller\u2019s café\u2014at 10:30, etc.", "MRS O'NEIL", "на русском", "\u2026"]
    make_manifest(source / "synthetic", texts)
    with caplog.at_level(logging.INFO, "speechrnn"):
        english.prepare(source, tmp_path / "out", seed=0)
    assert texts_of(tmp_path / "out", "synthetic") == ["doctor muller's cafe at ten thirty et cetera", "missus o'neil"]
    assert "synthetic: 2 utterances (0.00 h) to train on, 2 left out (other characters)" in caplog.text
    assert english.to_target(english.to_target(texts[0])) == english.to_target(texts[0])


def test_english_keeps_the_librispeech_split_if_it_has_a_training_part(tmp_path):
    parts = {"train-clean-100": ["1", "2"], "train-other-500": ["3"], "dev-clean": ["4"], "test-clean": ["5"]}
    split = english.split_librispeech(make_librispeech(tmp_path / "whole", parts))
    assert {part: speakers_of(entries) for part, entries in split.items()} == {
        "train": ["1", "2", "3"],
        "valid": ["4"],
        "test": ["5"],
    }
    with pytest.raises(CorpusError, match="no test-clean beside train-clean-100"):
        english.split_librispeech(make_librispeech(tmp_path / "part", {"train-clean-100": ["1"], "dev-clean": ["4"]}))


@pytest.mark.parametrize("published", [True, False])
def test_english_splits_ljspeech_by_order_in_either_form(tmp_path, published):
    folder = make_ljspeech(tmp_path / "ljspeech" / "LJSpeech-1.1")
    if not published:
        entries = read_corpus(folder, "ljspeech")
        shutil.move(folder / "wavs", tmp_path / "ljspeech" / "wavs")
        entries = [replace(e, audio_path=tmp_path / "ljspeech" / "wavs" / e.audio_path.name) for e in entries]
        shutil.rmtree(folder)
        write_manifest(tmp_path / "ljspeech" / "manifest.jsonl", entries)
    split = english._ljspeech.split_ljspeech(tmp_path / "ljspeech")
    assert {part: [int(entry.id[-4:]) for entry in entries] for part, entries in split.items()} == {
        "train": list(range(34)),
        "valid": [34, 35],
        "test": list(range(36, 40)),
    }


def test_ljspeech_can_train_on_a_few_minutes_and_test_on_the_rest(tmp_path):
    folder = make_ljspeech(tmp_path / "ljspeech")
    entries = read_corpus(folder, "ljspeech")
    minutes = 11.5 * entries[0].seconds / 60
    split = english._ljspeech.split_ljspeech(folder, minutes)
    assert [len(split[part]) for part in ("train", "valid", "test")] == [12, 2, 26]
    assert [*split["train"], *split["valid"], *split["test"]] == entries
    for wrong in (0.0, 38 * entries[0].seconds / 60):
        with pytest.raises(CorpusError, match=r"prepare.minutes: .* leave nothing to train or to test on"):
            english._ljspeech.split_ljspeech(folder, wrong)


def test_english_names_missing_corpora(tmp_path):
    with pytest.raises(CorpusError, match="^no --source: pass a folder that holds one or more of speechocean762, "):
        english.prepare(None, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match=f"^{tmp_path}: pass a folder that holds one or more of"):
        english.prepare(tmp_path, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="has no folds"):
        english.prepare(tmp_path, tmp_path / "out", seed=0, fold="1")
    only_kathleen = make_manifest(tmp_path / "one" / "kathleen", ["No validation set."]).parent
    with pytest.raises(CorpusError, match="nothing to validate on; add one of speechocean762, librispeech, ljspeech"):
        english.prepare(only_kathleen, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="4 readers are too few to split; 5 or more will do"):
        english.split_librispeech(make_librispeech(tmp_path / "few", {"dev-clean": list("1234")}))
    with pytest.raises(CorpusError, match="9 utterances are too few to split; 20 or more will do"):
        english._ljspeech.split_ljspeech(make_ljspeech(tmp_path / "short", count=9))
