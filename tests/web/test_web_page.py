"""The exported page in a headless browser: its text is Python's, and nothing leaves the page's own server."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, open_page, serve
from conftest import TONE_SETTINGS, make_tone_configuration, say_tones

from speechrnn.errors import ConfigError
from speechrnn.model_folder import load_model
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.training.train import train
from speechrnn.web.export import export_page
from speechrnn.web.runtime import FILES, read_runtime

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

DONE = "!document.getElementById('error').hidden || !document.getElementById('actions').closest('[hidden]')"
READY = "document.getElementById('status').textContent === 'Ready' || !document.getElementById('error').hidden"


@pytest.fixture(scope="module")
def onnxruntime_web(tmp_path_factory):
    """A folder of the npm package, from ``SPEECHRNN_ONNXRUNTIME_WEB`` or from npm."""
    try:
        content = read_runtime(os.environ.get("SPEECHRNN_ONNXRUNTIME_WEB"))
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name, target in FILES.items():
        (folder / name).write_bytes(content[target])
    return folder


@pytest.fixture(scope="module")
def make_page(onnxruntime_web, tmp_path_factory):
    """Export a model as a page; returns its folder."""

    def make(model, **options):
        folder = tmp_path_factory.mktemp("page")
        export_page(model, folder, onnxruntime_web=onnxruntime_web, **options)
        return folder

    return make


@pytest.fixture(scope="module")
def model(make_tiny_model):
    return replace(make_tiny_model(), name="runs/tiny/model")


@pytest.fixture(scope="module")
def page_folder(make_page, model):
    return make_page(model)


def write_tones(path, make_recording, seconds):
    samples = make_recording(seconds, seed=5)
    samples[len(samples) // 2 :][:4000] = 0.0
    soundfile.write(path, samples, 8000, subtype="PCM_16")
    return path


def transcribe(page, path):
    page.wait(READY)
    page.choose_file(path)
    page.wait(DONE)
    assert page.text("#error") == ""
    return page.text("#transcript")


def check_requests(page, url):
    outside = [each for each in page.requests if not each.startswith((url, "data:", f"blob:{url}"))]
    assert not outside
    assert any(each.endswith("model.onnx") for each in page.requests)
    assert not page.errors


@pytest.mark.parametrize("seconds", [3.0, 75.0])
def test_a_file_has_the_text_and_the_times_of_python(page_folder, model, make_recording, tmp_path, seconds):
    path = write_tones(tmp_path / "tones.wav", make_recording, seconds)
    expected = Recognizer(model, device="cpu").transcribe(path, cut="windows")
    with serve(page_folder) as url, open_page(url) as page:
        text = transcribe(page, path)
        titles = page.evaluate("Array.from(document.querySelectorAll('#transcript span'), (span) => span.title)")
        status = page.text("#status")
        check_requests(page, url)
    if seconds > 30:
        text = re.sub(r"\d\d:\d\d\s*", " ", text)
    assert text.split() == expected.text.split()
    assert titles == [
        f"{word.start:.2f} to {word.end:.2f} s, confidence {round(100 * word.confidence)} %" for word in expected.words
    ]
    found = re.fullmatch(rf"{len(expected.words)} words, {seconds:.1f} s of audio, transcribed in ([\d.]+) s", status)
    assert seconds < 30 or float(found[1]) < seconds / 5


def test_text_is_copied_and_the_next_file_replaces_it(page_folder, model, make_recording, tmp_path):
    recognizer = Recognizer(model, device="cpu")
    with serve(page_folder) as url, open_page(url) as page:
        for seconds in (2.0, 3.0):
            path = write_tones(tmp_path / "tones.wav", make_recording, seconds)
            page.wait(READY)
            text = transcribe(page, path)
            assert text == recognizer.transcribe(path).text
            page.evaluate("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }")
            page.click("#copy")
            page.wait("document.getElementById('status').textContent === 'Copied'")
            assert page.evaluate("copied") == text
            page.evaluate("document.getElementById('status').textContent = 'Ready'")


@pytest.fixture(scope="module")
def streaming_model(tmp_path_factory):
    """A unidirectional model that knows three tones by name."""
    folder = tmp_path_factory.mktemp("streaming")
    settings = {**TONE_SETTINGS, "encoder.bidirectional": False, "front_end.normalization": "corpus"}
    return train(make_tone_configuration(folder), {**settings, "output": str(folder / "run")}).model


KEEP_SAMPLES = """(() => {
  const send = Worker.prototype.postMessage;
  globalThis.kept = [];
  Worker.prototype.postMessage = function (message, ...rest) {
    if (message.samples) {
      kept.push(...message.samples);
    }
    return send.call(this, message, ...rest);
  };
})()"""


def record(page, *, seconds):
    """Record for some seconds; returns the text before the end, and the samples."""
    page.wait(READY)
    page.evaluate(KEEP_SAMPLES)
    page.click("#record")
    page.wait(f"/^Recording, 00:0[{seconds}-9]/.test(document.getElementById('status').textContent)")
    assert page.text("#record") == "Stop"
    partial = page.text("#transcript")
    page.click("#record")
    page.wait(DONE)
    assert page.text("#record") == "Record"
    assert page.text("#error") == ""
    return partial, np.float32(page.evaluate("kept"))


@pytest.mark.parametrize("is_live", [False, True], ids=["after the end", "live"])
def test_the_microphone_is_transcribed(make_page, tone_run, request, tmp_path, is_live):
    rng = np.random.default_rng(3)
    samples = np.concatenate([say_tones(["low", "high", "middle", "low"], rng) for _ in range(9)])
    soundfile.write(tmp_path / "said.wav", samples, 8000)
    model = load_model(request.getfixturevalue("streaming_model") if is_live else tone_run.model)
    with serve(make_page(model)) as url, open_page(url, microphone=tmp_path / "said.wav") as page:
        partial, recorded = record(page, seconds=4)
        check_requests(page, url)
        text = page.text("#transcript")
    expected = Recognizer(model, device="cpu").transcribe(recorded, sample_rate=8000)
    assert text == expected.text
    assert "high middle low low high" in text
    assert (text.startswith(partial) and "high middle" in partial) if is_live else partial == ""


def test_wrong_input_is_one_clear_line(page_folder, tmp_path):
    (tmp_path / "notes.wav").write_text("no sound")
    soundfile.write(tmp_path / "click.wav", np.zeros(40), 8000)
    with serve(page_folder) as url, open_page(url) as page:
        page.wait(READY)
        for name, message in {
            "notes.wav": "notes.wav: this browser cannot decode it; convert it to WAV, FLAC or MP3",
            "click.wav": "0.01 s is too short; this model needs at least 0.03 s",
        }.items():
            page.choose_file(tmp_path / name)
            page.wait("!document.getElementById('error').hidden")
            assert page.text("#error") == message
            assert page.text("#status") == "Ready"
        page.evaluate(
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
        )
        page.click("#record")
        page.wait("document.getElementById('error').textContent.startsWith('The microphone')")
        assert page.text("#error") == "The microphone is blocked; allow it in the browser's settings of this page"


def test_a_missing_model_is_named(page_folder, tmp_path):
    folder = shutil.copytree(page_folder, tmp_path / "copy")
    (folder / "model.onnx").unlink()
    with serve(folder) as url, open_page(url) as page:
        page.wait("!document.getElementById('error').hidden")
        assert page.text("#error") == "model.onnx: the server answers 404; copy the whole exported folder"
        assert page.text("#status") == "The model is not loaded"


def test_a_transcription_is_cancelled(page_folder, make_recording, tmp_path):
    path = write_tones(tmp_path / "long.wav", make_recording, 600.0)
    with serve(page_folder) as url, open_page(url) as page:
        page.wait(READY)
        page.choose_file(path)
        page.wait("!document.getElementById('cancel').hidden")
        page.click("#cancel")
        page.wait(READY)
        assert page.evaluate("document.getElementById('result').hidden")
        assert transcribe(page, write_tones(tmp_path / "short.wav", make_recording, 2.0))


def test_every_control_is_reached_by_keyboard_and_has_a_name(page_folder, make_recording, tmp_path):
    with serve(page_folder) as url, open_page(url) as page:
        transcribe(page, write_tones(tmp_path / "tones.wav", make_recording, 2.0))
        reached = []
        for _ in range(12):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(page.evaluate("document.activeElement.id"))
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    names = {(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"] and "name" in node}
    assert {"file", "record", "player", "copy", "save-txt", "save-srt", "save-vtt"} <= set(reached)
    for name in ("Choose a recording", "Record", "Copy text", "Save text", "Save SRT", "Save VTT"):
        assert ("button", name) in names
    assert {("heading", "Speech to text"), ("heading", "Transcript")} <= names


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_window(page_folder, make_recording, tmp_path, width):
    with serve(page_folder) as url, open_page(url) as page:
        transcribe(page, write_tones(tmp_path / "tones.wav", make_recording, 20.0))
        page.save_picture(tmp_path / "page.png", width=width, height=800)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_description_holds_no_path_of_this_machine(page_folder):
    about = json.loads((page_folder / "model.json").read_text())
    assert about["name"] == "tiny"
    assert str(page_folder.parent) not in json.dumps(about)
