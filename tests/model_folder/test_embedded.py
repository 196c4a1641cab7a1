"""Models that come with the package: found by name, checked, never changed; weights in float16."""

import shutil
from dataclasses import replace

import pytest
import torch

import speechrnn
from speechrnn.cli.main import main
from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_folder import embedded, load_model, save_model
from speechrnn.model_folder.embedded import list_embedded, write_digests
from speechrnn.recognition.context import measure_context
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.types import Waveform


@pytest.fixture
def package(tiny_model_folder, tmp_path, monkeypatch):
    """A package with one model, named english."""
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "models")
    monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)
    folder = tmp_path / "models" / "english"
    shutil.copytree(tiny_model_folder, folder)
    write_digests(folder)
    return folder


@pytest.fixture
def recording(make_recording, tmp_path):
    import soundfile

    path = tmp_path / "talk.wav"
    soundfile.write(path, make_recording(1.0), 8000)
    return path


def test_a_model_of_the_package_is_loaded_by_name(package, tiny_model_folder, monkeypatch, tmp_path):
    by_name, by_path = speechrnn.load("english"), speechrnn.load(tiny_model_folder)
    assert by_name.name == "english"
    for name, tensor in by_path.model.acoustic.state_dict().items():
        assert torch.equal(by_name.model.acoustic.state_dict()[name], tensor)
    shutil.copytree(tiny_model_folder, tmp_path / "here" / "english")
    monkeypatch.chdir(tmp_path / "here")  # a path goes before a name
    assert speechrnn.load("english").model.path == (tmp_path / "here" / "english").relative_to(tmp_path / "here")


def test_the_command_uses_it_without_a_model_and_says_so_once(package, recording, capsys, monkeypatch):
    assert main(["transcribe", str(recording), str(recording)]) == 0
    output = capsys.readouterr()
    assert output.err.count("no model is named, so english is used; choose another with -m or SPEECHRNN_MODEL") == 1
    assert main(["transcribe", str(recording), str(recording), "-m", "english"]) == 0
    named = capsys.readouterr()
    assert (named.out, named.err) == (output.out, "")
    shutil.rmtree(package)
    assert main(["transcribe", str(recording)]) == 2
    assert "no model: give -m M, or set SPEECHRNN_MODEL" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokens.json"])
def test_a_damaged_model_of_the_package_is_refused_in_one_line(package, recording, capsys, name):
    path = package / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["transcribe", str(recording)]) == 2
    assert f"error: model english: {name} is damaged; install speechrnn again" in capsys.readouterr().err
    path.unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_model("english")


@pytest.mark.parametrize(
    "command",
    [
        ["adapt", "-m", "english", "--speaker", "anna", "{recording}"],
        ["evaluate", "corpus.jsonl", "-m", "english", "--calibrate"],
        ["lm", "tune", "corpus.jsonl", "-m", "english", "--language-model", "lm.bin"],
    ],
)
def test_a_model_of_the_package_is_not_changed(package, recording, capsys, command):
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    assert main([word.format(recording=recording) for word in command]) == 2
    assert "model english: comes with speechrnn and is not changed; copy its folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before


def test_a_measured_context_is_not_stored_with_a_model_of_the_package(package, make_tiny_model, make_recording):
    recognizer = speechrnn.load("english")
    recording = Waveform(make_recording(30.0), 8000)
    with pytest.raises(ModelError, match="model english: comes with speechrnn and is not changed"):
        measure_context(recognizer, recording, save=True)
    assert not (package / "context.json").exists()
    with pytest.raises(ConfigError, match="save needs a model that was loaded from a folder"):
        measure_context(Recognizer(make_tiny_model(), device="cpu"), recording, save=True)


def test_a_list_of_models_names_a_damaged_one(package, capsys):
    (package / "config.json").write_text("{}")
    assert main(["models"]) == 2
    assert "model english: config.json is damaged" in capsys.readouterr().err


def test_models_are_listed(package, capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    parameters = f"{load_model('english').acoustic.num_parameters:,} parameters"
    assert printed.startswith("english: ")
    assert parameters in printed
    assert "used without -m" in printed
    files = [path for path in package.rglob("*") if path.is_file()]
    assert list_embedded()["english"].size == sum(path.stat().st_size for path in files)
    shutil.rmtree(package)
    assert main(["models"]) == 0
    assert "this speechrnn has no models" in capsys.readouterr().out


def test_weights_in_half_precision_take_half_the_space_and_are_those_of_a_rounded_model(tiny_model, tmp_path):
    save_model(tmp_path / "whole", tiny_model)
    save_model(tmp_path / "half", tiny_model, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.65 * sizes[1]  # names and shapes are not halved
    loaded = load_model(tmp_path / "half").acoustic.state_dict()
    for name, tensor in tiny_model.acoustic.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.half().float() if tensor.dtype == torch.float32 else tensor)


def test_weights_too_large_for_half_precision_are_refused_and_the_old_model_stays(make_tiny_model, tmp_path):
    model = make_tiny_model(seed=5)
    save_model(tmp_path / "model", model)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(model.acoustic.head.parameters())[0] = 1e6
    with pytest.raises(ModelError, match="values beyond float16; save it in float32"):
        save_model(tmp_path / "model", replace(model), half=True)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
