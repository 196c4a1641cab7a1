"""The training loss: CTC of each utterance, of lower layers too, the divergence of two passes; carried states.

The loss of an utterance is summed over its frames; the caller divides by the number of utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from speechrnn.acoustic.chunked import Chunks
from speechrnn.acoustic.ctc import CTCHead, consistency_losses, count_frames_needed, ctc_losses
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.spectral_augment import SpecAugment, Warp
from speechrnn.training.config import Config
from speechrnn.types import Batch, Emission, derive_seed, move, pad_sequences


class CarriedStates:
    """Hidden states after the utterances of the previous batch, by utterance id, without their gradients.

    Only the forward direction's state is carried; a backward direction starts at the other end.

    Source:
        R. Williams and J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
        trajectories", Neural Computation, 1990 (truncated back-propagation through time).
    """

    def __init__(self) -> None:
        self.after: dict[str, Tensor] = {}
        self._new: dict[str, Tensor] = {}

    def begin(self, batch: Batch, own: Tensor) -> Tensor:
        """The state that a batch starts from.

        An utterance that follows one whose state is not finite starts from the initial state, so that one bad recording
        does not spoil the rest. The device decides this: reading the state would make the host wait.

        Args:
            batch: B utterances; ``previous`` holds the id of the one before each.
            own: The model's own initial state, (L, P, D, B, H).

        Returns:
            The same, with the forward direction's state of those that follow an utterance of the previous batch.
        """
        state = own.clone()
        for row, previous in enumerate(batch.previous):
            if previous in self.after:
                after = move(self.after[previous], state.device).to(state.dtype)
                state[:, :, 0, row] = torch.where(after.isfinite().all(), after, own[:, :, 0, row])
        return state

    def keep(self, batch: Batch, final: Tensor) -> None:
        """Store the states after a batch, (L, P, D, B or more, H): those of its first B rows."""
        forward = final[:, :, 0].detach()
        for row, id in enumerate(batch.ids):
            self._new[id] = forward[:, :, row].clone()

    def advance(self) -> None:
        """Let the next batch start from the states of this one."""
        self.after, self._new = self._new, {}


class PhoneOutput(nn.Module):
    """An output layer for phones on lower layers, and its CTC losses.

    Args:
        pronunciations: Phones of each word.
        input_size: Units of a layer's output.

    Attributes:
        head: The output layer; the blank first, then the phones in alphabetical order.
        pronunciations: As passed.
    """

    def __init__(self, pronunciations: Mapping[str, Sequence[str]], input_size: int) -> None:
        super().__init__()
        phones = sorted({phone for word in pronunciations.values() for phone in word})
        ids = {phone: number for number, phone in enumerate(phones, start=1)}
        self.pronunciations = dict(pronunciations)
        self._spoken = {word: [ids[phone] for phone in spoken] for word, spoken in pronunciations.items()}
        self.head = CTCHead(input_size, 1 + len(phones))

    def encode(self, text: str) -> list[int] | None:
        """Ids of a text's phones, from 1; None if the pronunciation of a word is unknown."""
        words = [self._spoken.get(word) for word in text.split()]
        return None if None in words else [phone for word in words for phone in word or ()]

    def losses(self, log_probs: Tensor, texts: Sequence[str], *, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log probability of each utterance's phones.

        Args:
            log_probs: Output of :attr:`head`, (B, T', phones and blank).
            texts: B transcripts.
            lengths: Valid encoder frames, (B,), int64.

        Returns:
            The losses, (B,), in nats, and whether they count, (B,): not if a word's phones are unknown, or if there are
            more phones than frames.
        """
        encoded = [self.encode(text) for text in texts]
        frames = lengths.tolist()
        fits = [ids is not None and count_frames_needed(ids) <= n for ids, n in zip(encoded, frames, strict=True)]
        usable = [ids if ids and fit else [] for ids, fit in zip(encoded, fits, strict=True)]
        device = log_probs.device
        padded = pad_sequences([torch.tensor(ids, dtype=torch.int64) for ids in usable])
        losses = ctc_losses(log_probs, move(padded[0], device), lengths=lengths, target_lengths=padded[1])
        return losses, move(torch.tensor(fits), device)


def choose_state(model: AcousticModel, batch: Batch, carried: CarriedStates | None) -> Tensor | None:
    """The state that a batch starts from, (L, P, D, B, H): encoded, carried, or None for the model's own."""
    if batch.references is not None and batch.reference_lengths is not None:
        return model.encode_reference(batch.references, batch.reference_lengths)
    if carried is None:
        return None
    own = model.encoder.stack.make_initial_state(len(batch.ids), like=batch.waveforms)
    return carried.begin(batch, own)


class UtteranceLosses:
    """Computes the loss of each utterance of a batch, with augmented log-mels.

    Args:
        config: The run's configuration.
        model: The model in training.
        phones: The phone output of lower layers; None: they learn the text.
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
            speaker_stats=batch.speaker_stats,
            return_state=self.carried is not None,
            chunks=self._choose_chunks(batch),
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

    def _choose_chunks(self, batch: Batch) -> Chunks | None:
        if batch.chunk_seconds is None:
            return None
        return Chunks.from_seconds(*batch.chunk_seconds, seconds_per_step=self.model.seconds_per_step)

    def _text_losses(self, log_probs: Tensor, emission: Emission, batch: Batch) -> Tensor:
        targets, target_lengths = batch.targets.repeat(self.passes, 1), batch.target_lengths.repeat(self.passes)
        return ctc_losses(log_probs, targets, lengths=emission.lengths, target_lengths=target_lengths)

    def _lower_losses(self, log_probs: Tensor, emission: Emission, batch: Batch, losses: Tensor) -> Tensor:
        """A lower layer's losses; the last layer's where the phones do not count."""
        if self.phones is None:
            return self._text_losses(log_probs, emission, batch)
        of_phones, counts = self.phones.losses(log_probs, batch.texts * self.passes, lengths=emission.lengths)
        return torch.where(counts, of_phones, losses)

    def _make_augment(self, seeds: Sequence[int]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Augmentation of a batch's log-mels: one warp per utterance, and separate masks for each pass."""

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
