"""The training dataset: reading, augmentation, batching; a batch is a pure function of (seed, epoch, members)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from speechrnn.audio.augment import AugmentConfig, augment, draw_speed
from speechrnn.audio.resampling import resample
from speechrnn.corpus.batches import BatchRequest, collate
from speechrnn.corpus.streams import CarryState, find_previous, find_sequences
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.errors import AudioError
from speechrnn.training.config import ChunksConfig
from speechrnn.types import Batch, derive_seed

REFERENCE_SECONDS = 5.0
"""Longest reference recording in training, in seconds."""

_OTHER_TRIES = 20
_WITHOUT_REFERENCE = 0.1
_WITHOUT_STATS = 0.2


class UtteranceDataset(Dataset[Batch]):
    """Reads the utterances of a :class:`BatchRequest` and pads them into a batch.

    An utterance that cannot be read is left out of the batch and listed in its ``failed``.

    Args:
        utterances: The corpus after the preflight.
        sample_rate: The model's, in Hz.
        augment: Augmentation; None for validation.
        explain_infeasible: Why CTC cannot align tokens with a number of samples, or None. An utterance that would
            become too short is not augmented.
        seed: The run's seed.
        with_references: Whether each utterance comes with another one of its speaker, of at most REFERENCE_SECONDS.
        speaker_stats: Frames and mean features of each utterance, (U, 1 + F), if the front end normalises by speaker.
        carry: Which utterances follow one another.
        chunks: In which batches the encoder runs chunk by chunk.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        *,
        sample_rate: int,
        augment: AugmentConfig | None,
        explain_infeasible: Callable[[Sequence[int], int], str | None],
        seed: int,
        with_references: bool = False,
        speaker_stats: np.ndarray | None = None,
        carry: CarryState = "no",
        chunks: ChunksConfig | None = None,
    ) -> None:
        self.utterances = utterances
        self.sample_rate = sample_rate
        self.augment = augment
        self.explain_infeasible = explain_infeasible
        self.seed = seed
        self.chunks = ChunksConfig() if chunks is None else chunks
        self._cache: dict[str, np.ndarray] = {}
        self._free_bytes = 0
        self.sequences = find_sequences(utterances, carry) if carry != "no" else None
        self._previous = None if self.sequences is None else find_previous(self.sequences)
        speakers = [each.speaker_key for each in utterances] if with_references or speaker_stats is not None else []
        self._by_speaker = _group_by_speaker(speakers) if with_references else None
        self._speaker_stats = None if speaker_stats is None else SpeakerStatsSampler(speaker_stats, speakers, seed=seed)

    def cache(self, num_bytes: int) -> None:
        """Keep recordings in memory as they are read, before augmentation, up to ``num_bytes``; drop earlier ones."""
        self._cache, self._free_bytes = {}, num_bytes

    def __getitem__(self, request: BatchRequest) -> Batch:
        members, waveforms, seeds, failed = [], [], [], []
        references, speaker_stats, previous = [], [], []
        for copy, position in (divmod(i, len(self.utterances)) for i in request.members):
            member = self.utterances[position]
            seed = derive_seed(self.seed, request.epoch, member.id, *([copy] if copy else []))
            try:
                waveforms.append(self._read(member, seed))
            except (AudioError, OSError) as error:
                failed.append((member.id, member.text, str(error)))
                continue
            members.append(member)
            seeds.append(seed)
            if self._previous is not None:
                before = self._previous.get(position)
                previous.append(None if before is None else self.utterances[before].id)
            if self._by_speaker is not None:
                references.append(self._read_reference(position, derive_seed(seed, "reference")))
            if self._speaker_stats is not None:
                rng = None if self.augment is None else np.random.default_rng(derive_seed(seed, "heard"))
                speaker_stats.append(self._speaker_stats.draw(position, rng))
        batch = collate(
            waveforms,
            [member.tokens for member in members],
            ids=[member.id for member in members],
            texts=[member.text for member in members],
            augment_seeds=seeds if self.augment else [],
            failed=failed,
            references=references if self._by_speaker is not None else None,
            speaker_stats=speaker_stats if speaker_stats else None,
            previous=previous,
        )
        chunk_seconds = draw_chunks(self.chunks, derive_seed(self.seed, request.epoch, request.index, "chunks"))
        return replace(batch, chunk_seconds=chunk_seconds)

    def _read_reference(self, position: int, seed: int) -> np.ndarray:
        """A part of another utterance of the same speaker, (R,); empty if there is none, and at random in training."""
        rng, member = np.random.default_rng(seed), self.utterances[position]
        others = (self._by_speaker or {}).get(member.speaker_key or "", np.zeros(0, np.int64))
        others = others[others != position]
        if not len(others) or (self.augment is not None and rng.random() < _WITHOUT_REFERENCE):
            return np.zeros(0, np.float32)
        try:
            samples = self._read_samples(self.utterances[int(rng.choice(others))])
        except (AudioError, OSError):
            return np.zeros(0, np.float32)  # it is reported at its own turn
        most = int(REFERENCE_SECONDS * self.sample_rate)
        start = int(rng.integers(max(1, len(samples) - most + 1)))
        return samples[start : start + most]

    def _read(self, utterance: Utterance, seed: int) -> np.ndarray:
        samples = self._read_samples(utterance)
        if self.augment is None:
            return samples
        speed = draw_speed(self.augment, derive_seed(seed, "speed"))
        changed = samples if speed == 1.0 else resample(samples, self.sample_rate * speed, self.sample_rate)
        changed = augment(
            changed,
            self.augment,
            sample_rate=self.sample_rate,
            seed=seed,
            draw_other=lambda other_seed: self._read_other(utterance, other_seed),
        )
        return changed if self.explain_infeasible(utterance.tokens, len(changed)) is None else samples

    def _read_samples(self, utterance: Utterance) -> np.ndarray:
        samples = self._cache.get(utterance.id)
        if samples is None:
            samples = read_utterance(utterance, sample_rate=self.sample_rate).samples
            if samples.nbytes <= self._free_bytes:
                self._cache[utterance.id] = samples
                self._free_bytes -= samples.nbytes
        return samples

    def _read_other(self, utterance: Utterance, seed: int) -> np.ndarray | None:
        """Another utterance for noise: by another speaker if speakers are known."""
        rng, speaker = np.random.default_rng(seed), utterance.speaker_key
        for _ in range(_OTHER_TRIES):
            other = self.utterances[int(rng.integers(len(self.utterances)))]
            if other.id == utterance.id or (speaker and other.speaker_key == speaker):
                continue
            try:
                return self._read_samples(other)
            except (AudioError, OSError):
                continue  # it is reported at its own turn
        return None


