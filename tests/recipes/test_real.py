"""The recipes on the real recordings: prepared and checked, nothing is left out before the first step."""

import json
import os
from pathlib import Path

import pytest

from speechrnn.cli.main import main
from speechrnn.corpus.manifest import read_manifest
from speechrnn.recipe import Recipe, open_recipe, run_recipe
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.training.preflight import Preflight, prepare_run

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def find_corpus(name: str) -> Path:
    root = os.environ.get("SPEECHRNN_CORPORA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"SPEECHRNN_CORPORA does not name a folder that holds {name}")
    return Path(root) / name


def prepare(name: str, output: Path, *, fold: str | None = None) -> tuple[Recipe, Preflight]:
    recipe = open_recipe(RECIPES / name, source=find_corpus(name), output=output, fold=fold)
    run_recipe(recipe, stage="prepare")
    return recipe, prepare_run(recipe.config, folders=[recipe.output])


@pytest.fixture(scope="module")
def speechocean762(tmp_path_factory) -> tuple[Recipe, Preflight]:
    return prepare("speechocean762", tmp_path_factory.mktemp("speechocean762"))


def test_all_of_yesno_can_be_trained_on(tmp_path):
    recipe, preflight = prepare("yesno", tmp_path)
    assert preflight.left_out == []
    assert (len(preflight.train), len(preflight.valid)) == (25, 5)
    assert preflight.tokens.symbols == ["<blank>", "no", "yes"]
    assert {len(utterance.tokens) for utterance in [*preflight.train, *preflight.valid]} == {8}
    assert len(read_manifest(recipe.output / "test.jsonl")) == 30
    hours = sum(utterance.seconds for utterance in preflight.train) / 3600
    assert 0.03 < hours < 0.06  # five to nine seconds a file


def test_all_of_fsdd_can_be_trained_on(tmp_path):
    recipe, preflight = prepare("fsdd", tmp_path)
    assert preflight.left_out == []
    assert (len(preflight.train), len(preflight.valid)) == (2400, 300)
    digits = "zero one two three four five six seven eight nine"
    assert preflight.tokens.symbols == ["<blank>", *sorted(digits.split())]
    assert {utterance.speaker for utterance in preflight.train} == {utterance.speaker for utterance in preflight.valid}
    assert len(read_manifest(recipe.output / "test.jsonl")) == 300
    assert preflight.model.num_parameters <= 1_000_000


def test_all_of_speechocean762_can_be_trained_on(speechocean762):
    recipe, preflight = speechocean762
    assert preflight.left_out == []
    assert (len(preflight.train), len(preflight.valid)) == (2260, 240)
    assert preflight.tokens.symbols == ["<blank>", " ", "'", *"abcdefghijklmnopqrstuvwxyz"]
    parts = {part: read_manifest(recipe.output / f"{part}.jsonl") for part in ("train", "valid", "test")}
    speakers = [{entry.speaker for entry in entries} for entries in parts.values()]
    assert [len(names) for names in speakers] == [113, 12, 125]
    assert len(set.union(*speakers)) == 250


@pytest.mark.slow  # 9,000 headers; test_prepare_english.py has the same on small corpora
def test_all_of_english_can_be_trained_on(tmp_path):
    split = ("speechocean762", "librispeech", "ljspeech")
    others = ("kathleen", "orders", "asterisk-prompts", "untranscribed", "synthetic-english")
    for name in (*split, *others, "common-voice-samples"):
        find_corpus(name)
    recipe = open_recipe(RECIPES / "english", source=Path(os.environ["SPEECHRNN_CORPORA"]), output=tmp_path)
    run_recipe(recipe, stage="prepare")
    preflight = prepare_run(recipe.config, folders=[recipe.output])
    assert preflight.left_out == []
    assert {utterance.corpus for utterance in preflight.train} == {*split, *others}
    assert {utterance.corpus for utterance in preflight.valid} == set(split)
    assert preflight.tokens.symbols == ["<blank>", " ", "'", *"abcdefghijklmnopqrstuvwxyz"]
    tested = read_manifest(tmp_path / "librispeech-test.jsonl")
    readers = {entry.speaker for entry in tested}
    assert len(readers) == 3
    trained = {utterance.speaker or "" for utterance in [*preflight.train, *preflight.valid]}
    assert len([speaker for speaker in trained if speaker.startswith("librispeech-")]) == 12
    assert trained.isdisjoint(readers | {reader.replace("librispeech", "untranscribed") for reader in readers})
    held_out = [*tested, *read_manifest(tmp_path / "common-voice-samples-test.jsonl")]
    runs = {run for entry in held_out for run in six_words(entry.text)}
    assert not [each.id for each in preflight.train if each.corpus in others and runs & set(six_words(each.text))]


def six_words(text: str) -> list[str]:
    words = normalize_for_scoring(text).split()
    return [" ".join(words[start : start + 6]) for start in range(len(words) - 5)]


def test_speechocean762s_phones_can_be_trained_on(speechocean762):
    prepared = speechocean762[0].output
    overrides = ["--config", str(RECIPES / "speechocean762" / "phones.yaml")]
    recipe = open_recipe(RECIPES / "speechocean762", output=prepared, overrides=overrides)
    preflight = prepare_run(recipe.config, folders=[prepared])
    assert preflight.left_out == []
    assert len(preflight.tokens) == 40  # ARPAbet's 39 phones and the blank
    assert not any(any(character.isdigit() for character in symbol) for symbol in preflight.tokens.symbols)


@pytest.mark.slow
def test_all_of_fsdd_can_be_trained_on_with_any_speaker_left_out(tmp_path):
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for speaker in speakers:
        recipe, preflight = prepare("fsdd", tmp_path, fold=speaker)
        assert preflight.left_out == []
        assert {u.speaker for u in [*preflight.train, *preflight.valid]} == {*speakers} - {speaker}
        tested = read_manifest(recipe.output / "test.jsonl")
        assert len(tested) == 500
        assert {entry.speaker for entry in tested} == {speaker}


@pytest.mark.slow
def test_yesno_is_learned(tmp_path, capsys):
    """By its validation set: a test that runs again and again leaves the test set alone."""
    arguments = ["--source", str(find_corpus("yesno")), "--output", str(tmp_path), "--stage", "train"]
    assert main(["recipe", str(RECIPES / "yesno"), *arguments]) == 0
    assert capsys.readouterr().out == ""
    training = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]["training"]
    assert training["valid_wer"] <= 1 / 40
    assert (training["utterances"], training["utterances_left_out"]) == (25, 0)
    assert not (tmp_path / "hypotheses.jsonl").exists()
