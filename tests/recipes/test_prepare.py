import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.manifest import Entry, read_manifest, write_manifest
from speechrnn.errors import AudioError, CorpusError

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
PARTS = ("train", "valid", "test")


def load(recipe: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{recipe}_prepare", RECIPES / recipe / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fsdd, yesno, quickstart = load("fsdd"), load("yesno"), load("quickstart")
speechocean762, english = load("speechocean762"), load("english")
speech_commands = load("speech_commands")

TONE = (0.1 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)).astype(np.float32)
NUMBERS = (0, 4, 5, 44, 45, 49)


def put_tone(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, TONE, 8000, subtype="PCM_16")


def read_parts(output: Path) -> dict[str, list[Entry]]:
    return {part: read_manifest(output / f"{part}.jsonl") for part in PARTS}


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


def numbers(entries: list[Entry]) -> set[int]:
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
    expected = Entry("7_ann_5", tmp_path / "fsdd/recordings/7_ann_5.wav", 0.1, "seven", speaker="ann")
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


def test_fsdd_fold_adds_synthetic_voices_to_training_alone(tmp_path):
    source = make_fsdd(tmp_path / "fsdd", speakers=("ann", "bob", "cy"))
    fsdd.prepare(source, tmp_path / "out", seed=0, fold="bob")
    parts = read_parts(tmp_path / "out")
    synthetic = [entry for entry in parts["train"] if entry.id.startswith("synthetic-")]
    assert len(synthetic) == fsdd.SYNTHETIC_CLIPS
    assert not any(entry.id.startswith("synthetic-") for entry in parts["valid"] + parts["test"])
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


def test_fsdd_is_found_whichever_of_its_folders_is_named(tmp_path):
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


def test_fsdd_says_what_is_wrong_with_a_folder(tmp_path):
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
def test_without_a_source_the_stated_original_is_fetched_and_checked(recipe, inside, tmp_path, monkeypatch):
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


def test_yesno_names_are_transcripts_and_every_other_file_is_tested(tmp_path):
    yesno.prepare(make_yesno(tmp_path / "yesno"), tmp_path / "out", seed=0)
    parts = read_parts(tmp_path / "out")
    values = {part: [int(entry.id.replace("_", ""), 2) for entry in entries] for part, entries in parts.items()}
    assert values["test"] == list(range(1, 24, 2))
    assert values["valid"] == [10, 22]  # the 6th and the 12th of 0, 2, 4, ...
    assert values["train"] == [0, 2, 4, 6, 8, 12, 14, 16, 18, 20]
    assert parts["valid"][0].text == "no no no no yes no yes no"


def test_yesno_names_what_it_leaves_out_and_says_that_files_are_missing(tmp_path, caplog):
    source = make_yesno(tmp_path / "yesno")
    put_tone(source / "waves_yesno" / "0_1_0.wav")
    with caplog.at_level(logging.WARNING, logger="speechrnn"):
        yesno.prepare(source / "waves_yesno", tmp_path / "out", seed=0)
    assert "1 wav files left out, not eight times 0 or 1: 0_1_0.wav" in caplog.text
    assert "24 recordings of 60" in caplog.text


def test_yesno_says_what_is_wrong_with_a_folder(tmp_path):
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
    assert {entry.id: entry.text for entry in parts["train"] + parts["valid"]} == their_texts["train"]
    assert parts["test"][0].id == "0_0_0_1_0_0_0_1"
    assert {part: len(entries) for part, entries in parts.items()} == {"train": 25, "valid": 5, "test": 30}
    assert {entry.text.split()[0] for entry in parts["valid"]} == {"no", "yes"}


# quickstart


needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the package espeakng-loader is not installed"
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    """The recipe's output in small: 20, 8 and 12 utterances."""
    output = tmp_path_factory.mktemp("quickstart")
    speak_few(output, seed=3)
    return output


def speak_few(output: Path, *, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "UTTERANCES", {"train": 20, "valid": 8, "test": 12})
        patch.setattr(quickstart, "JOBS_PER_PROCESS", 15)
        quickstart.prepare(None, output, seed=seed)


def test_quickstart_voices_are_in_one_set_only():
    voices = [voice for part in PARTS for voice in quickstart.VOICES[part]]
    assert len(set(voices)) == len(voices)
    assert len(quickstart.VOICES["test"]) >= 10  # enough speakers for intervals over speakers


def test_quickstart_draws_are_a_function_of_the_seed_and_every_voice_speaks_equally_often():
    for part in PARTS:
        jobs = quickstart.draw_jobs(part, seed=5)
        assert jobs == quickstart.draw_jobs(part, seed=5)
        assert jobs != quickstart.draw_jobs(part, seed=6)
        counts = Counter(job.variant for job in jobs)
        assert set(counts) == set(quickstart.VOICES[part])
        assert max(counts.values()) - min(counts.values()) <= 1
        assert {job.accent for job in jobs} == set(quickstart.ACCENTS)


