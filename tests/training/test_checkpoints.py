"""A run that was stopped anywhere ends where it would have ended, and what it wrote is whole or not there."""

import csv
import errno
import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration
from safetensors.torch import load_file
from stopping import StoppedError, stopped_in_call

from speechrnn.errors import ConfigError, CorpusError, SpeechRNNError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.model_folder import load_model
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.training.checkpoints import WholeCheckpointIO
from speechrnn.training.module import SpeechModule
from speechrnn.training.selection import BLANK_SHIFTS, average_weights, shift_blank, shift_blank_bias
from speechrnn.training.train import resume, train

pytestmark = pytest.mark.usefixtures("one_thread")
EPOCHS = 3
RUN = {
    **TONE_SETTINGS,
    "trainer.max_epochs": EPOCHS,
    "data.batch_seconds": 8,
    "encoder.dropout": 0.3,
    "augment.speed": [0.9, 1.0, 1.1],
    "augment.noise.probability": 0.5,
    "augment.warp.vocal_tract": 0.1,
    "augment.spec_augment.time_masks": 1,
    "ctc.consistency": 0.2,
    "checkpoints.best": 2,
    "checkpoints.average": True,
    "checkpoints.every_minutes": 0,
}


def count_calls(monkeypatch, method):
    original, calls = getattr(SpeechModule, method), []
    monkeypatch.setattr(SpeechModule, method, lambda self, *a: (calls.append(1), original(self, *a))[1])
    return calls


def read_released(output):
    return load_file(Path(output) / "model" / "model.safetensors")


