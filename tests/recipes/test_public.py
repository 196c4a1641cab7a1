"""Recipes for public corpora on miniatures in their published layouts, spoken by espeak-ng: from there to scores."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.acoustic.chunked import Chunks
from speechrnn.acoustic.latency_controlled import LatencyControlledAcoustics
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.streaming import check_streams
from speechrnn.cli.main import main
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.synthesize import ESPEAK_PROGRAM
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import CorpusError
from speechrnn.recipe import load_prepare, open_recipe, run_recipe
from speechrnn.training.config_file import load_config

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
RATE = 16000
TEXTS = ["red fox", "two owls", "old mill", "tall tree", "no rain", "blue sky", "warm day", "good bread", "one more"]
TEXTS += ["cold tea", "my hat", "her dog"]
TINY = {
    "encoder.hidden_size": 16,
    "encoder.num_layers": 1,
    "encoder.dropout": 0.0,
    "front_end.n_mels": 40,
    "ctc.intermediate_layers": [],
    "ctc.consistency": 0.0,
    "checkpoints.best": 1,
    "checkpoints.average": False,
    "data.batch_seconds": 20,
    "data.num_workers": 0,
    "trainer.max_epochs": 1,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
}


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """What espeak-ng says, (n,) float, by text."""
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("the package espeakng-loader is not installed")
    folder = tmp_path_factory.mktemp("voices")
    jobs = [
        {"path": str(folder / f"{i}.wav"), "text": t, "accent": "en-us", "variant": "f2", "rate": 260, "pitch": 50}
        for i, t in enumerate(TEXTS)
    ]
    (folder / "jobs").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    subprocess.run([sys.executable, ESPEAK_PROGRAM, folder / "jobs"], check=True, timeout=60)
    return {text: soundfile.read(folder / f"{i}.wav")[0] for i, text in enumerate(TEXTS)}


def say(path, voices, number, **options):
    """Write the n-th text's audio; returns the text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = TEXTS[number % len(TEXTS)]
    soundfile.write(path, voices[text], RATE, **options)
    return text


def run(name, source, output, *options, **settings):
    """The whole recipe, trained for an epoch; returns what results.json holds."""
    overrides = [*options]
    for key, value in {**TINY, **settings}.items():
        overrides += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return run_recipe(open_recipe(RECIPES / name, source=source, output=output, overrides=overrides))


def texts(output, part):
    return [entry.text for entry in read_manifest(output / f"{part}.jsonl")]


def speakers(output, part):
    return {entry.speaker for entry in read_manifest(output / f"{part}.jsonl")}


# LibriSpeech


def make_librispeech(folder, voices, parts):
    for part, readers in parts.items():
        for reader in readers:
            chapter = folder / part / str(reader) / "7"
            lines = []
            for number in range(3):
                name = f"{reader}-7-{number:04d}"
                lines.append(f"{name} {say(chapter / f'{name}.flac', voices, reader + number).upper()}\n")
            (chapter / f"{reader}-7.trans.txt").write_text("".join(lines))
    return folder


def test_librispeech_is_trained_on_in_parts(tmp_path, voices):
    parts = {"train-clean-100": [1, 2], "dev-clean": [3], "test-clean": [4], "test-other": [5]}
    make_librispeech(tmp_path / "LibriSpeech", voices, parts)
    results = run("librispeech", tmp_path, tmp_path / "out", **{"tokens.kind": "characters"})
    assert list(results["sets"]) == ["valid", "test-clean", "test-other"]
    assert speakers(tmp_path / "out", "train") == {"1", "2"}
    assert texts(tmp_path / "out", "test-other") == [text.upper() for text in TEXTS[5:8]]


def test_librispeech_has_a_small_and_a_large_form(tmp_path, voices):
    make_librispeech(tmp_path, voices, {"train-clean-5": [1, 2], "dev-clean-2": [3]})
    results = run("librispeech", tmp_path, tmp_path / "out", "--config", str(RECIPES / "librispeech" / "mini.yaml"))
    assert list(results["sets"]) == ["valid"]
    large = load_config(
        RECIPES / "librispeech" / "config.yaml", ["--config", str(RECIPES / "librispeech" / "960.yaml")]
    )
    assert large.prepare["train"] == ["train-clean-100", "train-clean-360", "train-other-500"]
    assert (large.encoder.hidden_size, large.tokens.vocabulary_size) == (1024, 500)
    assert large.data.test.keys() == {"test-clean", "test-other"}


