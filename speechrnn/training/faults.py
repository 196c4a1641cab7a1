"""What can go wrong in the middle of a run: files that cannot be read, losses that are not finite, too little memory.

A step that was not taken is saved whole, batch and weights, and :func:`replay` computes it again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from speechrnn.corpus.batches import select_utterances
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder import ModelFolder, load_model, save_model
from speechrnn.seeds import derive_seed
from speechrnn.training.collectives import stop_all
from speechrnn.training.config import FaultsConfig
from speechrnn.training.config_file import config_from_dict
from speechrnn.types import Batch
from speechrnn.whole_files import write_json, write_whole

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
        write_whole(folder / "phones.safetensors", save(module.phones.state_dict()))
    rows = []
    for number, batch in enumerate(batches):
        tensors = {name: each.detach().cpu().contiguous() for name, each in batch.tensors.items()}
        write_whole(folder / f"batch-{number}.safetensors", save(tensors))
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


@dataclass(frozen=True)
class ReplayedUtterance:
    """One utterance of a step that was not taken.

    Attributes:
        id: Its name.
        seconds: Its duration after augmentation.
        tokens: Tokens of its text.
        loss: Its loss in nats, the mean over passes.
        gradient_norm: Norm of its gradient alone.
        largest_sample: Greatest amplitude that went in.
    """

    id: str
    seconds: float
    tokens: int
    loss: float
    gradient_norm: float
    largest_sample: float

    @property
    def is_finite(self) -> bool:
        """Whether it can have been trained on."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def replay(folder: str | Path) -> list[ReplayedUtterance]:
    """Compute a step that was not taken once more, utterance by utterance, on the CPU in float32.

    States that were carried on from earlier utterances are not among what was saved: each utterance starts from the
    model's own, and a warning says so.

    Args:
        folder: What :func:`save_fault` wrote.

    Returns:
        Its utterances, those whose loss or gradient is not finite first, then by loss, the greatest first.

    Raises:
        ConfigError: The folder holds no saved step.
    """
    from speechrnn.training.module import SpeechModule

    folder = Path(folder)
    fault = _read_fault(folder)
    saved = load_model(folder / "model")
    config = config_from_dict(fault["configuration"], where=str(folder))
    module = SpeechModule(saved.acoustic, saved.tokens, config, fault.get("pronunciations"))
    if module.phones is not None:
        module.phones.load_state_dict(_read_tensors(folder / "phones.safetensors"))
    module.train()
    if module.carried is not None:
        logger.warning("states that were carried on are not saved: each utterance starts from the model's own")
    rows = []
    for number, row in enumerate(fault["batches"]):
        tensors: dict[str, Any] = _read_tensors(folder / f"batch-{number}.safetensors")
        batch = Batch(**tensors, **row)
        for index in range(len(batch.ids)):
            torch.manual_seed(derive_seed(fault["configuration"]["seed"], fault["epoch"], number, index))
            rows.append(_replay_utterance(module, select_utterances(batch, [index])))
    return sorted(rows, key=lambda row: (row.is_finite, -row.loss if row.is_finite else 0.0))


def _read_fault(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "fault.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--replay {folder}: no saved step there; give a folder of a run's faults/") from error


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); the saved step is not whole") from error


def _replay_utterance(module: SpeechModule, batch: Batch) -> ReplayedUtterance:
    module.zero_grad()
    losses, divergences = module.compute_losses(batch)
    (losses + module.config.ctc.consistency * divergences).mean().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    samples = batch.waveforms
    return ReplayedUtterance(
        id=batch.ids[0],
        seconds=samples.shape[1] / module.model.sample_rate,
        tokens=int(batch.target_lengths[0]),
        loss=float(losses.detach().mean()),
        gradient_norm=float(torch.nn.utils.get_total_norm(gradients)),
        largest_sample=float(samples.abs().max()) if samples.numel() else 0.0,
    )


def describe_replay(rows: Sequence[ReplayedUtterance]) -> str:
    """A table of a replayed step."""
    lines = ["| utterance | seconds | tokens | loss, nats | gradient norm | largest sample |", "|" + " --- |" * 6]
    for row in rows:
        values = [row.id, f"{row.seconds:.2f}", str(row.tokens), f"{row.loss:.3f}"]
        values += [f"{row.gradient_norm:.3g}", f"{row.largest_sample:.3g}"]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)