def test_quickstart_texts_are_plain_words_of_a_small_vocabulary():
    texts = [job.text for seed in range(5) for job in quickstart.draw_jobs("train", seed=seed)]
    words = {word for text in texts for word in text.split()}
    assert 40 <= len(words) <= 60
    assert set(quickstart.DIGITS) < words
    assert all(word.isalpha() and word.islower() for word in words)
    assert {len(text.split()) for text in texts if set(text.split()) <= set(quickstart.DIGITS)} == set(range(1, 7))


@needs_espeak
def test_quickstart_recordings_are_audible_speech_of_the_stated_length(spoken):
    parts = read_parts(spoken)
    assert {part: len(entries) for part, entries in parts.items()} == {"train": 20, "valid": 8, "test": 12}
    for entry in (entry for entries in parts.values() for entry in entries):
        samples, sample_rate = soundfile.read(entry.audio_path)
        assert sample_rate == 16000
        assert samples.ndim == 1
        assert len(samples) / sample_rate == entry.seconds
        assert np.sqrt(np.mean(samples**2)) > 0.01
        assert 0.12 < entry.seconds / len(entry.text.split()) < 1.5


@needs_espeak
def test_quickstart_manifests_move_with_their_folder(spoken):
    lines = (spoken / "test.jsonl").read_text().splitlines()
    assert [json.loads(line)["audio_filepath"] for line in lines][:2] == [
        "audio/test/test-0000.wav",
        "audio/test/test-0001.wav",
    ]


@needs_espeak
def test_quickstart_samples_are_a_function_of_the_seed(spoken, tmp_path):
    def recordings(output: Path) -> dict[str, bytes]:
        return {entry.id: entry.audio_path.read_bytes() for part in PARTS for entry in read_parts(output)[part]}

    speak_few(tmp_path / "again", seed=3)
    speak_few(tmp_path / "other", seed=4)
    assert recordings(tmp_path / "again") == recordings(spoken)
    assert recordings(tmp_path / "other") != recordings(spoken)


@needs_espeak
def test_quickstart_voices_and_accents_and_rates_are_heard(tmp_path):
    base = quickstart.Job("base", "turn on the light", "en-us", "adam", 170, 50)  # adam has no flutter
    changes = {"variant": "david", "accent": "en-gb-scotland", "rate": 130, "pitch": 70}
    jobs = [base, *(base._replace(id=key, **{key: value}) for key, value in changes.items()), base._replace(id="same")]
    quickstart.speak({tmp_path: jobs})
    recordings = {job.id: soundfile.read(tmp_path / f"{job.id}.wav")[0] for job in jobs}
    np.testing.assert_array_equal(recordings.pop("same"), recordings["base"])
    assert len({samples.tobytes() for samples in recordings.values()}) == 1 + len(changes)
    assert 1.15 < len(recordings["rate"]) / len(recordings["base"]) < 1.45  # 170 / 130 is 1.31


@needs_espeak
def test_quickstart_passes_on_what_espeak_cannot_do(tmp_path):
    job = quickstart.Job("x", "one", "en-us", "nobody", 170, 50)
    with pytest.raises(CorpusError, match=r"no voice en-us\+nobody"):
        quickstart.speak({tmp_path: [job]})
    with pytest.raises(CorpusError, match=r"no voice atlantis\+f2"):
        quickstart.speak({tmp_path: [job._replace(variant="f2", accent="atlantis")]})
    with pytest.raises(CorpusError, match="said nothing"):
        quickstart.speak({tmp_path: [job._replace(variant="f2", text="")]})


@needs_espeak
def test_quickstart_every_voice_and_accent_exists(tmp_path):
    jobs = [
        quickstart.Job(f"{accent} {voice}", "one", accent, voice, 200, 50)
        for part in PARTS
        for voice, accent in zip(quickstart.VOICES[part], quickstart.ACCENTS * 10, strict=False)
    ]
    quickstart.speak({tmp_path: jobs})
    assert len(list(tmp_path.iterdir())) == len(jobs)
    assert {job.accent for job in jobs} == set(quickstart.ACCENTS)


def test_quickstart_without_espeak_says_what_to_install(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "espeakng_loader" else find_spec(name)
    )
    with pytest.raises(CorpusError, match=r"pip install '\.\[quickstart\]'"):
        quickstart.prepare(None, tmp_path, seed=0)


def test_quickstart_takes_no_source_and_no_fold(tmp_path):
    for arguments in ({"source": tmp_path}, {"source": None, "fold": "ann"}):
        with pytest.raises(CorpusError, match="leave out"):
            quickstart.prepare(**arguments, output=tmp_path, seed=0)


