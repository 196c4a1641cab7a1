"""Words in time: where they were put in the recording, in every format, over pieces, and where they do not fit."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONES_HZ, say_tones

import speechrnn
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.cli.main import main
from speechrnn.errors import AudioError, ConfigError
from speechrnn.recognition.alignment import align, compute_log_probs
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.types import Waveform

WORDS = ["low", "high", "middle", "high", "low", "middle"]


@pytest.fixture
def recognizer(tone_run):
    return speechrnn.load(tone_run.model, device="cpu")


def say(words, seed=3):
    return say_tones(words, np.random.default_rng(seed))


def starts(count):
    """Pauses of 0.1 s, tones of 0.2 s."""
    return [0.1 + 0.3 * number for number in range(count)]


def test_words_are_aligned_where_they_are_spoken(recognizer):
    found = align(recognizer, say(WORDS), "Low high, middle high low middle!", sample_rate=8000)
    assert [word.text for word in found.words] == WORDS
    for word, start in zip(found.words, starts(len(WORDS)), strict=True):
        assert start - 0.1 < word.start < start + 0.25  # a bidirectional model of whole words spikes anywhere in them
        assert word.start < word.end
        assert word.confidence > 0.5
        assert [token.text for token in word.tokens] == [word.text]
    assert found.misfits == ()
    assert found.seconds == pytest.approx(len(say(WORDS)) / 8000)


def test_a_waveform_is_aligned_like_an_array(recognizer):
    array = align(recognizer, say(WORDS), " ".join(WORDS), sample_rate=8000)
    assert align(recognizer, Waveform(say(WORDS), 8000), " ".join(WORDS)).words == array.words


def test_text_that_is_not_spoken_is_located(recognizer):
    said = [*WORDS, *["high"] * 8, *WORDS]
    text = " ".join([*WORDS, *["low"] * 8, *WORDS])
    found = align(recognizer, say(said), text, sample_rate=8000)
    assert found.misfits
    first, last = found.misfits[0].start, found.misfits[-1].end
    assert 0.3 * 6 - 1.0 < first < last < 0.3 * 14 + 1.0  # measured over a second
    assert all(set(misfit.text.split()) & {"low"} for misfit in found.misfits)
    assert min(misfit.nats for misfit in found.misfits) > 2.5


def test_log_probs_in_pieces_equal_the_whole(tiny_model, make_recording, monkeypatch):
    """Of a model that forgets within a second and normalises nothing over a piece."""
    front_end = FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13, normalization="none")
    torch.manual_seed(0)
    acoustic = AcousticModel(front_end, tiny_model.acoustic.encoder.config, len(tiny_model.tokens))
    with torch.no_grad():
        for name, weights in acoustic.named_parameters():
            if "weight_hh" in name or "weight_ih" in name:
                weights.mul_(0.05)  # gates are open neither here nor there
    recognizer = Recognizer(replace(tiny_model, acoustic=acoustic), device="cpu")
    samples = make_recording(20.0)
    whole = recognizer.emissions(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    monkeypatch.setattr("speechrnn.recognition.alignment.PIECE_SECONDS", 3.0)
    monkeypatch.setattr("speechrnn.recognition.alignment.CONTEXT_SECONDS", 2.0)
    pieces = compute_log_probs(recognizer, samples)
    assert pieces.shape == tuple(whole.log_probs.shape[1:])
    np.testing.assert_allclose(pieces, whole.log_probs[0].numpy(), atol=1e-4)
    monkeypatch.setattr("speechrnn.recognition.alignment.CONTEXT_SECONDS", 1.0)
    for seconds in (5.9, 7.001, 9.0, 10.237):
        part = make_recording(seconds)
        rows = compute_log_probs(recognizer, part)
        assert len(rows) == recognizer.count_frames(len(part))


def test_within_a_word_a_token_lasts_until_the_next(tiny_model_folder, make_recording):
    found = align(
        speechrnn.load(tiny_model_folder, device="cpu"), make_recording(3.0), "The quick fox", sample_rate=8000
    )
    assert [[token.text for token in word.tokens] for word in found.words] == [[*"the"], [*"quick"], [*"fox"]]
    for word in found.words:
        assert (word.start, word.end) == (word.tokens[0].start, word.tokens[-1].end)
        for one, after in pairwise(word.tokens):
            assert one.end == after.start
    assert all(one.end <= after.start for one, after in pairwise(found.words))


def test_a_long_recording_is_aligned_in_pieces(recognizer, monkeypatch):
    monkeypatch.setattr("speechrnn.recognition.alignment.PIECE_SECONDS", 5.0)
    rng = np.random.default_rng(0)
    words = rng.choice(list(TONES_HZ), size=150).tolist()
    found = align(recognizer, say(words), " ".join(words), sample_rate=8000)
    errors = [abs(word.start - start) for word, start in zip(found.words, starts(len(words)), strict=True)]
    assert max(errors) < 0.3
    assert found.misfits == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("?!", "the text is empty"),
        ("low loud", "the text: .*loud"),
        ("low " * 500, "500 words in 1.9 s; check that the text belongs to this"),
    ],
)
def test_texts_that_cannot_be_aligned_are_refused(recognizer, text, message):
    with pytest.raises(ConfigError, match=message):
        align(recognizer, say(WORDS), text, sample_rate=8000)


def test_a_recording_without_a_frame_is_refused(recognizer):
    with pytest.raises(AudioError, match="too short"):
        align(recognizer, np.full(20, 0.1), "low", sample_rate=8000)


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "a clip.wav", say(WORDS), 8000)
    (tmp_path / "clip.txt").write_text("\ufeff" + " ".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path / "a clip.wav", tmp_path / "clip.txt"


def test_every_format_is_written(tone_run, clip, tmp_path, capsys):
    audio, text = clip

    def run(*arguments):
        assert main(["align", str(audio), str(text), "-m", str(tone_run.model), *arguments]) == 0
        return capsys.readouterr().out

    ctm = [line.split() for line in run().splitlines()]
    assert [line[4] for line in ctm] == WORDS
    assert {(line[0], line[1]) for line in ctm} == {("a_clip", "1")}
    kept = json.loads(run("-f", "json"))
    assert [word["text"] for word in kept["words"]] == WORDS
    assert kept["words"][0]["tokens"][0]["text"] == "low"
    assert kept["misfits"] == []
    assert "low high middle" in run("-f", "srt")
    output = tmp_path / "clip.TextGrid"
    assert run("-f", "textgrid", "-o", str(output)) == f"{output}\n"
    grid = output.read_text()
    assert re.findall(r'name = "(\w+)"', grid) == ["words", "tokens"]
    assert [word for word in re.findall(r'text = "(.*)"', grid) if word] == WORDS * 2
    tier = grid.split("item [2]:")[0].split("intervals: size")[1]
    edges = [float(edge) for edge in re.findall(r"xm(?:in|ax) = ([\d.]+)", tier)]
    assert edges == sorted(edges)
    assert edges[1:-1:2] == edges[2::2]  # without a gap


def test_the_text_may_be_an_argument_and_misfits_end_with_1(tone_run, clip, capsys):
    audio, _ = clip
    assert main(["align", str(audio), " ".join(WORDS), "-m", str(tone_run.model)]) == 0
    assert main(["align", str(audio), " ".join(["low"] * 6), "-m", str(tone_run.model)]) == 1
    said = capsys.readouterr().err
    assert re.search(r"speechrnn: warning: \d\.\d\d to \d\.\d\d s: the recording does not match 'low", said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.txt"], "no such text file"),
        (["low", "-f", "praat"], "invalid choice: 'praat'"),
        (["low", "-m", "gone"], "gone"),
    ],
)
def test_user_errors_end_with_one_line_and_exit_code_2(
    tone_run, clip, monkeypatch, tmp_path, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    argv = ["align", str(clip[0]), *arguments]
    assert main([*argv, *([] if "-m" in arguments else ["-m", str(tone_run.model)])]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
