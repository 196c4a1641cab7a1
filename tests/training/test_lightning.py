"""The user's own Trainer, callbacks, loggers and strategies, and every option of the Trainer."""

import csv
import json
import os

import lightning.pytorch as pl
import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from safetensors.torch import load_file
from stopping import stopped_in_call

import speechrnn
from speechrnn.corpus.readers import read_corpus
from speechrnn.errors import ConfigError
from speechrnn.text.scores import character_errors, word_errors
from speechrnn.training.config_file import load_config, make_trainer_options
from speechrnn.training.module import SpeechModule
from speechrnn.training.train import resume, train

pytestmark = pytest.mark.usefixtures("one_thread")
CALLBACKS = "lightning.pytorch.callbacks"


def make(path, **arguments):
    """A class in a configuration."""
    return {"class_path": path, "init_args": arguments}


SHORT = {**TONE_SETTINGS, "trainer.max_epochs": 2, "data.batch_seconds": 20}


@pytest.fixture(autouse=True)
def _distributed_state_is_restored():
    """Distributed training in this process leaves a process group and a port that child processes would inherit."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


class CountBatches(pl.Callback):
    """A callback as a user writes one; its count is part of a checkpoint."""

    def __init__(self, start: int = 0):
        self.count = start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.count += 1
        assert outputs["loss"].ndim == 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]


class Memo(Logger):
    """A logger of the test's own."""

    name, version = "memo", "0"

    def __init__(self, fails: bool = False):
        super().__init__()
        self.metrics, self.hyperparameters, self.fails = [], None, fails

    def log_metrics(self, metrics, step=None):
        if self.fails:
            raise ConnectionError("the server is gone")
        self.metrics.append(metrics)

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyperparameters = params


@pytest.fixture(scope="module")
def tones(one_thread, tmp_path_factory):
    return make_tone_configuration(tmp_path_factory.mktemp("tones"))


def make_own_trainer(folder, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**{**quiet, "default_root_dir": folder, "logger": False, "max_epochs": 2, **options})