def assert_same(first, second):
    assert set(first) == set(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def read_log(output, name):
    with (Path(output) / "logs" / "csv" / "metrics.csv").open() as file:
        return [row[name] for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture(scope="module")
def whole(one_thread, tmp_path_factory):
    """The run that nothing stops, and how many batches it trains on and validates."""
    configuration, handler = make_tone_configuration(tmp_path_factory.mktemp("whole")), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as monkeypatch:
        steps, validations = (count_calls(monkeypatch, name) for name in ("training_step", "validation_step"))
        output = configuration.parent / "run"
        train(configuration, {**RUN, "output": str(output)})
    assert len(steps) // EPOCHS >= 4
    assert signal.getsignal(signal.SIGTERM) is handler
    return configuration, output, len(steps), len(validations)


@pytest.mark.parametrize(
    ("method", "share", "workers"),
    [
        ("training_step", 0.0, 0),
        ("training_step", 0.34, 1),
        ("training_step", 0.67, 0),
        ("training_step", 0.99, 0),
        ("validation_step", 0.0, 0),
        ("validation_step", 0.5, 1),
        ("validation_step", 0.99, 0),
    ],
)
def test_a_run_stopped_anywhere_ends_with_the_same_weights(whole, tmp_path, monkeypatch, method, share, workers):
    configuration, output, steps, validations = whole
    count = steps if method == "training_step" else validations // 2  # the mean of the best is validated as well
    with stopped_in_call(1 + round(share * (count - 1)), method):
        train(configuration, {**RUN, "data.num_workers": workers, "output": str(tmp_path / "run")})
    assert not (tmp_path / "run" / "model").exists()
    done = count_calls(monkeypatch, "training_step")
    resume(tmp_path / "run")
    assert_same(read_released(tmp_path / "run"), read_released(output))
    if share >= 0.5:
        assert len(done) < steps  # it did not begin anew
    for name in ("train/loss_epoch", "valid/loss"):
        assert read_log(tmp_path / "run", name) == read_log(output, name)


@pytest.mark.parametrize("call", [10, 8], ids=["within-an-epoch", "at-its-start"])
def test_a_run_of_an_earlier_version_is_converted_and_continues_exactly(whole, tmp_path, caplog, call):
    """Such a checkpoint has its position in one place, and the counts of manual optimisation."""
    configuration, output, *_ = whole
    with stopped_in_call(call):
        train(configuration, {**RUN, "output": str(tmp_path / "run")})
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    kept = WholeCheckpointIO().load_checkpoint(last)
    loop = kept["loops"]["fit_loop"]
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    loop["epoch_loop.manual_optimization.optim_step_progress"] = {name: dict(steps["total"]) for name in steps}
    nothing = {name: dict.fromkeys(("ready", "completed"), 0) for name in steps}
    loop["epoch_loop.scheduler_progress"] = nothing
    loop["epoch_loop.automatic_optimization.optim_progress"] = {"optimizer": {"step": nothing, "zero_grad": nothing}}
    if call == 8:
        ended = {"ready": 2, "completed": 1, "started": 1, "processed": 1}
        loop["epoch_progress"] = {"total": ended, "current": ended}
    seconds = kept["callbacks"].pop("SaveProgress")["seconds"]
    kept["position"] = {**kept.pop("SpeechData"), "seconds": seconds, "logged_steps": call - 1}
    for name in ("tokens", "pronunciations", "carried"):
        del kept["speechrnn"][name]
    for name in ("hparams_name", "hyper_parameters"):
        del kept[name]
    WholeCheckpointIO().save_checkpoint(kept, last)
    with caplog.at_level("INFO", logger="speechrnn"):
        resume(tmp_path / "run")
    assert caplog.text.count("converted from an earlier version of speechrnn") == 1
    assert_same(read_released(tmp_path / "run"), read_released(output))
    assert read_log(tmp_path / "run", "train/loss_epoch") == read_log(output, "train/loss_epoch")


def test_a_run_stopped_again_and_again_ends_with_the_same_weights(whole, tmp_path):
    configuration, output, *_ = whole
    begin = lambda: train(configuration, {**RUN, "output": str(tmp_path / "run")})  # noqa: E731
    for _ in range(4):
        with stopped_in_call(5):
            begin()
        begin = lambda: resume(tmp_path / "run")  # noqa: E731
    begin()
    assert_same(read_released(tmp_path / "run"), read_released(output))


@pytest.fixture(scope="module")
def few_tones(tmp_path_factory):
    """A configuration with 24 utterances to train on and 6 to validate on, and a lexicon beside it."""
    configuration = make_tone_configuration(tmp_path_factory.mktemp("few"), train=24, valid=6)
    (configuration.parent / "lexicon.txt").write_text("low L OW\nmiddle M IH D L\nhigh HH AY\n", encoding="utf-8")
    return configuration


FEW = {**TONE_SETTINGS, "trainer.max_epochs": 2, "encoder.dropout": 0.3, "checkpoints.every_minutes": 0}
FEW["data.batch_seconds"] = 4


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer.schedule": "plateau", "optimizer.plateau_patience": 0, "trainer.max_epochs": 4},
        {"early_stopping_patience": 1, "trainer.max_epochs": 8, "optimizer.learning_rate": 1e-6},
        {"trainer.accumulate_grad_batches": 3},
        {"trainer.val_check_interval": 2},
        {"trainer.check_val_every_n_epoch": 2, "trainer.max_epochs": 4},
        {"encoder.cell": "lstm", "encoder.initial_state": "learned"},
        {"ctc.lexicon": "lexicon.txt", "ctc.intermediate_layers": [1], "encoder.num_layers": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_all_counters_of_a_run_are_resumed(few_tones, tmp_path, monkeypatch, settings):
    steps = count_calls(monkeypatch, "training_step")
    train(few_tones, {**FEW, **settings, "output": str(tmp_path / "whole")})
    with stopped_in_call(round(0.6 * len(steps))):
        train(few_tones, {**FEW, **settings, "output": str(tmp_path / "stopped")})
    resume(tmp_path / "stopped")
    assert_same(read_released(tmp_path / "stopped"), read_released(tmp_path / "whole"))
    assert read_log(tmp_path / "stopped", "valid/loss") == read_log(tmp_path / "whole", "valid/loss")


@pytest.mark.parametrize(
    ("signals", "others"),
    [([signal.SIGINT], 0), ([signal.SIGTERM, signal.SIGTERM], 0), ([], 1)],
    ids=["Ctrl-C", "SIGTERM-twice", "another-process"],
)
def test_an_interrupted_run_saves_and_logs_it(whole, tmp_path, monkeypatch, caplog, signals, others):
    """SIGTERM may come from a cluster and from a launcher; of two processes, only one may have received it."""
    configuration, output, *_ = whole
    original, calls = SpeechModule.training_step, []
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def interrupt(self, *arguments):
        calls.append(1)
        if len(calls) == 10:  # in mid-epoch
            for number in signals:
                os.kill(os.getpid(), number)
        return original(self, *arguments)

    def agree(values, device):
        return [values[0], values[-1] + others * (len(calls) >= 10)][-len(values) :]

    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="speechrnn"):
        patch.setattr(SpeechModule, "training_step", interrupt)
        patch.setattr("speechrnn.training.checkpoints.sum_over_processes", agree)
        settings = {**RUN, "checkpoints.every_minutes": 1000, "output": str(tmp_path / "run")}
        with pytest.raises(KeyboardInterrupt):
            train(configuration, settings)
    assert caplog.text.count("interrupted: saving after this batch") == bool(signals)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    position = WholeCheckpointIO().load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["SpeechData"]
    assert (position["epoch"], position["batches_done"]) == divmod(10, whole[2] // EPOCHS)
    resume(tmp_path / "run")
    assert_same(read_released(tmp_path / "run"), read_released(output))


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch, problem):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)

    class FullDisk(io.FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise problem

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode))
        with pytest.raises((SpeechRNNError, KeyboardInterrupt)):
            WholeCheckpointIO().save_checkpoint({"step": 2}, path)
    assert WholeCheckpointIO().load_checkpoint(path) == {"step": 1}


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"step": StoppedError()}, path)
    with pytest.raises(ConfigError, match="cannot read this checkpoint"):
        WholeCheckpointIO().load_checkpoint(path)


