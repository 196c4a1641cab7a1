"""The folder of a page: what is in it, what is refused, and the contrast of its colours."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from speechrnn.cli.main import main
from speechrnn.web import export, runtime
from speechrnn.web.export import PAGE_FILES, shorten_name

PAGE = Path(export.__file__).parent / "page"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder like the npm package's."""
    folder = tmp_path_factory.mktemp("npm") / "package"
    (folder / "dist").mkdir(parents=True)
    for name in runtime.FILES:
        (folder / name).write_bytes(name.encode())
    return folder


def run(*arguments):
    return main(["export", "--to", "web", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_the_folder_is_complete(package, tiny_model_folder, tmp_path, capsys, kind):
    source = package
    if kind == "archive":
        source = tmp_path / "package.tgz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(package, "package")
    page = tmp_path / "page"
    page.mkdir()
    (page / "stream.onnx").write_text("of an earlier model")
    assert run("-m", tiny_model_folder, "-o", page, "--onnxruntime-web", source) == 0
    output = capsys.readouterr()
    assert output.out == f"{page}\n"
    assert f"python -m http.server --directory {page}" in output.err
    assert {each.name for each in page.iterdir()} == {
        *PAGE_FILES,
        *runtime.FILES.values(),
        "model.onnx",
        "model.json",
    }
    assert {path.name for path in PAGE.iterdir()} == set(PAGE_FILES)
    assert (page / "onnxruntime-web.js").read_text() == "dist/ort.wasm.bundle.min.mjs"
    assert json.loads((page / "model.json").read_text())["stream"] is None


def test_what_cannot_be_written_is_one_line(package, tiny_model_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    model, given = ("-m", tiny_model_folder), ("--onnxruntime-web", package)
    requests = {
        (*model, "-o", tmp_path / "file", *given): "file is a file; name a folder",
        (*model, "-o", tmp_path / "a", "--onnxruntime-web", tmp_path): "not the npm package onnxruntime-web",
        (*model, "-o", tmp_path / "a", "--onnxruntime-web", tmp_path / "broken.tgz"): "broken.tgz: not the npm package",
        (*model, "-o", tmp_path / "a", "--onnxruntime-web", tmp_path / "none"): "none: not the npm package",
        (*model, "-o", tmp_path / "a", *given, "--streaming"): "encoder.bidirectional true has no streaming graph",
        (*model, "-o", tmp_path / "a", *given, "--to", "onnx"): "--onnxruntime-web: needs --to web",
        (*model, "-o", tmp_path / "a"): "npm is not installed; install it, or give --onnxruntime-web",
    }
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    for arguments, message in requests.items():
        assert run(*arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_failed_fetch_names_what_npm_said(tiny_model_folder, tmp_path, capsys, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network is unreachable' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: str(npm))
    assert run("-m", tiny_model_folder, "-o", tmp_path / "page") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "failed (npm error network is unreachable); try again, or give --onnxruntime-web" in line
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("runs/digits/model", "digits"), ("owner/english", "english"), ("/model", "unnamed"), (None, "unnamed")],
)
def test_a_page_names_its_model_without_folders(name, shown):
    assert shorten_name(name) == shown


def measure_luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    pairs = ["text page", "text card", "muted page", "muted card", "on-accent accent", "error error-page", "card error"]
    for pair in pairs:
        low, high = sorted(measure_luminance(colours[name]) for name in pair.split())
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def test_the_page_names_no_other_server():
    for path in PAGE.iterdir():
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", path.read_text()), path
    policy = re.search(r'content="(default-src[^"]*)"', (PAGE / "index.html").read_text())[1]
    assert policy.startswith("default-src 'self';")
