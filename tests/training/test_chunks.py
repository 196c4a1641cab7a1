"""Chunk-wise training: the draw of each batch, what the model computes with it, a resumed run, refused settings."""

from dataclasses import replace

import pytest
import torch
from conftest import TONE_SETTINGS
from safetensors.torch import load_file
from single_steps import make_batch, make_module, train_on, trainer_that_is_none  # noqa: F401
from stopping import stopped_in_call

from speechrnn.acoustic.chunked import Chunks
from speechrnn.corpus.batches import split_batch
from speechrnn.errors import ConfigError
from speechrnn.training.config import ChunksConfig
from speechrnn.training.config_file import config_from_dict
from speechrnn.training.data import SpeechData
from speechrnn.training.dataset import draw_chunks
from speechrnn.training.replay import replay
from speechrnn.training.train import resume, train

CHUNKED = {"front_end.normalization": "corpus", "chunks.probability": 0.7}


def test_chunks_are_drawn_within_their_ranges_in_a_share_of_the_batches():
    config = ChunksConfig(probability=0.7, seconds=(0.2, 0.5), context_seconds=(0.0, 0.3))
    drawn = [draw_chunks(config, seed) for seed in range(1000)]
    sizes = [each for each in drawn if each is not None]
    assert 650 < len(sizes) < 750
    for values, (low, high) in zip(zip(*sizes, strict=True), (config.seconds, config.context_seconds), strict=True):
        assert low <= min(values) < low + 0.01
        assert high - 0.01 < max(values) <= high
    assert drawn == [draw_chunks(config, seed) for seed in range(1000)]
    assert draw_chunks(ChunksConfig(), 0) is None


def test_a_batchs_chunks_depend_on_seed_epoch_and_number_alone(tone_configuration):
    data = SpeechData(config_from_dict(_nest({**TONE_SETTINGS, **CHUNKED}, tone_configuration), where="test"))
    data.setup()

    def draw(epoch, skip=0):
        data._epoch, data._batches_done = epoch, skip
        return [batch.chunk_seconds for batch in data.train_dataloader()]

    first, second = draw(0), draw(1)
    assert first[2:] == draw(0, skip=2)
    assert first != second
    assert min(len(set(first)), len(set(second))) > 1
    assert {type(each) for each in first + second} == {tuple, type(None)}
    assert {batch.chunk_seconds for batch in data.val_dataloader()} == {None}


def _nest(settings, configuration):
    nested = {"data": {name: str(configuration.parent / f"{name}.jsonl") for name in ("train", "valid")}}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return nested


@pytest.mark.usefixtures("trainer_that_is_none")
def test_losses_are_those_of_the_drawn_chunks_in_parts_too(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(dropout=0.0), tmp_path)
    batch = replace(make_batch(module), chunk_seconds=(0.1, 0.05))
    seen, original = [], module.model.forward
    module.model.forward = lambda *a, **k: (seen.append(k["chunks"]), original(*a, **k))[1]
    losses, _ = module.compute_losses(batch)
    parts = [module.compute_losses(part)[0] for part in split_batch(batch, 2)]
    assert seen == [Chunks(5, 2)] * 3  # 20 ms a step; 2.5 is rounded to even
    torch.testing.assert_close(torch.cat(parts), losses)  # make_batch's utterances are sorted by length
    whole, _ = module.compute_losses(replace(batch, chunk_seconds=None))
    assert (whole != losses).all()


@pytest.mark.usefixtures("trainer_that_is_none")
def test_a_skipped_step_is_computed_again_with_its_chunks(make_tiny_model, tmp_path):
    module = make_module(make_tiny_model(dropout=0.0), tmp_path)
    batch = replace(make_batch(module, ("quick", "the fox")), chunk_seconds=(0.1, 0.05))
    batch.waveforms[1, 100] = float("nan")
    expected = module.compute_losses(batch)[0][0]
    train_on(module, batch, 0)
    rows = replay(tmp_path / "faults" / "epoch-1-batch-1")
    assert [row.loss for row in rows if row.is_finite] == [pytest.approx(expected.item(), rel=1e-4)]


def test_a_resumed_run_draws_the_chunks_of_the_run_that_was_not_stopped(tone_configuration, tmp_path, one_thread):
    run = {**TONE_SETTINGS, **CHUNKED, "trainer.max_epochs": 2, "checkpoints.every_minutes": 0}
    run |= {"encoder.dropout": 0.2, "encoder.cell": "lstm"}
    train(tone_configuration, {**run, "output": str(tmp_path / "whole")})
    with stopped_in_call(6):
        train(tone_configuration, {**run, "output": str(tmp_path / "stopped")})
    resume(tmp_path / "stopped")
    train(tone_configuration, {**run, "chunks.probability": 0.0, "output": str(tmp_path / "plain")})
    whole, stopped, plain = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped", "plain")
    )
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"bidirectional": False}}, "a unidirectional encoder streams without them"),
        ({"encoder": {"output": "final_state"}}, "not with encoder.output final_state"),
        ({"data": {"carry_state": "speaker"}}, "not with data.carry_state"),
        ({"front_end": {"normalization": "utterance"}}, "set front_end.normalization to corpus or sliding"),
        ({"chunks": {"probability": 1.5}}, r"chunks.probability: expected a number in \[0, 1\], got 1.5"),
        ({"chunks": {"seconds": [0.5, 0.2]}}, "chunks.seconds: expected two numbers of seconds"),
        ({"chunks": {"context_seconds": [-0.1, 0.2]}}, "chunks.context_seconds: expected two numbers of seconds"),
    ],
)
def test_settings_that_do_not_go_with_chunks_are_refused(settings, message):
    base = {"front_end": {"normalization": "corpus"}, "chunks": {"probability": 0.5}}
    merged = {name: {**base.get(name, {}), **settings.get(name, {})} for name in {*base, *settings}}
    with pytest.raises(ConfigError, match=message):
        config_from_dict(merged, where="test")
