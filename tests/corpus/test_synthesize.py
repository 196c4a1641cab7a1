"""Synthetic speech: any engine, several processes, resumable, deterministic, balanced over speakers."""

import importlib.util
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.cli.main import main
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.synthesize import SynthesisConfig, list_voices, plan_blocks, read_sentences, synthesize
from speechrnn.errors import ConfigError, CorpusError

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the package espeakng-loader is not installed"
)
# A "voice" that beeps: one 50 ms tone per word; the pitch is the voice's number. It fails for the word "fail".
BEEPER = """
import sys, wave, array, math
text, out, voice = sys.argv[1:4]
if "fail" in text: sys.exit("no such word")
if "mute" in text: voice = "0"
step, count = 6.28 * 100 * float(voice) / 8000, 400 * len(text.split())
samples = array.array("h", (int(9000 * math.sin(i * step)) for i in range(count)))
with wave.open(out, "wb") as f:
    f.setparams((1, 2, 8000, 0, "NONE", "")); f.writeframes(samples.tobytes())
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> str:
    program = tmp_path_factory.mktemp("engine") / "beeper.py"
    program.write_text(BEEPER)
    return f"{shlex.quote(sys.executable)} -S {program} {{text}} {{out}} {{voice}}"


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "sentences.txt"
    lines = [f"sentence {word} is spoken" for word in "abcdefghijkl"]
    path.write_text("\n".join([*lines, lines[0], "short", "", "one two three four five six seven"]) + "\n")
    return path


def config_of(engine: str, **options) -> SynthesisConfig:
    options = {"voices": ("3", "5", "7"), "max_words": 4, "sentences_per_block": 2, **options}
    return SynthesisConfig(engine=engine, **options)


def test_every_sentence_is_spoken_once_and_speakers_have_equally_many(engine, texts, tmp_path):
    made = synthesize([texts], tmp_path / "out", config_of(engine), num_processes=2)
    assert (made.recordings, made.new, made.failed) == (12, 12, {})
    utterances = read_corpus(tmp_path / "out")
    assert sorted(each.text for each in utterances) == sorted(f"sentence {c} is spoken" for c in "abcdefghijkl")
    assert Counter(each.speaker for each in utterances) == {"3": 4, "5": 4, "7": 4}
    assert made.seconds == pytest.approx(12 * 4 * 0.05)
    for each in utterances:  # the tone is the speaker's: resampled from 8 to 16 kHz
        samples, rate = soundfile.read(each.audio_path)
        spectrum = np.abs(np.fft.rfft(samples))
        assert rate == 16000
        assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(100 * int(each.speaker), abs=10)


def test_a_run_that_was_stopped_gives_the_same_recordings(engine, texts, tmp_path):
    synthesize([texts], tmp_path / "whole", config_of(engine))
    synthesize([texts], tmp_path / "parts", config_of(engine, num_sentences=5))
    manifest = tmp_path / "parts" / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:3]))
    made = synthesize([texts], tmp_path / "parts", config_of(engine), num_processes=3)
    assert (made.recordings, made.new) == (12, 9)
    assert manifest.read_bytes() == (tmp_path / "whole" / "manifest.jsonl").read_bytes()
    for path in (tmp_path / "whole" / "audio").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / "audio" / path.name).read_bytes()


@pytest.mark.parametrize("change", [{"seed": 4}, {"voices": ("3", "5")}, {"encoding": "wav"}])
def test_a_folder_made_with_other_options_is_refused(engine, texts, tmp_path, change):
    synthesize([texts], tmp_path / "out", config_of(engine, num_sentences=2))
    with pytest.raises(ConfigError, match=f"was made with other {next(iter(change))}; give the same"):
        synthesize([texts], tmp_path / "out", config_of(engine, **change))
    texts.write_text("these are other sentences\n")
    with pytest.raises(ConfigError, match="was made with other sentences"):
        synthesize([texts], tmp_path / "out", config_of(engine))


def test_recordings_that_fail_are_named_and_counted(engine, texts, tmp_path, capsys):
    texts.write_text("this will fail\nthis is mute\nthis is fine\n")
    arguments = ["corpus", "synthesize", str(texts), "-o", str(tmp_path / "out"), "--engine", engine, "--voices", "3"]
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert "1 recordings (0.00 h), 1 of them new" in output.out
    assert "'this will fail' is left out: no such word" in output.err
    assert "'this is mute' is left out: its output is silent" in output.err


def test_an_engine_that_always_fails_stops_the_run(texts, tmp_path):
    with pytest.raises(ConfigError, match="failed for all of 12 sentences: exit code 1"):
        synthesize([texts], tmp_path / "out", config_of("false {text} {out} {voice}", sentences_per_block=12))
    with pytest.raises(ConfigError, match="nothere cannot be run"):
        synthesize([texts], tmp_path / "out", config_of("nothere {text} {out} {voice}"))
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    slow = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(9)' {{text}} {{out}} {{voice}}"
    config = config_of(slow, sentences_per_block=10, timeout_seconds=0.05)
    with pytest.raises(ConfigError, match=r"no result after 0\.05 s"):
        synthesize([texts], tmp_path / "out", config)


def test_fields_inside_a_sentence_are_not_replaced_and_no_shell_runs(tmp_path):
    program = tmp_path / "echo.py"
    program.write_text("import sys; sys.exit(repr(sys.argv[1]))")
    path = tmp_path / "sentences.txt"
    path.write_text("say {out} $(date); rm\n")
    command = f"{shlex.quote(sys.executable)} -S {program} {{text}} {{out}}"
    made = synthesize([path], tmp_path / "out", SynthesisConfig(engine=command))
    assert made.failed == {"say {out} $(date); rm": "'say {out} $(date); rm'"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tts {text}"}, "expected espeak or a command with {text} and {out}"),
        ({"engine": "tts {text} {out}", "voices": ("a",)}, "the command has no {voice}"),
        ({"speed": (1.2, 0.8)}, "speed: expected two numbers"),
        ({"min_words": 9, "max_words": 8}, "min_words: 9 is above max_words, 8"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(ConfigError) as error:
        SynthesisConfig(**options)
    assert message in str(error.value)


def test_texts_without_a_usable_sentence_are_refused(texts, tmp_path):
    with pytest.raises(CorpusError, match="none of 14 lines has 50 to 60 words"):
        read_sentences([texts], SynthesisConfig(min_words=50, max_words=60))
    with pytest.raises(CorpusError, match="nothere"):
        read_sentences([tmp_path / "nothere.txt"], SynthesisConfig())


def test_the_order_and_draws_follow_from_the_seed():
    sentences = [f"sentence number {i}" for i in range(50)]
    config = SynthesisConfig(engine="tts {text} {out} {voice}", voices=("a", "b", "c"), sentences_per_block=4)
    first = plan_blocks(sentences, config)
    assert first == plan_blocks(sentences, config)
    assert first[:5] == plan_blocks(sentences[:20], config)  # more sentences do not change earlier ones
    assert all({job.voice for block in first[i : i + 3] for job in block} == {"a", "b", "c"} for i in range(0, 12, 3))
    assert all(0.85 <= job.speed <= 1.15 and 0.8 <= job.pitch <= 1.2 for block in first for job in block)
    assert len({job.seed for block in first for job in block}) == 50


@needs_espeak
def test_espeak_speaks_with_voices_of_the_language(tmp_path):
    assert {voice.split("+")[0] for voice in list_voices("de")} == {"de"}
    assert "en-us+f2" in list_voices("en")
    with pytest.raises(ConfigError, match="espeak-ng has no 'xx'"):
        list_voices("xx")
    path = tmp_path / "sentences.txt"
    path.write_text("guten morgen\nwie geht es dir\nhier ist das wetter\n")
    out = tmp_path / "out"
    made = synthesize([path], out, SynthesisConfig(language="de", sentences_per_block=2, sample_rate=8000))
    assert made.recordings == 3
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all(0.3 < row["duration"] < 5 and row["text_source"] == "synthetic" for row in rows)
    assert rows[0]["speaker"] == rows[1]["speaker"] != rows[2]["speaker"]
    before = (out / rows[1]["audio_filepath"]).read_bytes()
    (out / "manifest.jsonl").write_text(json.dumps(rows[0]) + "\n")  # the block is made again as a whole
    synthesize([path], out, SynthesisConfig(language="de", sentences_per_block=2, sample_rate=8000))
    assert (out / rows[1]["audio_filepath"]).read_bytes() == before
    path.write_text("".join(f"hallo nummer {i}\n" for i in range(10)))
    with pytest.raises(ConfigError, match="failed for all of"):
        synthesize([path], tmp_path / "no", SynthesisConfig(voices=("de+nobody",)))
