"""Exported models without torch: their transcripts are those of the originals."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from speechrnn.errors import AudioError, ConfigError, ModelError
from speechrnn.export.build import build_graph
from speechrnn.export.describe import describe_model
from speechrnn.export.export import export_onnx
from speechrnn.language.arpa import write_arpa
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.lite import load
from speechrnn.lite.__main__ import main
from speechrnn.model_folder.additions import Calibration
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.text.sentencepiece_tokens import SentencePieceTokens
from speechrnn.types import Waveform

BLOCKED = ("torch", "lightning", "torchaudio", "lhotse", "numba", "soxr", "librosa", "scipy", "onnx", "rich")
BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Block())
"""


def export(model, path, **changes):
    """Write a model as an ONNX file; ``changes`` replace texts of its description."""
    described = {**describe_model(model).pack(), **{f"speechrnn.{name}": value for name, value in changes.items()}}
    path.write_bytes(build_graph(model.acoustic, metadata=described))
    return path


@pytest.fixture(scope="module")
def model(make_tiny_model):
    calibrations = {"greedy": Calibration(0.5, -1.0)}
    provenance = {"languages": ["en"], "training": {"hours_of_speech": 0.01, "utterances": 9}}
    return replace(make_tiny_model(), calibrations=calibrations, provenance=provenance)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("exported") / "tiny.onnx")


@pytest.fixture(scope="module")
def pair(model, exported):
    """The original, and the exported model without torch, under one name."""
    return Recognizer(replace(model, name=str(exported)), device="cpu"), load(exported)


def check_equal(found, expected):
    """Equal transcripts, confidences and scores within rounding."""
    assert expected.text
    rounded = json.loads(expected.to_json(), parse_float=lambda text: pytest.approx(float(text), abs=2e-3))
    assert json.loads(found.to_json()) == rounded
    assert [(word.text, word.start, word.end) for word in found.words] == [
        (word.text, word.start, word.end) for word in expected.words
    ]
    assert found.to_srt() == expected.to_srt()


@pytest.mark.parametrize(
    "options",
    [{}, {"decoder": "beam", "nbest": 3}, {"hotwords": {"fox quick": 4.0}}, {"words": ["the", "fox"]}],
    ids=["greedy", "beam", "hotwords", "words"],
)
def test_transcripts_are_those_of_the_original(pair, make_recording, options):
    original, lite = pair
    recordings = [Waveform(make_recording(seconds, seed=5), 8000) for seconds in (2.0, 0.7, 1.1)]
    for found, expected in zip(
        lite.transcribe_many(recordings, **options), original.transcribe_many(recordings, **options), strict=True
    ):
        check_equal(found, expected)


def test_a_language_model_changes_the_text_as_with_the_original(pair, make_recording, tmp_path):
    write_arpa(
        tmp_path / "lm.arpa",
        build_ngram([each.split() for each in ("the quick fox", "the fox", "quick quick")] * 5, order=2),
    )
    options = {"language_model": tmp_path / "lm.arpa", "language_weight": 2.0}
    recording = Waveform(make_recording(2.0, seed=5), 8000)
    original, lite = (each.transcribe(recording, **options) for each in pair)
    check_equal(lite, original)
    assert lite.text != pair[1].transcribe(recording).text


@pytest.mark.parametrize("options", [{"cut": "windows", "context_seconds": 1.0}, {"cut": "vad"}])
def test_long_recordings_are_cut_as_with_the_original(pair, make_recording, options):
    recording = Waveform(make_recording(21.0, seed=1), 8000)
    original, lite = (each.transcribe(recording, max_seconds=6.0, **options) for each in pair)
    check_equal(lite, original)


@pytest.fixture(scope="module")
def streaming(make_tiny_model, tmp_path_factory):
    """A unidirectional model, and the same exported as a graph for streams, without torch."""
    path = tmp_path_factory.mktemp("streaming") / "stream.onnx"
    options = {"bidirectional": False, "lookahead_frames": 3, "normalization": "none"}
    model = replace(make_tiny_model(**options), name=str(path))
    export_onnx(model, path, streaming=True)
    return Recognizer(model, device="cpu"), load(path)


@pytest.mark.parametrize("options", [{}, {"endpoints": True}, {"decoder": "beam"}], ids=["greedy", "endpoints", "beam"])
def test_a_stream_has_the_text_of_the_original(streaming, make_recording, options):
    samples = make_recording(7.0, seed=2)
    samples[20_000:48_000] = 0.0
    original, lite = (each.stream(**options) for each in streaming)
    for first in range(0, len(samples), 3001):
        for stream in (original, lite):
            stream.feed(samples[first : first + 3001])
    early, expected = lite.partial.text, original.final()
    check_equal(lite.final(), expected)
    assert len(early) > 0.9 * len(expected.text)


def test_a_graph_for_streams_transcribes_files_too(streaming, make_recording):
    recordings = [Waveform(make_recording(seconds, seed=4), 8000) for seconds in (1.0, 2.5)]
    original, lite = (list(each.transcribe_many(recordings)) for each in streaming)
    for found, expected in zip(lite, original, strict=True):
        check_equal(found, expected)