@pytest.fixture(scope="module")
def own(tones, tmp_path_factory):
    """A run with a Trainer of the user's own: the module, the data, and a checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    config = load_config(tones, SHORT)
    module, data = speechrnn.SpeechModule(config), speechrnn.SpeechData(config, [tones.parent])
    trainer = make_own_trainer(folder, callbacks=[ModelCheckpoint(folder, monitor="valid/wer", filename="best")])
    trainer.fit(module, data)
    assert trainer.global_step > 0
    return module, data, folder / "best.ckpt"


def test_a_module_takes_the_path_of_a_yaml_file(tones, tmp_path):
    path = tones.parent / "short.yaml"
    path.write_text(json.dumps(load_config(tones, SHORT).to_dict()), encoding="utf-8")
    trainer = make_own_trainer(tmp_path, fast_dev_run=True)
    trainer.fit(speechrnn.SpeechModule(path), speechrnn.SpeechData(path))
    assert trainer.global_step == 1


def test_a_checkpoint_loads_without_other_files(own, tmp_path):
    module, data, path = own
    loaded = SpeechModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.config == module.config
    assert loaded.tokens.symbols == module.tokens.symbols
    kept = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, kept[name]) for name, value in loaded.state_dict().items())
    trainer = make_own_trainer(tmp_path)
    [rates] = trainer.validate(loaded, data, verbose=False)
    assert 0.0 <= rates["valid/wer"] <= 2.0


def test_test_sets_are_scored_and_transcribed_by_name(own, tones, tmp_path):
    module, _, _ = own
    config = load_config(tones, {**SHORT, "data.test": {"first": "test.jsonl", "second": "valid.jsonl"}})
    data = speechrnn.SpeechData(config, [tones.parent])
    tested = speechrnn.SpeechModule(config, module.model, module.tokens)
    trainer = make_own_trainer(tmp_path)
    rates = {name: value for each in trainer.test(tested, data, verbose=False) for name, value in each.items()}
    rates = {name.split("/dataloader")[0]: value for name, value in rates.items()}
    references = {each.id: each.text.lower().rstrip(".") for each in read_corpus(tones.parent / "test.jsonl")}
    texts = {id: text for batch in trainer.predict(tested, data)[0] for id, text in batch.items()}
    assert texts.keys() == references.keys()
    assert all(set(text.split()) <= {"low", "middle", "high"} for text in texts.values())
    for rate, count in (("wer", word_errors), ("cer", character_errors)):
        counts = [count(references[id], text) for id, text in texts.items()]
        expected = sum(each.errors for each in counts) / sum(each.length for each in counts)
        assert rates[f"first/{rate}"] == pytest.approx(expected)
    assert 0.0 < rates["first/loss"] < float("inf")
    assert rates.keys() >= {"second/wer", "second/cer", "second/loss"}


def test_a_module_without_data_or_model_is_refused(tones, tmp_path):
    module = SpeechModule(load_config(tones, SHORT))
    with pytest.raises(ConfigError, match=r"SpeechModule\(config\) needs SpeechData\(config\) beside it"):
        make_own_trainer(tmp_path).fit(module, torch.utils.data.DataLoader([]))


def test_callbacks_and_loggers_from_python(tones, tmp_path):
    counter, memo = CountBatches(), Memo()
    train(tones, {**SHORT, "output": str(tmp_path / "run")}, callbacks=[counter], logger=memo)
    assert counter.count > 0
    assert any("valid/wer" in metrics for metrics in memo.metrics)
    assert memo.hyperparameters["config"]["encoder"]["hidden_size"] == 24
    assert (tmp_path / "run" / "logs" / "csv" / "metrics.csv").exists()


def test_callbacks_from_yaml_survive_run_json_and_are_resumed(tones, tmp_path):
    settings = {
        **SHORT,
        "trainer.callbacks": [{"class_path": "test_lightning.CountBatches", "init_args": {"start": 100}}],
        "checkpoints.every_minutes": 0,
        "data.batch_seconds": 8,
        "output": str(tmp_path / "run"),
    }
    with stopped_in_call(4):
        train(tones, settings)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    [callback] = run["configuration"]["trainer"]["callbacks"]
    assert callback == {"class_path": "test_lightning.CountBatches", "init_args": {"start": 100}}
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["CountBatches"] == {"count": 103}
    assert resume(tmp_path / "run").model.is_dir()


AVERAGING = {
    "ema": {"class_path": f"{CALLBACKS}.EMAWeightAveraging", "init_args": {"decay": 0.5}},
    "swa": {
        "class_path": f"{CALLBACKS}.StochasticWeightAveraging",
        "init_args": {"swa_lrs": 0.01, "swa_epoch_start": 1},
    },
}


def test_averaged_weights_are_validated_and_released(tones, tmp_path):
    """An exponential mean is what validation sees, so it is kept; after the run the other weights are elsewhere."""
    seen = []

    class Look(pl.Callback):
        def on_validation_batch_start(self, trainer, pl_module, *args):
            seen.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})

    settings = {
        **SHORT,
        "trainer.callbacks": [AVERAGING["ema"]],
        "trainer.max_epochs": 1,
        "output": str(tmp_path / "run"),
    }
    result = train(tones, settings, callbacks=[Look()])
    released = load_file(result.model / "model.safetensors")
    assert all(torch.equal(value, released[name]) for name, value in seen[0].items())


@pytest.mark.parametrize(
    "options",
    [
        {"callbacks": [AVERAGING["swa"]], "max_epochs": 3},
        {"callbacks": [make(f"{CALLBACKS}.GradientAccumulationScheduler", scheduling={1: 2})]},
        {"callbacks": [{"class_path": f"{CALLBACKS}.ModelCheckpoint", "init_args": {"save_last": True}}]},
        {"strategy": "ddp"},
        {"strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy"}},
        {"profiler": "simple", "num_sanity_val_steps": 1, "enable_progress_bar": True, "enable_model_summary": True},
        {"fast_dev_run": True},
        {"overfit_batches": 1},
        {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "limit_predict_batches": 1},
        {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs_of_mine"}}},
        {"logger": False, "reload_dataloaders_every_n_epochs": 1, "sync_batchnorm": True},
        {"val_check_interval": 1, "log_every_n_steps": 1, "precision": "bf16-mixed"},
    ],
    ids=lambda options: "-".join([next(iter(options)), str(next(iter(options.values())))[-30:]]),
)
def test_options_of_the_trainer_work(tones, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    settings = {f"trainer.{name}": value for name, value in options.items()}
    result = train(tones, {**SHORT, **settings, "output": str(tmp_path / "run")})
    assert result.model.is_dir()
    if options.get("logger"):
        assert list((tmp_path / "logs_of_mine").rglob("metrics.csv"))
    if options.get("logger") is False:
        assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.slow  # ten seconds under pytest, whose stacks are deep; other options show that options are passed on
def test_anomaly_detection_works(tones, tmp_path):
    """Each operation of a step records its stack, so this step is a short one."""
    settings = {**SHORT, "data.batch_seconds": 0.5, "trainer.detect_anomaly": True, "trainer.fast_dev_run": True}
    assert train(tones, {**settings, "output": str(tmp_path / "run")}).model.is_dir()


def test_accumulation_by_epoch_makes_the_stated_number_of_steps(tones, tmp_path):
    scheduler = pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 3})
    counter = CountBatches()
    train(tones, {**SHORT, "data.batch_seconds": 8, "output": str(tmp_path / "run")}, callbacks=[scheduler, counter])
    batches = counter.count // 2
    with (tmp_path / "run" / "logs" / "csv" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss_epoch")]
    assert steps == [batches - 1, batches + -(-batches // 3) - 1]


def test_overfitting_trains_on_the_same_batches_in_every_epoch(tones, tmp_path):
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(tuple(batch.ids))

    settings = {**SHORT, "trainer.overfit_batches": 1, "trainer.max_epochs": 3, "output": str(tmp_path / "run")}
    train(tones, settings, callbacks=[Look()])
    assert len(seen) == 3
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer.callbacks": [{"class_path": "nowhere.Callback"}]}, "trainer.callbacks: nowhere.Callback: No module"),
        (
            {"trainer.callbacks": [{"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": {"monitors": "x"}}]},
            "trainer.callbacks: lightning.pytorch.callbacks.EarlyStopping: .*monitors",
        ),
        ({"trainer.logger": {"class_path": "Gone"}}, "trainer.logger: no class Gone"),
        ({"trainer.barebones": True}, "trainer.barebones cannot be set: a run is chosen by validation"),
        ({"trainer.default_root_dir": "x"}, "trainer.default_root_dir cannot be set: set output"),
        ({"trainer.use_distributed_sampler": False}, "cannot be set: every process gets its share"),
    ],
)
def test_a_wrong_class_or_option_is_one_line(tones, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tones, settings)
    assert "\n" not in str(caught.value)


def test_a_callback_that_refuses_its_arguments_is_named(tones):
    wrong = {"class_path": f"{CALLBACKS}.GradientAccumulationScheduler", "init_args": {"scheduling": {}}}
    config = load_config(tones, {"trainer.callbacks": [wrong]})
    with pytest.raises(ConfigError, match=r"trainer.callbacks: lightning.*GradientAccumulationScheduler: Empty dict"):
        make_trainer_options(config.trainer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer.devices": 100}, "trainer.devices: 100 processes, but torch finds no GPU and .* cores"),
        ({"trainer.devices": -1}, "trainer.devices: -1 means all GPUs, and torch finds none"),
        ({"trainer.strategy": "ddp", "trainer.devices": 64}, "trainer.devices: 64 processes"),
        ({"trainer.strategy": "fsdp"}, "trainer: .*FSDP"),
        ({"trainer.accelerator": "gpu"}, "trainer: .*"),
        ({"trainer.val_check_interval": 5000}, "trainer: .*val_check_interval"),
        (
            {"trainer.callbacks": [make(f"{CALLBACKS}.EarlyStopping", monitor="valid/were")]},
            "trainer: .*valid/were",
        ),
        (
            {
                "trainer.logger": {
                    "class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"save_dir": "/proc/x"},
                }
            },
            "trainer.logger: CSVLogger cannot be opened",
        ),
    ],
)
def test_options_that_the_machine_or_lightning_cannot_serve_are_one_line(tones, tmp_path, settings, message):
    if torch.cuda.is_available():
        pytest.skip("about a machine without a GPU")
    with pytest.raises(ConfigError, match=message) as caught:
        train(tones, {**SHORT, "trainer.accelerator": "auto", **settings, "output": str(tmp_path / "run")})
    assert "\n" not in str(caught.value)


def test_a_logger_that_fails_does_not_end_the_run(tones, tmp_path, caplog):
    assert train(tones, {**SHORT, "output": str(tmp_path / "run")}, logger=Memo(fails=True)).model.is_dir()
    assert caplog.text.count("Memo cannot write: the server is gone; the run continues without it") == 1


def test_a_full_disk_under_tensorboard_does_not_end_the_run(tones, tmp_path, caplog, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    assert train(tones, {**SHORT, "output": str(tmp_path / "run")}).model.is_dir()
    assert caplog.text.count("TensorBoardLogger cannot write: [Errno 28] No space left on device") == 1


def test_wandb_offline(tones, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True)
    assert train(tones, {**SHORT, "output": str(tmp_path / "run")}, logger=logger).model.is_dir()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_csv_logger_of_lightnings_gets_the_metrics(tones, tmp_path):
    train(tones, {**SHORT, "output": str(tmp_path / "run")}, logger=[CSVLogger(tmp_path, name="mine", version="")])
    assert "valid/wer" in (tmp_path / "mine" / "metrics.csv").read_text().splitlines()[0]
