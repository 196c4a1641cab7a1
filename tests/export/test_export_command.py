"""``speechrnn export`` writes a file only if it has the output of the original."""

import dataclasses
import sys

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.cli.main import main
from speechrnn.errors import ConfigError, ModelError
from speechrnn.export import build
from speechrnn.export.check import ExportComparison, make_signal
from speechrnn.export.export import export_onnx
from speechrnn.export.metadata import open_session
from speechrnn.export.recurrent import LARGEST_INT8
from speechrnn.export.running import ExportedStream
from speechrnn.model_folder import save_model


def test_the_command_writes_a_model_and_says_what_it_was_compared_on(
    tiny_model_folder, make_recording, tmp_path, capsys
):
    audio, path = tmp_path / "tones.wav", tmp_path / "new" / "model.onnx"
    soundfile.write(audio, make_recording(2.0), 8000)
    arguments = ["export", "-m", str(tiny_model_folder), "--to", "onnx", "-o", str(path)]
    assert main([*arguments, "--audio", str(audio)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert f"compared on {audio}: log-probabilities within" in captured.err
    assert "same greedy text" in captured.err
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]
    session, metadata = open_session(path)
    assert (metadata.kind, metadata.int8_weights) == ("whole", 0)
    assert session.run(None, {"waveforms": np.zeros((1, 50), np.float32), "lengths": np.array([50])})[1].tolist() == [0]


def test_8_bit_weights_of_lstms_only(make_tiny_model, tmp_path, capsys):
    sizes = {}
    for cell in ("lstm", "gru"):
        save_model(tmp_path / cell, make_tiny_model(cell=cell, hidden_size=64))
        for options in ([], ["--int8"]):
            path = tmp_path / "model.onnx"
            assert main(["export", "-m", str(tmp_path / cell), "--to", "onnx", "-o", str(path), *options]) == 0
            sizes[cell, bool(options)] = path.stat().st_size, open_session(path)[1].int8_weights
            err = capsys.readouterr().err
            assert ("--int8 changed nothing" in err) == (cell == "gru" and bool(options))
    recurrent = 2 * 4 * 64 * (26 + 64) + 2 * 4 * 64 * (128 + 64)
    assert sizes["lstm", True][1] == recurrent
    assert sizes["lstm", False][0] - sizes["lstm", True][0] == pytest.approx(3 * recurrent, rel=0.05)
    assert sizes["gru", True] == sizes["gru", False]


def test_8_bit_weights_compute_what_their_rounded_values_do(make_tiny_model, make_recording, tmp_path):
    model = make_tiny_model(cell="lstm")
    samples = make_recording(2.0)
    inputs = {"waveforms": samples[None], "lengths": np.array([len(samples)])}
    export_onnx(model, tmp_path / "model.onnx", int8=True)
    found, _ = open_session(tmp_path / "model.onnx")[0].run(None, inputs)
    exact = model.acoustic(*(torch.from_numpy(each) for each in inputs.values())).log_probs.detach().numpy()
    for name, weights in model.acoustic.encoder.stack.named_parameters():
        if "weight_ih" in name or "weight_hh" in name:
            scale = weights.data.abs().amax(dim=1, keepdim=True) / LARGEST_INT8
            weights.data = (weights.data / scale).round() * scale
    rounded = model.acoustic(*(torch.from_numpy(each) for each in inputs.values())).log_probs.detach().numpy()
    # What remains is the rounding of activations.
    assert np.abs(found - rounded).mean() < 0.015 * np.abs(exact - exact.mean()).mean()


def test_an_output_that_differs_is_refused_and_the_old_file_stays(make_tiny_model, tmp_path, monkeypatch):
    model, path = make_tiny_model(), tmp_path / "model.onnx"
    path.write_text("old")
    monkeypatch.setattr(ExportComparison, "allowed", 0.0)
    with pytest.raises(ModelError, match="a built-in signal log-probabilities differ by .* so nothing was written"):
        export_onnx(model, path)
    assert path.read_text() == "old"


def test_a_wrong_weight_is_noticed(make_tiny_model, tmp_path, monkeypatch):
    model, make = make_tiny_model(), build.make_graph

    def spoil(acoustic, **options):
        with torch.no_grad():
            acoustic.head.projection.bias[3] += 0.01
            graph = make(acoustic, **options)
            acoustic.head.projection.bias[3] -= 0.01
        return graph

    monkeypatch.setattr(build, "make_graph", spoil)
    with pytest.raises(ModelError, match="so nothing was written"):
        export_onnx(model, tmp_path / "model.onnx")


def test_the_built_in_signal_is_always_the_same_and_has_pauses_and_sound():
    signal = make_signal(8000)
    assert (signal == make_signal(8000)).all()
    assert np.abs(signal).max() <= 1.0
    levels = np.sqrt(np.square(signal.reshape(-1, 400)).mean(axis=1))
    assert levels.max() > 0.1
    assert (levels < 1e-2).mean() > 0.05


def test_a_setting_that_cannot_be_exported_is_named(make_tiny_model, tmp_path):
    model = make_tiny_model()
    front_end = model.acoustic.front_end
    model.acoustic.front_end = type(front_end)(dataclasses.replace(front_end.config, compatibility="torchaudio"))
    with pytest.raises(ConfigError, match="front_end.compatibility torchaudio cannot be exported"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "tflite"], "invalid choice"),
        (["--to", "onnx", "--audio", "missing.wav"], "missing.wav"),
        (["--to", "onnx", "-o", "."], "is a folder"),
    ],
)
def test_wrong_requests_are_one_line(tiny_model_folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "-m", str(tiny_model_folder), "-o", "model.onnx", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_streaming_export_runs_in_pieces(make_tiny_model, make_recording, tmp_path, capsys):
    model = make_tiny_model(normalization="none", bidirectional=False, lookahead_frames=3)
    save_model(tmp_path / "model", model)
    path = tmp_path / "model.onnx"
    assert main(["export", "-m", str(tmp_path / "model"), "--to", "onnx", "--streaming", "-o", str(path)]) == 0
    assert "same greedy text" in capsys.readouterr().err
    session, metadata = open_session(path)
    assert metadata.kind == "step"
    samples = make_recording(2.0)
    stream = ExportedStream(session, metadata)
    found = np.concatenate([stream.feed(samples[:5000]), stream.feed(samples[5000:]), stream.finish()])
    expected = model.acoustic(torch.from_numpy(samples)[None], torch.tensor([len(samples)])).log_probs[0]
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-3)  # its head enlarges rounding


def test_a_whole_model_is_no_stream(tiny_model, tmp_path):
    export_onnx(tiny_model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="export it again with speechrnn export --streaming"):
        ExportedStream(*open_session(tmp_path / "model.onnx"))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_missing_library_is_one_line_that_names_the_extra(tiny_model, tmp_path, monkeypatch, library):
    for name in [name for name in sys.modules if name.startswith("speechrnn.export.")]:
        if name not in ("speechrnn.export.export", "speechrnn.export.metadata"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModelError, match=r"onnxruntime: pip install 'speechrnn\[onnx\]'$"):
        export_onnx(tiny_model, tmp_path / "model.onnx")
