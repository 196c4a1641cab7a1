"""What can go wrong in the middle of a run: files that cannot be read, losses that are not finite, too little memory.

A step that was not taken is saved whole, batch and weights, and :mod:`speechrnn.training.replay` computes it again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from speechrnn.atomic_io import write_atomic, write_json
from speechrnn.errors import CorpusError
from speechrnn.model_folder import ModelFolder, save_model
from speechrnn.training.collectives import stop_all
from speechrnn.training.config import FaultsConfig
from speechrnn.types import Batch

if TYPE_CHECKING:
    from speechrnn.training.module import SpeechModule

logger = logging.getLogger("speechrnn")

_CPU_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's way to say that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_MEMORY_MESSAGES)


class Unreadable:
    """Counts the recordings that could not be read in training, and ends the run when there are too many.

    Args:
        config: How many are too many.
    """

    def __init__(self, config: FaultsConfig) -> None:
        self.config = config
        self.corpus_size = 0
        self.reasons: dict[str, str] = {}

    def count(self, failed: Sequence[tuple[str, str]]) -> None:
        """Take in what a batch lacks: ids and reasons. Each recording is named once.

        Raises:
            CorpusError: More of the corpus than ``faults.unreadable_share`` could not be read.
        """
        new = [(id, reason) for id, reason in failed if id not in self.reasons]
        for id, reason in new:
            self.reasons[id] = reason
            logger.warning("skipped in training: %s: %s", id, reason)
        if new and self.corpus_size and len(self.reasons) > self.config.unreadable_share * self.corpus_size:
            stop_all(
                CorpusError(
                    f"{len(self.reasons)} of {self.corpus_size} recordings could not be read, more than the share of "
                    f"{self.config.unreadable_share:g} that faults.unreadable_share allows; the last, {new[-1][0]}: "
                    f"{new[-1][1]}; mend the files, or raise the share, and go on with --resume"
                )
            )

    def to_dict(self) -> dict[str, str]:
        """The recordings that failed, with their reasons."""
        return dict(self.reasons)

    def load(self, reasons: dict[str, str]) -> None:
        """Take up what an earlier part of the run counted."""
        self.reasons = dict(reasons)


def save_fault(folder: Path, module: SpeechModule, batches: Sequence[Batch], *, epoch: int, batch_idx: int) -> None:
    """Save a step that was not taken: what went in, and the weights that it met.

    Args:
        folder: Where to: ``fault.json``, ``model/``, one ``batch-N.safetensors`` for each batch, and the output layer
            of lower layers, ``phones.safetensors``, where they have one.
        module: What was trained.
        batches: The batches whose gradients were added up for the step, the last one at ``batch_idx``.
        epoch: Counted from 0.
        batch_idx: The last batch's place in the epoch, from 0.
    """
    save_model(folder / "model", ModelFolder(module.model, module.tokens, module.config.text, {}))
    if module.phones is not None:
        write_atomic(folder / "phones.safetensors", save(module.phones.state_dict()))
    rows = []
    for number, batch in enumerate(batches):
        tensors = {name: each.detach().cpu().contiguous() for name, each in batch.tensors.items()}
        write_atomic(folder / f"batch-{number}.safetensors", save(tensors))
        rows.append({"ids": batch.ids, "texts": batch.texts, "augment_seeds": batch.augment_seeds})
    configuration = {name: value for name, value in module.config.to_dict().items() if name != "output"}
    first = batch_idx - len(batches) + 1
    write_json(
        folder / "fault.json",
        {
            "epoch": epoch,
            "first_batch": first,
            "rank": module.global_rank,
            "configuration": configuration,
            "pronunciations": None if module.phones is None else module.phones.pronunciations,
            "batches": rows,
        },
    )