def test_a_model_for_whole_recordings_has_no_stream(pair):
    with pytest.raises(ConfigError, match="exported for whole recordings; export it with --streaming"):
        pair[1].stream()


def test_subword_tokens_need_no_sentencepiece(make_tiny_model, make_recording, tmp_path):
    tokens = SentencePieceTokens.build(["the quick fox jumps over the lazy dog"] * 3, vocabulary_size=26)
    model = make_tiny_model(tokens=tokens)
    path = export(model, tmp_path / "subwords.onnx")
    recording = Waveform(make_recording(2.0), 8000)
    lite = load(path)
    check_equal(
        lite.transcribe(recording), Recognizer(replace(model, name=str(path)), device="cpu").transcribe(recording)
    )
    with pytest.raises(ConfigError, match="words: an exported model does not encode text as sentencepiece tokens"):
        lite.transcribe(recording, words=["the"])


def test_without_torch_a_file_is_transcribed(pair, streaming, exported, make_recording, tmp_path):
    soundfile.write(tmp_path / "tones.wav", make_recording(2.0, seed=5), 8000, subtype="FLOAT")
    script = BLOCK + (
        "from speechrnn.lite import load\n"
        "print(load(sys.argv[1]).transcribe(sys.argv[2]).to_json(), end='')\n"
        "stream = load(sys.argv[3]).stream()\n"
        "assert stream.feed(stream._samples.values[:0]).text == ''\n"
        "assert not {'torch', 'numba', 'lightning'} & sys.modules.keys()\n"
    )
    arguments = [str(exported), str(tmp_path / "tones.wav"), streaming[1].name]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = json.loads(pair[1].transcribe(tmp_path / "tones.wav").to_json())
    assert json.loads(done.stdout) == expected
    assert expected["text"]


def test_without_torch_the_command_writes_files_and_names_what_is_missing(exported, make_recording, tmp_path):
    for name, rate in (("tones", 8000), ("fast", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", make_recording(2.0, seed=5, sample_rate=rate), rate)
    script = BLOCK + (
        "from speechrnn.lite.__main__ import main\n"
        "print([main([*sys.argv[1:], *more]) for more in ([], ['--resume'], ['--decoder', 'beam'])])\n"
    )
    arguments = [str(exported), str(tmp_path), "-o", str(tmp_path / "out"), "-f", "srt"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.stdout == "[1, 1, 2]\n", done.stderr
    assert "-->" in (tmp_path / "out" / "tones.srt").read_text()
    missing, *_, beam = done.stderr.splitlines()
    assert missing.endswith("fast.wav: needs soxr to resample 16000 Hz to 8000 Hz: pip install soxr")
    assert beam == ("speechrnn: error: decoder: a beam search needs numba: pip install numba, or choose decoder greedy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected an exported model, MODEL.onnx, first; see"),
        (["talk.wav", "tiny.onnx"], "expected an exported model, MODEL.onnx, first, got talk.wav"),
        (["missing.onnx", "talk.wav"], "missing.onnx: no such file; expected one that speechrnn export wrote"),
        (["text.onnx", "talk.wav"], "text.onnx: onnxruntime"),
        (["tiny.onnx", "talk.wav"], "talk.wav: no such file"),
        (["tiny.onnx", "talk.wav", "--device", "cuda"], "device cuda: an exported model runs on the CPU"),
        (["tiny.onnx", "talk.wav", "--speaker", "ann"], "speaker: an exported model has no speakers"),
        (["tiny.onnx", "talk.wav", "--consecutive"], "are_consecutive: an exported model has no state"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(exported, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "tiny.onnx").write_bytes(exported.read_bytes())
    (tmp_path / "text.onnx").write_text("not a model")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": "99"}, "newer speechrnn, format 99"),
        ({"token_kind": '"runes"'}, "token_kind 'runes': expected one of characters"),
        ({"encoder": "{}"}, "encoder.cell is missing"),
        ({"front_end": '{"sample_rate": 8000}'}, "front_end.compatibility is missing"),
        ({"calibrations": '{"greedy": {"slope": -1, "offset": 0}}'}, "slope"),
        ({"symbols": "[1, 2]", "spellings": '[[false, ""], [false, "a"]]'}, "symbol"),
    ],
)
def test_a_damaged_description_is_refused(model, tmp_path, change, message):
    path = export(model, tmp_path / "damaged.onnx", **change)
    with pytest.raises(ModelError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_too_short_a_recording_is_refused_with_the_least_length(pair):
    samples = np.zeros(20, np.float32)
    messages = []
    for recognizer in pair:
        with pytest.raises(AudioError, match="too short") as error:
            recognizer.transcribe(samples, sample_rate=8000)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_threads_and_device_are_checked(exported):
    with pytest.raises(ConfigError, match="threads: expected a whole number above 0, got 0"):
        load(exported, threads=0)
    with pytest.raises(ConfigError, match="device cuda:1"):
        load(exported, device="cuda:1")