def test_prepare_is_skipped_only_with_the_same_arguments(tmp_path, voices):
    make_librispeech(tmp_path, voices, {"train-clean-100": [1], "dev-clean": [3], "test-clean": [4], "test-other": [5]})

    def check(test):
        overrides = ["--prepare.test", test, "--tokens.kind", "characters", "--ctc.intermediate_layers", "[]"]
        overrides += ["--encoder.hidden_size", "16", "--encoder.num_layers", "1"]
        recipe = open_recipe(RECIPES / "librispeech", source=tmp_path, output=tmp_path / "out", overrides=overrides)
        run_recipe(recipe, stage="check")
        return (tmp_path / "out" / "test-other.jsonl").is_file()

    assert not check("[test-clean]")
    assert not check("[test-clean]")
    assert check("[test-clean, test-other]")


def test_librispeech_names_missing_parts(tmp_path, voices, capsys):
    make_librispeech(tmp_path, voices, {"train-clean-100": [1], "dev-clean": [3]})
    for arguments, message in (
        (["--source", tmp_path], "no test-clean in it; download the parts from https://www.openslr.org/12/"),
        ([], "no --source: download the parts"),
        (["--source", tmp_path, "--prepare.train", "train-clean-100"], "prepare.train: expected a list such as [a, b]"),
        (["--source", tmp_path, "--prepare.trian", "[a]"], "prepare.trian: "),
    ):
        argv = ["recipe", RECIPES / "librispeech", "--output", tmp_path / "out", *arguments]
        assert main([str(argument) for argument in argv]) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.jsonl"))


# LJ Speech


def test_ljspeech_is_split_by_its_order(tmp_path, voices):
    source = tmp_path / "LJSpeech-1.1"
    lines = []
    for number in range(20):
        text = say(source / "wavs" / f"LJ001-{number:04d}.wav", voices, number)
        lines.append(f"LJ001-{number:04d}|{text.title()}|{text}\n")
    (source / "metadata.csv").write_text("".join(lines))
    results = run("ljspeech", tmp_path, tmp_path / "out")
    assert results["sets"]["test"]["utterances"] == 2
    assert [len(texts(tmp_path / "out", part)) for part in ("train", "valid", "test")] == [17, 1, 2]
    assert texts(tmp_path / "out", "train")[0] == "red fox"


# Common Voice


