"""A module outside a Trainer, one step at a time, driven as Lightning's automatic optimisation drives it."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechrnn.corpus.batches import collate
from speechrnn.training.config import Config
from speechrnn.training.module import SpeechModule

TEXTS = ("quick", "the fox", "fox", "the quick fox")


def make_module(model, tmp_path, **settings):
    """A module outside a Trainer: its optimiser is plain SGD with rate 1, so that a step shows the gradient."""
    trainer, pronunciations = settings.pop("trainer", {}), settings.pop("pronunciations", None)
    config = Config(trainer=trainer, output=str(tmp_path), **settings)
    module = SpeechModule(config, model.acoustic, model.tokens, pronunciations)
    module.optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    module.lr_schedulers = lambda: None
    module.logged = {}
    module.log = lambda name, value, **_: module.logged.update({name: float(value)})
    module._trainer = SimpleNamespace(
        world_size=1,
        is_last_batch=False,
        current_epoch=0,
        global_step=0,
        global_rank=0,
        log_every_n_steps=1,
        sanity_checking=False,
        accumulate_grad_batches=trainer.get("accumulate_grad_batches", 1),
        precision=trainer.get("precision", "32-true"),
        precision_plugin=SimpleNamespace(scaler=None, train_step_context=nullcontext),
    )
    return module.eval()


@pytest.fixture
def trainer_that_is_none(monkeypatch):
    """A module has no Trainer but what make_module gives it."""
    monkeypatch.setattr(SpeechModule, "trainer", property(lambda self: self._trainer))
    monkeypatch.setattr(SpeechModule, "global_rank", 0)


def train_on(module, batch, batch_idx=0):
    """What Lightning does with a batch: forward and backward, and a step after the last of a group."""
    accumulate, config = module._trainer.accumulate_grad_batches, module.config.trainer
    loss = module.training_step(batch, batch_idx) / accumulate
    if batch_idx % accumulate == 0:
        module.optimizer.zero_grad()
    module.backward(loss)
    module.on_after_backward()
    if (batch_idx + 1) % accumulate == 0 or module._trainer.is_last_batch:
        module.on_before_optimizer_step(module.optimizer)
        limit, algorithm = (config.get(f"gradient_clip_{name}") for name in ("val", "algorithm"))
        module.configure_gradient_clipping(module.optimizer, limit, algorithm)
        module.optimizer.step()
    module.on_train_batch_end(None, batch, batch_idx)


def make_batch(module, texts=TEXTS, failed=()):
    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(4000 + 800 * i).astype(np.float32) / 10 for i in range(len(texts))]
    targets = [module.tokens.encode(text) for text in texts]
    seeds = list(range(len(texts)))
    return collate(waveforms, targets, ids=list(texts), texts=list(texts), augment_seeds=seeds, failed=failed)


def read_weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def step_with(module, *batches):
    """What one step changes."""
    before = read_weights(module)
    for index, batch in enumerate(batches):
        train_on(module, batch, index)
    return read_weights(module) - before
