"""The LightningModule: CTC loss, skipped steps, batches in parts, validation error rates, transcripts.

Optimisation is automatic: Lightning zeroes gradients, accumulates, clips, steps and schedules, with two exceptions:

- With one process, ``training_step`` returns the value of the loss without its graph, and :meth:`SpeechModule.backward`
  differentiates the graph. Lightning keeps a reference to what ``training_step`` returns; with the graph in it, memory
  could not be released to compute the batch in parts after it ran out.
- ``ReduceLROnPlateau`` is stepped after each validation, not at the end of an epoch: Lightning's metrics are not part
  of a checkpoint, so a resumed run would miss the step.

No training step reads a tensor on the host. Losses, norms and counters stay on the device until they are logged, a
checkpoint is written or the epoch ends (:meth:`SpeechModule.read`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from speechrnn.acoustic.model import AcousticModel
from speechrnn.corpus.batches import split_batch
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError
from speechrnn.model_folder import ModelFolder
from speechrnn.processes import gather_from_processes, sum_on_device
from speechrnn.text.token_files import pack_tokens, unpack_tokens
from speechrnn.text.tokens import Tokens
from speechrnn.training.config import Config
from speechrnn.training.config_file import to_config
from speechrnn.training.faults import Memory, SkippedSteps, Step, Unreadable, save_step, try_in_memory
from speechrnn.training.losses import CarriedStates, PhoneOutput, UtteranceLosses, choose_state
from speechrnn.training.optimization import (
    EpochTotals,
    WeightNoise,
    build_optimizer,
    build_schedule,
    clip_gradients,
    count_steps,
    skip_step,
    step_schedule,
)
from speechrnn.training.start import UnfreezeSchedule
from speechrnn.training.validation import Validation
from speechrnn.types import Batch, Emission, derive_seed

MONITOR = "valid/rank"
"""Metric that checkpoints are chosen by, lower is better (:func:`speechrnn.training.validation.compute_rank`)."""

_READ_EVERY = 50


class SpeechModule(pl.LightningModule):
    """Trains an acoustic model with CTC.

    With your own Trainer: ``Trainer(…).fit(SpeechModule(config), SpeechData(config))``. Model and tokens then come from
    the data; ``SpeechModule.load_from_checkpoint(path, weights_only=True)`` takes them from the checkpoint.

    Args:
        config: The run's configuration: a :class:`~speechrnn.training.config.Config`, a YAML file, or plain settings.
        model: The model to train; None: the DataModule's preflight makes it.
        tokens: Tokens of the model's outputs.
        pronunciations: Phones of the training texts' words, if lower layers learn them (``ctc.lexicon``).
    """

    model: AcousticModel
    tokens: Tokens

    def __init__(
        self,
        config: Config | str | Path | Mapping[str, Any],
        model: AcousticModel | None = None,
        tokens: Tokens | None = None,
        pronunciations: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.config = to_config(config)
        self.save_hyperparameters({"config": self.config.to_dict()})
        self.totals = EpochTotals()
        self.unreadable = Unreadable(self.config.faults)
        self.skipped = SkippedSteps(self.config)
        self.memory = Memory()
        self.named: set[str] = set()
        self.validations: dict[int, Validation] = {}
        self.last_validation: dict[str, float] | None = None
        self._failed: list[tuple[str, str]] = []
        self._step: Step | None = None
        self._totals_before = self.totals
        self._gathered: EpochTotals | None = None
        self._value: Tensor | None = None
        self._loss: Tensor | None = None
        self.noise = WeightNoise(self.config.optimizer.weight_noise)
        if model is not None and tokens is not None:
            self._begin(model, tokens, pronunciations)

    def _begin(self, model: AcousticModel, tokens: Tokens, pronunciations: Mapping[str, Sequence[str]] | None) -> None:
        self.memory.sample_rate = model.sample_rate
        self.model = model
        self.tokens = tokens
        self._packed_tokens = pack_tokens(tokens)
        self.unfreezing = UnfreezeSchedule(model, self.config.start) if self.config.start.model is not None else None
        self.phones = PhoneOutput(pronunciations, model.encoder.output_size) if pronunciations else None
        self.compute_losses = UtteranceLosses(self.config, model, self.phones)
        self.carried = self.compute_losses.carried
        self._carried_valid = CarriedStates() if self.carried is not None else None

    def configure_model(self) -> None:
        """Lightning's hook: take model and tokens from the DataModule if they are not given."""
        if hasattr(self, "tokens") or self._trainer is None:
            return
        preflight = getattr(getattr(self.trainer, "datamodule", None), "preflight", None)
        if preflight is None:
            raise ConfigError("SpeechModule(config) needs SpeechData(config) beside it, or model and tokens")
        self.unreadable.corpus_size = len(preflight.train)
        self._begin(preflight.model, preflight.tokens, preflight.pronunciations)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: add what resuming and loading need."""
        self.read()
        checkpoint["speechrnn"] = {
            "tokens": self._packed_tokens,
            "pronunciations": None if self.phones is None else self.phones.pronunciations,
            "totals": asdict(self.totals.read()),
            "unreadable": self.unreadable.reasons,
            "faults_in_a_row": self.skipped.in_a_row,
            "seconds_that_fit": self.memory.seconds_that_fit,
            "carried": self.carried.after if self.carried is not None else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: restore it."""
        kept = checkpoint["speechrnn"]
        if not hasattr(self, "tokens"):
            tokens = unpack_tokens(kept["tokens"])
            model = AcousticModel(self.config.front_end, self.config.encoder, len(tokens))
            self._begin(model, tokens, kept["pronunciations"])
        self.totals = EpochTotals(**kept["totals"])
        self.unreadable.reasons = dict(kept["unreadable"])
        self.skipped.in_a_row = kept["faults_in_a_row"]
        self.memory.seconds_that_fit = kept["seconds_that_fit"]
        if self.carried is not None:
            self.carried.after = kept["carried"]

    @property
    def is_in_a_step(self) -> bool:
        """Whether gradients are being accumulated for a later step."""
        return self._step is not None

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Lightning's hook: move a batch's tensors."""
        return batch.to(device)

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's totals and the carried states."""
        if self.carried is not None:
            self.carried.after = {}
        self.totals, self._gathered = EpochTotals(), None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute a batch's loss: the sum over its utterances, over the number of utterances of all processes."""
        torch.manual_seed(derive_seed(self.config.seed, self.current_epoch, batch_idx, self.global_rank))
        if self.unfreezing is not None and self.trainer.world_size == 1:
            self.unfreezing.apply(self.model.named_parameters(), self.current_epoch)
        self._failed += [(id, reason) for id, _, reason in batch.failed]
        if self._step is None:
            self._step, self._totals_before = Step(self.current_epoch), replace(self.totals)
        # Each utterance of the batch has the same weight, on whatever rank it is.
        utterances = sum_on_device(torch.full((), float(len(batch.ids)), device=self.device))
        share = utterances.clamp(min=1).reciprocal() * self.trainer.world_size
        self._step.batches.append((batch, share))
        self._step.batch_idx = batch_idx
        self.noise.add(self.parameters())
        if self.trainer.world_size > 1:
            return self._compute_loss(batch, share)
        self._loss = None
        if self.memory.count_parts(batch) == 1:
            self._loss, message = try_in_memory(partial(self._compute_loss, batch, share))
            if message:
                self._shrink(message)
        value = torch.zeros((), device=self.device) if self._loss is None else self._loss.detach()
        self._value = value.requires_grad_()
        return self._value

    def _compute_loss(self, batch: Batch, share: Tensor | float) -> Tensor:
        """The loss of a batch or a part of one, which is added to the totals and the step's checks."""
        if not batch.ids:  # this rank has no utterance, but the others wait for its gradients
            return sum((p.sum() for p in self.parameters()), start=torch.zeros((), device=self.device)) * 0.0
        losses, divergences = self.compute_losses(batch)
        ctc = self.config.ctc
        warmup = min(1.0, (self.global_step + 1) / (ctc.consistency_warmup_steps + 1))
        passes = len(losses) // len(batch.ids)
        values, differences = losses.detach(), divergences.detach()
        is_finite = torch.isfinite(values + differences)
        assert self._step is not None
        self._step.checks.append((batch.ids, is_finite))
        self.totals.add(
            loss=torch.where(is_finite, values, 0.0).double().sum(),
            consistency=torch.where(is_finite, differences, 0.0).double().sum(),
            utterances=is_finite.sum(),
        )
        self.totals.seconds += float(batch.waveform_lengths.sum()) / self.model.sample_rate
        self._mean_loss = values.mean()
        return (losses + ctc.consistency * warmup * divergences).sum() * (share / passes)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's hook: compute gradients, in parts if memory runs out."""
        super().backward(loss, *args, **kwargs)
        if self._value is None:
            return
        # How Lightning scaled the loss: by accumulation and, in fp16, the loss scale.
        factor, graph = self._value.grad, self._loss
        self._value = self._loss = None
        if graph is not None:
            _, message = try_in_memory(partial(graph.backward, factor))
            if not message:
                return
            del graph
            self._shrink(message)
        while message := try_in_memory(partial(self._backward_in_parts, factor))[1]:
            self._shrink(message)

    def _backward_in_parts(self, factor: Tensor | None) -> None:
        """Gradients of the step's last batch, or of all its batches if gradients were dropped."""
        assert self._step is not None
        todo = self._step.batches[-1:] if self._step.checks else self._step.batches
        with self.trainer.precision_plugin.train_step_context():
            for batch, share in todo:
                for part in split_batch(batch, self.memory.count_parts(batch)):
                    self._compute_loss(part, share).backward(factor)

    def _shrink(self, message: str) -> None:
        """Halve what is computed at once, and drop the step's gradients: they may be those of some parts."""
        assert self._step is not None
        self.memory.shrink([batch for batch, _ in self._step.batches], message)
        self.zero_grad()
        self._step.checks = []
        self.totals = replace(self._totals_before)

    def on_after_backward(self) -> None:
        """Lightning's hook: remove the weight noise; carry the batch's states to the next."""
        self.noise.remove()
        if self.carried is not None:
            self.carried.advance()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's hook, after fp16's loss scale is divided out: measure the norm, skip non-finite steps."""
        if self.unfreezing is not None:  # several processes exchange the gradients of all parameters in all epochs
            for name, parameter in self.model.named_parameters():
                if not self.unfreezing.trains(name, self.current_epoch):
                    parameter.grad = None
        assert self._step is not None
        step, self._step = self._step, None
        self._norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]).detach()
        self._norm = self._norm.to(self.device)
        is_good = torch.stack([torch.isfinite(self._norm), *(is_finite.all() for _, is_finite in step.checks)]).all()
        step.is_skipped = sum_on_device((~is_good).float()) > 0  # all processes step together or not at all
        skip_step(optimizer, step.is_skipped)
        self.totals.add(
            steps=~step.is_skipped, skipped=step.is_skipped, norms=torch.where(step.is_skipped, 0.0, self._norm)
        )
        self.skipped.add(step)
        if step.checks:
            self.log("train/loss_step", self._mean_loss, on_step=True, on_epoch=False)
        self.log("train/gradient_norm", self._norm, on_step=True, on_epoch=False)
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"], on_step=True, on_epoch=False)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's hook: clip, and count clipped steps."""
        parameters = [p for p in self.parameters() if p.grad is not None]
        is_clipped = clip_gradients(parameters, self._norm, gradient_clip_val, gradient_clip_algorithm or "norm")
        self.totals.add(clipped=is_clipped & torch.isfinite(self._norm))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Lightning's hook: read faults at log steps."""
        every = min(self.trainer.log_every_n_steps or _READ_EVERY, _READ_EVERY)  # type: ignore[attr-defined]
        if not self.is_in_a_step and (self.global_step % every == 0 or self.skipped.num_unread_batches >= _READ_EVERY):
            self.read()

    def read(self) -> None:
        """Report unreadable recordings and skipped steps since the last read; to be called on all processes at once.

        Raises:
            CorpusError: Too many recordings cannot be read.
            SpeechRNNError: Too many steps in a row were skipped.
        """
        failed, self._failed = self._failed, []
        self.unreadable.count(gather_from_processes(failed))
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self.skipped.read(self._save_step, None if scaler is None else scaler.get_scale())

    def _save_step(self, folder: Path, step: Step, later: int) -> None:
        model = ModelFolder(self.model, self.tokens, self.config.text, {})
        save_step(folder, step, model, self.config, phones=self.phones, rank=self.global_rank, later=later)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's totals."""
        self.read()
        totals = self.gather_totals()
        self.log("train/loss_epoch", totals.mean("loss"))
        if self.config.ctc.consistency:
            self.log("train/consistency", totals.mean("consistency"))
        self.log("train/clipped_share", totals.mean("clipped"))
        self.log("train/gradient_norm_mean", totals.mean("norms"))
        self.log("train/steps_skipped", float(totals.skipped))

    def gather_totals(self) -> EpochTotals:
        """The epoch's totals over all processes; to be called on each of them, at the end of the epoch."""
        if self._gathered is None:
            self._gathered = self.totals.gather(self.device)
        return self._gathered

    def emit(self, batch: Batch) -> list[tuple[Batch, Emission]]:
        """Log-probabilities of a batch outside training, in parts that fit into memory."""
        found = []
        for part in split_batch(batch, self.memory.count_parts(batch)) if batch.ids else []:
            options = {
                "state": choose_state(self.model, part, self._carried_valid),
                "speaker_stats": part.speaker_stats,
            }
            keeps = self._carried_valid is not None
            emission = self.model(part.waveforms, part.waveform_lengths, return_state=keeps, **options)
            if self._carried_valid is not None and emission.state is not None:
                self._carried_valid.keep(part, emission.state)
            found.append((part, emission))
        if self._carried_valid is not None:
            self._carried_valid.advance()
        return found

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Decode greedily and count errors; an utterance that cannot be read counts as an empty transcript."""
        validation = self.validations.setdefault(dataloader_idx, Validation(self.named))
        for id, text, reason in batch.failed:
            validation.fail(id, text, reason)
        for part, emission in self.emit(batch):
            validation.add(emission, part, self.tokens)

    def on_validation_epoch_end(self) -> None:
        """Log the error rates over the whole validation set; step a plateau schedule."""
        self.last_validation = self.validations.setdefault(0, Validation(self.named)).finish(self.device)
        for name, value in self.last_validation.items():
            self.log(f"valid/{name}", value)
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            schedule.step(self.last_validation["rank"])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As :meth:`validation_step`, on the sets of ``data.test``."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the error rates of each test set, by its name."""
        for name, validation in zip(self.config.data.test, self.validations.values(), strict=False):
            rates = validation.finish(self.device)
            self.log_dict({f"{name}/{rate}": rates[rate] for rate in ("wer", "cer", "loss")})

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, str]:
        """Greedy transcripts of a batch by utterance id; empty if a recording cannot be read."""
        texts = dict.fromkeys([id for id, _, _ in batch.failed], "")
        for part, emission in self.emit(batch):
            found = decode_greedy(emission.log_probs, emission.lengths)
            texts |= {id: self.tokens.decode(each.tokens) for id, each in zip(part.ids, found, strict=True)}
        return texts

    def configure_optimizers(self) -> Any:
        """Lightning's hook: AdamW and the schedule."""
        is_fp16 = str(self.trainer.precision).startswith("16")
        named = self.model.named_parameters()
        factors = {p: self.unfreezing.factor(name) for name, p in named} if self.unfreezing else None
        optimizer = build_optimizer(self.parameters(), self.config.optimizer, fused=not is_fp16, factors=factors)
        schedule = build_schedule(optimizer, self.config.optimizer, total_steps=count_steps(self.trainer))
        if schedule is None:
            return optimizer
        scheduling = {"scheduler": schedule, "interval": "step", "monitor": MONITOR, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": scheduling}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's hook; a plateau is stepped after each validation instead."""
        step_schedule(scheduler)
