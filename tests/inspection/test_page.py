"""The page: it holds everything in itself, escapes what it is given, and works in a browser."""

import base64
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from conftest import say_tones

import speechrnn
from speechrnn.errors import SpeechRNNError
from speechrnn.inspection.inspect import inspect_recording
from speechrnn.inspection.page import to_page
from speechrnn.inspection.pictures import choose_rows, draw_inspection, to_png
from speechrnn.types import Waveform

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def inspection(tone_run):
    samples = say_tones(["low", "high", "middle"], np.random.default_rng(5))
    return inspect_recording(
        speechrnn.load(tone_run.model, device="cpu"), Waveform(samples, 8000), text="low low middle"
    )


@pytest.fixture(scope="module")
def page(inspection):
    return to_page(inspection)


def test_the_page_loads_nothing_from_the_network(page):
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert not re.findall(r"https?://(?!www\.w3\.org)", page)
    assert "@import" not in page


def test_the_page_plays_the_recording(page, inspection):
    data = base64.b64decode(re.search(r'data:audio/wav;base64,([^"]+)', page)[1])
    samples = np.frombuffer(data[44:], "<i2") / 32768
    np.testing.assert_allclose(samples, inspection.waveform.samples, atol=1e-4)


def test_there_is_a_panel_for_each_layer_and_a_button_for_each_word(page, inspection):
    names = re.findall(r"<b>([^<]+)</b>", page)
    assert names == [
        "waveform", f"{inspection.features.shape[1]} MFCCs", "layer 1 forward", "layer 1 backward",
        "CTC posteriors and best path", "hypothesis", "reference",
    ]  # fmt: skip
    words = re.findall(r'<button class="word (\w+)" style="left: ([\d.]+)%; width: ([\d.]+)%', page)
    assert [operation for operation, _, _ in words] == ["equal", "substitute", "equal"] * 2
    left, width = map(float, words[1][1:])
    word = inspection.hypothesis[1]
    assert left == pytest.approx(100 * word.start / inspection.seconds, abs=0.01)
    assert left + width == pytest.approx(100 * word.end / inspection.seconds, abs=0.01)
    assert "≠ high" in page
    assert "substituted for low" in page
    assert "1 of 3 words wrong" in page


def test_text_in_the_page_is_escaped(inspection):
    word = replace(inspection.hypothesis[0], text="<script>", other='"&')
    page = to_page(replace(inspection, name="/far/<b>.wav", model="/secret/runs/a/model", hypothesis=[word]))
    assert "<b>.wav" not in page.replace("&lt;b&gt;.wav", "")
    assert page.count("<script>") == 1
    assert "/far" not in page
    assert "/secret" not in page
    assert "a/model" in page


def test_rows_are_the_tokens_of_the_path_without_blank(inspection):
    rows = choose_rows(inspection)
    assert 0 not in rows
    assert {token for token, _, _ in inspection.path} <= set(rows)


def test_a_recording_with_only_blanks_has_a_page(inspection):
    blank = np.zeros_like(inspection.posteriors)
    blank[:, 0] = 1.0
    silent = replace(inspection, posteriors=blank, path=[], hypothesis=[], reference=None)
    assert "only blanks" in to_page(silent)
    assert to_png(draw_inspection(silent)).startswith(b"\x89PNG")


def test_the_picture_has_the_pages_panels_on_one_axis(inspection):
    figure = draw_inspection(inspection)
    assert len(figure.axes) == 2 + len(inspection.layers) + 3
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, inspection.seconds)}
    texts = [text.get_text() for axes in figure.axes[-2:] for text in axes.texts]
    assert texts == ["low", "≠ high", "middle", "low", "≠ low", "middle"]


def test_without_matplotlib_one_line_says_what_to_install(inspection, monkeypatch):
    monkeypatch.setattr("speechrnn.inspection.pictures.has_matplotlib", lambda: False)
    with pytest.raises(SpeechRNNError, match="pip install"):
        to_page(inspection)


ACT = """<script>
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
audio.addEventListener("loadedmetadata", () => {
  press("ArrowRight"); press("ArrowRight"); press("ArrowRight");
  const after = cursor.style.left;
  press("Home");
  const plot = document.querySelector(".plot"), box = stack.getBoundingClientRect();
  plot.dispatchEvent(new MouseEvent("click", {clientX: box.left + stack.clientWidth / 2, bubbles: true}));
  document.title = "moved " + parseFloat(after).toFixed(2) + " clicked " + parseFloat(cursor.style.left).toFixed(1)
    + " wide " + (document.documentElement.scrollWidth <= window.innerWidth);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("size", ["1280,900", "400,800"])
def test_keys_and_clicks_move_the_cursor_in_a_browser(page, inspection, tmp_path, size):
    path = tmp_path / "page.html"
    path.write_text(page.replace("</html>", ACT + "</html>"), encoding="utf-8")
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size}", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    moved, clicked, wide = re.fullmatch(r"moved ([\d.]+) clicked ([\d.]+) wide (\w+)", title).groups()
    assert float(moved) == pytest.approx(100 * 0.3 / inspection.seconds, abs=0.1)
    assert float(clicked) == pytest.approx(50.0, abs=0.5)
    assert wide == "true"  # the pictures scroll in their box, not the page
    assert "Uncaught" not in done.stderr
