"""Engines: the same log-probabilities from torch and ONNX Runtime, the choice, the cache of graphs, refusals."""

import os
import stat
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from speechrnn.cli.main import main
from speechrnn.errors import ConfigError
from speechrnn.model_folder import load_model, save_model
from speechrnn.model_folder.content import ENGINES_FOLDER
from speechrnn.recognition import engines
from speechrnn.recognition.output_folder import fingerprint_model
from speechrnn.recognition.recognizer import Recognizer, load

needs_int8 = pytest.mark.skipif(not engines.has_native_int8(), reason="no instructions for int8")
needs_bfloat16 = pytest.mark.skipif(
    not engines.has_native_bfloat16(torch.device("cpu")), reason="no instructions for bfloat16"
)
KINDS = {
    "gru": {"cell": "gru", "initial_state": "learned"},
    "lstm": {"cell": "lstm", "subsampling": "convolution"},
    "unidirectional": {"cell": "lstm", "bidirectional": False, "lookahead_frames": 2},
    "final state": {"cell": "gru", "output": "final_state"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def make_batch(make_recording):
    def make(*seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
        waves = [torch.from_numpy(make_recording(each, seed=seed)) for seed, each in enumerate(seconds)]
        lengths = torch.tensor([len(each) for each in waves])
        return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths

    return make


def assert_close(found, expected, tolerance):
    assert found.lengths.tolist() == expected.lengths.tolist()
    for ours, theirs, length in zip(found.log_probs, expected.log_probs, found.lengths.tolist(), strict=True):
        torch.testing.assert_close(ours[:length], theirs[:length], rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_computes_what_torch_computes(kind, make_tiny_model, make_batch):
    model = make_tiny_model(**KINDS[kind])
    waves, lengths = make_batch(0.7, 0.0, 1.5, 0.3)
    reference, recognizer = Recognizer(model, device="cpu"), Recognizer(model, device="cpu", backend="onnx")
    state = torch.randn(model.acoustic.encoder.stack.state_shape)
    for options in ({}, {"state": state, "return_state": True}):
        found, expected = (each.emissions(waves, lengths, **options) for each in (recognizer, reference))
        assert_close(found, expected, 1e-4)
    torch.testing.assert_close(found.state, expected.state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_do_not_matter_in_groups_and_threads(threads, make_tiny_model, make_batch):
    recognizer = Recognizer(make_tiny_model(cell="gru"), device="cpu", backend="onnx")
    waves, lengths = make_batch(*(0.2 + 0.07 * (7 * number % 19) for number in range(19)))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = recognizer.emissions(waves, lengths)
    finally:
        torch.set_num_threads(before)
    for number in (0, 7, 18):
        alone = recognizer.emissions(waves[number : number + 1, : lengths[number]], lengths[number : number + 1])
        count = int(alone.lengths)
        assert count == together.lengths[number]
        torch.testing.assert_close(together.log_probs[number, :count], alone.log_probs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [pytest.param("bfloat16", 0.3, marks=needs_bfloat16), pytest.param("int8", 1.2, marks=needs_int8)],
)
def test_lower_precision_is_close_and_leaves_the_model_as_it_is(precision, tolerance, make_tiny_model, make_batch):
    model = make_tiny_model(cell="lstm")
    waves, lengths = make_batch(1.0, 2.0)
    expected = Recognizer(model, device="cpu").emissions(waves, lengths)
    found = Recognizer(model, device="cpu", precision=precision).emissions(waves, lengths)
    assert_close(found, expected, tolerance)
    assert not torch.equal(found.log_probs, expected.log_probs)
    assert torch.equal(Recognizer(model, device="cpu").emissions(waves, lengths).log_probs, expected.log_probs)


@needs_bfloat16
def test_what_an_engine_does_not_do_the_model_does(make_tiny_model, make_batch):
    model = make_tiny_model(cell="lstm")
    waves, lengths = make_batch(0.5)
    found, expected = (
        Recognizer(model, device="cpu", precision=precision).emissions(waves, lengths, return_state=True)
        for precision in ("bfloat16", "float32")
    )
    assert torch.equal(found.state, expected.state)


@pytest.mark.parametrize(("cell", "engine"), [("gru", "onnx float32"), ("lstm", None)])
def test_auto_begins_with_torch_and_takes_the_faster_engine_after_a_minute(
    cell, engine, make_tiny_model, make_recording
):
    model = make_tiny_model(cell=cell)
    recognizer, reference = (Recognizer(model, device="cpu", backend=backend) for backend in ("auto", "torch"))
    names = []
    for seconds in (1.0, 20.0, 50.0, 1.0):
        recording = make_recording(seconds)
        found, expected = (each.transcribe(recording, sample_rate=8000) for each in (recognizer, reference))
        assert found.text == expected.text
        names.append(None if recognizer._faster is None else recognizer._faster.name)
    assert names == [None, None, engine, engine]
    waves = torch.from_numpy(recording)[None]
    found, expected = (each.emissions(waves, [len(recording)]) for each in (recognizer, reference))
    assert torch.equal(found.log_probs, expected.log_probs)  # those who build on them get the model's own


@pytest.mark.parametrize("library", ["onnxruntime", "onnx"])
def test_without_a_library_auto_takes_torch_and_onnx_says_what_to_install(library, make_tiny_model, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("speechrnn.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    model = make_tiny_model(cell="gru")
    assert engines.choose_engine(model, torch.device("cpu")) is None
    with pytest.raises(ConfigError, match=rf"^backend onnx: needs {library}; pip install 'speechrnn\[onnx\]'$"):
        Recognizer(model, device="cpu", backend="onnx")


def find_cached(folder: Path) -> list[Path]:
    return sorted((folder / ENGINES_FOLDER).glob("*"))


@pytest.fixture
def built(monkeypatch):
    """Counts the graphs that are built."""
    from speechrnn.export import build

    made, original = [], build.build_encoder_graph

    def count(*arguments, **options):
        made.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(build, "build_encoder_graph", count)
    return made


def test_a_graph_is_built_once_for_equal_weights_and_again_if_its_file_is_damaged(
    make_tiny_model, tmp_path, built, make_batch
):
    folder = tmp_path / "model"
    save_model(folder, make_tiny_model(cell="gru"))
    expected = load(folder, device="cpu", backend="onnx").emissions(*make_batch(0.5)).log_probs
    [path] = find_cached(folder)
    load(folder, device="cpu", backend="onnx")
    assert len(built) == 1
    for damage in (b"", path.read_bytes()[:-7], path.read_bytes()[:-1] + b"?"):
        path.write_bytes(damage)
        found = load(folder, device="cpu", backend="onnx").emissions(*make_batch(0.5)).log_probs
        assert torch.equal(found, expected)
    assert len(built) == 4
    assert find_cached(folder) == [path]
    other = make_tiny_model(cell="gru", seed=3)
    save_model(folder, other)  # what was made of the old model is not in its way
    assert find_cached(folder) == []
    load(folder, device="cpu", backend="onnx")
    assert find_cached(folder) != [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_has_its_graphs_in_the_users_cache(make_tiny_model, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, make_tiny_model(cell="gru"))
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    load(folder, device="cpu", backend="onnx")
    folder.chmod(stat.S_IRWXU)
    assert len(find_cached(tmp_path / "cache" / "speechrnn")) == 1


def test_without_a_place_for_graphs_they_are_not_kept(make_tiny_model, tmp_path, built, monkeypatch):
    folder = tmp_path / "model"
    save_model(folder, make_tiny_model(cell="gru"))
    (folder / ENGINES_FOLDER).write_text("in the way")
    load(folder, device="cpu", backend="onnx")
    [_] = find_cached(tmp_path / "cache" / "speechrnn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ENGINES_FOLDER))
    load(folder, device="cpu", backend="onnx")
    load(folder, device="cpu", backend="onnx")
    assert len(built) == 3


def test_a_cached_graph_does_not_make_it_another_model(make_tiny_model, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, make_tiny_model(cell="gru"))
    before = fingerprint_model(str(folder))
    load(folder, device="cpu", backend="onnx")
    assert fingerprint_model(str(folder)) == before


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("gru", {"backend": "tensorrt"}, "backend 'tensorrt': expected one of auto, torch, onnx"),
        ("gru", {"precision": "int4"}, "precision 'int4': expected one of auto, float32, bfloat16, int8"),
        ("lstm", {"backend": "torch", "precision": "int8"}, "precision int8: needs backend onnx, got torch"),
        ("lstm", {"backend": "onnx", "precision": "bfloat16"}, "precision bfloat16: needs backend torch, got onnx"),
        (
            "gru",
            {"precision": "int8"},
            "precision int8: is only for LSTMs, and this model has encoder.cell gru",
        ),
        ("gru", {"precision": "bfloat16"}, "precision bfloat16: is only for LSTMs"),
    ],
)
def test_an_engine_that_there_is_not_is_refused(cell, options, message, make_tiny_model):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Recognizer(make_tiny_model(cell=cell), device="cpu", **options)


@pytest.mark.parametrize(("precision", "check"), [("int8", "has_native_int8"), ("bfloat16", "has_native_bfloat16")])
def test_a_processor_without_the_instructions_is_refused(precision, check, make_tiny_model, monkeypatch):
    monkeypatch.setattr(engines, check, lambda *device: False)
    with pytest.raises(ConfigError, match=f"^precision {precision}: this processor has no instructions for it"):
        Recognizer(make_tiny_model(cell="lstm"), device="cpu", precision=precision)


def test_engines_for_the_cpu_are_refused_on_a_gpu(make_tiny_model):
    model, gpu = make_tiny_model(cell="lstm").acoustic, torch.device("cuda")
    for backend, precision in (("onnx", "auto"), ("auto", "int8"), ("auto", "bfloat16")):
        with pytest.raises(ConfigError, match="is for the CPU; use device cpu"):
            engines.check_choice(model, gpu, backend, precision)


def test_a_stream_refuses_another_engine(make_tiny_model):
    model = make_tiny_model(cell="gru", bidirectional=False, normalization="none")
    with pytest.raises(ConfigError, match="^stream: computes with torch in float32; onnx float32 is for whole"):
        Recognizer(model, device="cpu", backend="onnx").stream()


def test_the_command_takes_backend_and_precision(tiny_model_folder, make_recording, tmp_path, capsys):
    soundfile.write(tmp_path / "tones.wav", make_recording(2.0), 8000)
    command = ["transcribe", str(tmp_path / "tones.wav"), "-m", str(tiny_model_folder), "--device", "cpu"]
    texts = []
    for options in ([], ["--backend", "onnx", "--precision", "float32"]):
        assert main([*command, *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != "\n"
    assert main([*command, "--precision", "int8"]) == 2
    assert capsys.readouterr().err.startswith("speechrnn: error: precision int8: is only for LSTMs")


def test_loading_keeps_the_engine_of_each_member(make_tiny_model, tmp_path):
    for seed in (1, 2):
        save_model(tmp_path / str(seed), make_tiny_model(cell="gru", seed=seed))
    ensemble = load([tmp_path / "1", tmp_path / "2"], device="cpu", backend="onnx")
    assert [member._chosen.name for member in ensemble.members] == ["onnx float32"] * 2
    assert load_model(tmp_path / "1").path == tmp_path / "1"
