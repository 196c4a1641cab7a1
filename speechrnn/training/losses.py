"""What is minimised: the CTC loss of each utterance, of lower layers too, and how two views of it disagree.

The loss of an utterance is summed over its frames and paths; whoever calls divides by the number of utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from speechrnn.acoustic.ctc import consistency_losses, ctc_losses
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.spectral_augment import SpecAugment, Warp
from speechrnn.seeds import derive_seed
from speechrnn.training.carried import CarriedStates
from speechrnn.training.config import Config
from speechrnn.training.phones import PhoneOutput
from speechrnn.types import Batch, Emission


def choose_state(model: AcousticModel, batch: Batch, carried: CarriedStates | None) -> Tensor | None:
    """The state that a batch starts from, (L, P, D, B, H): encoded, carried on, or None for the model's own."""
    if batch.references is not None and batch.reference_lengths is not None:
        return model.encode_reference(batch.references, batch.reference_lengths)
    if carried is None:
        return None
    own = model.encoder.stack.make_initial_state(len(batch.ids), like=batch.waveforms)
    return carried.begin(batch, own)


class UtteranceLosses:
    """Computes the losses of a batch, utterance by utterance, its log-mels augmented as the configuration has it.

    Args:
        config: The run's configuration.
        model: What is trained.
        phones: What lower layers learn instead of the text; None: the text too.
    """

    def __init__(self, config: Config, model: AcousticModel, phones: PhoneOutput | None = None) -> None:
        self.model = model
        self.phones = phones
        self.config = config.ctc
        self.carried = CarriedStates() if config.data.carry_state != "no" else None
        self.passes = 2 if config.ctc.consistency else 1
        self.warp = Warp(config.augment.warp, model.front_end.config)
        self.spec_augment = SpecAugment(
            config.augment.spec_augment, frame_shift_seconds=model.front_end.frame_shift_seconds
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute losses and divergences.

        Args:
            batch: B utterances, one or more.

        Returns:
            CTC loss (its intermediate part included) and divergence of each utterance in each pass, in nats,
            (passes · B,) each. There is one pass, and no divergence, unless ``ctc.consistency`` asks for two.
        """
        emission: Emission = self.model(
            batch.waveforms,
            batch.waveform_lengths,
            state=self._choose_state(batch),
            heard=batch.heard,
            return_state=self.carried is not None,
            augment=self._make_augment(batch.augment_seeds),
            intermediate_layers=self.config.intermediate_layers,
            intermediate_head=None if self.phones is None else self.phones.head,
        )
        if self.carried is not None and emission.state is not None:
            self.carried.keep(batch, emission.state)
        losses = self._text_losses(emission.log_probs, emission, batch)
        if emission.intermediate:
            lower = torch.stack(
                [self._lower_losses(log_probs, emission, batch, losses) for log_probs in emission.intermediate]
            )
            share = self.config.intermediate_weight
            losses = (1.0 - share) * losses + share * lower.mean(dim=0)
        if self.passes == 1:
            return losses, torch.zeros_like(losses)
        return losses, consistency_losses(emission.log_probs, emission.lengths)

    def _choose_state(self, batch: Batch) -> Tensor | None:
        """The state to start from, the same for both passes; None for the model's own."""
        state = choose_state(self.model, batch, self.carried)
        return None if state is None else state.repeat(1, 1, 1, self.passes, 1)

    def _text_losses(self, log_probs: Tensor, emission: Emission, batch: Batch) -> Tensor:
        targets, target_lengths = batch.targets.repeat(self.passes, 1), batch.target_lengths.repeat(self.passes)
        return ctc_losses(log_probs, targets, lengths=emission.lengths, target_lengths=target_lengths)

    def _lower_losses(self, log_probs: Tensor, emission: Emission, batch: Batch, losses: Tensor) -> Tensor:
        """Of a lower layer; where its phones cannot be learned, those of the last one again."""
        if self.phones is None:
            return self._text_losses(log_probs, emission, batch)
        of_phones, counts = self.phones.losses(log_probs, batch.texts * self.passes, lengths=emission.lengths)
        return torch.where(counts, of_phones, losses)

    def _make_augment(self, seeds: Sequence[int]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What is done to a batch's log-mels: one warp for each utterance, and masks of its own for each pass."""

        def augment(log_mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            if self.warp.is_active:
                log_mels = self.warp(log_mels, lengths, [derive_seed(seed, "warp") for seed in seeds])
            log_mels, lengths = log_mels.repeat(self.passes, 1, 1), lengths.repeat(self.passes)
            if self.spec_augment.is_active:
                purposes = ["masks", "other masks"][: self.passes]
                mask_seeds = [derive_seed(seed, purpose) for purpose in purposes for seed in seeds]
                log_mels = self.spec_augment(log_mels, lengths, mask_seeds)
            return log_mels, lengths

        return augment
