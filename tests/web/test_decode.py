"""The page's JavaScript against the Python that it follows: text, word times, confidences, windows, subtitles."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import speechrnn.web
from speechrnn.model_folder.additions import Calibration
from speechrnn.recognition.cutting import CutConfig, End, Piece
from speechrnn.recognition.joining import Assembly
from speechrnn.recognition.longform import cut_recording
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.subtitles import to_srt, to_vtt
from speechrnn.recognition.transcript import Segment, Word
from speechrnn.web.export import describe_page

PAGE = Path(speechrnn.web.__file__).parent / "page"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def decode(folder, about, log_probs, samples):
    """What the page makes of log-probabilities, (T', V), and samples."""
    (folder / "model.json").write_text(json.dumps(about))
    (folder / "log_probs.f32").write_bytes(np.ascontiguousarray(log_probs, np.float32).tobytes())
    (folder / "samples.f32").write_bytes(np.ascontiguousarray(samples, np.float32).tobytes())
    script = Path(__file__).parent / "decode_file.mjs"
    return json.loads(subprocess.check_output([NODE, script, PAGE, folder], text=True))


@pytest.fixture(scope="module")
def recognizer(make_tiny_model):
    model = replace(make_tiny_model(), calibrations={"greedy": Calibration(0.6, -0.4)})
    return Recognizer(model, device="cpu")


def make_speech(make_recording, seconds, seed):
    """Tones with pauses of silence and of noise, (N,), float32, 8 kHz."""
    rng = np.random.default_rng(seed)
    samples = make_recording(seconds, seed=seed)
    for begin in np.arange(0.5, seconds, 1.7):
        part = slice(round(begin * 8000), round((begin + rng.uniform(0.1, 0.9)) * 8000))
        samples[part] *= rng.choice([0.0, 0.003])
    return samples


@pytest.mark.parametrize(("seconds", "seed"), [(0.6, 0), (6.0, 1), (50.0, 2)])
def test_the_page_writes_the_transcript_of_the_recogniser(recognizer, make_recording, tmp_path, seconds, seed):
    samples = make_speech(make_recording, seconds, seed)
    expected = recognizer.transcribe(samples, sample_rate=8000, cut="windows")
    rows = [recognizer.emissions(samples[None], [len(samples)]).log_probs[0].numpy()]
    if seconds > 30:
        pieces = cut_recording(recognizer, None, [samples], CutConfig(cut="windows"), nbest=1)
        windows = [piece for piece in pieces if isinstance(piece, Piece)]
        decoder = recognizer.choose_decoder()
        rows = [recognizer._transcribe_batch([piece], decoder, None)[0][0] for piece in windows]
    found = decode(tmp_path, describe_page(recognizer.model), np.concatenate(rows), samples)
    if seconds > 30:
        assert [(each["start"], each["end"], each["first"] - each["start"]) for each in found["windows"]] == [
            (piece.start, piece.start + len(piece.samples), piece.used[0]) for piece in windows
        ]
    assert expected.text
    assert found["transcript"]["text"] == expected.text
    assert found["transcript"]["seconds"] == expected.seconds
    assert len(found["transcript"]["segments"]) == len(expected.segments)
    words = [word for segment in found["transcript"]["segments"] for word in segment["words"]]
    for word, wanted in zip(words, expected.words, strict=True):
        assert word["text"] == wanted.text
        assert [word["start"], word["end"]] == pytest.approx([wanted.start, wanted.end], abs=1e-6)
        assert word["confidence"] == pytest.approx(wanted.confidence, abs=1e-6)
    assert found["srt"] == expected.to_srt()
    assert found["vtt"] == expected.to_vtt()


@pytest.mark.parametrize("seed", range(3))
def test_long_recordings_with_pauses_have_the_segments_and_times_of_python(recognizer, tmp_path, seed):
    rng = np.random.default_rng(seed)
    step = round(recognizer.seconds_per_frame * 8000)
    tokens: list[int] = []
    while len(tokens) < 5000:  # 100 s
        tokens += [int(rng.integers(1, len(recognizer.tokens)))] * int(rng.integers(1, 4))
        tokens += [0] * int(rng.choice([0, 2, 8, 24, 26, 40, 74, 76, 130]))
    log_probs = np.full((len(tokens), len(recognizer.tokens)), -6.0, np.float32)
    log_probs[np.arange(len(tokens)), tokens] = -rng.uniform(0.01, 1.0, len(tokens))
    bursts = np.repeat(rng.choice([0.0004, 0.002, 0.05, 0.3], len(tokens) // 3 + 1), 3)[: len(tokens)]
    samples = (rng.standard_normal(len(tokens) * step) * bursts.repeat(step)).astype(np.float32)
    assembly = Assembly(recognizer, recognizer.choose_decoder())
    assembly.add(Piece(None, samples, 0, (0, len(samples))), [log_probs])
    expected = assembly.finish(End(None, len(samples) / 8000))
    found = decode(tmp_path, describe_page(recognizer.model), log_probs, samples)
    assert len(expected.segments) > 5
    assert [segment["text"] for segment in found["transcript"]["segments"]] == [each.text for each in expected.segments]
    words = [word for segment in found["transcript"]["segments"] for word in segment["words"]]
    times = [time for word in expected.words for time in (word.start, word.end)]
    assert [time for word in words for time in (word["start"], word["end"])] == pytest.approx(times, abs=1e-6)


def test_words_in_digital_silence_are_left_out(recognizer, make_recording, tmp_path):
    samples = make_recording(4.0, seed=3)
    log_probs = recognizer.emissions(samples[None], [len(samples)]).log_probs[0].numpy()
    samples[:] = 0.0
    assert decode(tmp_path, describe_page(recognizer.model), log_probs, samples)["transcript"]["text"] == ""


def test_subtitles_are_cut_and_escaped_as_in_python(tmp_path):
    rng = np.random.default_rng(0)
    script = (
        "import { readFileSync } from 'node:fs';"
        f"import {{ toSrt, toVtt }} from '{(PAGE / 'subtitles.js').as_uri()}';"
        "const segments = JSON.parse(readFileSync(0));"
        "console.log(JSON.stringify([toSrt(segments), toVtt(segments)]));"
    )
    segments = []
    time = 0.0
    for _ in range(40):
        words = []
        for _ in range(rng.integers(1, 40)):
            start = time + rng.choice([0.0, 0.05, 0.4, 1.4999, 1.6, 8.0])
            time = start + rng.choice([0.0, 0.0004, 0.3, 2.5, 9.0])
            text = "".join(rng.choice(list("ab<>&{}ü𝄞"), size=rng.choice([1, 3, 9, 41, 60])))
            words.append(Word(text, start, time, 0.5))
        segments.append(Segment(words[0].start, words[-1].end, "", tuple(words)))
    plain = [{"words": [vars(word) for word in segment.words]} for segment in segments]
    found = subprocess.run(
        [NODE, "--input-type=module", "-e", script], input=json.dumps(plain), capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == [to_srt(segments), to_vtt(segments)]