def stop_early(configuration, output):
    with stopped_in_call(6):
        train(configuration, {**RUN, "output": str(output)})


def test_a_run_is_not_resumed_on_other_data(tone_configuration, tmp_path):
    stop_early(tone_configuration, tmp_path / "run")
    manifest = tone_configuration.parent / "train.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ConfigError, match="data have changed since this run began"):
        resume(tmp_path / "run")


def test_an_unfinished_run_is_not_replaced_without_overwrite(tone_configuration, tmp_path):
    stop_early(tone_configuration, tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"holds an unfinished run; continue it with --resume .*, or replace it with --overwrite"
    ):
        train(tone_configuration, {**RUN, "output": str(tmp_path / "run")})


def test_a_finished_run_is_left_alone(whole, caplog):
    _, output, *_ = whole
    before = (output / "model" / "model.safetensors").stat().st_mtime_ns
    with caplog.at_level("INFO", logger="speechrnn"):
        result = resume(output)
    assert "this run is finished" in caplog.text
    assert (output / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert result.model == output / "model"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"version": 99, "finished": false, "configuration": {}, "folders": [], "provenance": {}}', "version 99"),
        (
            '{"version": 1, "finished": false, "configuration": {"no": 1}, "folders": [], "provenance": {}}',
            "unknown setting no",
        ),
    ],
)
def test_a_folder_without_a_run_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        resume(tmp_path)


def test_checkpoints_are_averaged_if_validation_improves(whole):
    _, output, *_ = whole
    names = sorted((output / "checkpoints").glob("epoch-*.safetensors"))
    assert len(names) == 2
    kept = [load_file(name) for name in names]
    mean = average_weights(kept)
    assert all(torch.allclose(mean[name], (kept[0][name] + kept[1][name]) / 2) for name in mean)
    released = read_released(output)
    assert any(all(torch.equal(released[name], candidate[name]) for name in released) for candidate in (*kept, mean))