def make_common_voice(source, voices, *, extra=0):
    columns = ["client_id", "path", "sentence", "up_votes", "locale"]
    rows = {
        "train": [("a", 0), ("a", 1), ("b", 2), ("b", 3)],
        "dev": [("c", 4), ("c", 5)],
        "test": [("d", 6), ("d", 7)],
    }
    everyone = [("e", 8 + number) for number in range(extra)] + [("d", 11), ("f", 6)]
    rows["validated"] = [row for part in rows.values() for row in part] + everyone
    for part, members in rows.items():
        with (source / f"{part}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(columns)
            for speaker, number in members:
                name = f"common_voice_gl_{speaker}{number}.mp3"
                text = say(source / "clips" / name, voices, number, format="MP3")
                writer.writerow([speaker, name, f"{text.capitalize()}.", 2, "gl"])
    return source


def test_common_voice_is_read_from_its_tables(tmp_path, voices):
    source = tmp_path / "cv-corpus" / "gl"
    source.mkdir(parents=True)
    make_common_voice(source, voices)
    (source / "clips" / "common_voice_gl_b3.mp3").write_bytes(b"no sound")
    results = run("common_voice", source, tmp_path / "out", **{"text.language": "gl"})
    assert results["sets"]["test"]["utterances"] == 2
    assert texts(tmp_path / "out", "train") == ["Red fox.", "Two owls.", "Old mill."]  # one clip is broken
    card = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert card["provenance"]["languages"] == ["gl"]


def test_common_voices_validated_clips_leave_held_out_speakers_and_sentences_alone(tmp_path, voices):
    make_common_voice(tmp_path, voices, extra=3)
    load_prepare(RECIPES / "common_voice").prepare(tmp_path, tmp_path / "out", seed=0, use_validated=True)
    assert speakers(tmp_path / "out", "train") == {"a", "b", "e"}  # d is a test speaker, f says a test sentence
    assert len(texts(tmp_path / "out", "train")) == 7


# TED-LIUM


def test_tedlium_is_cut_out_of_its_talks(tmp_path, voices):
    for talk, (part, wanted) in enumerate({"train": 4, "dev": 2, "test": 2}.items()):
        folder = tmp_path / "TEDLIUM_release-3" / "legacy" / part
        (folder / "stm").mkdir(parents=True)
        (folder / "sph").mkdir()
        pieces, lines, end = [], [], 0.0
        for number in range(wanted):
            audio, begin = voices[TEXTS[number]], end
            pieces.append(audio)
            end = begin + len(audio) / RATE
            text = f"<unk> {TEXTS[number]} 's" if number else TEXTS[number]
            lines.append(f"Talk{talk} 1 Speaker{talk} {begin:.3f} {end:.3f} <o,f0,female> {text}\n")
        lines.append(f"Talk{talk} 1 Speaker{talk} 0 {end:.2f} <o> ignore_time_segment_in_scoring\n")
        soundfile.write(folder / "sph" / f"Talk{talk}.sph", np.concatenate(pieces), RATE, format="NIST")
        (folder / "stm" / f"Talk{talk}.stm").write_text("".join(lines))
    results = run("tedlium3", tmp_path, tmp_path / "out", **{"tokens.kind": "characters"})
    assert results["sets"]["test"]["utterances"] == 2
    assert texts(tmp_path / "out", "train") == ["red fox", "two owls's", "old mill's", "tall tree's"]


# AISHELL


def test_aishell_joins_its_words(tmp_path, voices):
    words = ["你 好", "早 上 好", "谢谢 你", "再 见"]
    lines = []
    for part, speaker in (("train", "S0002"), ("dev", "S0724"), ("test", "S0764")):
        for number, text in enumerate(words):
            name = f"BAC009{speaker}W{number:04d}"
            say(tmp_path / "data_aishell" / "wav" / part / speaker / f"{name}.wav", voices, number)
            if not (part == "train" and number == 0):  # the archive has recordings without a transcript
                lines.append(f"{name} {text}\n")
    (tmp_path / "data_aishell" / "transcript").mkdir()
    (tmp_path / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").write_text("".join(lines))
    results = run("aishell1", tmp_path / "data_aishell", tmp_path / "out")
    assert results["sets"]["test"]["words"] == 4  # a sentence without blanks is a word
    assert texts(tmp_path / "out", "train") == ["早上好", "谢谢你", "再见"]


# TIMIT


def make_timit(source, voices, *, lower=False):
    def case(name):
        return name.lower() if lower else name

    phones = "0 100 h#\n100 200 r\n200 250 eh\n250 300 dcl\n300 310 d\n310 320 q\n320 400 ix\n400 410 pau\n410 500 h#\n"
    for part, speaker in (
        ("TRAIN", "FCJF0"),
        ("TRAIN", "MDAC0"),
        ("TEST", "FAKS0"),
        ("TEST", "MDAB0"),
        ("TEST", "MXXX0"),
    ):
        for number, sentence in enumerate(("SA1", "SX37", "SI648")):
            path = source / case(part) / case("DR1") / case(speaker) / case(f"{sentence}.PHN")
            say(path.with_suffix(case(".WAV")), voices, number, format="NIST")
            path.write_text(phones)
    return source


@pytest.mark.parametrize("lower", [False, True])
def test_timits_phones_become_39(tmp_path, voices, lower):
    source = make_timit(tmp_path / "TIMIT", voices, lower=lower)
    load_prepare(RECIPES / "timit").prepare(tmp_path, tmp_path / "out", seed=0)
    assert source.is_dir()
    assert texts(tmp_path / "out", "train") == ["sil r eh sil d ih sil"] * 4  # no SA, no glottal stop, one silence
    assert (speakers(tmp_path / "out", "valid"), speakers(tmp_path / "out", "test")) == ({"faks0"}, {"mdab0"})


def test_timit_is_trained_on_phones(tmp_path, voices):
    results = run("timit", make_timit(tmp_path / "TIMIT", voices), tmp_path / "out")
    assert results["sets"]["test"]["words"] == 14


def test_timit_has_61_phones_and_39_are_left():
    phones = load_prepare(RECIPES / "timit").PHONES
    assert len(phones) == 61
    assert len(set(phones.values()) - {""}) == 39


# AN4


def test_an4_is_read_from_its_lists(tmp_path, voices):
    source = tmp_path / "an4"
    (source / "etc").mkdir(parents=True)
    for part, people in (("train", [f"m{number:02d}" for number in range(10)]), ("test", ["zed"])):
        names, lines = [], []
        for number, speaker in enumerate(people):
            name = f"an4_clstk/{speaker}/an{number}-{speaker}-b"
            text = say(source / "wav" / f"{name}.sph", voices, number, format="NIST").upper()
            names.append(name)
            lines.append(f"<s> {text} </s> ({Path(name).name})" if part == "train" else f"{text} ({Path(name).name})")
        (source / "etc" / f"an4_{part}.fileids").write_text("\n".join(names) + "\n")
        (source / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    results = run("an4", tmp_path, tmp_path / "out")
    assert results["sets"]["test"]["utterances"] == 1
    assert texts(tmp_path / "out", "train")[0] == "RED FOX"
    assert speakers(tmp_path / "out", "valid") == {"m09"}


# lhotse's


def test_any_lhotse_recipe_is_used_by_name(tmp_path, voices):
    for number in range(60):
        bits = "_".join(format(number, "08b"))
        say(tmp_path / "waves_yesno" / f"{bits}.wav", voices, number)
    settings = {"prepare.corpus": "yesno", "prepare.valid": ["train"], "tokens.kind": "words"}
    results = run("lhotse_corpus", tmp_path / "waves_yesno", tmp_path / "out", **settings)
    assert results["sets"]["test"]["utterances"] == 30
    assert len(texts(tmp_path / "out", "train")) == 30
    assert texts(tmp_path / "out", "train")[0] == "NO NO NO NO NO NO NO NO"


def test_a_corpus_without_parts_is_split_by_speakers(tmp_path, voices, monkeypatch):
    entries = []
    for number in range(40):
        path = tmp_path / "wav" / f"{number}.wav"
        text = say(path, voices, number)
        entries.append(
            Utterance(f"u{number}", path, text, seconds=soundfile.info(path).duration, speaker=f"s{number % 20:02d}")
        )
    module = load_prepare(RECIPES / "lhotse_corpus")
    monkeypatch.setattr(module, "read_lhotse_corpus", lambda name, source, options: {module.WHOLE: entries})
    module.prepare(tmp_path, tmp_path / "out", seed=0, corpus="any")
    found = {part: speakers(tmp_path / "out", part) for part in ("train", "valid", "test")}
    assert [len(each) for each in found.values()] == [17, 1, 2]
    assert len(set().union(*found.values())) == 20
    monkeypatch.setattr(module, "read_lhotse_corpus", lambda name, source, options: {"near": entries, "far": entries})
    with pytest.raises(CorpusError, match="any has the parts near, far; choose with --prepare.train"):
        module.prepare(tmp_path, tmp_path / "out", seed=0, corpus="any")


def test_errors_with_lhotses_corpora_are_named(tmp_path, capsys):
    for arguments, message in (
        ([], "no --prepare.corpus: name one of adept, "),
        (["--prepare.corpus", "aishel"], "corpus 'aishel': lhotse knows adept, aishell, "),
        (
            ["--prepare.corpus", "yesno"],
            "lhotse cannot prepare yesno from it (AssertionError at: assert len(wave_files)",
        ),
        (["--prepare.corpus", "yesno", "--prepare.options", '{"part": 1}'], "lhotse's prepare_yesno has output_dir"),
    ):
        argv = ["recipe", RECIPES / "lhotse_corpus", "--source", tmp_path, "--output", tmp_path / "out", *arguments]
        assert main([str(argument) for argument in argv]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert message in said


# all


def test_every_recipe_is_in_the_table_and_states_its_results():
    folders = sorted(path.parent.name for path in RECIPES.glob("*/README.md"))
    table = (RECIPES / "README.md").read_text(encoding="utf-8")
    for name in folders:
        is_recipe = (RECIPES / name / "prepare.py").is_file()
        assert (f"| [`{name}`]({name}) |" if is_recipe else f"]({name})") in table
        assert (RECIPES / name / "RESULTS.md").is_file()
        module = load_prepare(RECIPES / name) if is_recipe else None
        if module is not None:
            load_config(RECIPES / name / "config.yaml")
            assert all(corpus["license"] for corpus in getattr(module, "ATTRIBUTION", []))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/streaming.yaml")), ids=lambda path: path.parent.name)
def test_streaming_configurations_make_models_that_stream_exactly(path):
    config = load_config(path.parent / "config.yaml", ["--config", str(path)])
    check_streams(AcousticModel(config.front_end, config.encoder, 3))
    assert config.encoder.lookahead_frames


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/latency_controlled.yaml")), ids=lambda path: path.parent.name)
def test_latency_controlled_configurations_train_in_chunks(path):
    config = load_config(path.parent / "config.yaml", ["--config", str(path)])
    assert config.chunks.probability == 0.5
    chunks = Chunks.from_seconds(*config.chunks.seconds, seconds_per_step=0.04)
    LatencyControlledAcoustics(AcousticModel(config.front_end, config.encoder, 3), chunks=chunks)
