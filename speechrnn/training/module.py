"""The LightningModule: CTC loss, AdamW and its schedule, clipping with the unclipped norm in view, validation WER."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from speechrnn.acoustic.ctc import CTCConfig, compute_blank_rate, consistency_losses, ctc_losses
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.spectral_augment import SpecAugment, Warp
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.seeds import derive_seed
from speechrnn.text.metrics import ErrorCounts, character_errors, word_errors
from speechrnn.text.tokens import Tokens
from speechrnn.training.config import OptimizerConfig
from speechrnn.types import Batch

MONITOR = "valid/rank"
"""What checkpoints are chosen by: the word error rate, and among equal ones the lower loss."""

_LAST_LEARNING_RATE_SHARE = 1e-3


def one_cycle_factor(step: int, *, total_steps: int, warmup_share: float) -> float:
    """Factor of the highest learning rate at a step: a linear rise, then a cosine down to a thousandth.

    Source:
        After L. Smith and N. Topin, "Super-Convergence", arXiv:1708.07120.
    """
    warmup = warmup_share * total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
    cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
    return _LAST_LEARNING_RATE_SHARE + (1.0 - _LAST_LEARNING_RATE_SHARE) * cosine


class SpeechModule(pl.LightningModule):
    """Trains an acoustic model with CTC.

    Args:
        model: What is trained.
        tokens: What its outputs stand for.
        optimizer: AdamW and its schedule.
        ctc: What is added to the loss.
        augment: What training does to the log-mels: warps and masks.
    """

    def __init__(
        self,
        model: AcousticModel,
        tokens: Tokens,
        *,
        optimizer: OptimizerConfig,
        ctc: CTCConfig | None = None,
        augment: AugmentConfig | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokens = tokens
        self.optimizer_config = optimizer
        self.ctc_config = ctc or CTCConfig()
        augment = augment or AugmentConfig()
        self.warp = Warp(augment.warp, model.front_end.config)
        self.spec_augment = SpecAugment(augment.spec_augment, frame_shift_seconds=model.front_end.frame_shift_seconds)
        self.audio_seconds = 0.0
        self._norms: list[Tensor] = []
        self._clipped: list[Tensor] = []
        self._reset_validation()

    def _reset_validation(self) -> None:
        self._word_counts = ErrorCounts(0, 0, 0, 0)
        self._character_counts = ErrorCounts(0, 0, 0, 0)
        self._valid_loss: list[Tensor] = []
        self._blank_frames: list[tuple[float, int]] = []

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Lightning's hook: move a batch's tensors."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """CTC loss of a batch, in nats an utterance, with what regularises it."""
        passes = 2 if self.ctc_config.consistency else 1
        emission = self.model(
            batch.waveforms, batch.waveform_lengths, augment=self._make_augment(batch.augment_seeds, passes)
        )
        losses = ctc_losses(
            emission.log_probs,
            batch.targets.repeat(passes, 1),
            lengths=emission.lengths,
            target_lengths=batch.target_lengths.repeat(passes),
        )
        loss = losses.mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=len(batch.ids))
        if passes == 2:
            consistency = consistency_losses(emission.log_probs, emission.lengths).mean()
            self.log("train/consistency", consistency, on_step=False, on_epoch=True, batch_size=len(batch.ids))
            loss = loss + self._consistency_weight() * consistency
        if not torch.isfinite(loss):
            raise SpeechRNNError(
                f"the loss is not finite in a batch with {', '.join(batch.ids[:5])}"
                f"{' and others' if len(batch.ids) > 5 else ''}; lower optimizer.learning_rate or clip gradients "
                "harder (trainer.gradient_clip_val)"
            )
        self.audio_seconds += float(batch.waveform_lengths.sum()) / self.model.sample_rate
        return loss

    def _make_augment(self, seeds: list[int], passes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What is done to a batch's log-mels: one warp for each utterance, and masks of its own for each pass."""

        def augment(log_mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            if self.warp.is_active:
                log_mels = self.warp(log_mels, lengths, [derive_seed(seed, "warp") for seed in seeds])
            log_mels, lengths = log_mels.repeat(passes, 1, 1), lengths.repeat(passes)
            if self.spec_augment.is_active:
                purposes = ["masks", "other masks"][:passes]
                mask_seeds = [derive_seed(seed, purpose) for purpose in purposes for seed in seeds]
                log_mels = self.spec_augment(log_mels, lengths, mask_seeds)
            return log_mels, lengths

        return augment

    def _consistency_weight(self) -> float:
        """The weight of consistency at this step."""
        config = self.ctc_config
        return config.consistency * min(1.0, (self.global_step + 1) / (config.consistency_warmup_steps + 1))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's hook: measure the unclipped gradient norm, then clip by norm or by value."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).detach()
        self._norms.append(norm)
        if gradient_clip_val:
            is_by_value = gradient_clip_algorithm == "value"
            largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf) if is_by_value else norm
            self._clipped.append(largest.detach() > gradient_clip_val)
        self.log("train/gradient_norm", norm, on_step=True, on_epoch=False)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @property
    def mean_gradient_norm(self) -> float:
        """Mean norm of this epoch's gradients before clipping."""
        return float(torch.stack(self._norms).mean()) if self._norms else 0.0

    @property
    def clipped_share(self) -> float:
        """Share of this epoch's steps whose gradient was clipped, in [0, 1]."""
        return float(torch.stack(self._clipped).float().mean()) if self._clipped else 0.0

    def on_train_epoch_start(self) -> None:
        """Start the epoch's counts anew."""
        self.audio_seconds = 0.0
        self._norms.clear()
        self._clipped.clear()

    def on_train_epoch_end(self) -> None:
        """Log the share of clipped steps and the mean unclipped norm."""
        self.log("train/clipped_share", self.clipped_share)
        self.log("train/gradient_norm_mean", self.mean_gradient_norm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode greedily and count errors."""
        emission = self.model(batch.waveforms, batch.waveform_lengths)
        losses = ctc_losses(
            emission.log_probs, batch.targets, lengths=emission.lengths, target_lengths=batch.target_lengths
        )
        # An utterance with a character that the model lacks has no targets: it counts in the WER, not in the loss.
        self._valid_loss.append(losses[(batch.target_lengths > 0) & torch.isfinite(losses)].detach())
        frames = int(emission.lengths.sum())
        self._blank_frames.append((float(compute_blank_rate(emission.log_probs, emission.lengths)), frames))
        for hypothesis, reference in zip(decode_greedy(emission.log_probs, emission.lengths), batch.texts, strict=True):
            text = self.tokens.decode(hypothesis.tokens)
            self._word_counts += word_errors(reference, text)
            self._character_counts += character_errors(reference, text)

    def on_validation_epoch_end(self) -> None:
        """Log the error rates over the whole validation set."""
        losses = torch.cat(self._valid_loss) if self._valid_loss else torch.zeros(0)
        loss = float(losses.mean()) if len(losses) else float("inf")
        frames = sum(count for _, count in self._blank_frames)
        wer = self._word_counts.errors / max(1, self._word_counts.length)
        self.log("valid/loss", loss)
        self.log("valid/wer", wer)
        self.log("valid/cer", self._character_counts.errors / max(1, self._character_counts.length))
        self.log("valid/blank_rate", sum(rate * count for rate, count in self._blank_frames) / max(1, frames))
        self.log(MONITOR, wer + 1e-7 * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0))
        self._reset_validation()

    def configure_optimizers(self) -> Any:
        """Lightning's hook: AdamW without decay on vectors, and the schedule."""
        config = self.optimizer_config
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        if config.schedule == "constant":
            return optimizer
        if config.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=config.plateau_factor, patience=config.plateau_patience
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": MONITOR}}
        total_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(total_steps):
            raise ConfigError(
                "optimizer.schedule: one_cycle needs an end; set trainer.max_epochs or trainer.max_steps, "
                "or take the schedule plateau"
            )
        factor = partial(one_cycle_factor, total_steps=int(total_steps), warmup_share=config.warmup_share)
        cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
