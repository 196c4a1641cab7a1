"""``data.batch_seconds: auto``: the largest batches that fit into a GPU's memory, found by trying."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from speechrnn.corpus.batches import BatchRequest
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.training.config import DEFAULT_BATCH_SECONDS, Config
from speechrnn.training.dataset import UtteranceDataset
from speechrnn.training.faults import try_in_memory
from speechrnn.training.module import SpeechModule
from speechrnn.training.optimization import build_optimizer
from speechrnn.training.preflight import Preflight
from speechrnn.types import Batch

logger = logging.getLogger("speechrnn")

_LEAST_BATCHES = 50
_MARGIN = 0.9
_PRECISION = 16  # the search ends when the bounds differ by less than this share of the lower one


def choose_batch_seconds(config: Config, preflight: Preflight, dataset: UtteranceDataset) -> float:
    """Choose a budget of a batch, in seconds, that leaves at least 50 batches in an epoch.

    On a GPU it is nine tenths of what fits into memory (:func:`search_batch_seconds`). On a CPU, where larger batches
    do not train faster, it is the default of ``data.batch_seconds``.

    Args:
        config: The run's configuration.
        preflight: Its model and data.
        dataset: The training utterances.

    Raises:
        ConfigError: The run has several processes.
        SpeechRNNError: The longest utterance alone does not fit.
    """
    options = config.trainer
    processes = (str(options.get("devices", 1)), str(options.get("num_nodes", 1)), os.environ.get("WORLD_SIZE", "1"))
    if processes != ("1", "1", "1"):
        raise ConfigError("data.batch_seconds: auto is for one process; train on one device, or give a number")
    seconds = [each.seconds for each in preflight.train]
    most = max(max(seconds), sum(seconds) / _LEAST_BATCHES)
    if not torch.cuda.is_available() or options.get("accelerator") == "cpu":
        chosen = min(DEFAULT_BATCH_SECONDS, most)
    else:
        chosen = search_batch_seconds(config, preflight, dataset, device=torch.device("cuda"), most=most)
    chosen = math.floor(10 * chosen) / 10 if chosen > 1 else chosen
    logger.info("data.batch_seconds auto: %g s", chosen)
    return chosen


def search_batch_seconds(
    config: Config, preflight: Preflight, dataset: UtteranceDataset, *, device: torch.device, most: float
) -> float:
    """Find nine tenths of the largest budget for which a training step fits into memory, at most ``most``.

    A step is a forward and backward pass and an update of a copy of the model, over copies of the longest utterance
    with the longest text: of all batches of a budget this one has the most frames and the largest CTC lattices. The
    run's own model and random state are not changed.

    Args:
        config: The run's configuration.
        preflight: Its model and data.
        dataset: The training utterances.
        device: Where to train.
        most: Largest budget to try, in seconds.

    Returns:
        The budget in seconds, at least the longest utterance.

    Raises:
        SpeechRNNError: The longest utterance alone does not fit.
    """
    longest = max(range(len(preflight.train)), key=lambda number: preflight.train[number].seconds)
    utterance = preflight.train[longest]
    batch = _make_largest(dataset, longest, config)
    message = ""

    def fits(count: int) -> bool:
        nonlocal message
        done, message_now = try_in_memory(partial(_step, config, preflight, repeat(batch, count), device))
        message = message_now or message
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return done is not None

    with torch.random.fork_rng():
        count = find_largest(fits, most=max(1, math.ceil(most / _MARGIN / utterance.seconds)))
    if count == 0:
        raise SpeechRNNError(
            f"data.batch_seconds: out of memory with the longest utterance alone, {utterance.id} "
            f"({utterance.seconds:.1f} s): {message}; use a smaller model, or leave long utterances out"
        )
    return min(most, max(utterance.seconds, _MARGIN * count * utterance.seconds))


def find_largest(fits: Callable[[int], bool], *, most: int) -> int:
    """Find the largest number up to ``most`` that fits, within a sixteenth; 0 if 1 does not.

    Doubles until a number does not fit, then bisects.
    """
    fitting, failing, number = 0, most + 1, 1
    while fitting < most and failing == most + 1:
        if fits(number):
            fitting, number = number, min(2 * number, most)
        else:
            failing = number
    while failing - fitting > max(1, fitting // _PRECISION) and failing <= most:
        middle = (fitting + failing) // 2
        fitting, failing = (middle, failing) if fits(middle) else (fitting, middle)
    return fitting


def repeat(batch: Batch, count: int) -> Batch:
    """A batch of one utterance, ``count`` times, with different names."""
    more: dict[str, Any] = {name: each.repeat(count, *(1,) * (each.ndim - 1)) for name, each in batch.tensors.items()}
    more |= {name: getattr(batch, name) * count for name in ("texts", "augment_seeds", "previous")}
    return replace(batch, ids=[f"copy {number}" for number in range(count)], **more)


def _make_largest(dataset: UtteranceDataset, longest: int, config: Config) -> Batch:
    """The longest utterance at the lowest speed, with the most tokens of any: a batch of one."""
    batch = dataset[BatchRequest(0, 0, [longest])]
    if batch.failed:
        raise SpeechRNNError(f"data.batch_seconds: {batch.failed[0][0]} cannot be read: {batch.failed[0][2]}")
    seconds = dataset.utterances[longest].seconds / min(config.augment.speed) + config.augment.padding_seconds
    samples = max(batch.waveforms.shape[1], math.ceil(seconds * dataset.sample_rate))
    tokens = torch.tensor([max((each.tokens for each in dataset.utterances), key=len)])
    noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    lengths: dict[str, Any] = {
        "waveform_lengths": torch.tensor([samples]),
        "target_lengths": torch.tensor([tokens.shape[1]]),
    }
    return replace(batch, waveforms=noise, targets=tokens, **lengths)


def _step(config: Config, preflight: Preflight, batch: Batch, device: torch.device) -> bool:
    """One training step of a copy of the model."""
    module = SpeechModule(config, copy.deepcopy(preflight.model), preflight.tokens, preflight.pronunciations)
    module.to(device).train()
    optimizer = build_optimizer(module.parameters(), config.optimizer)
    with _autocast(config, device):
        losses, divergences = module.compute_losses(batch.to(device))
        loss = (losses + config.ctc.consistency * divergences).mean()
    loss.backward()
    optimizer.step()
    return True


def _autocast(config: Config, device: torch.device) -> torch.autocast | nullcontext[None]:
    precision = str(config.trainer.get("precision", ""))
    dtypes = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    return torch.autocast(device.type, dtypes[precision]) if precision in dtypes else nullcontext()
