"""Faults within a run: unreadable files, non-finite steps, out of memory.

A skipped step is saved with its batches; :mod:`speechrnn.training.replay` computes it again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
Result = TypeVar("Result")


def try_in_memory(compute: Callable[[], Result]) -> tuple[Result | None, str]:
    """Compute something; where memory runs out, None and the first line of torch's message.

    When it returns, no traceback holds a reference to tensors.
    """
    try:
        return compute(), ""
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in _CPU_MEMORY_MESSAGES):
            return None, str(error).splitlines()[0]
        raise


class Memory:
    """How much audio fits into memory.

    Attributes:
        seconds_that_fit: Audio to compute at once, padding included; None until memory ran out.
    """

    def __init__(self) -> None:
        self.seconds_that_fit: float | None = None
        self.sample_rate = 1

    def count_parts(self, batch: Batch) -> int:
        """Number of parts to compute a batch in."""
        if self.seconds_that_fit is None:
            return 1
        return min(max(1, len(batch.ids)), math.ceil(self._padded_seconds(batch) / self.seconds_that_fit))

    def _padded_seconds(self, batch: Batch) -> float:
        return batch.waveforms.numel() / self.sample_rate

    def shrink(self, batches: Sequence[Batch], message: str) -> None:
        """Halve what is computed at once, after one of these batches was too large.

        Raises:
            SpeechRNNError: A single utterance is too large.
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
                "use a smaller model, or leave long utterances out"
            )
        self.seconds_that_fit = seconds / min(2 * parts, len(batch.ids))
        logger.warning(
            "out of memory in a batch of %d utterances, %.0f s with padding: from now on batches are computed in parts "
            "of at most %.0f s and their gradients added; data.batch_seconds %.0f would fit undivided",
            len(batch.ids), seconds, self.seconds_that_fit, self.seconds_that_fit,
        )  # fmt: skip


class Unreadable:
    """Counts the recordings that could not be read in training, and stops the run if there are too many.

    Args:
        config: The limit.

    Attributes:
        corpus_size: Training recordings; 0 disables the limit.
        reasons: Why each recording could not be read, by id.
    """

    def __init__(self, config: FaultsConfig) -> None:
        self.config = config
        self.corpus_size = 0
        self.reasons: dict[str, str] = {}

    def count(self, failed: Sequence[tuple[str, str]]) -> None:
        """Count recordings that failed: ids and reasons. Each recording is logged once.

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
    """One optimiser step: its batches, and whether they are finite. Tensors stay on the training device.

    Attributes:
        epoch: Counted from 0.
        batches: Batches whose gradients are added, each with the factor of its summed loss.
        batch_idx: Position of the last batch in the epoch, from 0.
        checks: For each computed part the ids of its utterances and which of its losses are finite, (passes · B,).
        is_skipped: Whether loss or gradient is not finite in any process, a scalar; None until the backward pass ends.
    """

    epoch: int
    batches: list[tuple[Batch, Tensor | float]] = field(default_factory=list)
    batch_idx: int = 0
    checks: list[tuple[list[str], Tensor]] = field(default_factory=list)
    is_skipped: Tensor | None = None

    def list_suspects(self) -> list[str]:
        """Ids of the utterances whose loss is not finite, each once. This reads tensors."""
        bad = [ids[i % len(ids)] for ids, is_finite in self.checks for i in (~is_finite).nonzero()[:, 0].tolist()]
        return list(dict.fromkeys(bad))


class SkippedSteps:
    """Reports the steps that were skipped because loss or gradient was not finite.

    Steps are collected and read together, so that the host does not wait for the device at each step.

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
        """Batches kept until the next read."""
        return sum(len(step.batches) for step in self._unread)

    def read(self, save_to: Callable[[Path, Step, int], None], loss_scale: float | None) -> None:
        """Read the collected steps; log and save those that were skipped.

        Args:
            save_to: Called with a folder, a skipped step and the number of steps computed after it.
            loss_scale: fp16's present loss scale; None for other precisions.

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
                logger.info("fp16: a gradient overflowed; loss scale lowered to %g", loss_scale)
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
                    f"non-finite {what} in {self.in_a_row} steps in a row, the last with {named}; lower "
                    f"optimizer.learning_rate or trainer.gradient_clip_val and train again; saved in {self.folder}"
                )
            )


def save_step(
    folder: Path, step: Step, model: ModelFolder, config: Config, *, phones: PhoneOutput | None, rank: int, later: int
) -> None:
    """Save a skipped step: its batches and the present weights.

    Args:
        folder: Receives ``fault.json``, ``model/``, a ``batch-N.safetensors`` for each batch, and the output layer
            of lower layers, ``phones.safetensors``, if they have one.
        step: The skipped step.
        model: The model in training.
        config: The run's configuration.
        phones: The output layer of lower layers.
        rank: The process's rank.
        later: Steps computed after it; the saved weights are those after these steps.
    """
    save_model(folder / "model", model)
    if phones is not None:
        write_atomic(folder / "phones.safetensors", save(phones.state_dict()))
    rows = []
    for number, (batch, _) in enumerate(step.batches):
        tensors = {name: each.detach().cpu().contiguous() for name, each in batch.tensors.items()}
        write_atomic(folder / f"batch-{number}.safetensors", save(tensors))
        names = ("ids", "texts", "augment_seeds", "chunk_seconds")
        rows.append({name: getattr(batch, name) for name in names})
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