def draw_chunks(config: ChunksConfig, seed: int) -> tuple[float, float] | None:
    """Draw the chunks of a batch: their length and their right context in seconds; None for whole utterances."""
    if config.probability == 0.0:
        return None
    rng = np.random.default_rng(seed)
    is_chunked = rng.random() < config.probability
    seconds, context_seconds = float(rng.uniform(*config.seconds)), float(rng.uniform(*config.context_seconds))
    return (seconds, context_seconds) if is_chunked else None


def _group_by_speaker(speakers: Sequence[str | None]) -> dict[str, np.ndarray]:
    positions: dict[str, list[int]] = {}
    for position, speaker in enumerate(speakers):
        if speaker is not None:
            positions.setdefault(speaker, []).append(position)
    return {speaker: np.array(places) for speaker, places in positions.items()}


class SpeakerStatsSampler:
    """Draws statistics of a speaker: the number of frames and their mean features.

    Args:
        rows: Frames and mean features of each utterance, (U, 1 + F).
        speakers: Speaker of each utterance; None if unknown.
        seed: Seed of the order of each speaker's utterances.
    """

    def __init__(self, rows: np.ndarray, speakers: Sequence[str | None], *, seed: int) -> None:
        self._size = rows.shape[1]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
        self._numbers = np.array([-1 if name is None else numbers[name] for name in speakers], np.int64)
        order = np.random.default_rng(seed).permutation(len(rows))
        order = order[np.argsort(self._numbers[order], kind="stable")]  # (U,), speaker by speaker
        bounds = np.arange(len(numbers))
        self._first = np.searchsorted(self._numbers[order], bounds, side="left")
        self._last = np.searchsorted(self._numbers[order], bounds, side="right")
        sums = rows[order].astype(np.float64)
        sums[:, 1:] *= sums[:, :1]
        self._sums = np.concatenate([np.zeros((1, self._size)), sums.cumsum(axis=0)])

    def draw(self, position: int, rng: np.random.Generator | None) -> np.ndarray:
        """Statistics of an utterance's speaker, (1 + F,), float32; zeros for an unknown one.

        Args:
            position: The utterance's, from 0.
            rng: For training: zeros at random, else some of the speaker's utterances, as likely one to ten of them as
                ten to a hundred, so that the model copes with any amount. None: all of them.
        """
        speaker = self._numbers[position]
        if speaker < 0 or (rng is not None and rng.random() < _WITHOUT_STATS):
            return np.zeros(self._size, np.float32)
        first, last = int(self._first[speaker]), int(self._last[speaker])
        start, count = 0, last - first
        if rng is not None:
            start, count = int(rng.integers(count)), int(count ** rng.random())
        end = first + start + count
        total = self._sums[min(end, last)] - self._sums[first + start]
        if end > last:  # continues with the speaker's first utterance
            total = total + self._sums[end - (last - first)] - self._sums[first]
        frames = total[0]
        return np.concatenate([total[:1], total[1:] / max(1.0, frames)]).astype(np.float32)
