"""The LightningModule: CTC loss, one optimiser step at a time, faults survived or named, validation WER.

Optimisation is manual in Lightning's sense: a step that must not be taken is not, a batch that does not fit into memory
is trained in parts, and what random draws a step makes is a function of the seed, the epoch and the batch alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from speechrnn.acoustic.model import AcousticModel
from speechrnn.corpus.batches import split_batch
from speechrnn.errors import SpeechRNNError, name_some
from speechrnn.seeds import derive_seed
from speechrnn.text.tokens import Tokens
from speechrnn.training.carried import CarriedStates
from speechrnn.training.collectives import gather_from_processes, stop_all, sum_over_processes
from speechrnn.training.config import Config
from speechrnn.training.faults import Unreadable, is_out_of_memory, save_fault
from speechrnn.training.losses import UtteranceLosses, choose_state
from speechrnn.training.optimization import build_optimizer, build_schedule, clip_gradients
from speechrnn.training.phones import PhoneOutput
from speechrnn.training.start import Movement
from speechrnn.training.totals import EpochTotals
from speechrnn.training.validation import Validation
from speechrnn.types import Batch

logger = logging.getLogger("speechrnn")

MONITOR = "valid/rank"
"""What checkpoints are chosen by, the lower the better (:func:`speechrnn.training.validation.compute_rank`)."""

_OVERFLOWS_IN_A_ROW = 20


class SpeechModule(pl.LightningModule):
    """Trains an acoustic model with CTC.

    Args:
        model: What is trained.
        tokens: What its outputs stand for.
        config: The run's configuration; its ``output`` is where a fault is saved.
        pronunciations: Phones of the training texts' words, where lower layers are to learn those (``ctc.lexicon``).
    """

    def __init__(
        self,
        model: AcousticModel,
        tokens: Tokens,
        config: Config,
        pronunciations: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.tokens = tokens
        self.config = config
        self.movement = Movement(model, config.start) if config.start.model is not None else None
        self.phones = PhoneOutput(pronunciations, model.encoder.output_size) if pronunciations else None
        self.compute_losses = UtteranceLosses(config, model, self.phones)
        self.carried = self.compute_losses.carried
        self._carried_valid = CarriedStates() if self.carried is not None else None
        self.totals = EpochTotals()
        self._is_gathered = False
        self.unreadable = Unreadable(config.faults)
        self.faults_in_a_row = 0
        self.seconds_that_fit: float | None = None
        self.validation = Validation()
        self.last_validation: dict[str, float] | None = None
        self._group: list[tuple[Batch, float]] = []
        self._suspects: list[str] = []
        self._is_finite = True
        self._norm = 0.0

    # What a checkpoint holds beside weights and optimiser.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: add what a resumed run must know."""
        checkpoint["speechrnn"] = {
            "totals": asdict(self.totals),
            "unreadable": self.unreadable.to_dict(),
            "faults_in_a_row": self.faults_in_a_row,
            "seconds_that_fit": self.seconds_that_fit,
            "carried": self.carried.after if self.carried is not None else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: take it up again."""
        kept = checkpoint["speechrnn"]
        self.totals = EpochTotals(**kept["totals"])
        self.unreadable.load(kept["unreadable"])
        self.faults_in_a_row = kept["faults_in_a_row"]
        self.seconds_that_fit = kept["seconds_that_fit"]
        if self.carried is not None:
            self.carried.after = kept.get("carried", {})

    # Training.

    @property
    def is_in_a_step(self) -> bool:
        """Whether gradients are being added up for a step that is still to come."""
        return bool(self._group)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Lightning's hook: move a batch's tensors."""
        return batch.to(device)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's totals anew; nothing follows what the epoch before ended with."""
        if self.carried is not None:
            self.carried.after = {}
        self.totals = EpochTotals()
        self._is_gathered = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch's gradients, and take a step if it is the last of its group."""
        config = self.config
        torch.manual_seed(derive_seed(config.seed, self.current_epoch, batch_idx, self.global_rank))
        if self.movement is not None and self.trainer.world_size == 1:
            self.movement.apply(self.model.named_parameters(), self.current_epoch)
        failed = [(id, reason) for id, _, reason in batch.failed]
        utterances, num_failed = sum_over_processes([len(batch.ids), len(failed)], self.device)
        if num_failed:
            self.unreadable.count(gather_from_processes(failed))
        if not self._group:
            self.optimizers().zero_grad()  # type: ignore[union-attr]
            self._is_finite, self._suspects = True, []
        # Each utterance of the batch weighs the same, on whatever rank it is.
        self._group.append((batch, self.trainer.world_size / max(1, utterances) / config.accumulate_grad_batches))
        with self._noisy_weights():
            self._backward()
        if self.carried is not None:
            self.carried.advance()
        if len(self._group) == config.accumulate_grad_batches or self.trainer.is_last_batch:
            self._step(batch_idx)
            self._group = []

    @contextmanager
    def _noisy_weights(self) -> Iterator[None]:
        """Gradients are taken where noise has moved the weights to, and applied where they were."""
        deviation = self.config.optimizer.weight_noise
        matrices = [p for p in self.parameters() if p.ndim >= 2 and p.requires_grad] if deviation else []
        kept = [matrix.detach().clone() for matrix in matrices]
        with torch.no_grad():
            for matrix in matrices:
                matrix.add_(torch.randn_like(matrix), alpha=deviation)
        try:
            yield
        finally:
            with torch.no_grad():
                for matrix, before in zip(matrices, kept, strict=True):
                    matrix.copy_(before)

    def _backward(self) -> None:
        """Losses and gradients of the group's last batch, in as many parts as memory asks for."""
        batch, scale = self._group[-1]
        totals = asdict(self.totals)
        while True:
            parts = split_batch(batch, self._count_parts(batch))
            try:
                for part in parts:
                    self._backward_part(part, scale)
                return
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.trainer.world_size > 1:
                    raise
                message = str(error)
            # Outside the handler, where the traceback no longer holds on to the tensors. The gradients of the batches
            # before this one go with those of its first parts, so they are computed again.
            self.optimizers().zero_grad()  # type: ignore[union-attr]
            self._shrink(batch, len(parts), message)
            for earlier, its_scale in self._group[:-1]:
                for part in split_batch(earlier, self._count_parts(earlier)):
                    self._backward_part(part, its_scale)
            self.totals = EpochTotals(**totals)

    def _count_parts(self, batch: Batch) -> int:
        """Parts that a batch has to be trained in; 1 until memory ran out once."""
        if self.seconds_that_fit is None:
            return 1
        return min(max(1, len(batch.ids)), math.ceil(self._padded_seconds(batch) / self.seconds_that_fit))

    def _padded_seconds(self, batch: Batch) -> float:
        return batch.waveforms.numel() / self.model.sample_rate

    def _shrink(self, batch: Batch, parts: int, message: str) -> None:
        """Halve what is trained at once."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        seconds = self._padded_seconds(batch)
        if parts >= len(batch.ids):
            longest = int(batch.waveform_lengths.argmax())
            raise SpeechRNNError(
                f"out of memory with a single utterance, {batch.ids[longest]} "
                f"({int(batch.waveform_lengths[longest]) / self.model.sample_rate:.1f} s): {message.splitlines()[0]}; "
                "take a smaller model, or leave long utterances out"
            )
        self.seconds_that_fit = seconds / min(2 * parts, len(batch.ids))
        logger.warning(
            "out of memory in a batch of %d utterances, %.0f s with padding: from here on no more than %.0f s are "
            "computed at once, and the gradients of the parts added up; data.batch_seconds %.0f would fit as it is",
            len(batch.ids), seconds, self.seconds_that_fit, self.seconds_that_fit,
        )  # fmt: skip

    def _backward_part(self, batch: Batch, scale: float) -> None:
        if not batch.ids:
            # Nothing to learn from on this rank, but the others wait for its gradients.
            self.manual_backward(sum((p.sum() for p in self.parameters()), start=torch.zeros(())) * 0.0)
            return
        losses, divergences = self.compute_losses(batch)
        ctc = self.config.ctc
        warmup = min(1.0, (self.global_step + 1) / (ctc.consistency_warmup_steps + 1))
        passes = len(losses) // len(batch.ids)
        loss = (losses + ctc.consistency * warmup * divergences).sum() * (scale / passes)
        self.manual_backward(loss)
        is_finite = torch.isfinite(losses.detach() + divergences.detach())
        if not bool(is_finite.all()):
            self._is_finite = False
            self._suspects += [batch.ids[i % len(batch.ids)] for i in (~is_finite).nonzero()[:, 0].tolist()]
        self.totals.loss += float(losses.detach()[is_finite].sum())
        self.totals.consistency += float(divergences.detach()[is_finite].sum())
        self.totals.utterances += int(is_finite.sum())
        self.totals.seconds += float(batch.waveform_lengths.sum()) / self.model.sample_rate
        self.log("train/loss_step", losses.detach().mean(), on_step=True, on_epoch=False, batch_size=len(batch.ids))

    def _step(self, batch_idx: int) -> None:
        """Take a step with the gradients that were added up, or not, and move the learning rate on."""
        self.optimizers().step()  # type: ignore[union-attr]
        if self._is_finite:
            self.faults_in_a_row = 0
            self.totals.steps += 1
            self.totals.norms += self._norm
        else:
            self.totals.skipped += 1
            self.faults_in_a_row += 1
            self._report_fault(batch_idx)
        self.log("train/gradient_norm", self._norm, on_step=True, on_epoch=False)
        schedule = self.lr_schedulers()
        if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            schedule.step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's hook, after fp16's loss scale is divided out: measure the norm, clip, or call the step off."""
        if self.movement is not None:
            # Where several processes train, all parameters take gradients, as their exchange expects, in all epochs.
            for name, parameter in self.model.named_parameters():
                if not self.movement.moves(name, self.current_epoch):
                    parameter.grad = None
        parameters = [p for p in self.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).detach()
        self._norm = float(norm)
        is_finite = self._is_finite and math.isfinite(self._norm)
        self._is_finite = sum_over_processes([not is_finite], self.device) == [0]  # all step together or not at all
        if not self._is_finite:
            for parameter in parameters:
                parameter.grad = None  # a step without gradients changes nothing
            return
        limit, algorithm = self.config.gradient_clip_val, self.config.gradient_clip_algorithm
        self.totals.clipped += clip_gradients(parameters, norm, limit, algorithm)

    def _report_fault(self, batch_idx: int) -> None:
        """Name the utterances of a step that was not taken, and save it; stop after a few in a row."""
        of_all = gather_from_processes([self._suspects])
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and not any(of_all) and self.faults_in_a_row <= _OVERFLOWS_IN_A_ROW:
            logger.info("fp16: a gradient overflowed, as it must until the loss scale fits: now %g", scaler.get_scale())
            return
        batches = [batch for batch, _ in self._group]
        what = "loss" if any(of_all) else "gradient"
        if not any(of_all):
            of_all = gather_from_processes([[id for batch in batches for id in batch.ids]])
        suspects = list(dict.fromkeys(id for ids in of_all for id in ids))  # each of two passes may have named it
        named = name_some(suspects)
        folder = Path(self.config.output or ".") / "faults" / f"epoch-{self.current_epoch + 1}-batch-{batch_idx + 1}"
        folders = [folder / f"process-{rank}" if len(of_all) > 1 else folder for rank in range(len(of_all))]
        if any(batch.ids for batch in batches):
            save_fault(folders[self.global_rank], self, batches, epoch=self.current_epoch, batch_idx=batch_idx)
        logger.warning(
            "the %s is not finite with %s: this step was not taken (%d in a row); to look at it: "
            "speechrnn train --replay %s",
            what, named, self.faults_in_a_row, next(at for at, ids in zip(folders, of_all, strict=True) if ids),
        )  # fmt: skip
        if self.faults_in_a_row >= self.config.faults.nonfinite_in_a_row:
            stop_all(
                SpeechRNNError(
                    f"the {what} is not finite in {self.faults_in_a_row} steps in a row, the last with {named}; lower "
                    "optimizer.learning_rate or trainer.gradient_clip_val and train anew; the steps are saved in "
                    f"{Path(self.config.output or '.') / 'faults'}"
                )
            )

    def on_train_epoch_end(self) -> None:
        """Log the epoch's totals."""
        totals = self.gather_totals()
        self.log("train/loss_epoch", totals.mean("loss"))
        if self.config.ctc.consistency:
            self.log("train/consistency", totals.mean("consistency"))
        self.log("train/clipped_share", totals.mean("clipped"))
        self.log("train/gradient_norm_mean", totals.mean("norms"))
        self.log("train/steps_skipped", float(totals.skipped))

    def gather_totals(self) -> EpochTotals:
        """The epoch's totals over all ranks; to be called on each of them, at the end of the epoch."""
        if not self._is_gathered:
            self.totals.gather(self.device)
        self._is_gathered = True
        return self.totals

    # Validation.

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode greedily and count errors; an utterance that cannot be read counts as if nothing had been heard."""
        for id, text, reason in batch.failed:
            self.validation.fail(id, text, reason)
        for part in split_batch(batch, self._count_parts(batch)) if batch.ids else []:
            state = choose_state(self.model, part, self._carried_valid)
            keeps = self._carried_valid is not None
            emission = self.model(
                part.waveforms, part.waveform_lengths, state=state, heard=part.heard, return_state=keeps
            )
            if self._carried_valid is not None and emission.state is not None:
                self._carried_valid.keep(part, emission.state)
            self.validation.add(emission, part, self.tokens)
        if self._carried_valid is not None:
            self._carried_valid.advance()

    def on_validation_epoch_end(self) -> None:
        """Log the error rates over the whole validation set, and let a plateau lower the learning rate."""
        self.last_validation = self.validation.finish(self.device)
        for name, value in self.last_validation.items():
            self.log(f"valid/{name}", value)
        schedule = self.lr_schedulers()
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(self.last_validation["rank"])

    def configure_optimizers(self) -> Any:
        """Lightning's hook: AdamW and the schedule."""
        is_fp16 = str(self.config.trainer.get("precision", "")).startswith("16")
        factors = (
            {p: self.movement.factor(name) for name, p in self.model.named_parameters()} if self.movement else None
        )
        optimizer = build_optimizer(self.parameters(), self.config.optimizer, fused=not is_fp16, factors=factors)
        schedule = build_schedule(optimizer, self.config.optimizer, total_steps=self.count_steps())
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}

    def count_steps(self) -> float:
        """Optimiser steps of the whole run; infinite where nothing ends it."""
        trainer = self.trainer
        if trainer.max_epochs is None or trainer.max_epochs < 0:
            return trainer.max_steps if trainer.max_steps > 0 else math.inf
        batches = trainer.estimated_stepping_batches / max(1, trainer.max_epochs)  # Lightning steps at each
        steps = math.ceil(batches / self.config.accumulate_grad_batches) * trainer.max_epochs
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
