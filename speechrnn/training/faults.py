"""What can go wrong in the middle of a run: unreadable files, steps that are not finite, too little memory.

A step that was skipped is saved with its batches, and :mod:`speechrnn.training.replay` computes it again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from speechrnn.atomic_io import write_atomic, write_json
from speechrnn.errors import CorpusError, SpeechRNNError, name_some
from speechrnn.model_folder import ModelFolder, save_model
from speechrnn.processes import gather_from_processes, get_rank, stop_all
from speechrnn.training.config import Config, FaultsConfig
from speechrnn.training.losses import PhoneOutput
from speechrnn.types import Batch

logger = logging.getLogger("speechrnn")

_CPU_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory")
_OVERFLOWS_IN_A_ROW = 20


def describe_out_of_memory(error: RuntimeError) -> str:
    """The first line of torch's report that memory ran out, on a GPU or on the CPU; another error is raised again."""
    is_memory = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_MEMORY_MESSAGES)
    if not is_memory:
        raise error
    return str(error).splitlines()[0]


class Memory:
    """What fits into memory, as far as running out of it has shown.

    Attributes:
        seconds_that_fit: Audio, padding included, that is computed at once; None until memory ran out.
    """

    def __init__(self) -> None:
        self.seconds_that_fit: float | None = None
        self.sample_rate = 1

    def count_parts(self, batch: Batch) -> int:
        """Parts that a batch is computed in."""
        if self.seconds_that_fit is None:
            return 1
        return min(max(1, len(batch.ids)), math.ceil(self._padded_seconds(batch) / self.seconds_that_fit))

    def _padded_seconds(self, batch: Batch) -> float:
        return batch.waveforms.numel() / self.sample_rate

    def shrink(self, batches: Sequence[Batch], message: str) -> None:
        """Halve what is computed at once, after it was too much for one of these batches.

        Raises:
            SpeechRNNError: It was a single utterance.
        """
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch = max(batches, key=lambda each: self._padded_seconds(each) / max(1, self.count_parts(each)))
        seconds, parts = self._padded_seconds(batch), self.count_parts(batch)
        if parts >= len(batch.ids):
            longest = int(batch.waveform_lengths.argmax())
            raise SpeechRNNError(
                f"out of memory with a single utterance, {batch.ids[longest]} "
                f"({int(batch.waveform_lengths[longest]) / self.sample_rate:.1f} s): {message}; "
                "take a smaller model, or leave long utterances out"
            )
        self.seconds_that_fit = seconds / min(2 * parts, len(batch.ids))
        logger.warning(
            "out of memory in a batch of %d utterances, %.0f s with padding: from now on at most %.0f s are computed "
            "at once and the gradients of the parts added up; data.batch_seconds %.0f would fit undivided",
            len(batch.ids), seconds, self.seconds_that_fit, self.seconds_that_fit,
        )  # fmt: skip


class Unreadable:
    """Counts the recordings that could not be read in training, and stops the run when there are too many.

    Args:
        config: How many are too many.

    Attributes:
        corpus_size: Training recordings; 0 disables the limit.
        reasons: Why each recording could not be read, by id.
    """

    def __init__(self, config: FaultsConfig) -> None:
        self.config = config
        self.corpus_size = 0
        self.reasons: dict[str, str] = {}

    def count(self, failed: Sequence[tuple[str, str]]) -> None:
        """Add recordings that failed: ids and reasons. Each recording is named once.

        Raises:
            CorpusError: More of the corpus than ``faults.unreadable_share`` could not be read.
        """
        new = {id: reason for id, reason in failed if id not in self.reasons}
        for id, reason in new.items():
            logger.warning("skipped in training: %s: %s", id, reason)
        self.reasons |= new
        if new and self.corpus_size and len(self.reasons) > self.config.unreadable_share * self.corpus_size:
            id, reason = new.popitem()
            stop_all(
                CorpusError(
                    f"{len(self.reasons)} of {self.corpus_size} recordings could not be read, more than the share of "
                    f"{self.config.unreadable_share:g} that faults.unreadable_share allows; the last, {id}: {reason}; "
                    "repair the files, or raise the share, and continue with --resume"
                )
            )


@dataclass
class Step:
    """One optimiser step: its batches, and what decides whether it is taken. Tensors stay on the training device.

    Attributes:
        epoch: Counted from 0.
        batches: Batches whose gradients are added up, each with the factor of its summed loss.
        batch_idx: Place of the last batch in the epoch, from 0.
        checks: For each computed part the ids of its utterances and which of its losses are finite, (passes · B,).
        is_skipped: Whether loss or gradient is not finite, in any process, a scalar; None until the backward pass ends.
    """

    epoch: int
    batches: list[tuple[Batch, Tensor | float]] = field(default_factory=list)
    batch_idx: int = 0
    checks: list[tuple[list[str], Tensor]] = field(default_factory=list)
    is_skipped: Tensor | None = None

    def list_suspects(self) -> list[str]:
        """Ids of the utterances whose loss is not finite, each once. It reads tensors."""
        bad = [ids[i % len(ids)] for ids, is_finite in self.checks for i in (~is_finite).nonzero()[:, 0].tolist()]
        return list(dict.fromkeys(bad))


