"""Compute a skipped training step again, utterance by utterance, to find the one that is not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from speechrnn.atomic_io import read_json
from speechrnn.corpus.batches import select_utterances
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder import load_model
from speechrnn.training.config_file import config_from_dict
from speechrnn.training.module import SpeechModule
from speechrnn.types import Batch, derive_seed

logger = logging.getLogger("speechrnn")


@dataclass(frozen=True)
class ReplayedUtterance:
    """One utterance of a skipped step.

    Attributes:
        id: Its id.
        seconds: Its duration after augmentation.
        tokens: Number of tokens of its text.
        loss: Its loss in nats, the mean over passes.
        gradient_norm: Norm of its gradient alone.
        largest_sample: Largest absolute sample.
    """

    id: str
    seconds: float
    tokens: int
    loss: float
    gradient_norm: float
    largest_sample: float

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def replay(folder: str | Path) -> list[ReplayedUtterance]:
    """Compute a skipped step again, utterance by utterance, on the CPU in float32.

    The weights are those of the next read, ``saved_steps_later`` steps after the skipped one. Carried states are not
    saved: each utterance starts from the model's own state, and a warning says so.

    Args:
        folder: A folder of :func:`speechrnn.training.faults.save_step`.

    Returns:
        Its utterances: those with a non-finite loss or gradient first, then by decreasing loss.

    Raises:
        ConfigError: The folder holds no saved step.
    """
    folder = Path(folder)
    fault = _read_fault(folder)
    saved = load_model(folder / "model")
    config = config_from_dict(fault["configuration"], where=str(folder))
    module = SpeechModule(config, saved.acoustic, saved.tokens, fault.get("pronunciations"))
    if module.phones is not None:
        module.phones.load_state_dict(_read_tensors(folder / "phones.safetensors"))
    module.train()
    if module.carried is not None:
        logger.warning("carried states are not saved: each utterance starts from the model's own state")
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
        return read_json(folder / "fault.json")
    except SpeechRNNError as error:
        raise ConfigError(f"--rerun-step {folder}: no saved step there; pass a folder of a run's faults/") from error


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); the saved step is damaged") from error


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