def test_quickstart_removes_old_manifests_before_it_speaks(tmp_path, monkeypatch):
    (tmp_path / "test.jsonl").write_text("{}")

    def fail(_: object) -> None:
        raise CorpusError("stopped")

    monkeypatch.setattr(quickstart, "speak", fail)
    with pytest.raises(CorpusError, match="stopped"):
        quickstart.prepare(None, tmp_path, seed=0)
    assert not (tmp_path / "test.jsonl").exists()


def test_espeak_stays_out_of_speechrnn_and_of_the_recipes_own_process():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "assert not {'espeakng_loader', 'lhotse', 'lightning', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(RECIPES / "quickstart" / "prepare.py")], check=True, cwd=REPOSITORY)
    for path in (REPOSITORY / "speechrnn").rglob("*.py"):
        assert "espeakng_loader" not in path.read_text(encoding="utf-8"), path


# data/samples


def test_samples_are_short_held_out_recordings_as_their_manifest_says():
    entries = read_manifest(REPOSITORY / "data" / "samples" / "manifest.jsonl")
    assert len(entries) == 5
    assert {entry.speaker for entry in entries} <= set(quickstart.VOICES["test"])
    for entry in entries:
        info = soundfile.info(entry.audio_path)
        assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
        assert info.duration == pytest.approx(entry.seconds)
        assert entry.audio_path.stat().st_size <= 100_000
    texts = {job.text for job in quickstart.draw_jobs("test", seed=0)}
    assert {entry.text for entry in entries} <= texts


@pytest.mark.parametrize("recipe", [fsdd, yesno, quickstart])
def test_attributions_say_what_a_model_card_needs(recipe):
    for attribution in recipe.ATTRIBUTION:
        assert set(attribution) == {"corpus", "license", "source", "attribution"}
        assert all(attribution.values())
    assert len(recipe.LANGUAGE) == 2


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


def test_speechocean762_phones_are_the_first_pronunciations_without_stress(tmp_path):
    speechocean762.prepare(make_speechocean762(tmp_path / "source"), tmp_path / "out", seed=0)
    for part in PARTS:
        words = read_manifest(tmp_path / "out" / f"{part}.jsonl")
        phones = read_manifest(tmp_path / "out" / f"{part}-phones.jsonl")
        assert [entry.id for entry in phones] == [entry.id for entry in words]
        assert {(w.text, p.text) for w, p in zip(words, phones, strict=True)} == {
            ("A BEAR", "AH B EH R"),
            ("BEAR", "B EH R"),
        }


@pytest.mark.parametrize(
    ("lexicon", "expected"),
    [
        ("A\tAH0\n", "utterance 000001: the lexicon lacks BEAR; add a line for each"),
        ("A\tAH0\nBEAR\n", "lexicon.txt line 2: BEAR has no phones"),
        (None, "lexicon.txt: there is no such lexicon; check the path"),
    ],
)
def test_speechocean762_names_what_the_lexicon_lacks(tmp_path, lexicon, expected):
    path = make_speechocean762(tmp_path / "source") / "resource" / "lexicon.txt"
    path.unlink() if lexicon is None else path.write_text(lexicon)
    with pytest.raises(CorpusError) as caught:
        speechocean762.prepare(tmp_path / "source", tmp_path / "out", seed=0)
    assert expected in str(caught.value)


def test_speechocean762_says_where_the_corpus_is_to_be_had(tmp_path):
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


def speakers_of(entries: list[Entry]) -> list[str]:
    return sorted({entry.speaker for entry in entries})


def test_english_joins_what_is_there_and_tests_each_by_itself(tmp_path):
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


def test_english_keeps_librispeechs_own_parts_where_there_is_one_to_train_on(tmp_path):
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
        entries = english._ljspeech.read_ljspeech_entries(folder)
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


def test_english_says_what_it_lacks(tmp_path):
    with pytest.raises(CorpusError, match="^no --source: pass a folder that holds one or more of speechocean762, "):
        english.prepare(None, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match=f"^{tmp_path}: pass a folder that holds one or more of"):
        english.prepare(tmp_path, tmp_path / "out", seed=0)
    with pytest.raises(CorpusError, match="has no folds"):
        english.prepare(tmp_path, tmp_path / "out", seed=0, fold="1")
    with pytest.raises(CorpusError, match="4 readers are too few to split; 5 or more will do"):
        english.split_librispeech(make_librispeech(tmp_path / "few", {"dev-clean": list("1234")}))
    with pytest.raises(CorpusError, match="9 utterances are too few to split; 20 or more will do"):
        english._ljspeech.split_ljspeech(make_ljspeech(tmp_path / "short", count=9))


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
    expected = Entry("stop-2c99_nohash_0", tmp_path / "sc/stop/2c99_nohash_0.wav", 0.1, "stop", speaker="2c99")
    assert parts["test"] == [expected]
    assert len(parts["train"]) == 12 - 3
    assert {entry.text for entry in parts["train"]} == {"go", "stop"}


def test_speech_commands_slips_are_named(tmp_path, caplog):
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