def test_the_blank_shift_minimises_validation_errors(whole, tmp_path):
    """The released bias is the checkpoint's and the shift; no other shift that is tried has fewer word errors."""
    configuration, _, *_ = whole
    settings = {**RUN, "checkpoints.best": 1, "checkpoints.average": False, "trainer.max_epochs": 2}
    plain, shifted = (
        train(configuration, {**settings, "checkpoints.shift_blank": moves, "output": str(tmp_path / str(moves))})
        for moves in (False, True)
    )
    first, second = (load_model(result.model) for result in (plain, shifted))
    shift = second.provenance["training"]["blank_shift"]
    assert first.provenance["training"]["blank_shift"] == 0.0
    biases = [model.acoustic.head.projection.bias for model in (first, second)]
    assert float((biases[1][0] - biases[0][0]).detach()) == pytest.approx(shift, abs=1e-5)
    assert torch.equal(biases[0][1:], biases[1][1:])
    corpus = configuration.parent / "valid.jsonl"
    rates = {}
    for tried in (0.0, *BLANK_SHIFTS):
        with torch.no_grad():
            first.acoustic.head.projection.bias[0] += tried
            score = evaluate(Recognizer(first, device="cpu"), corpus).score
            rates[tried] = (score.wer, score.cer)
            first.acoustic.head.projection.bias[0] -= tried
    assert rates[shift][0] == min(wer for wer, cer in rates.values() if cer <= rates[0.0][1])
    assert shift != 0.0  # after two epochs it says too little
    assert shifted.valid_wer == pytest.approx(rates[shift][0])


def test_a_training_file_that_is_damaged_during_the_run_is_named_and_skipped(
    tone_configuration, tmp_path, monkeypatch, caplog
):
    broken = Path(tone_configuration.parent / "train.jsonl").read_text().splitlines()[3]
    name = broken.split('"audio_filepath": "')[1].split('"')[0]
    original = SpeechModule.training_step

    def break_file(self, batch, batch_idx):
        if self.current_epoch == 1:
            (tone_configuration.parent / name).write_bytes(b"gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpeechModule, "training_step", break_file)
    # What is kept in memory does not break.
    settings = {**RUN, "data.cache_gigabytes": 0, "output": str(tmp_path / "run")}
    result = train(tone_configuration, {**settings, "faults.unreadable_share": 0.1})
    assert [item.reason for item in result.left_out if "could not be read" in item.reason]
    assert caplog.text.count("skipped in training: ") == 1
    with pytest.raises(CorpusError):
        train(tone_configuration, {**settings, "output": str(tmp_path / "strict")})


def shift_with(make_tiny_model, monkeypatch, rate):
    """What _shift_blank chooses where validation says this of each shift, and by how much the bias moved."""
    acoustic = make_tiny_model().acoustic
    own = float(acoustic.head.projection.bias[0].detach())
    monkeypatch.setattr(
        "speechrnn.training.selection._validate", lambda module, data, shifts: [rate(each) for each in shifts]
    )
    chosen = shift_blank_bias(None, SimpleNamespace(model=acoustic), {**rate(0.0), "epoch": 3})
    return chosen, float(acoustic.head.projection.bias[0].detach()) - own


@pytest.mark.parametrize(
    ("likes", "spells", "expected"),
    [(-0.5, -0.5, -0.5), (0.3, 0.3, 0.25), (0.0, 0.0, 0.0), (1.0, 0.2, 0.25), (1.0, -0.2, 0.0)],
)
def test_the_best_blank_shift_without_more_character_errors_is_taken(
    make_tiny_model, monkeypatch, likes, spells, expected
):
    """Word errors are fewest at one shift and grow with the distance from it; character errors at another one."""

    def rate(shift):
        return {**dict.fromkeys(("wer", "rank", "loss"), abs(shift - likes)), "cer": abs(shift - spells)}

    chosen, moved = shift_with(make_tiny_model, monkeypatch, rate)
    assert (chosen["blank_shift"], chosen["epoch"]) == (expected, 3)
    assert moved == pytest.approx(expected, abs=1e-6)


def test_the_blank_is_not_shifted_if_only_the_loss_falls(make_tiny_model, monkeypatch):
    rate = lambda shift: {"wer": 0.0, "cer": 0.0, "loss": 2.0 - shift, "rank": (0.0, 2.0 - shift)}  # noqa: E731
    chosen, moved = shift_with(make_tiny_model, monkeypatch, rate)
    assert chosen["blank_shift"] == 0.0
    assert moved == 0.0


def test_shifting_the_blank_changes_its_bias(make_tiny_model):
    acoustic = make_tiny_model().acoustic.eval()
    waveforms, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    with torch.no_grad():
        shifted = shift_blank(acoustic(waveforms, lengths), -0.75)
        acoustic.head.projection.bias[0] -= 0.75
        torch.testing.assert_close(shifted.log_probs, acoustic(waveforms, lengths).log_probs)
