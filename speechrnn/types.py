"""The types that pass between packages, the padding of batches, and seeds.

Letters: B batch, N samples, T frames or positions, T' encoder frames, V vocabulary with blank, U target tokens.
torch is imported where it is used: reading recordings and corpora does not need it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

BLANK_ID = 0
"""The blank token of CTC, the first of every vocabulary."""

BATCH_TENSORS = (
    *("waveforms", "waveform_lengths", "targets", "target_lengths"),
    *("references", "reference_lengths", "speaker_stats"),
)
"""Fields of a :class:`Batch` that are tensors or None."""


@dataclass(frozen=True)
class Waveform:
    """A mono recording.

    Attributes:
        samples: Amplitudes, (N,), float32, nominally in [-1, 1].
        sample_rate: Samples a second, in Hz.
    """

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """A recording's header.

    Attributes:
        sample_rate: Samples a second of one channel, in Hz.
        channels: Number of channels.
        frames: Samples of one channel.
    """

    sample_rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Batch:
    """Utterances to train or validate on; padding is zero on the right.

    Attributes:
        waveforms: (B, N), float32, at the model's sample rate.
        waveform_lengths: Valid samples of each utterance, (B,), int64.
        targets: Token ids, (B, U), int64; never the blank.
        target_lengths: Valid tokens of each utterance, (B,), int64.
        ids: Name of each utterance in its corpus, B of them.
        texts: Reference text of each utterance, B of them, after the corpus's normalisation.
        augment_seeds: A seed for each utterance for augmentation on the device (SpecAugment), B of them; empty outside
            training.
        failed: Id, reference text and reason of each utterance of the batch that could not be read.
        references: Another recording of each utterance's speaker, (B, R), for models whose initial state is encoded;
            None for others.
        reference_lengths: Valid samples of each, (B,), int64; 0 if the speaker has no other recording.
        speaker_stats: Number of frames of each utterance's speaker, and the mean features over them, (B, 1 + F), for
            front ends that normalise by speaker; None for others.
        previous: Id of each utterance's predecessor or None, B of them; empty if states are not carried over.
        chunk_seconds: Length of a chunk and of its right context, in seconds, if the encoder is to run chunk by chunk;
            None: over whole utterances.
    """

    waveforms: Tensor
    waveform_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    ids: list[str]
    texts: list[str] = field(default_factory=list)
    augment_seeds: list[int] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    references: Tensor | None = None
    reference_lengths: Tensor | None = None
    speaker_stats: Tensor | None = None
    previous: list[str | None] = field(default_factory=list)
    chunk_seconds: tuple[float, float] | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are not None, by name."""
        return {name: getattr(self, name) for name in BATCH_TENSORS if getattr(self, name) is not None}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device; lengths stay on the host."""
        names = [name for name in self.tensors if not name.endswith("lengths")]
        moved: dict[str, Any] = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for DataLoader."""
        pinned: dict[str, Any] = {name: each.pin_memory() for name, each in self.tensors.items()}
        return replace(self, **pinned)


@dataclass(frozen=True)
class Emission:
    """Output of an acoustic model for a batch of waveforms, as tensors; as arrays without torch.

    Attributes:
        log_probs: Natural-log probability of each token at each encoder frame, (B, T', V), float32; rows past an
            utterance's length are undefined.
        lengths: Valid encoder frames of each utterance, (B,), int64.
        state: Hidden state after the last valid frame, (layers, parts, directions, B, H), where parts is 2 (hidden and
            cell) for an LSTM and 1 otherwise; None if it was not requested.
        intermediate: Log-probabilities of lower layers, each (B, T', V), or (B, T', phones) with an output layer of
            their own; for training only.
    """

    log_probs: Any
    lengths: Any
    state: Tensor | None = None
    intermediate: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Hypothesis:
    """A decoding result of one utterance, as token ids.

    Attributes:
        tokens: Token ids, blanks and repeats removed.
        frames: First and last encoder frame of each token, both inclusive.
        acoustic_score: Natural-log probability under the acoustic model: of the best path (greedy), or summed over the
            paths kept (beam).
        language_score: Natural-log probability under the language model; 0 without a model.
        confidences: Posterior of each token, in [0, 1]: the highest over its frames.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    acoustic_score: float
    language_score: float = 0.0
    confidences: list[float] = field(default_factory=list)


def pad_sequences(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack tensors (T, …), padded with zeros to the longest: (B, T, …), and their lengths, (B,), int64."""
    import torch

    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def as_array(values: Tensor | np.ndarray) -> np.ndarray:
    """A tensor on any device as a numpy array, without gradients; an array as it is."""
    import numpy as np

    if isinstance(values, np.ndarray):
        return values
    values = values.detach().cpu()
    return (values.float() if values.itemsize == 2 else values).numpy()  # numpy has no bfloat16


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to another device; a copy to a GPU is queued, so that the host does not wait."""
    return tensor.to(device, non_blocking=device.type != "cpu")


def valid_mask(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Mark the positions that belong to each sequence.

    Args:
        sequences: (B, T, …); only its shape and device matter.
        lengths: Valid positions of each sequence, (B,), int64, on any device.

    Returns:
        (B, T), bool, on the device of the sequences; False is padding.
    """
    import torch

    return torch.arange(sequences.shape[1], device=sequences.device) < move(lengths, sequences.device)[:, None]


def mask_padding(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Set the padding to zero, also NaN in it: (B, T, …), (B,) → (B, T, …)."""
    mask = valid_mask(sequences, lengths)
    return sequences.masked_fill(~mask.view(*mask.shape, *(1,) * (sequences.dim() - 2)), 0.0)


def pick_last(frames: Tensor, lengths: Tensor) -> Tensor:
    """The last valid frame of each utterance, (B, T, D) → (B, 1, D); the first one if none is valid."""
    last = (move(lengths, frames.device) - 1).clamp(min=0)[:, None, None]
    return frames.gather(1, last.expand(-1, 1, frames.shape[2]))


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2⁶³) that is a pure function of ``parts`` (a seed, an epoch, an utterance's id, a purpose)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def find_runs(is_set: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True in (N,): the first position of each, and the one after its last."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_set, [False]]).astype(np.int8))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def find_longest_run(is_set: np.ndarray) -> tuple[int, int]:
    """The longest of :func:`find_runs`, the first of equals; 0 and 0 if there is none."""
    return max(find_runs(is_set), key=lambda run: run[1] - run[0], default=(0, 0))
