"""A module outside a Trainer, one step at a time."""

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
    module = SpeechModule(model.acoustic, model.tokens, config, pronunciations)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)

    def step():
        module.on_before_optimizer_step(optimizer)
        optimizer.step()

    module.optimizers = lambda: SimpleNamespace(zero_grad=optimizer.zero_grad, step=step)
    module.lr_schedulers = lambda: None
    module.manual_backward = lambda loss: loss.backward()
    module.logged = {}
    module.log = lambda name, value, **_: module.logged.update({name: float(value)})
    precision = SimpleNamespace(scaler=None)
    module._trainer = SimpleNamespace(
        world_size=1, is_last_batch=False, current_epoch=0, global_step=0, global_rank=0, precision_plugin=precision
    )
    return module.eval()


@pytest.fixture
def trainer_that_is_none(monkeypatch):
    """A module has no Trainer but what make_module gives it."""
    monkeypatch.setattr(SpeechModule, "trainer", property(lambda self: self._trainer))
    monkeypatch.setattr(SpeechModule, "global_rank", 0)


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
        module.training_step(batch, index)
    return read_weights(module) - before