class SkippedSteps:
    """Reports the steps that were skipped because loss or gradient was not finite.

    Steps are collected as they are computed and read together, so that the device is not waited for at each one.

    Args:
        config: The run's configuration.

    Attributes:
        in_a_row: Skipped steps since the last one that was taken.
    """

    def __init__(self, config: Config) -> None:
        self.folder = Path(config.output or ".") / "faults"
        self.limit = config.faults.nonfinite_in_a_row
        self.in_a_row = 0
        self._unread: list[Step] = []

    def add(self, step: Step) -> None:
        """Collect a step."""
        self._unread.append(step)

    @property
    def num_unread_batches(self) -> int:
        """Batches that are kept until the next read."""
        return sum(len(step.batches) for step in self._unread)

    def read(self, save_to: Callable[[Path, Step, int], None], loss_scale: float | None) -> None:
        """Read the collected steps; name and save those that were skipped.

        Args:
            save_to: Called with a folder, a skipped step and the number of steps computed after it.
            loss_scale: The present loss scale of fp16; None for other precisions.

        Raises:
            SpeechRNNError: More steps in a row were skipped than ``faults.nonfinite_in_a_row`` allows.
        """
        steps, self._unread = self._unread, []
        if not steps:
            return
        flags = torch.stack([step.is_skipped for step in steps if step.is_skipped is not None]).tolist()
        for number, (step, is_skipped) in enumerate(zip(steps, flags, strict=True)):
            self.in_a_row = self.in_a_row + 1 if is_skipped else 0
            if is_skipped:
                self._report(step, len(steps) - 1 - number, save_to, loss_scale)

    def _report(
        self, step: Step, later: int, save_to: Callable[[Path, Step, int], None], loss_scale: float | None
    ) -> None:
        of_all = gather_from_processes([step.list_suspects()])
        what = "loss" if any(of_all) else "gradient"
        if what == "gradient":
            if loss_scale is not None and self.in_a_row <= _OVERFLOWS_IN_A_ROW:
                logger.info("fp16: a gradient overflowed and the loss scale is lowered, now %g", loss_scale)
                return
            of_all = gather_from_processes([[id for batch, _ in step.batches for id in batch.ids]])
        folder = self.folder / f"epoch-{step.epoch + 1}-batch-{step.batch_idx + 1}"
        folders = [folder / f"process-{rank}" if len(of_all) > 1 else folder for rank in range(len(of_all))]
        if any(batch.ids for batch, _ in step.batches):
            save_to(folders[get_rank()], step, later)
        suspects = list(dict.fromkeys(id for ids in of_all for id in ids))
        named = name_some(suspects)
        logger.warning(
            "non-finite %s in %s; step skipped (%d in a row); inspect it with: speechrnn train --rerun-step %s",
            what, named, self.in_a_row, next(at for at, ids in zip(folders, of_all, strict=True) if ids),
        )  # fmt: skip
        if self.in_a_row >= self.limit:
            stop_all(
                SpeechRNNError(
                    f"the {what} is not finite in {self.in_a_row} steps in a row, the last with {named}; lower "
                    f"optimizer.learning_rate or trainer.gradient_clip_val and train again; saved in {self.folder}"
                )
            )


def save_step(
    folder: Path, step: Step, model: ModelFolder, config: Config, *, phones: PhoneOutput | None, rank: int, later: int
) -> None:
    """Save a skipped step: its batches and the present weights.

    Args:
        folder: Where to: ``fault.json``, ``model/``, one ``batch-N.safetensors`` for each batch, and the output layer
            of lower layers, ``phones.safetensors``, where they have one.
        step: What was skipped.
        model: What is trained.
        config: The run's configuration.
        phones: The output layer of lower layers.
        rank: Which process this is.
        later: Steps that were computed after it; the saved weights are those after these steps.
    """
    save_model(folder / "model", model)
    if phones is not None:
        write_atomic(folder / "phones.safetensors", save(phones.state_dict()))
    rows = []
    for number, (batch, _) in enumerate(step.batches):
        tensors = {name: each.detach().cpu().contiguous() for name, each in batch.tensors.items()}
        write_atomic(folder / f"batch-{number}.safetensors", save(tensors))
        rows.append({"ids": batch.ids, "texts": batch.texts, "augment_seeds": batch.augment_seeds})
    fault: dict[str, Any] = {
        "epoch": step.epoch,
        "first_batch": step.batch_idx - len(step.batches) + 1,
        "saved_steps_later": later,
        "rank": rank,
        "configuration": {name: value for name, value in config.to_dict().items() if name != "output"},
        "pronunciations": None if phones is None else phones.pronunciations,
        "batches": rows,
    }
    write_json(folder / "fault.json", fault)
