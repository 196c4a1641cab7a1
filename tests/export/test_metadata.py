"""The description of an exported model, and what a reader says to files that are none."""

import json
import subprocess
import sys

import pytest

from speechrnn.errors import ModelError
from speechrnn.export.build import build_graph
from speechrnn.export.describe import describe_model
from speechrnn.export.metadata import Metadata, open_session, read_metadata


@pytest.fixture(scope="module")
def texts(tiny_model) -> dict[str, str]:
    return describe_model(tiny_model).pack()


@pytest.fixture(scope="module")
def content(tiny_model, texts) -> bytes:
    return build_graph(tiny_model.acoustic, metadata=texts)


def test_a_file_describes_its_model(content, tiny_model):
    _, metadata = open_session(content)
    assert metadata == describe_model(tiny_model)
    assert metadata.symbols == tiny_model.tokens.symbols
    assert [tuple(each) for each in metadata.spellings] == tiny_model.tokens.spellings
    acoustic = tiny_model.acoustic
    assert [acoustic.count_frames(metadata.least_samples - more) for more in (0, 1)] == [1, 0]


def test_reading_imports_no_torch(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    script = (
        "import sys\nfrom speechrnn.export.metadata import open_session\n"
        "_, metadata = open_session(sys.argv[1])\nassert metadata.sample_rate == 8000\n"
        "stray = {'torch', 'onnx', 'speechrnn.model_folder'} & set(sys.modules)\nassert not stray, stray\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": None}, "an ONNX file of another program"),
        ({"format_version": "2"}, "made by a newer speechrnn, format 2"),
        ({"format_version": "true"}, "expected a format_version of 1 or more, got True"),
        ({"symbols": "[1,"}, "the description of the model is damaged"),
        ({"symbols": None}, "the description of the model lacks symbols"),
        ({"symbols": '["<blank>"]'}, "expected two lists of one length"),
        ({"sample_rate": "0"}, "sample_rate: expected a number above 0, got 0"),
        ({"sample_rate": '"fast"'}, "sample_rate: expected a number above 0, got 'fast'"),
        ({"spellings": "0"}, "expected two lists of one length"),
        ({"calibrations": "[]"}, "calibrations: expected a mapping"),
    ],
)
def test_wrong_descriptions_are_one_line_that_names_the_file(texts, changes, message):
    changed = dict(texts)
    for name, value in changes.items():
        changed.pop(f"speechrnn.{name}")
        if value is not None:
            changed[f"speechrnn.{name}"] = value
    with pytest.raises(ModelError) as caught:
        read_metadata(changed, where="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_entries_are_ignored(texts):
    more = {**texts, "speechrnn.later": "1", "author": "not JSON"}
    assert read_metadata(more, where="m.onnx").sample_rate == json.loads(texts["speechrnn.sample_rate"])
    assert isinstance(read_metadata(more, where="m.onnx"), Metadata)


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "missing", "folder"])
def test_a_file_that_is_no_model_is_one_line(content, tmp_path, kind):
    path = tmp_path / "model.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello\n", "empty": b""}[kind])
    with pytest.raises(ModelError) as caught:
        open_session(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
