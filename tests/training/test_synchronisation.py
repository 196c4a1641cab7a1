"""Between two log steps nothing is read from the device: the host queues one step after the other.

On a CPU there is no device to wait for, so tensors of the host are marked: lengths, and what is computed from them. All
others stand for tensors of a GPU. Reading one of those is counted, and mixing both kinds is an error, as it is there.
"""

import sys
import traceback
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration
from single_steps import make_batch, make_module, trainer_that_is_none  # noqa: F401
from torch.utils._pytree import tree_flatten, tree_map_only

from speechrnn.acoustic.ctc import CTCConfig
from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.spectral_augment import SpecAugmentConfig, Warp, WarpConfig
from speechrnn.training.config_file import load_config
from speechrnn.training.data import SpeechData
from speechrnn.training.dataset import UtteranceDataset
from speechrnn.training.losses import ctc_losses
from speechrnn.training.module import SpeechModule
from speechrnn.training.validation import Validation

READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__float__", "__int__", "__bool__", "__index__", "__len__")
ON_THE_HOST = {UtteranceDataset.__getitem__.__code__, Warp._find_bands.__code__}
"""Code that computes with tensors of the host alone."""

MOVES = {torch.Tensor.to}


class HostTensor(torch.Tensor):
    """A tensor that stays on the host until ``to`` moves it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        is_host = all(isinstance(each, HostTensor) for each in tensors)
        plain = lambda each: each.as_subclass(torch.Tensor)  # noqa: E731
        with torch._C.DisableTorchFunctionSubclass():
            args, kwargs = tree_map_only(HostTensor, plain, (args, kwargs))
            if func in MOVES and any(isinstance(each, torch.device) for each in args):
                return func(*args, **kwargs)
            if func is torch.nn.functional.ctc_loss:  # takes lengths of the host
                return func(*args, **kwargs)
            assert is_host or all(each.dim() == 0 for each in tensors if isinstance(each, HostTensor)), (
                f"{func}: tensors of the host and of the device"
            )
            found = func(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda each: each.as_subclass(HostTensor), found) if is_host else found


def on_host(batch):
    names = [name for name in batch.tensors if name.endswith("lengths")]
    return replace(batch, **{name: getattr(batch, name).as_subclass(HostTensor) for name in names})


@pytest.fixture
def reads(monkeypatch):
    """Reads of device tensors, as they come."""
    found = []
    for name in set(READS) - {"__len__"}:
        original = getattr(torch.Tensor, name)

        def read(self, *args, original=original, name=name, **kwargs):
            if isinstance(self, HostTensor):
                with torch._C.DisableTorchFunctionSubclass():
                    return original(self, *args, **kwargs)
            frames = [frame for frame, _ in traceback.walk_stack(sys._getframe(1))]
            if not any(frame.f_code in ON_THE_HOST for frame in frames):
                found.append(f"{name} in {frames[0].f_code.co_qualname}")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, read)
    return found


class CountReads(pl.Callback):
    """How many reads there were when each batch began, and the steps taken by then."""

    def __init__(self, reads):
        self.reads, self.at = reads, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.at.append(len(self.reads))

    def on_train_epoch_end(self, trainer, pl_module):
        self.at.append(len(self.reads))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"encoder.cell": "lstm", "encoder.bidirectional": False, "front_end.normalization": "corpus"},
        {"ctc.consistency": 0.2, "augment.spec_augment.time_masks": 1, "augment.warp.vocal_tract": 0.1},
        {"trainer.accumulate_grad_batches": 2, "optimizer.weight_noise": 0.01, "trainer.precision": "bf16-mixed"},
        {"front_end.normalization": "speaker", "front_end.deltas": 1, "encoder.initial_state": "learned"},
        {"encoder.num_layers": 2, "ctc.intermediate_layers": [1], "ctc.lexicon": "lexicon.txt"},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_a_step_between_two_log_steps_reads_nothing(tmp_path, reads, settings, monkeypatch):
    configuration = make_tone_configuration(tmp_path)
    (tmp_path / "lexicon.txt").write_text("low L OW\nmiddle M IH D L\nhigh HH AY\n", encoding="utf-8")
    config = load_config(configuration, {**TONE_SETTINGS, "data.batch_seconds": 4, **settings})
    monkeypatch.setattr(
        SpeechModule, "transfer_batch_to_device", lambda self, batch, device, dataloader_idx: on_host(batch.to(device))
    )
    counter = CountReads(reads)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[counter], log_every_n_steps=4, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=1.0,
        accumulate_grad_batches=config.trainer["accumulate_grad_batches"], precision=config.trainer["precision"],
    )  # fmt: skip
    trainer.fit(SpeechModule(config), SpeechData(config, [tmp_path]))
    per_batch = [after - before for before, after in zip(counter.at, counter.at[1:], strict=False)]
    assert len(per_batch) >= 10
    accumulate = config.trainer["accumulate_grad_batches"]
    quiet = [number for index, number in enumerate(per_batch[:-1]) if index and (index + 1) % (4 * accumulate)]
    assert quiet == [0] * len(quiet), reads[counter.at[0] :]
    assert per_batch[4 * accumulate - 1] > 0  # at a log step it is read


@pytest.mark.usefixtures("trainer_that_is_none")
def test_the_counter_notices_a_read_of_a_tensor_and_mixed_devices(make_tiny_model, tmp_path, reads):
    tiny = make_tiny_model()
    reads.clear()
    module = make_module(tiny, tmp_path, ctc=CTCConfig(consistency=0.1), augment=AugmentConfig(
        warp=WarpConfig(vocal_tract=0.1, time_seconds=0.1), spec_augment=SpecAugmentConfig(time_masks=1)))  # fmt: skip
    batch = on_host(make_batch(module))
    losses = module.compute_losses(batch)[0].detach()
    assert not reads
    assert bool((losses > 0).all())
    assert len(reads) == 1
    with pytest.raises(AssertionError, match="of the host and of the device"):
        batch.waveforms[:, 0] * batch.waveform_lengths
    assert batch.waveform_lengths.tolist()
    assert len(reads) == 1


def test_validation_does_not_mix_tensors_of_host_and_device(make_tiny_model, tmp_path, monkeypatch):
    host, move = torch.device("cpu", 0), torch.Tensor.to

    def to(self, *args, **kwargs):
        return move(self, *args, **kwargs).as_subclass(HostTensor if host in args else torch.Tensor)

    module = make_module(make_tiny_model(), tmp_path)
    batch = on_host(make_batch(module))
    with torch.no_grad():
        emission = module.model(batch.waveforms, batch.waveform_lengths)
    emission.log_probs[1, 0] = torch.nan
    monkeypatch.setattr(HostTensor, "device", property(lambda self: host), raising=False)
    monkeypatch.setattr(torch.Tensor, "to", to)
    validation = Validation()
    validation.add(emission, batch, module.tokens)
    assert validation.sums["losses"] == len(batch.texts) - 1
    assert validation.sums["frames"] == int(emission.lengths.sum())


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", ["utterance", "corpus"])
def test_a_step_on_a_gpu_waits_for_it_only_in_torchs_ctc_loss(tmp_path, monkeypatch, normalization):
    """torch's CUDA kernel of the CTC loss copies lengths to the device and waits for the copy; nothing else waits."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    configuration = make_tone_configuration(tmp_path)
    overrides = {**TONE_SETTINGS, "data.batch_seconds": 4, "front_end.normalization": normalization}
    config = load_config(configuration, {**overrides, "augment.spec_augment.time_masks": 1})

    def like_ctc(log_probs, targets, *, lengths, target_lengths):
        return -log_probs.gather(2, targets[:, None, :1].expand(-1, log_probs.shape[1], -1)).sum(dim=(1, 2))

    class Strict(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("error" if (batch_idx + 1) % 8 > 0 and batch_idx > 1 else "default")

        def on_train_epoch_end(self, trainer, pl_module):
            torch.cuda.set_sync_debug_mode("default")

        on_exception = lambda self, trainer, pl_module, exception: self.on_train_epoch_end(trainer, pl_module)  # noqa: E731

    assert ctc_losses is not like_ctc
    monkeypatch.setattr("speechrnn.training.losses.ctc_losses", like_ctc)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="gpu", devices=1, logger=False, callbacks=[Strict()], log_every_n_steps=8,
        limit_val_batches=0, enable_progress_bar=False, enable_checkpointing=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(SpeechModule(config), SpeechData(config, [tmp_path]))
    assert trainer.global_step >= 10
