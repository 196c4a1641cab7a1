"""The quick start's made-up voices, and the samples that they spoke."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from preparation import PARTS, RECIPES, REPOSITORY, load, read_parts

from speechrnn.corpus.manifest import read_manifest
from speechrnn.errors import CorpusError

quickstart = load("quickstart")

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
def test_quickstart_voices_accents_and_rates_change_the_audio(tmp_path):
    base = quickstart.Job("base", "turn on the light", "en-us", "adam", 170, 50)  # adam has no flutter
    changes = {"variant": "david", "accent": "en-gb-scotland", "rate": 130, "pitch": 70}
    jobs = [base, *(base._replace(id=key, **{key: value}) for key, value in changes.items()), base._replace(id="same")]
    quickstart.speak({tmp_path: jobs})
    recordings = {job.id: soundfile.read(tmp_path / f"{job.id}.wav")[0] for job in jobs}
    np.testing.assert_array_equal(recordings.pop("same"), recordings["base"])
    assert len({samples.tobytes() for samples in recordings.values()}) == 1 + len(changes)
    assert 1.15 < len(recordings["rate"]) / len(recordings["base"]) < 1.45  # 170 / 130 is 1.31


@needs_espeak
def test_quickstart_reports_espeak_errors(tmp_path):
    job = quickstart.Job("x", "one", "en-us", "nobody", 170, 50)
    with pytest.raises(CorpusError, match=r"no voice en-us\+nobody"):
        quickstart.speak({tmp_path: [job]})
    with pytest.raises(CorpusError, match=r"no voice atlantis\+f2"):
        quickstart.speak({tmp_path: [job._replace(variant="f2", accent="atlantis")]})
    with pytest.raises(CorpusError, match="produced no sound"):
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


def test_quickstart_removes_old_manifests_before_synthesis(tmp_path, monkeypatch):
    (tmp_path / "test.jsonl").write_text("{}")

    def fail(_: object) -> None:
        raise CorpusError("stopped")

    monkeypatch.setattr(quickstart, "speak", fail)
    with pytest.raises(CorpusError, match="stopped"):
        quickstart.prepare(None, tmp_path, seed=0)
    assert not (tmp_path / "test.jsonl").exists()


def test_espeak_runs_outside_of_speechrnn_and_the_recipe_process():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "assert not {'espeakng_loader', 'lhotse', 'lightning', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(RECIPES / "quickstart" / "prepare.py")], check=True, cwd=REPOSITORY)
    for path in (REPOSITORY / "speechrnn").rglob("*.py"):
        imports = re.findall(r"^\s*(?:import|from) .*", path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.name != "espeak_program.py":
            assert not any("espeakng_loader" in line or "espeak_program" in line for line in imports), path


def test_samples_are_short_held_out_recordings_that_match_their_manifest():
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
